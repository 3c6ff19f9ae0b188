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

"""Our bridge from Gazebo, with stand-ins for Gazebo's Python bindings; and the driver."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import TIMEOUT, environment, new_context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray

from pruned_perception.nodes import gazebo
from pruned_perception.nodes.gazebo_bridge import python_with_bindings
from pruned_perception.nodes.parameters import DRIVER_PARAMETERS, with_table

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = '/gazebo_bridge'
TRANSPORT = """
import os, threading, time
from types import SimpleNamespace as N

def header(frame):
    data = [N(key="other", value=["x"]), N(key="frame_id", value=[frame])]
    return N(stamp=N(sec=3, nsec=70), data=data)

def pose():
    return N(header=header("warehouse"), position=N(x=1.0, y=2.0, z=0.0),
             orientation=N(x=0.0, y=0.0, z=0.0, w=1.0))

MESSAGES = {
    "/camera/image": lambda: N(header=header("camera_optical_frame"), width=4, height=2, step=12,
                               pixel_format_type=3, data=bytes(range(24))),
    "/camera/camera_info": lambda: N(header=header("camera_optical_frame"), width=4, height=2,
        distortion=N(k=[0.0] * 5), intrinsics=N(k=[float(i) for i in range(9)]),
        projection=N(p=[0.0] * 12), rectification_matrix=[0.0] * 9),
    "/box_camera/boxes": lambda: N(header=header("robot::base_link::boxes"), annotated_box=[
        N(label=7, box=N(min_corner=N(x=10.0, y=20.0), max_corner=N(x=30.0, y=60.0)))]),
    "/clock": lambda: N(sim=N(sec=3, nsec=70)),
    "/model/robot/pose": pose,
}

class Publisher:
    def publish(self, message):
        with open(os.environ["COMMANDS"], "a") as file:
            file.write(f"{message.linear.x} {message.angular.z}\\n")

class Node:
    def subscribe(self, kind, topic, callback):
        def run():
            while True:
                callback(MESSAGES[topic]())
                time.sleep(0.05)
        threading.Thread(target=run, daemon=True).start()
        return True
    def advertise(self, topic, kind):
        return Publisher()
"""
MESSAGES = {
    'image_pb2': 'class Image: pass',
    'camera_info_pb2': 'class CameraInfo: pass',
    'annotated_axis_aligned_2d_box_v_pb2': 'class AnnotatedAxisAligned2DBox_V: pass',
    'clock_pb2': 'class Clock: pass',
    'pose_pb2': 'class Pose: pass',
    'twist_pb2': 'from types import SimpleNamespace as N\n'
    'class Twist:\n    def __init__(self): self.linear, self.angular = N(x=0.0), N(z=0.0)',
}


@pytest.fixture
def bindings(tmp_path: Path) -> Path:
    """Return a folder with stand-ins for gz.transport13 and gz.msgs10."""
    for package in ('gz', 'gz/msgs10'):
        (tmp_path / package).mkdir()
        (tmp_path / package / '__init__.py').touch()
    (tmp_path / 'gz' / 'transport13.py').write_text(TRANSPORT)
    for name, text in MESSAGES.items():
        (tmp_path / 'gz' / 'msgs10' / f'{name}.py').write_text(text)
    return tmp_path


class Listener:
    """Subscribes to what a bridge publishes."""

    def __init__(self) -> None:
        self.context = new_context()
        self.node = rclpy.create_node('listener', namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.found: dict[str, Any] = {}
        loose = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for kind, topic in (
            (Image, 'image_raw'),
            (CameraInfo, 'camera_info'),
            (Detection2DArray, 'ground_truth'),
            (Clock, '/clock'),
            (PoseStamped, 'pose'),
            (Twist, 'cmd_vel'),
        ):
            profile = 1 if topic == 'cmd_vel' else loose  # a command must not be lost
            self.node.create_subscription(
                kind,
                topic,
                lambda message, topic=topic: self.found.update({topic: message}),
                profile,
            )
        self.commands = self.node.create_publisher(Twist, 'cmd_vel', 1)
        self.poses = self.node.create_publisher(PoseStamped, 'pose', 1)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end, sorted(self.found)
            self.executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.executor.shutdown()
    made.node.destroy_node()
    made.context.shutdown()


def start(module: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    paths = variables.pop('PYTHONPATH', '')
    return subprocess.Popen(
        [sys.executable, '-m', f'pruned_perception.nodes.{module}', *arguments],
        env=environment(**variables, PYTHONPATH=f'{ROOT}:{paths}'),
    )


@pytest.mark.parametrize('wall', [False, True], ids=['simulated', 'wall'])
def test_the_bridge_carries_what_ros_gz_would(
    bindings: Path, listener: Listener, tmp_path: Path, wall: bool
) -> None:
    topics = yaml.safe_load((ROOT / 'config' / 'gazebo_bridge.yaml').read_text())
    together = [{**each, 'process': 'all'} for each in topics]
    file = gazebo.bridge_file(together, 'all', tmp_path)
    commands = tmp_path / 'commands'
    commands.touch()
    before = time.time()
    bridge = start(
        'gazebo_bridge',
        *('--file', str(file), '--python', sys.executable, *(['--wall-stamps'] if wall else [])),
        *('--ros-args', '-r', f'__ns:={NAMESPACE}'),
        PYTHONPATH=str(bindings),
        COMMANDS=str(commands),
    )
    try:
        listener.until(lambda: len(listener.found) == 5)
        image = listener.found['image_raw']
        assert (image.encoding, image.width, image.height, image.step) == ('rgb8', 4, 2, 12)
        assert bytes(image.data) == bytes(range(24))
        assert image.header.frame_id == 'camera_optical_frame'
        stamp = image.header.stamp
        if wall:
            assert stamp.sec >= int(before)
        else:
            assert (stamp.sec, stamp.nanosec) == (3, 70)
        truth = listener.found['ground_truth']
        assert truth.header.frame_id == 'robot/base_link/boxes'
        [box] = truth.detections
        assert (box.header.frame_id, box.header.stamp.sec) == ('', 0)
        assert (box.results[0].hypothesis.class_id, box.results[0].hypothesis.score) == ('7', 1.0)
        center = box.bbox.center.position
        assert (center.x, center.y, box.bbox.size_x, box.bbox.size_y) == (20, 40, 20, 40)
        assert list(listener.found['camera_info'].k) == list(range(9))
        assert listener.found['pose'].pose.position.y == 2.0
        if not wall:
            clock = listener.found['/clock'].clock
            assert (clock.sec, clock.nanosec) == (3, 70)
        command = Twist()
        command.linear.x, command.angular.z = 0.5, -0.25

        def told() -> bool:
            listener.commands.publish(command)
            return '0.5 -0.25' in commands.read_text()

        listener.until(told)
    finally:
        bridge.send_signal(signal.SIGINT)
        assert bridge.wait(TIMEOUT) == 0


def test_bindings_that_are_there_are_found(bindings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PRUNED_PERCEPTION_GZ_PYTHON', sys.executable)
    monkeypatch.setenv('PYTHONPATH', '')
    assert python_with_bindings() is None
    monkeypatch.setenv('PYTHONPATH', str(bindings))
    assert python_with_bindings() == sys.executable
    monkeypatch.setenv('PRUNED_PERCEPTION_GZ_PYTHON', str(bindings / 'no_python'))
    assert python_with_bindings() is None


def test_the_driver_answers_poses_and_stops_the_robot_at_its_end(
    listener: Listener, tmp_path: Path
) -> None:
    route = tmp_path / 'route.csv'
    route.write_text('0,0\n5,0\n5,5\n0,5\n')
    driver = start(
        'route_driver', '--ros-args', '-r', f'__ns:={NAMESPACE}', '-p', f'route:={route}'
    )
    try:
        pose = PoseStamped()
        pose.pose.position.x, pose.pose.orientation.w = 1.0, 1.0

        def answered() -> bool:
            listener.poses.publish(pose)
            return 'cmd_vel' in listener.found

        listener.until(answered)
        assert listener.found['cmd_vel'].linear.x == pytest.approx(0.6, abs=0.01)
        assert abs(listener.found['cmd_vel'].angular.z) < 0.01
    finally:
        driver.send_signal(signal.SIGINT)
        assert driver.wait(TIMEOUT) == 0
    listener.until(lambda: listener.found['cmd_vel'].linear.x == 0.0)


@pytest.mark.parametrize('route', ['', '/nowhere.csv'])
def test_a_driver_without_a_route_says_so(route: str, capfd: pytest.CaptureFixture[str]) -> None:
    given = ['-p', f'route:={route}'] if route else []
    assert start('route_driver', '--ros-args', *given).wait(TIMEOUT) == 1
    assert 'route' in capfd.readouterr().err


def test_the_table_of_the_documentation_is_that_of_the_driver() -> None:
    text = (ROOT / 'docs' / 'gazebo.md').read_text()
    assert with_table(text, DRIVER_PARAMETERS) == text, (
        'python -m pruned_perception.nodes.parameters'
    )


def test_the_reader_stands_alone() -> None:
    """A Python that has Gazebo's bindings has nothing of ours, perhaps nothing else at all."""
    text = (ROOT / 'pruned_perception' / 'nodes' / 'gz_reader.py').read_text()
    imported = {
        name
        for node in ast.walk(ast.parse(text))
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)
