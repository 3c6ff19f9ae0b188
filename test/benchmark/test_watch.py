# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What watching costs: both kinds of runs, and what cannot be watched is said before any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from watched_family import write_family

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from pruned_perception.cli.main import main

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the benchmark sets end with the test."""
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)


def test_a_short_run_with_the_dense_net_and_without(tmp_path: Path, capsys: Any) -> None:
    family, output = write_family(tmp_path / 'family'), tmp_path / 'watch.json'
    words = ['--member', 'good', '--pairs', '1', '--frames', '60', '--warm-up', '10']
    words += ['--rate', '20', '--width', '120', '--height', '80', '--share', '1']
    words += ['--output', str(output)]
    assert main(['benchmark', 'watch', '--model', str(family), *words]) == 0
    result = json.loads(output.read_text())
    watched, alone = sorted(result['runs'], key=lambda run: not run['watched'])
    assert watched['compared'] > 0
    assert (alone['compared'], alone['skipped']) == (0, 0)
    assert {watched['node'], alone['node']} == {'perception_node'}
    assert result['configuration']['share'] == 1
    for name, found in result['ratio'].items():
        assert found['median'] == watched['e2e_receive'][name] / alone['e2e_receive'][name]
        assert found['interval'] is None  # one pair carries none
    assert 0 < result['offers_us']['not_drawn_p50'] <= result['offers_us']['not_drawn_p99']
    assert 'watched : alone, median of 1 pairs' in capsys.readouterr().out


def test_what_cannot_be_watched_is_said_before_anything_runs(tmp_path: Path, capsys: Any) -> None:
    family = write_family(tmp_path / 'family')
    assert main(['benchmark', 'watch', '--model', str(family), '--pairs', '1']) == 1
    assert 'is the dense net itself: nothing to compare' in capsys.readouterr().err
