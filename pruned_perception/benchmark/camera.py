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
for a subscriber, and its last line is a JSON object: the stamps of the frames sent (ns), and the
index of each in its source. With `--answers TOPIC` the next frame follows the answer to the last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.session import ros_session
from pruned_perception.datasets import Dataset, dataset_splits, read_dataset
from pruned_perception.errors import UserError
from pruned_perception.nodes.up import module_command

MOST_FRAMES = 300
"""Of a source: they are kept in memory, and repeat where more are to be sent."""
VARIANTS = 16
"""Different frames before they repeat."""
_WAIT_S = 30.0
_ANSWER_S = 1.0
"""A frame that is not answered within is given up."""


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


def data_set(path: str) -> Dataset | None:
    """Return the annotated data in a folder; None where there are only images, or it is a bag.

    Raises DataError where the annotations are broken, or it has several splits.
    """
    return read_dataset(path) if dataset_splits(path) else None


def source_frames(
    path: str, topic: str = '', most: int = MOST_FRAMES
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return the first `most` readable frames of a data set, images or a bag, rgb, indexed.

    The index is that of the frame in the data set, or in the source; `topic` chooses one of a
    bag's. Raises UserError where there is none.
    """
    import cv2

    from pruned_perception.inference.sources import Frame, open_source

    if (notes := data_set(path)) is not None:
        count = min(len(notes), most)
        return [
            (index, np.asarray(cv2.cvtColor(notes.image(index), cv2.COLOR_BGR2RGB), np.uint8))
            for index in range(count)
        ]
    conversions = {'bgr': cv2.COLOR_BGR2RGB, 'gray': cv2.COLOR_GRAY2RGB}
    frames = []
    for each in itertools.islice(open_source(path, topic or None).frames, most):
        if isinstance(each, Frame):
            code = conversions.get(each.order)
            image = each.image if code is None else cv2.cvtColor(each.image, code)
            frames.append((each.index, np.asarray(image, np.uint8)))
    if not frames:
        raise UserError(f'{path}: no image in it can be read')
    return frames


def camera_command(topic: str, **options: float | str) -> list[str]:
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
    parser.add_argument('--source', default='', help='folder of images or bag; "" = synthetic')
    parser.add_argument('--of', default='', help='image topic of the bag, where it has several')
    parser.add_argument('--answers', default='', help='topic of detections; no --rate, --frames')
    parser.add_argument('--seconds', type=float, default=5.0, help='to send, with --answers')
    args, _ = parser.parse_known_args(argv)

    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header
    from vision_msgs.msg import Detection2DArray

    from pruned_perception.nodes.header_stamps import stamp_ns
    from pruned_perception.nodes.messages import image_message

    with ros_session('camera') as session:
        node = session.node
        publisher = node.create_publisher(Image, args.topic, QoSProfile(depth=5))
        try:
            frames = source_frames(args.source, args.of) if args.source else None
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        if frames is None:
            each = range(VARIANTS)
            frames = [(index, synthetic_frame(index, args.height, args.width)) for index in each]
        header = Header(frame_id='camera_optical_frame')
        messages = [(index, image_message(header, image, 'rgb8')) for index, image in frames]
        if not session.spin_until(
            lambda: publisher.get_subscription_count() >= args.subscribers, _WAIT_S
        ):
            print(f'no subscriber on {publisher.topic_name}', file=sys.stderr)
            return 1
        sent: list[int] = []
        indices: list[int] = []
        answered = 0

        def on_answer(message: Detection2DArray) -> None:
            nonlocal answered
            answered = stamp_ns(message.header.stamp)

        if args.answers:
            node.create_subscription(Detection2DArray, args.answers, on_answer, QoSProfile(depth=5))
            session.spin_until(lambda: node.count_publishers(args.answers) > 0, _WAIT_S)
        start = time.monotonic()

        def due() -> bool:
            """Wait for the next frame's moment; tell whether there is one."""
            if not args.answers:
                session.sleep(start + len(sent) / args.rate - time.monotonic())
                return len(sent) < args.frames
            session.spin_until(lambda: not sent or answered == sent[-1], _ANSWER_S)
            return time.monotonic() < start + args.seconds

        while due() and session.running:
            index, message = messages[len(sent) % len(messages)]
            stamp = node.get_clock().now()
            message.header.stamp = stamp.to_msg()
            publisher.publish(message)
            sent.append(stamp.nanoseconds)
            indices.append(index)
        # The publisher's history is lost with it, together with what a reader has yet to fetch.
        session.sleep(0.5)
        print(json.dumps({'sent': sent, 'indices': indices}), flush=True)
        return 0 if session.running else 1


if __name__ == '__main__':
    sys.exit(main())
