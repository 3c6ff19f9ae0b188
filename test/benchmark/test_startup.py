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

"""The start-up benchmark, with its processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from pruned_perception.benchmark.startup import bare
from pruned_perception.cli.main import main
from pruned_perception.errors import UserError

pytestmark = pytest.mark.ros


def test_starts_are_paired_and_torch_is_not_loaded(
    tiny_bundle: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, '')  # so that what the benchmark sets ends with the test
        monkeypatch.delenv(name)
    output = tmp_path / 'startup.json'
    words = ['--pairs', '1', '--seconds', '0.5', '--output', str(output)]
    assert main(['benchmark', 'startup', '--model', str(tiny_bundle.path), *words]) == 0
    result = json.loads(output.read_text())
    [pair] = result['pairs']
    assert not pair['torch']
    assert 0 < pair['resident_mb'] <= pair['resident_peak_mb']
    assert pair['first_detection_s'] > 0
    assert 0 < pair['bare_s'] < pair['bare_image_s']
    assert 0 < pair['bare_mb'] < pair['resident_peak_mb']
    assert 'median of 1 pairs' in capsys.readouterr().out


def test_a_bare_script_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='bare script failed with status 1'):
        bare(tmp_path / 'missing.onnx', '/image_raw')
