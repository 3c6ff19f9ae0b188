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

"""Gazebo's side of our bridge: from gz-transport to standard output, from standard input back.

A script that stands alone, for whichever Python has Gazebo's bindings: these need a protobuf of the
generation that Gazebo was built with, which is seldom that of the environment around ROS.

    python gz_reader.py --probe                         # status 0 where there are bindings
    python gz_reader.py '[["/camera/image", "Image", "in"], ["/robot/cmd_vel", "Twist", "out"]]'

Each message is two lengths (4 bytes each, big endian), a JSON object and raw bytes; `topic` in it
is the place in the list. Commands come in as JSON lines: [place, linear x, angular z].
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
import threading
from typing import Any

BINDINGS = (
    ('gz.transport', 'gz.msgs'),
    ('gz.transport14', 'gz.msgs11'),
    ('gz.transport13', 'gz.msgs10'),
)
"""Of Jetty, Ionic and Harmonic."""
MODULES = {
    'Image': 'image_pb2',
    'CameraInfo': 'camera_info_pb2',
    'AnnotatedAxisAligned2DBox_V': 'annotated_axis_aligned_2d_box_v_pb2',
    'Clock': 'clock_pb2',
    'Pose': 'pose_pb2',
    'Twist': 'twist_pb2',
}
ENCODINGS = {1: 'mono8', 3: 'rgb8', 4: 'rgba8', 5: 'bgra8', 8: 'bgr8'}
"""gz.msgs.PixelFormatType → ROS."""


def bindings() -> tuple[Any, str]:
    """Return the module of gz-transport and the package of its messages; raises ImportError."""
    reasons = []
    for transport, messages in BINDINGS:
        try:
            importlib.import_module(f'{messages}.image_pb2')
            return importlib.import_module(transport), messages
        except (ImportError, TypeError) as error:  # TypeError: a protobuf of another generation
            reasons.append(f'{transport}: {error}')
    raise ImportError('; '.join(reasons))


def content(kind: str, message: Any) -> tuple[dict[str, Any], bytes]:
    """Return a message of Gazebo as JSON values and raw bytes."""
    if kind == 'Clock':
        return {'stamp': [message.sim.sec, message.sim.nsec]}, b''
    header = message.header
    names = [list(each.value) for each in header.data if each.key == 'frame_id']
    values: dict[str, Any] = {
        'stamp': [header.stamp.sec, header.stamp.nsec],
        'frame_id': names[0][0] if names and names[0] else '',
    }
    if kind == 'Image':
        values.update(
            width=message.width,
            height=message.height,
            step=message.step,
            encoding=ENCODINGS.get(message.pixel_format_type, ''),
        )
        return values, bytes(message.data)
    if kind == 'CameraInfo':
        values.update(
            width=message.width,
            height=message.height,
            d=list(message.distortion.k),
            k=list(message.intrinsics.k),
            p=list(message.projection.p),
            r=list(message.rectification_matrix),
        )
    elif kind == 'AnnotatedAxisAligned2DBox_V':
        values['boxes'] = [
            [
                each.box.min_corner.x,
                each.box.min_corner.y,
                each.box.max_corner.x,
                each.box.max_corner.y,
                each.label,
            ]
            for each in message.annotated_box
        ]
    elif kind == 'Pose':
        p, q = message.position, message.orientation
        values['pose'] = [p.x, p.y, p.z, q.x, q.y, q.z, q.w]
    return values, b''


def frame(place: int, kind: str, message: Any) -> bytes:
    """Return a message as it is written."""
    values, data = content(kind, message)
    text = json.dumps({'topic': place, **values}).encode()
    return struct.pack('>II', len(text), len(data)) + text + data


def main() -> int:
    """Carry messages until standard input ends."""
    try:
        transport, messages = bindings()
    except ImportError as error:
        print(f'no bindings of Gazebo: {error}', file=sys.stderr)
        return 1
    if sys.argv[1:] == ['--probe']:
        print(transport.__name__)
        return 0
    node = transport.Node()
    lock = threading.Lock()
    output = sys.stdout.buffer

    def subscribe(place: int, topic: str, kind: str) -> None:
        def carry(message: Any) -> None:
            data = frame(place, kind, message)
            with lock:  # waits where nobody reads; gz-transport then drops what is too much
                output.write(data)
                output.flush()

        if not node.subscribe(message_class(kind), topic, carry):
            raise SystemExit(f'cannot subscribe to {topic}')

    def message_class(kind: str) -> Any:
        return getattr(importlib.import_module(f'{messages}.{MODULES[kind]}'), kind)

    publishers = {}
    for place, (topic, kind, direction) in enumerate(json.loads(sys.argv[1])):
        if direction == 'in':
            subscribe(place, topic, kind)
        else:
            publishers[place] = (node.advertise(topic, message_class(kind)), message_class(kind))
    for line in sys.stdin:
        place, linear, angular = json.loads(line)
        publisher, kind = publishers[place]
        command = kind()
        command.linear.x, command.angular.z = linear, angular
        publisher.publish(command)
    return 0


if __name__ == '__main__':
    status = main()
    sys.stdout.flush()
    # The bindings' threads crash while an interpreter ends that they still call into.
    os._exit(status)
