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

"""Where the frames of `benchmark node` come from, and what is known of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception.benchmark.camera import (
    VARIANTS,
    camera_command,
    data_set,
    source_frames,
    synthetic_frame,
)
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.session import Session, matching_qos
from pruned_perception.errors import UserError
from pruned_perception.nodes.up import node_command

SYNTHETIC, SIMULATION, IMAGES, BAG, TOPIC = 'synthetic', 'sim', 'images', 'bag', 'topic'
MAX = float('inf')
"""The rate of a camera that sends the next frame as soon as the last one is answered."""
OWN = 0.0
"""The rate of a camera that is not ours."""
SAMPLE = 32
"""Frames that a network is run on in process."""
APPEARS_S = 10.0
"""How long a topic of somebody else's is waited for, and then its first image."""
_RAW, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@dataclass(frozen=True)
class Source:
    """`kind` and, of some, `value`: a folder, a recording (`topic` of it), a topic."""

    kind: str
    value: str = ''
    topic: str = ''

    @classmethod
    def parse(cls, text: str) -> Source:
        """Return it of `synthetic`, `sim`, `images:DIR`, `bag:PATH[:/TOPIC]` or `topic:NAME`.

        Raises UserError where it is none of these, or not there.
        """
        kind, colon, value = text.partition(':')
        if kind in (SYNTHETIC, SIMULATION) and not colon:
            return cls(kind)
        if kind == TOPIC and value:
            return cls(kind, value)
        if kind not in (IMAGES, BAG) or not value:
            raise UserError(
                f'source {text!r} is none of synthetic, sim, images:DIR, bag:PATH, bag:PATH:/TOPIC,'
                ' topic:NAME'
            )
        path, colon, topic = value.partition(':/') if kind == BAG else (value, '', '')
        path = str(Path(path).expanduser())
        if not Path(path).exists():
            raise UserError(f'source {text}: {path}: no such file or folder')
        return cls(kind, path, f'/{topic}' if colon else '')

    def check_rate(self, rate: float) -> None:
        """Raise UserError where frames cannot come at this rate."""
        if (self.kind == TOPIC) != (rate == OWN):
            raise UserError(
                f'source topic:{self.value}: its frames come as they are published: leave out '
                '--rate'
            )
        if self.kind == SIMULATION and rate == MAX:
            raise UserError(
                'source sim renders at a rate, and on this machine: --rate max takes synthetic, '
                'images:DIR or bag:PATH'
            )

    def camera(
        self, namespace: str, rate: float, seconds: float, size: tuple[int, int]
    ) -> list[str] | None:
        """Return the command of the process that sends the frames; None: somebody does already.

        `size` is (height, width), of synthetic frames.
        """
        if self.kind == TOPIC:
            return None
        if self.kind == SIMULATION:
            return node_command('simulated_robot', namespace, {'rate_hz': rate})
        given: dict[str, float | str] = {'height': size[0], 'width': size[1]}
        if self.value:
            given = {'source': self.value, 'of': self.topic}
        if rate == MAX:
            given |= {'answers': f'{namespace}/detections', 'seconds': seconds}
        else:
            given |= {'rate': rate, 'frames': round(seconds * rate)}
        return camera_command(f'{namespace}/image_raw', **given)

    def node_parameters(self, session: Session) -> tuple[dict[str, Any], str]:
        """Return the node's parameters that this source needs, and what `image_raw` is remapped to.

        Raises UserError where a topic has no publisher, or is no image.
        """
        if self.kind != TOPIC:
            return {}, ''
        type_ = _type_of(session, self.value)
        if type_ == _RAW:
            return {}, self.value
        return {'image_transport': 'compressed'}, self.value.removesuffix('/compressed')

    def sample(self, session: Session, folder: Path, size: tuple[int, int]) -> list[Any]:
        """Return up to `SAMPLE` of its frames as image messages.

        Raises UserError where there is none.
        """
        if self.kind == TOPIC:
            return _received(session, self.value, None)
        if self.kind == SIMULATION:
            with Children(folder, os.environ) as children:
                camera = node_command('simulated_robot', '/sample', {'rate_hz': 30.0})
                child = children.start('sample_camera', camera)
                return _received(session, '/sample/image_raw', child)
        from std_msgs.msg import Header

        from pruned_perception.nodes.messages import image_message

        header = Header(frame_id='camera_optical_frame')
        if self.kind == SYNTHETIC:
            images = [synthetic_frame(index, *size) for index in range(VARIANTS)]
        else:
            images = [image for _, image in source_frames(self.value, self.topic, SAMPLE)]
        return [image_message(header, image, 'rgb8') for image in images]

    def truths(self, labels: Sequence[str]) -> Mapping[int, list[list[Any]]] | None:
        """Return the ground truth by the frames' index, as rows of `accuracy`; None without one.

        That of the simulation is a topic, see `Series.truth`.
        """
        notes = data_set(self.value) if self.kind == IMAGES else None
        if notes is None:
            return None
        notes = notes.with_labels(labels, 'the model')
        return {
            index: [
                [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 1.0, labels[class_id]]
                for (x0, y0, x1, y1), class_id, crowd in zip(
                    boxes.tolist(), ids.tolist(), crowds.tolist(), strict=True
                )
                if not crowd
            ]
            for index, (boxes, ids, crowds) in enumerate(
                zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)
            )
        }


def rate_text(rate: float) -> str:
    """Return a rate in words."""
    if rate == OWN:
        return 'own rate'
    return 'max' if rate == MAX else f'{rate:g} Hz'


def _type_of(session: Session, topic: str) -> str:
    """Return the type of an image topic, waiting for a publisher."""
    node = session.node
    if not session.spin_until(lambda: node.count_publishers(topic) > 0, APPEARS_S):
        domain = os.environ.get('ROS_DOMAIN_ID', '0')
        raise UserError(
            f'source topic:{topic}: nobody published it within {APPEARS_S:g} s (ROS_DOMAIN_ID '
            f'{domain})'
        )
    types = {each.topic_type for each in node.get_publishers_info_by_topic(topic)}
    if len(types) != 1 or not types & {_RAW, _COMPRESSED}:
        raise UserError(f'source topic:{topic}: {", ".join(sorted(types))}, not {_RAW}')
    return types.pop()


def _received(session: Session, topic: str, camera: Child | None) -> list[Any]:
    """Return the first images of a topic."""
    from sensor_msgs.msg import CompressedImage, Image

    where = f'source topic:{topic}' if camera is None else 'source sim'
    compressed = camera is None and _type_of(session, topic) == _COMPRESSED
    if camera is not None:
        session.spin_until(
            lambda: session.node.count_publishers(topic) > 0 or not camera.alive, APPEARS_S
        )
    got: list[Any] = []
    publishers = session.node.get_publishers_info_by_topic(topic)
    subscription = session.node.create_subscription(
        CompressedImage if compressed else Image,
        topic,
        got.append,
        matching_qos(publishers, 5, latched=False),
    )
    try:
        session.spin_until(
            lambda: bool(got) or (camera is not None and not camera.alive), APPEARS_S
        )
        session.spin_until(lambda: len(got) >= SAMPLE, 2.0)
    finally:
        session.node.destroy_subscription(subscription)
    if camera is not None and not got:
        camera.require_alive()
    if not got:
        raise UserError(f'{where}: it is published, but no image came within {APPEARS_S:g} s')
    return got[:SAMPLE]
