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

"""A stand-in for Gazebo and its bridges: it publishes exactly what these would.

Images come with the stamp of the moment at which they were due in simulated time, a multiple of
the physics' step; boxes have the sensor's name as frame, empty headers of their own and numbers of
labels as class ids; /clock ticks in between. `mode` is what goes wrong.

    python gazebo_stand_in.py FRAMES.npz NAMESPACE PASS MODE
"""

from __future__ import annotations

import array
import json
import sys
import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

STEP_NS = 3_300_000
STEPS = 10
FRAME_S = 0.05  # wall-clock time of a frame: a real-time factor of two thirds


def stamp(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def boxes(header: Header, rows: list[list[float]]) -> Detection2DArray:
    message = Detection2DArray(header=header)
    for x0, y0, x1, y1, label in rows:
        each = Detection2D(results=[ObjectHypothesisWithPose()])
        each.results[0].hypothesis.class_id = str(int(label))
        each.results[0].hypothesis.score = 1.0
        each.bbox.center.position.x, each.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        each.bbox.size_x, each.bbox.size_y = float(x1 - x0), float(y1 - y0)
        message.detections.append(each)
    return message


def main() -> int:
    file, namespace, pass_, mode = sys.argv[1:]
    content = np.load(file)
    images, truths = content['images'], json.loads(str(content['truths']))
    if mode == 'black':
        images = np.zeros_like(images)
    height, width = images.shape[1:3]
    rclpy.init()
    node = rclpy.create_node('stand_in', namespace=namespace)
    ten = QoSProfile(depth=10)
    clocks = [
        node.create_publisher(Clock, '/clock', ten) for _ in range(2 if mode == 'two_clocks' else 1)
    ]
    camera = node.create_publisher(Image, 'image_raw', ten)
    infos = node.create_publisher(CameraInfo, 'camera_info', ten)
    truth = node.create_publisher(Detection2DArray, 'ground_truth', ten)
    poses = node.create_publisher(PoseStamped, 'pose', ten)
    answers: list[Detection2DArray] = []
    if mode == 'dies':
        node.create_subscription(Detection2DArray, 'detections', answers.append, ten)
    steps, number, due = 1, 0, time.monotonic()
    while True:
        for _ in range(2):  # some of the ticks between two frames
            steps += STEPS // 2
            for clock in clocks:
                clock.publish(Clock(clock=stamp(steps * STEP_NS)))
        if mode == 'dies':
            rclpy.spin_once(node, timeout_sec=0.0)
            if len(answers) > 5:  # not before it is measured
                print('the simulator crashed')
                return 3
        simulated = stamp(steps * STEP_NS)
        wall = time.time_ns()
        image_stamp = simulated if pass_ == 'accuracy' else stamp(wall)
        header = Header(stamp=image_stamp, frame_id='camera_optical_frame')
        image = images[number % len(images)]
        if mode != 'silent':
            camera.publish(
                Image(
                    header=header,
                    height=height,
                    width=width,
                    encoding='rgb8',
                    step=3 * width,
                    data=array.array('B', image.tobytes()),
                )
            )
            infos.publish(CameraInfo(header=header, height=height, width=width))
        if pass_ == 'accuracy' and mode != 'no_boxes':
            seen = Header(stamp=simulated, frame_id='robot/base_link/boxes')
            truth.publish(boxes(seen, truths[number % len(truths)]))
        poses.publish(PoseStamped(header=header))
        number += 1
        due += FRAME_S
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == '__main__':
    sys.exit(main())
