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


"""`detect --topic`: a live topic as a source."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from ros_domain import claim_domain

pytest.importorskip('rclpy')
pytest.importorskip('vision_msgs')

from pruned_perception.benchmark import live_topic
from pruned_perception.bundle import Bundle
from pruned_perception.cli.main import main

pytestmark = pytest.mark.ros
HERE = Path(__file__).parent


def test_a_live_topic_until_it_is_interrupted(
    tiny_bundle: Bundle, tmp_path: Path, start: Callable[..., Any], cli: Callable[..., Any]
) -> None:
    start(HERE / 'moving_squares.py', '--ros-args', '-r', '__ns:=/front')
    video = tmp_path / 'out.mp4'
    detect = cli(
        'detect', '--topic', '/front/image_raw', '--model', tiny_bundle.path, '--json',
        '--video', video,
    )  # fmt: skip
    lines = [json.loads(detect.stdout.readline()) for _ in range(4)]
    detect.send_signal(signal.SIGINT)
    rest, err = detect.communicate(timeout=30)
    assert detect.returncode == 0, err
    assert all(line['source'] == '/front/image_raw' for line in lines)
    assert all(len(line['detections']) == 1 for line in lines)
    assert lines[0]['stamp'] < lines[3]['stamp']
    frames = cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT)
    assert frames == 4 + len(rest.splitlines())


def test_a_topic_that_nobody_publishes(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(claim_domain()))
    monkeypatch.setattr(live_topic, 'WAIT_S', 0.2)
    assert main(['detect', '--topic', '/nowhere', '--model', str(tiny_bundle.path)]) == 1
    assert '/nowhere: nobody publishes it' in capsys.readouterr().err
