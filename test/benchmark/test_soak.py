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

"""The soak: a trend is told from noise, and the command watches a real node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from pruned_perception.benchmark.soak import trend
from pruned_perception.cli.main import main

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(('per_hour', 'found'), [(0.0, 0.03), (2.0, 1.0), (-2.0, 0.0)])
def test_a_slope_is_told_from_noise(per_hour: float, found: float) -> None:
    """How often the interval lies above zero, of 300 runs of half an hour."""
    draw = np.random.default_rng(0)
    seconds = np.arange(0, 1800, 2.0)
    above = 0
    for _ in range(300):
        values = 150 + per_hour * seconds / 3600 + draw.normal(0, 1.5, len(seconds))
        above += trend(seconds, values).interval[0] > 0
    assert above / 300 == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize('megabytes', [111.509504, 0.1, 162.7])
def test_what_is_constant_has_no_trend(megabytes: float) -> None:
    """Not even that of rounding, whose interval is above zero and as narrow as it is small."""
    found = trend(2.0003 * np.arange(1, 1077), np.full(1076, megabytes))
    assert (found.per_hour, found.interval) == (0, (0, 0))


def test_a_line_without_noise_is_its_own_slope() -> None:
    seconds = np.arange(0, 100, 1.0)
    found = trend(seconds, 5 + seconds)
    assert found.per_hour == pytest.approx(3600)
    assert found.interval == pytest.approx((3600, 3600))


def test_the_command_watches_a_node(
    tiny_bundle: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')  # so that what the benchmark sets ends with the test
        monkeypatch.delenv(name)
    output = tmp_path / 'soak.json'
    words = ['--model', str(tiny_bundle.path), '--minutes', '0.05', '--every', '0.1', '--control']
    assert main(['benchmark', 'soak', *words, '--output', str(output)]) in (0, 1)
    result = json.loads(output.read_text())
    assert result['samples'][-1]['detections'] > 20
    assert 20 < result['resident_mb'][0] <= result['resident_mb'][1]
    assert result['threads'][0] > 1
    control = result['control']
    assert 20 < control['resident_mb'][0] <= control['resident_mb'][1]
    assert control['memory_trend']['per_hour'] != result['memory_trend']['per_hour']
    printed = capsys.readouterr().out
    assert printed.count('an hour (95 % interval') == 2
    assert 'control, a bare publisher of diagnostics: memory' in printed


def test_a_run_that_is_too_short_says_so(tiny_bundle: Any, capsys: Any, monkeypatch: Any) -> None:
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    words = ['--model', str(tiny_bundle.path), '--minutes', '0.02', '--every', '0.5']
    assert main(['benchmark', 'soak', *words]) == 1
    assert 'too few for a trend: run longer' in capsys.readouterr().err
