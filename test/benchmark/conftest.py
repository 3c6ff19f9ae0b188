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

"""Processes on a ROS domain of their own, and bags made without a camera."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

STAMP_0 = 1_700_000_000_000_000_000
PERIOD_NS = 50_000_000

Command = Callable[..., 'subprocess.Popen[str]']


@pytest.fixture(scope='session')
def ros_environment() -> dict[str, str]:
    """Return an environment whose processes meet nobody but each other."""
    pytest.importorskip('rclpy')
    from ros_domain import DOMAIN

    root = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(DOMAIN),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'PYTHONPATH': os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')])),
        'COLUMNS': '200',
    }


@pytest.fixture
def start(ros_environment: dict[str, str]) -> Iterator[Command]:
    """Return a function that starts `python ARGUMENTS…`; all are ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def launch(*arguments: str | Path, **options: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**ros_environment, **options},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield launch
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def cli(start: Command) -> Command:
    """Return a function that starts `pruned-perception ARGUMENTS…`."""
    return lambda *arguments, **options: start(
        '-m', 'pruned_perception.cli.main', *arguments, **options
    )


@pytest.fixture(scope='session')
def camera_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bag of 40 frames at 20 Hz: image_raw, camera_info and a latched text."""
    pytest.importorskip('rclpy')
    pytest.importorskip('rosbags')
    from builtin_interfaces.msg import Time
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header, String

    from pruned_perception.benchmark.bag import BagWriter

    folder = tmp_path_factory.mktemp('bags') / 'camera'
    rng = np.random.default_rng(0)
    with BagWriter(folder) as writer:
        writer.add_topic('/front/image_raw', Image)
        writer.add_topic('/front/camera_info', CameraInfo)
        writer.add_topic('/front/text', String, latched=True)
        writer.write('/front/text', serialize_message(String(data='latched')), STAMP_0)
        for index in range(40):
            stamp = STAMP_0 + index * PERIOD_NS
            sec, nanosec = divmod(stamp, 10**9)
            header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id='camera')
            pixels = rng.integers(0, 256, 480 * 640 * 3, dtype=np.uint8)
            image = Image(header=header, height=480, width=640, encoding='rgb8', step=1920)
            image.data = array.array('B', pixels.tobytes())
            writer.write('/front/image_raw', serialize_message(image), stamp + 1_000_000)
            info = CameraInfo(header=header, height=480, width=640)
            writer.write('/front/camera_info', serialize_message(info), stamp + 2_000_000)
    return folder
