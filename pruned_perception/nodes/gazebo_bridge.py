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

"""Our own bridge from Gazebo to ROS, for machines with a Gazebo but without ros_gz.

    python -m pruned_perception.nodes.gazebo_bridge --file FILE --python PYTHON --ros-args …

A process of its own for each process of the bridge file, like ros_gz_bridge. What it publishes is
what that would: types, reliable with a queue of 10, boxes whose own headers are empty, numbers of
labels as class ids, the sensor's name as their frame. It does not carry odometry.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pruned_perception import _processes
from pruned_perception.errors import UserError
from pruned_perception.nodes import gz_reader, node_process

if TYPE_CHECKING:
    from rclpy.node import Node

READER = Path(gz_reader.__file__)
_TYPES = {
    'gz.msgs.Image': ('sensor_msgs', 'Image'),
    'gz.msgs.CameraInfo': ('sensor_msgs', 'CameraInfo'),
    'gz.msgs.AnnotatedAxisAligned2DBox_V': ('vision_msgs', 'Detection2DArray'),
    'gz.msgs.Clock': ('rosgraph_msgs', 'Clock'),
    'gz.msgs.Pose': ('geometry_msgs', 'PoseStamped'),
    'gz.msgs.Twist': ('geometry_msgs', 'Twist'),
}


def python_with_bindings() -> str | None:
    """Return a Python that can import Gazebo's bindings; None where there is none.

    $PRUNED_PERCEPTION_GZ_PYTHON, this one, and the one on the PATH and of the system are tried.
    """
    chosen = os.environ.get('PRUNED_PERCEPTION_GZ_PYTHON')
    for python in (chosen,) if chosen else (sys.executable, 'python3', '/usr/bin/python3'):
        try:
            done = subprocess.run(
                [python, str(READER), '--probe'], capture_output=True, timeout=30, env=_clean()
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
    return None


def _clean() -> dict[str, str]:
    """Return the environment without what belongs to this Python alone."""
    return {k: v for k, v in os.environ.items() if k != 'PYTHONHOME'}


def message(kind: str, values: Mapping[str, Any], data: bytes, stamp: tuple[int, int]) -> Any:
    """Return the ROS message of what `gz_reader` read; `stamp` is its sec and nanosec."""
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    time = Time(sec=stamp[0], nanosec=stamp[1])
    if kind == 'gz.msgs.Clock':
        from rosgraph_msgs.msg import Clock

        return Clock(clock=time)
    header = Header(stamp=time, frame_id=values['frame_id'].replace('::', '/'))
    if kind == 'gz.msgs.Image':
        from sensor_msgs.msg import Image

        image = Image(header=header, **{k: values[k] for k in ('width', 'height', 'encoding')})
        image.step = values['step']
        image.data = array.array('B', data)
        return image
    if kind == 'gz.msgs.CameraInfo':
        from sensor_msgs.msg import CameraInfo

        return CameraInfo(
            header=header,
            distortion_model='plumb_bob',
            **{k: values[k] for k in ('width', 'height', 'd', 'k', 'r', 'p')},
        )
    if kind == 'gz.msgs.Pose':
        from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion

        x, y, z, qx, qy, qz, qw = values['pose']
        pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
        return PoseStamped(header=header, pose=pose)
    return boxes_message(header, values['boxes'])


def boxes_message(header: Any, rows: Sequence[Sequence[float]]) -> Any:
    """Return a Detection2DArray of rows x0, y0, x1, y1, label."""
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    detections = []
    for x0, y0, x1, y1, label in rows:
        detection = Detection2D(results=[ObjectHypothesisWithPose()])
        detection.results[0].hypothesis.class_id = str(int(label))
        detection.results[0].hypothesis.score = 1.0
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = float(x1 - x0), float(y1 - y0)
        detections.append(detection)
    return Detection2DArray(header=header, detections=detections)


def read_frames(stream: IO[bytes], carry: Callable[[dict[str, Any], bytes], None]) -> None:
    """Call `carry` with each message of a stream until it ends."""
    while head := stream.read(8):
        if len(head) < 8:
            return
        lengths = struct.unpack('>II', head)
        text, data = (stream.read(length) for length in lengths)
        if len(text) < lengths[0] or len(data) < lengths[1]:
            return
        carry(json.loads(text), data)


def create_node(file: Path, python: str, wall_stamps: bool) -> Node:
    """Return the node that carries the topics of a bridge file."""
    import yaml
    from rclpy.clock import Clock, ClockType
    from rclpy.node import Node
    from rclpy.task import Future

    topics = [each for each in yaml.safe_load(file.read_text()) if each['gz_type_name'] in _TYPES]

    class Bridge(Node):
        """Publishes what the reader writes, and writes to it what it is to publish."""

        def __init__(self) -> None:
            super().__init__('gazebo_bridge')
            self.finished: Future[None] = Future()
            self._wall = Clock(clock_type=ClockType.SYSTEM_TIME)
            places = [
                [
                    each['gz_topic_name'],
                    each['gz_type_name'].rpartition('.')[2],
                    'out' if each['direction'] == 'ROS_TO_GZ' else 'in',
                ]
                for each in topics
            ]
            self._reader = _processes.start(
                [python, str(READER), json.dumps(places)],
                environment=_clean(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None,
            )
            self._outputs = {}
            for place, each in enumerate(topics):
                package, name = _TYPES[each['gz_type_name']]
                kind = getattr(__import__(f'{package}.msg', fromlist=[name]), name)
                if places[place][2] == 'in':
                    depth = each.get('publisher_queue', 10)
                    publisher = self.create_publisher(kind, each['ros_topic_name'], depth)
                    self._outputs[place] = publisher
                else:
                    self.create_subscription(
                        kind,
                        each['ros_topic_name'],
                        lambda command, place=place: self._command(place, command),
                        1,
                    )
            self._thread = threading.Thread(target=self._read, name='reader', daemon=True)
            self._thread.start()

        def stop(self) -> None:
            """End the reader: it goes when its input ends."""
            assert self._reader.stdin is not None
            self._reader.stdin.close()
            _processes.stop([self._reader], patience=2.0)
            self._thread.join(2.0)

        def _command(self, place: int, command: Any) -> None:
            assert self._reader.stdin is not None
            line = json.dumps([place, command.linear.x, command.angular.z]) + '\n'
            try:
                self._reader.stdin.write(line.encode())
                self._reader.stdin.flush()
            except OSError:  # it has ended, and so does the bridge
                return

        def _read(self) -> None:
            assert self._reader.stdout is not None
            read_frames(self._reader.stdout, self._carry)
            self.finished.set_result(None)

        def _carry(self, values: dict[str, Any], data: bytes) -> None:
            place = values['topic']
            stamp = tuple(values['stamp'])
            if wall_stamps:
                stamp = divmod(self._wall.now().nanoseconds, 10**9)
            made = message(topics[place]['gz_type_name'], values, data, stamp)
            self._outputs[place].publish(made)

    return Bridge()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bridge; 0 after Ctrl-C or SIGTERM, or when Gazebo's side has ended."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index('--ros-args') if '--ros-args' in given else len(given)
    parser = argparse.ArgumentParser(description='Carry the topics of a bridge file.')
    parser.add_argument('--file', type=Path, required=True)
    parser.add_argument('--python', required=True, help="with Gazebo's bindings")
    parser.add_argument('--wall-stamps', action='store_true')
    args = parser.parse_args(given[:split])
    if not args.file.is_file():
        raise UserError(f'{args.file}: there is no such file')
    return node_process.run(
        lambda: create_node(args.file, args.python, args.wall_stamps), given[split:]
    )


if __name__ == '__main__':
    sys.exit(main())
