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

"""The yardstick of `benchmark startup`: the least that any node around a network has to do.

Imports the libraries that the perception node uses, loads the model, creates a node, and says
`ready`; then waits for the first image of a topic, where one is given, and says `image`.
Run as `python bare_start.py MODEL.onnx [TOPIC]`; deliberately free of this package.
"""

import os
import sys

os.environ['ORT_DISABLE_TELEMETRY'] = '1'  # what this package does, too

import cv2  # noqa: F401
import diagnostic_msgs.msg  # noqa: F401
import numpy  # noqa: F401
import onnxruntime
import rclpy
import sensor_msgs.msg
import statistics_msgs.msg  # noqa: F401
import std_msgs.msg  # noqa: F401
import vision_msgs.msg  # noqa: F401
import yaml  # noqa: F401
from rclpy.lifecycle import LifecycleNode

if __name__ == '__main__':
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
    rclpy.init(args=sys.argv)
    node = LifecycleNode('bare_start')
    print('ready', flush=True)
    for topic in sys.argv[2:]:
        images: list[sensor_msgs.msg.Image] = []
        node.create_subscription(sensor_msgs.msg.Image, topic, images.append, 5)
        while not images:
            rclpy.spin_once(node)
        print('image', flush=True)
    sys.stdin.read()
    node.destroy_node()
    rclpy.shutdown()
