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

"""Records topics into a rosbag2 folder, as raw serialised messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruned_perception.benchmark.bag import BagWriter, message_class
from pruned_perception.benchmark.session import Session, matching_qos
from pruned_perception.errors import UserError

# Deep enough that a slow disk does not make the reader's history drop what was delivered.
QUEUE_DEPTH = 100
_LOOK_EVERY_S = 0.2


@dataclass
class Received:
    """What came in on one topic.

    `lost` counts the gaps in the publishers' sequence numbers since the first message that came
    in; None where the middleware gives no such numbers.
    """

    count: int = 0
    lost: int | None = None
    _last: dict[bytes, int] = field(default_factory=dict, repr=False)

    def add(self, info: Any) -> None:
        """Count one message; `info` is rclpy's MessageInfo."""
        self.count += 1
        number = info.get('publication_sequence_number')
        if number is None:
            return
        writer = _writer_of(info)
        last = self._last.get(writer, number - 1)
        self.lost = (self.lost or 0) + max(0, number - last - 1)
        self._last[writer] = number


def _writer_of(info: Any) -> bytes:
    # Older rclpy gives no publisher_gid; with one publisher a topic that is the same thing.
    gid = info.get('publisher_gid') or {}
    return bytes(gid.get('data', b'')) if isinstance(gid, dict) else bytes(gid)


class Recorder:
    """Subscribes to topics as their publishers appear, and writes what arrives.

    Reliability and durability follow the publishers: reliable (transient local) where all are.
    """

    def __init__(self, session: Session, writer: BagWriter, topics: Sequence[str]) -> None:
        node = session.node
        self._session = session
        self._writer = writer
        self.topics = [node.resolve_topic_name(topic) for topic in topics]
        self.received = {topic: Received() for topic in self.topics}
        self._subscriptions: dict[str, Any] = {}

    @property
    def waiting_for(self) -> list[str]:
        """Topics that have no publisher yet."""
        return [topic for topic in self.topics if topic not in self._subscriptions]

    def look(self) -> None:
        """Subscribe to the topics whose publishers have appeared."""
        for topic in self.waiting_for:
            if publishers := self._session.node.get_publishers_info_by_topic(topic):
                self._subscribe(topic, publishers)

    def _subscribe(self, topic: str, publishers: Sequence[Any]) -> None:
        from rclpy.qos import DurabilityPolicy

        types = sorted({each.topic_type for each in publishers})
        if len(types) > 1:
            raise UserError(f'{topic} is published with different types: {", ".join(types)}')
        message = message_class(types[0])
        qos = matching_qos(publishers, QUEUE_DEPTH)
        latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        self._writer.add_topic(topic, message, latched=latched)
        received = self.received[topic]

        def write(data: bytes, info: Any) -> None:
            received.add(info)
            # The middleware's own time of receipt: it does not wait for this process's turn.
            self._writer.write(topic, data, info.get('received_timestamp') or time.time_ns())

        self._subscriptions[topic] = self._session.node.create_subscription(
            message, topic, write, qos, raw=True
        )


def record(
    session: Session,
    folder: Path,
    topics: Sequence[str],
    *,
    duration: float | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Recorder], None] = lambda recorder: None,
) -> dict[str, Received]:
    """Record until `duration` seconds after the first message, or until stopped.

    `on_progress` is called a few times a second.

    Raises:
        UserError: the folder cannot be written, or a topic's type is unknown or ambiguous.
    """
    with BagWriter(folder, overwrite=overwrite) as writer:
        recorder = Recorder(session, writer, topics)
        end: float | None = None
        while session.running and (end is None or time.monotonic() < end):
            recorder.look()
            session.spin_for(_LOOK_EVERY_S)
            on_progress(recorder)
            started = any(each.count for each in recorder.received.values())
            if end is None and duration is not None and started:
                end = time.monotonic() + duration
        return recorder.received
