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

"""Plays a rosbag2 folder at its recorded pace, with its own stamps or with new ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruned_perception.benchmark.bag import (
    bag_topics,
    message_class,
    read_bag,
    restamp,
    stamp_of,
    starts_with_header,
)
from pruned_perception.benchmark.session import Session
from pruned_perception.errors import UserError

CLOCK = '/clock'
MOST_CLOCK_HZ = 1000.0
_SETTLE_S = 0.5
_DEPTH = 20  # VGA images: 18 MiB, well within the transport profile's shared memory


@dataclass
class Played:
    """What a player did.

    `stamps` maps each new header stamp to the recorded one (ns); empty where stamps were kept.
    `behind_ms` is how far the player fell behind the recorded pace, at worst.
    """

    sent: dict[str, int] = field(default_factory=dict)
    stamps: dict[int, int] = field(default_factory=dict)
    behind_ms: float = 0.0
    seconds: float = 0.0


def play(
    session: Session,
    folder: Path,
    *,
    topics: Sequence[str] | None = None,
    remap: Mapping[str, str] | None = None,
    new_stamps: bool = False,
    clock_hz: float | None = None,
    rate: float = 1.0,
    subscribers: Mapping[str, int] | None = None,
    timeout: float = 30.0,
    on_progress: Callable[[float, Played], None] = lambda done, played: None,
) -> Played:
    """Publish the messages of a bag; reliable, latched where they were.

    Args:
        session: of the node that publishes.
        folder: the bag.
        topics: which topics; all by default.
        remap: recorded name → name to publish on.
        new_stamps: put the time of publication into each header, the same for all messages that
            had equal stamps; messages without a header stay as they are.
        clock_hz: publish the recorded time on /clock, as often; None: do not. Nodes that use it
            (use_sim_time) see ages as they were.
        rate: times the recorded pace.
        subscribers: topic → how many subscribers to wait for before the start, also of topics
            that others publish; by default one for every topic played that is not latched.
        timeout: seconds to wait for them.
        on_progress: called with the share done, about ten times a second.

    Raises:
        UserError: no readable bag, an absent topic, an unknown type, or subscribers that do
            not come.
    """
    if not rate > 0:
        raise UserError(f'the rate must be above 0, not {rate:g}')
    if clock_hz is not None and not 0 < clock_hz <= MOST_CLOCK_HZ:
        raise UserError(
            f'the clock must tick 0 … {MOST_CLOCK_HZ:g} times a second, not {clock_hz:g}'
        )
    if clock_hz is not None and new_stamps:
        raise UserError('the recorded time does not go with new stamps: take one of the two')
    present = bag_topics(folder)
    if missing := set(topics or ()) - set(present):
        raise UserError(
            f'{folder} has no topic {", ".join(sorted(missing))}; '
            f'it has {", ".join(sorted(present)) or "none"}'
        )
    chosen = [present[name] for name in (present if topics is None else topics)]
    names = {topic.name: (remap or {}).get(topic.name, topic.name) for topic in chosen}
    publishers = {}
    headed = set()
    for topic in chosen:
        message = message_class(topic.type)
        publishers[topic.name] = _publisher(session, message, names[topic.name], topic.latched)
        if new_stamps and starts_with_header(message):
            headed.add(topic.name)
    if subscribers is None:
        subscribers = {names[topic.name]: 1 for topic in chosen if not topic.latched}
    _wait_for_subscribers(session, publishers, names, subscribers, timeout)

    clock = None
    if clock_hz is not None:
        if CLOCK in names.values():
            raise UserError(f'{folder} has {CLOCK} itself: play it, or leave it out (--topics)')
        clock = _Clock(session, clock_hz, rate)
    played = Played(sent=dict.fromkeys(names.values(), 0))
    total = sum(topic.count for topic in chosen)
    stamped: dict[int, int] = {}
    first: int | None = None
    start = shown = time.monotonic()
    for number, record in enumerate(read_bag(folder, [topic.name for topic in chosen])):
        first = record.time_ns if first is None else first
        due = start + (record.time_ns - first) / 1e9 / rate
        if clock is not None:
            clock.tick_until(record.time_ns, due)
        wait = due - time.monotonic()
        if wait > 0:
            session.sleep(wait)
        played.behind_ms = max(played.behind_ms, -wait * 1e3)
        if not session.running:
            break
        data = record.data
        if record.topic in headed:
            old = stamp_of(data)
            new = stamped.get(old)
            if new is None:
                new = session.node.get_clock().now().nanoseconds
                stamped[old] = new
                played.stamps[new] = old
            data = restamp(data, new)
        publishers[record.topic].publish(data)
        played.sent[names[record.topic]] += 1
        if (now := time.monotonic()) - shown > 0.1:
            on_progress((number + 1) / total, played)
            shown = now
    for publisher in publishers.values():
        _wait_for_acknowledgement(publisher)
    played.seconds = time.monotonic() - start
    on_progress(1.0, played)
    return played


class _Clock:
    """Publishes /clock between two messages, and with each."""

    def __init__(self, session: Session, hz: float, rate: float) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock

        self._message = Clock
        # As rosbag2 publishes it and nodes subscribe to it: the newest counts.
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = session.node.create_publisher(Clock, CLOCK, profile)
        self._session = session
        self._step, self._rate = 1 / hz, rate

    def tick_until(self, time_ns: int, due: float) -> None:
        """Publish the time up to `time_ns`, which comes at the monotonic second `due`."""
        while self._session.running and (left := due - time.monotonic()) > 0:
            self._publish(time_ns - round(left * self._rate * 1e9))
            self._session.sleep(min(left, self._step))
        self._publish(time_ns)

    def _publish(self, time_ns: int) -> None:
        message = self._message()
        message.clock.sec, message.clock.nanosec = divmod(max(0, time_ns), 1_000_000_000)
        self._publisher.publish(message)


def _publisher(session: Session, message: Any, name: str, latched: bool) -> Any:
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    profile = QoSProfile(
        depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=durability
    )
    return session.node.create_publisher(message, name, profile)


def _wait_for_subscribers(
    session: Session,
    publishers: Mapping[str, Any],
    names: Mapping[str, str],
    subscribers: Mapping[str, int],
    timeout: float,
) -> None:
    by_name = {names[recorded]: publisher for recorded, publisher in publishers.items()}

    def count(name: str) -> int:
        if name in by_name:
            return int(by_name[name].get_subscription_count())
        return int(session.node.count_subscribers(name))

    def absent() -> list[str]:
        return [name for name, n in subscribers.items() if count(name) < n]

    if not session.spin_until(lambda: not absent(), timeout) and session.running:
        raise UserError(
            f'no subscriber to {", ".join(absent())} within {timeout:g} s: start it first, check '
            'its namespace and ROS_DOMAIN_ID, or wait for fewer (--wait-for)'
        )
    # We know of the subscribers now; those that publish to them may learn of them a bit later.
    session.spin_for(_SETTLE_S)


def _wait_for_acknowledgement(publisher: Any) -> None:
    """Let the middleware deliver what it still holds before the publisher goes away."""
    from rclpy.duration import Duration

    publisher.wait_for_all_acked(Duration(seconds=2))
