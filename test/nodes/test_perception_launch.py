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

"""perception.launch.py under launch_testing: it detects, and ends cleanly with launch."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')
pytest.importorskip('launch_ros', reason='needs launch_ros (not on PyPI; comes with ROS 2)')
pytest.importorskip('launch_testing', reason='needs launch_testing')

import launch_testing
import launch_testing.actions
import launch_testing.asserts
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from ros_harness import Observer, environment, image_message, new_context
from tiny_detector import square_image, write_tiny_bundle

from pruned_perception.environment import add_own_prefix

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = '/perception_launch'


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """Include our launch file, as another one would."""
    add_own_prefix()
    os.environ.update({name: environment()[name] for name in ('ROS_DOMAIN_ID',)})
    model = write_tiny_bundle(Path(tempfile.mkdtemp()) / 'bundle')
    return LaunchDescription(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(ROOT / 'launch' / 'perception.launch.py')),
                launch_arguments={
                    'model': str(model.path),
                    'namespace': NAMESPACE,
                    'discovery_range': 'localhost',
                }.items(),
            ),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TestDetection(unittest.TestCase):
    """While it runs."""

    def test_an_image_is_answered_with_its_detections(self) -> None:
        observer = Observer(new_context(), NAMESPACE)
        try:
            image = image_message(square_image('red', 80, 40, 120))
            array = observer.detect(observer.camera(), image)
            self.assertEqual(array.header, image.header)
            self.assertEqual(len(array.detections), 1)
        finally:
            observer.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After launch has ended it."""

    def test_the_node_ended_with_0(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
