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

"""A camera without hardware: frames at an exact rate, stamped as they are sent.

Run as a process: `python -m pruned_perception.benchmark.camera --rate 30 --frames 300`; it waits
for a subscriber, and its last line is a JSON object with the number of frames sent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.session import ros_session
from pruned_perception.nodes.up import module_command

VARIANTS = 16
"""Different frames before they repeat."""
_WAIT_S = 30.0


def synthetic_frame(index: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return frame `index`, uint8 (height, width, 3) rgb: squares that move over a noisy floor."""
    rng = np.random.default_rng(index)
    ramp = np.linspace(60, 140, height, dtype=np.float32)[:, None, None]
    image = ramp + rng.normal(0, 6, (height, width, 3)).astype(np.float32)
    for k in range(4):
        side = height // 4
        x = (k * width // 4 + index * width // 40) % (width - side)
        y = (k * height // 5) % (height - side)
        image[y : y + side, x : x + side] = 20
        if k < 3:
            image[y : y + side, x : x + side, k] = 235
    return np.clip(image, 0, 255).astype(np.uint8)


def camera_command(topic: str, **options: float) -> list[str]:
    """Return the command line of this camera; `options` are those of `main`."""
    given = [f'--{name}={value}' for name, value in options.items()]
    return [*module_command('benchmark.camera'), f'--topic={topic}', *given]


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; 0 when all frames were sent, 1 without a subscriber or after a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rate', type=float, default=30.0, help='frames per second')
    parser.add_argument('--frames', type=int, default=300, help='frames to send')
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--topic', default='image_raw')
    parser.add_argument('--subscribers', type=int, default=1, help='to wait for')
    args, _ = parser.parse_known_args(argv)

    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from pruned_perception.nodes.messages import image_message

    with ros_session('camera') as session:
        node = session.node
        publisher = node.create_publisher(Image, args.topic, QoSProfile(depth=5))
        messages = []
        for index in range(VARIANTS):
            image = synthetic_frame(index, args.height, args.width)
            messages.append(image_message(Header(frame_id='camera_optical_frame'), image, 'rgb8'))
        if not session.spin_until(
            lambda: publisher.get_subscription_count() >= args.subscribers, _WAIT_S
        ):
            print(f'no subscriber on {publisher.topic_name}', file=sys.stderr)
            return 1
        start = time.monotonic()
        sent = 0
        while sent < args.frames and session.running:
            session.sleep(start + sent / args.rate - time.monotonic())
            message = messages[sent % VARIANTS]
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
            sent += 1
        # The publisher's history is lost with it, together with what a reader has yet to fetch.
        session.sleep(0.5)
        print(json.dumps({'sent': sent}), flush=True)
        return 0 if sent == args.frames else 1


if __name__ == '__main__':
    sys.exit(main())
