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

"""The simulated robot: drives through a warehouse and publishes what its camera sees."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from pruned_perception.inference import Detections
from pruned_perception.nodes import messages, qos
from pruned_perception.nodes.parameter_declaration import NodeParameters
from pruned_perception.nodes.parameters import ROBOT_PARAMETERS
from pruned_perception.simulation import labels
from pruned_perception.simulation.ground_truth import BoxFinder, VisibleObject
from pruned_perception.simulation.renderer import Renderer
from pruned_perception.simulation.robot import Robot, build_scene
from pruned_perception.simulation.scene import Camera

IMAGE_DEPTH = 5
STOP_TIMEOUT = 3.0  # seconds


class SimulatedRobot(Node):
    """Publishes image_raw, camera_info and ground_truth; subscribes to cmd_vel.

    A thread of its own renders, because an OpenGL context belongs to one thread and callbacks
    must not wait for an image. A header's stamp is the time at which the image is complete, as
    with a camera driver: rendering is no part of the latency measured from it.
    """

    def __init__(self) -> None:
        super().__init__('simulated_robot')
        self.parameters = NodeParameters(
            self,
            ROBOT_PARAMETERS,
            is_active=lambda: True,
            refuse=lambda changes: None,
            changed=self._configure,
        )
        values = self.parameters
        self._scene = build_scene(values['scene_seed'])
        self._robot = Robot(self._scene)
        self._robot_lock = threading.Lock()
        self._configure(values.values)
        reliability = getattr(QoSReliabilityPolicy, values['image_reliability'].upper())
        profile = qos.newest(IMAGE_DEPTH, reliability)
        with qos.explained(self.resolve_topic_name('image_raw')):
            self._images = self.create_publisher(
                Image, 'image_raw', profile, qos_overriding_options=qos.overridable()
            )
        self._infos = self.create_publisher(
            CameraInfo, 'camera_info', qos.newest(IMAGE_DEPTH, reliability)
        )
        self._truths = self.create_publisher(Detection2DArray, 'ground_truth', 10)
        self.create_subscription(Twist, 'cmd_vel', self._on_command, 1)
        self._ready: Future[None] = Future()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._render, name='camera', daemon=True)

    def start(self) -> None:
        """Start the camera; raises UserError where nothing can be rendered."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """End the camera's thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _configure(self, _changes: Mapping[str, Any]) -> None:
        values = self.parameters.values
        with self._robot_lock:
            self._robot.speed = values['speed']
            self._robot.follow_route = values['follow_route']
            self._robot.command_timeout = values['cmd_vel_timeout_s']

    def _on_command(self, message: Twist) -> None:
        with self._robot_lock:
            self._robot.command(message.linear.x, message.angular.z, time.monotonic())

    def _render(self) -> None:
        """Body of the camera's thread."""
        try:
            renderer = Renderer(self._scene)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        finder = BoxFinder(self._scene.objects)
        self.get_logger().info(
            f'driving through {self._scene.name}: {len(self._scene.objects)} objects in '
            f'{self._scene.size[0]:.1f} m × {self._scene.size[1]:.1f} m'
        )
        with contextlib.closing(renderer):
            due = time.monotonic()
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                # An image that comes too late is left out: late ones must not pile up.
                due = max(due + 1 / self.parameters['rate_hz'], time.monotonic())
                try:
                    self._publish_frame(renderer, finder)
                except Exception:
                    if self._stopping.is_set():
                        return
                    self.get_logger().error(
                        f'an image was not published:\n{traceback.format_exc()}',
                        throttle_duration_sec=1.0,
                    )

    def _publish_frame(self, renderer: Renderer, finder: BoxFinder) -> None:
        with self._robot_lock:
            eye = self._robot.step(time.monotonic()).camera_pose()
        renderer.look(eye, shadows=self.parameters['shadows'])
        image = renderer.image()
        stamp = self.get_clock().now().to_msg()
        header = Header(stamp=stamp, frame_id=self.parameters['frame_id'])
        self._images.publish(messages.image_message(header, image, 'rgb8'))
        self._infos.publish(camera_info(header, self._scene.camera))
        if self._truths.get_subscription_count():  # a second pass of the renderer
            found = finder.find(renderer.object_numbers(), self._scene.camera, eye)
            objects = [item for item in found if item.shows(self.parameters['min_visible'])]
            self._truths.publish(ground_truth(header, objects))


def camera_info(header: Header, camera: Camera) -> CameraInfo:
    """Return the calibration of a pinhole camera; pixel centres are whole numbers, as in OpenCV."""
    f, cx, cy = camera.focal, (camera.width - 1) / 2, (camera.height - 1) / 2
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def ground_truth(header: Header, objects: list[VisibleObject]) -> Detection2DArray:
    """Return the visible objects; a hypothesis' score is the visible share of the object."""
    boxes: NDArray[np.float32] = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Detections(
        boxes=boxes,
        scores=np.array([item.visible for item in objects], np.float32),
        class_ids=np.array([item.class_id for item in objects], np.int64),
    )
    return messages.detection_array(header, found, [str(index) for index in range(len(labels()))])
