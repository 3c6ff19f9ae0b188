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

"""A stand-in for the simulated robot: squares that the tiny detector of the tests finds.

Publishes image_raw (640×480 rgb8), camera_info and ground_truth at 15 Hz until it is stopped.
"""

from __future__ import annotations

import array
import sys
import time

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
)

RATE_HZ = 15
SCALE = 5  # 640×480 over the tiny detector's 128×96
SIDE = 24 * SCALE


def main() -> None:
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('simulated_robot')
    images = node.create_publisher(Image, 'image_raw', 10)
    infos = node.create_publisher(CameraInfo, 'camera_info', 10)
    truths = node.create_publisher(Detection2DArray, 'ground_truth', 10)
    index = 0

    def publish() -> None:
        nonlocal index
        class_id = index % 3
        left = 8 * SCALE * (index % 12)
        top = 8 * SCALE * (index // 12 % 8)
        pixels = np.zeros((480, 640, 3), np.uint8)
        pixels[top : top + SIDE, left : left + SIDE, class_id] = 255
        image = Image(height=480, width=640, encoding='rgb8', step=1920)
        image.header.frame_id = 'camera_optical_frame'
        image.header.stamp = node.get_clock().now().to_msg()
        image.data = array.array('B', pixels.tobytes())
        center = Point2D(x=left + SIDE / 2, y=top + SIDE / 2)
        box = Detection2D(
            header=image.header,
            bbox=BoundingBox2D(
                center=Pose2D(position=center), size_x=float(SIDE), size_y=float(SIDE)
            ),
            results=[
                ObjectHypothesisWithPose(
                    hypothesis=ObjectHypothesis(class_id=str(class_id), score=1.0)
                )
            ],
        )
        images.publish(image)
        infos.publish(CameraInfo(header=image.header, height=480, width=640))
        truths.publish(Detection2DArray(header=image.header, detections=[box]))
        index += 1

    node.create_timer(1 / RATE_HZ, publish)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        time.sleep(0.2)  # let what is under way arrive


if __name__ == '__main__':
    main()
