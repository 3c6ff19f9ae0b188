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

"""The node as a process over DDS, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

import rclpy
from geometry_msgs.msg import Twist
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_domain import DOMAIN
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray

from pruned_perception.errors import UserError
from pruned_perception.nodes.parameters import ROBOT_PARAMETERS, with_table
from pruned_perception.simulation import labels
from pruned_perception.simulation.driver import open_context

pytestmark = pytest.mark.ros

TIMEOUT = 60.0  # seconds; only a failing test waits so long
NAMESPACE = '/robot'


@pytest.fixture(scope='module')
def rendering() -> None:
    try:
        open_context(640, 480)
    except UserError as error:
        pytest.skip(str(error))


def environment(**changes: str) -> dict[str, str]:
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(DOMAIN),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        **changes,
    }


def start(*parameters: str, **changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, '-m', 'pruned_perception.nodes.simulated_robot', '--ros-args']
    command += ['-r', f'__ns:={NAMESPACE}']
    for parameter in parameters:
        command += ['-p', parameter]
    return subprocess.Popen(
        command,
        env=environment(**changes),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Listener:
    """A node in a context of its own that keeps what the robot publishes."""

    def __init__(self) -> None:
        self.context = Context()
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node('listener', namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images: list[Any] = []
        self.infos: list[Any] = []
        self.truths: list[Any] = []
        self.node.create_subscription(Image, 'image_raw', self.images.append, 10)
        self.node.create_subscription(CameraInfo, 'camera_info', self.infos.append, 10)
        self.node.create_subscription(Detection2DArray, 'ground_truth', self.truths.append, 10)
        self.commands = self.node.create_publisher(Twist, 'cmd_vel', 10)

    def wait(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end, 'the robot did not publish what the test waits for'
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, f'simulated_robot/{service}')
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def set(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, 'set_parameters', request).results[0]

    def forget(self) -> None:
        for messages in (self.images, self.infos, self.truths):
            messages.clear()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(rendering: None) -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def robot(rendering: None) -> Iterator[subprocess.Popen[str]]:
    process = start('follow_route:=false', 'rate_hz:=20.0')
    yield process
    process.kill()
    process.communicate()


def stamp(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def pixels(message: Any) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def test_image_calibration_and_ground_truth_of_one_moment(
    robot: subprocess.Popen[str], listener: Listener
) -> None:
    def together() -> set[tuple[int, int]]:
        stamps = [{stamp(each) for each in group} for group in (listener.images, listener.infos)]
        return stamps[0] & stamps[1] & {stamp(each) for each in listener.truths}

    listener.wait(lambda: len(together()) >= 3)
    moment = sorted(together())[-1]
    image, info, truth = (
        next(each for each in group if stamp(each) == moment)
        for group in (listener.images, listener.infos, listener.truths)
    )
    assert image.header == info.header == truth.header
    assert image.header.frame_id == 'camera_optical_frame'
    assert (image.width, image.height, image.encoding, image.step) == (640, 480, 'rgb8', 1920)
    assert pixels(image).std() > 10
    assert (info.width, info.height, info.distortion_model) == (640, 480, 'plumb_bob')
    assert info.k[0] == info.k[4] == info.p[0] > 300
    assert (info.k[2], info.k[5]) == (319.5, 239.5)
    assert truth.detections
    for detection in truth.detections:
        assert detection.header == image.header
        (result,) = detection.results
        assert 0 <= int(result.hypothesis.class_id) < len(labels())
        assert 0.3 <= result.hypothesis.score <= 1.0
        centre, size = (
            detection.bbox.center.position,
            (detection.bbox.size_x, detection.bbox.size_y),
        )
        assert size[0] / 2 <= centre.x <= 640 - size[0] / 2
        assert size[1] / 2 <= centre.y <= 480 - size[1] / 2


def test_it_stands_still_without_a_route_and_turns_on_cmd_vel(
    robot: subprocess.Popen[str], listener: Listener
) -> None:
    listener.wait(lambda: len(listener.images) >= 2)
    before = pixels(listener.images[0])
    assert np.array_equal(before, pixels(listener.images[-1]))

    def turned() -> bool:
        command = Twist()
        command.angular.z = 1.0
        listener.commands.publish(command)
        return not np.array_equal(before, pixels(listener.images[-1]))

    listener.wait(turned)
    # The last command holds for half a second, then the robot stands again.
    listener.forget()
    listener.wait(
        lambda: (
            len(listener.images) >= 2
            and np.array_equal(pixels(listener.images[-2]), pixels(listener.images[-1]))
        )
    )
    assert not np.array_equal(before, pixels(listener.images[-1]))


def test_parameters_are_described_and_changed_live_or_refused_with_a_reason(
    robot: subprocess.Popen[str], listener: Listener
) -> None:
    names = [row.name for row in ROBOT_PARAMETERS]
    request = DescribeParameters.Request(names=names)
    described = listener.call(DescribeParameters, 'describe_parameters', request)
    assert all(len(each.description) > 10 for each in described.descriptors)
    assert not listener.set('rate_hz', 1000.0).successful
    assert not listener.set('scene_seed', 3).successful
    listener.wait(lambda: len(listener.images) >= 1)
    still = pixels(listener.images[-1])
    assert listener.set('follow_route', True).successful
    listener.wait(lambda: not np.array_equal(still, pixels(listener.images[-1])))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(
    robot: subprocess.Popen[str], listener: Listener, number: signal.Signals
) -> None:
    listener.wait(lambda: listener.images)
    robot.send_signal(number)
    _, errors = robot.communicate(timeout=TIMEOUT)
    assert robot.returncode == 0, errors
    assert 'Traceback' not in errors


def test_without_a_driver_it_exits_with_what_to_install(rendering: None, tmp_path: Path) -> None:
    # EGL with an empty list of vendors is EGL without Mesa.
    process = start(MUJOCO_GL='egl', __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path))
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert 'sudo apt install libegl1 libgl1-mesa-dri' in errors
    assert 'Traceback' not in errors


def test_a_parameter_out_of_range_is_named(rendering: None) -> None:
    process = start('rate_hz:=-1.0')
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert 'rate_hz' in errors
    assert 'Traceback' not in errors


def test_the_documentation_has_the_present_table_of_parameters() -> None:
    page = Path(__file__).parents[2] / 'docs' / 'simulation.md'
    text = page.read_text(encoding='utf-8')
    assert with_table(text, ROBOT_PARAMETERS) == text, (
        'python -m pruned_perception.nodes.parameters'
    )
