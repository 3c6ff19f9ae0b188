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


"""Frames of a topic, live: the newest image whenever one is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pruned_perception.benchmark.bag import message_class
from pruned_perception.benchmark.session import Session, matching_qos
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.inference.errors import ImageError
from pruned_perception.inference.sources import Frame, Source, SourceError, UnreadableFrame
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.image_input import TYPE_NAMES

WAIT_S = 10.0


def open_topic(session: Session, topic: str) -> Source:
    """Subscribe to a topic of images, raw or compressed; frames come until the session ends.

    Raises:
        SourceError: nobody publishes images there within WAIT_S seconds.
    """
    node = session.node
    session.spin_until(lambda: node.count_publishers(topic) > 0, WAIT_S)
    publishers = node.get_publishers_info_by_topic(topic)
    types = sorted({each.topic_type for each in publishers})
    fitting = [each for each in types if each in TYPE_NAMES.values()]
    if not fitting:
        raise SourceError(f'{topic}: {_instead(node, types)}')
    newest: list[Any] = []

    def keep(message: Any) -> None:
        newest[:] = [message]

    qos = matching_qos([each for each in publishers if each.topic_type == fitting[0]], 1)
    node.create_subscription(message_class(fitting[0]), topic, keep, qos)
    return Source(_frames(session, topic, newest), None, live=True)


def _frames(session: Session, topic: str, newest: list[Any]) -> Iterator[Frame | UnreadableFrame]:
    index = 0
    while session.spin_until(lambda: bool(newest), float('inf')):
        message = newest.pop()
        stamp = stamp_ns(message.header.stamp) / 1e9
        try:
            image, order = image_from_message(message)
        except ImageError as error:
            yield UnreadableFrame(topic, index, stamp, f'{topic}: {error}')
        else:
            yield Frame(topic, index, stamp, image, order)
        index += 1


def _instead(node: Any, types: list[str]) -> str:
    if types:
        return f'has type {", ".join(types)}, not {" or ".join(TYPE_NAMES.values())}'
    images = sorted(
        name
        for name, kinds in node.get_topic_names_and_types()
        if not set(TYPE_NAMES.values()).isdisjoint(kinds) and node.count_publishers(name)
    )
    there = f'images come on {", ".join(images)}' if images else 'no images are seen at all'
    return f'nobody publishes it; {there}'
