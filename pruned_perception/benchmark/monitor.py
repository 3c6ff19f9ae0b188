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

"""What an outside subscriber sees of running perception nodes: rates, latency, drops, loss.

It costs little: it subscribes to detections, metrics, diagnostics and `camera_info`, never to
images unless asked. Frames sent are counted by `camera_info`, of which a camera sends one per
frame; where there is none they are not counted, rather than guessed. Which images, says the graph:
those that the node subscribes to, under whatever names; and the `camera_info` beside them.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from pruned_perception.benchmark.accuracy import boxes_of
from pruned_perception.benchmark.bag import message_class
from pruned_perception.benchmark.recorder import Received
from pruned_perception.benchmark.session import Session, matching_qos
from pruned_perception.inference.latency import (
    DROP_REASONS,
    NS_PER_MS,
    QUANTITIES,
    Summary,
    summarize,
)
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.image_input import TYPE_NAMES
from pruned_perception.nodes.latest_frame import COUNTERS

DETECTIONS_TYPE = 'vision_msgs/msg/Detection2DArray'
COUNT_BY = ('camera_info', 'image', 'none')

_KEEP = 100_000  # newest frames that percentiles "since the start" go over
_DEPTH = 100
_UNKNOWN = '_NODE_NAME_UNKNOWN_'  # rcl's word for it
_LEVELS = ('OK', 'WARN', 'ERROR', 'STALE')


@dataclass(frozen=True)
class Names:
    """Names of a camera's topics, relative to its namespace."""

    detections: str = 'detections'
    image: str = 'image_raw'
    camera_info: str = 'camera_info'


@dataclass(frozen=True)
class Report:
    """One camera's figures; times in milliseconds, rates per second, None = not known.

    `e2e_receive` is measured here, header stamp → this subscriber's callback. `stages` are the
    node's own percentiles (over the window of its diagnostics), `means` those of its last
    metrics. `sent` (by the camera's sequence numbers), `published` and `drops` count frames since
    the node was first seen to receive them; `loss_in` are those that never reached it:
    sent − published − drops − waiting, within one frame under way. `loss_out` are gaps in the
    sequence numbers of its detections. `counters` are the node's own, since its activation.
    """

    namespace: str
    node: str | None
    model: str | None
    clock: str
    rate_in: float | None
    rate_out: float
    sent: int | None
    published: int | None
    received: int
    e2e_receive: Summary | None
    invalid_stamps: int
    stages: dict[str, dict[str, float]]
    means: dict[str, float]
    drops: dict[str, int] | None
    loss_in: int | None
    loss_out: int | None
    counters: dict[str, int]
    status: tuple[str, str] | None
    """The worst level of the node's diagnostics, and what it says."""
    cpu_percent: float | None
    """Of the node's process while it works, 100 = one core, as it says itself; median."""
    rss_mib: float | None
    trouble: str | None
    """Why nothing arrives; None where detections do."""
    watch: str | None = None
    """What is known against the model's certificate, where the node watches it."""
    lost_on_the_way: int | None = None
    """Images that never reached the node, as its middleware counts them, since its activation."""


@dataclass(frozen=True)
class Balance:
    """Frames sent and a node's counters at one moment."""

    sent: int | None
    counters: dict[str, int]
    waiting: int = 0

    def since(self, start: Balance) -> dict[str, Any]:
        """Return the frames sent, published, dropped by reason and lost since `start`.

        Sent and lost are None where frames are not counted. The loss is never negative: a frame
        that the node had before this process met the camera is none that came from nowhere.
        """
        step = {key: self.counters.get(key, 0) - start.counters.get(key, 0) for key in COUNTERS}
        drops = {reason: step[reason] for reason in DROP_REASONS}
        sent = None if self.sent is None else self.sent - (start.sent or 0)
        accounted = step['published'] + sum(drops.values()) + self.waiting - start.waiting
        return {
            'sent': sent,
            'published': step['published'],
            'drops': drops,
            'loss_in': None if sent is None else max(0, sent - accounted),
        }


class Camera:
    """One namespace with a camera and a perception node, observed from outside.

    `records`, if given, takes one JSON line per message of detections: namespace, stamp and time
    of receipt (ns), boxes [centre x, centre y, width, height, score, class id].
    """

    def __init__(
        self, session: Session, namespace: str, names: Names, count_by: str, records: IO[str] | None
    ) -> None:
        prefix = namespace.rstrip('/')
        self.namespace = namespace
        self.detections_topic = _in(prefix, names.detections)
        image = _in(prefix, names.image)
        self.image_topics: tuple[str, ...] = (image, f'{image}/compressed')
        self.info_topic = _in(prefix, names.camera_info)
        self._names = names
        self._count_by = count_by
        self.node: str | None = None
        self.model: str | None = None
        self.status: tuple[str, str] | None = None
        self.watch: str | None = None
        self.received = Received()
        self.counted: Received | None = None
        self.invalid_stamps = 0
        self._session = session
        self._records = records
        self._stages: dict[str, dict[str, float]] = {}
        self._means: dict[str, float] = {}
        self._cpu_percent: deque[float] = deque(maxlen=_KEEP)
        self._rss_mib: float | None = None
        self._lost: int | None = None
        self._first: Balance | None = None
        self._last: Balance | None = None
        self._counting: Any = None
        self._arrivals: deque[float] = deque(maxlen=_KEEP)
        self._ages: deque[tuple[float, float]] = deque(maxlen=_KEEP)
        self._sent: deque[float] = deque(maxlen=_KEEP)

    def look(self) -> None:
        """Subscribe to what has appeared in the graph since the last call."""
        node = self._session.node
        publishers = [
            each
            for each in node.get_publishers_info_by_topic(self.detections_topic)
            # A publisher can be discovered before the node that it belongs to.
            if each.topic_type == DETECTIONS_TYPE and _UNKNOWN not in each.node_name
        ]
        if self.node is None and publishers:
            self.node = f'{publishers[0].node_namespace.rstrip("/")}/{publishers[0].node_name}'
            self._subscribe(self.detections_topic, DETECTIONS_TYPE, self._on_detections, publishers)
            self._subscribe(
                f'{self.node}/metrics', 'statistics_msgs/msg/MetricsMessage', self._on_metrics
            )
            self._subscribe(
                f'{self.node}/active_model', 'std_msgs/msg/String', self._on_model, latched=True
            )
        self._follow()
        for topic in self.count_topics if self.counted is None else ():
            if publishers := node.get_publishers_info_by_topic(topic):
                self.counted = Received()
                self._counting = self._subscribe(
                    topic, publishers[0].topic_type, self._on_frame, publishers, raw=True
                )
                break

    @property
    def count_topics(self) -> tuple[str, ...]:
        """The topics by which frames may be counted: the first one that is there."""
        by = {'camera_info': (self.info_topic,), 'image': self.image_topics, 'none': ()}
        return by[self._count_by]

    def _follow(self) -> None:
        """Take the names of the images from the node's own subscriptions, which may be remapped."""
        from rclpy.node import NodeNameNonExistentError

        if self.node is None or self._names.image != Names.image:
            return
        node, (space, _, name) = self._session.node, self.node.rpartition('/')
        try:
            found = node.get_subscriber_names_and_types_by_node(name, space or '/')
        except NodeNameNonExistentError:  # it has gone
            return
        images = tuple(sorted(topic for topic, types in found if _of_images(types)))
        if not images or set(images) <= set(self.image_topics):
            return
        before, self.image_topics = self.count_topics, images
        if self._names.camera_info == Names.camera_info:
            folder = images[0].removesuffix('/compressed').rpartition('/')[0]
            self.info_topic = f'{folder}/{Names.camera_info}'
        if self._counting is not None and self.count_topics != before:
            node.destroy_subscription(self._counting)
            self.counted = self._counting = self._first = None
            self._sent.clear()

    def _subscribe(
        self,
        topic: str,
        type_name: str,
        callback: Any,
        publishers: Sequence[Any] = (),
        latched: bool | None = None,
        raw: bool = False,
    ) -> Any:
        qos = matching_qos(publishers, _DEPTH, latched=latched)
        message = message_class(type_name)
        return self._session.node.create_subscription(message, topic, callback, qos, raw=raw)

    def _on_detections(self, message: Any, info: Any) -> None:
        now = self._session.node.get_clock().now().nanoseconds
        arrived = time.monotonic()
        self.received.add(info)
        self._arrivals.append(arrived)
        stamp = stamp_ns(message.header.stamp)
        if stamp == 0 or now < stamp:
            self.invalid_stamps += 1
        else:
            self._ages.append((arrived, (now - stamp) / NS_PER_MS))
        if self._records is not None:
            line = {
                'namespace': self.namespace,
                'stamp': stamp,
                'received': now,
                'boxes': boxes_of(message),
            }
            self._records.write(json.dumps(line) + '\n')

    def _on_frame(self, _data: bytes, info: Any) -> None:
        if self.counted is None:  # of a subscription that has just been given up
            return
        self.counted.add(info)
        self._sent.append(time.monotonic())

    def _on_metrics(self, message: Any) -> None:
        from statistics_msgs.msg import StatisticDataType

        for point in message.statistics:
            is_mean = point.data_type == StatisticDataType.STATISTICS_DATA_TYPE_AVERAGE
            if is_mean and math.isfinite(point.data):
                self._means[message.metrics_source] = point.data

    def _on_model(self, message: Any) -> None:
        self.model = json.loads(message.data)['model']

    def on_diagnostics(self, statuses: Sequence[Any]) -> None:
        """Take in those statuses of a DiagnosticArray that are of this camera's node."""
        own = [each for each in statuses if self.node and each.hardware_id == self.node]
        if not own:
            return
        values = {pair.key: pair.value for each in own for pair in each.values}
        worst = max(own, key=_severity)
        level = _severity(worst)
        self.status = (_LEVELS[level], worst.message if level else 'working')
        self.watch = next(
            (each.message for each in own if each.name == f'{self.node}: watch'), self.watch
        )
        self._rss_mib = _number(values.get('rss_mib'))
        if values.get('lost', '').isdigit():
            self._lost = int(values['lost'])
        for quantity in QUANTITIES:
            percentiles = {
                key: number
                for key in ('p50', 'p90', 'p99')
                if (number := _number(values.get(f'{quantity}_{key}_ms'))) is not None
            }
            if percentiles:
                self._stages[quantity] = percentiles
        counters = {key: int(values[key]) for key in COUNTERS if values.get(key, '').isdigit()}
        if set(counters) != set(COUNTERS):
            return
        cpu = _number(values.get('cpu_percent'))
        worked = self._last is not None and counters != self._last.counters
        if worked and cpu is not None:  # an idle node's share says nothing about its cost
            self._cpu_percent.append(cpu)
        waiting = int(_number(values.get('waiting')) or 0)
        before, self._last = self._last, Balance(self.sent, counters, waiting)
        restarted = before is not None and counters['received'] < before.counters['received']
        if restarted:
            self._first = None
        begins = self._first is None or (self._first.sent is None and self.sent is not None)
        if counters['received'] > 0 and begins:
            self._first = self._last  # from here on, node and monitor both see the camera

    @property
    def last_arrival(self) -> float:
        """Monotonic seconds of the last detections; −inf before any."""
        return self._arrivals[-1] if self._arrivals else -math.inf

    @property
    def sent(self) -> int | None:
        """Frames the camera sent since the first one seen here; None where not counted."""
        if self.counted is None or not self.counted.count:
            return None
        return self.counted.count + (self.counted.lost or 0)

    def report(self, seconds: float, trouble: str | None = None) -> Report:
        """Return the figures of the last `seconds`, and the totals."""
        since = time.monotonic() - seconds
        balance = dict.fromkeys(('published', 'drops', 'loss_in'), None) | {'sent': self.sent}
        if self._first is not None and self._last is not None:
            balance = self._last.since(self._first)
        sim_time = self._session.node.get_parameter('use_sim_time').value
        ages = [age for arrived, age in self._ages if arrived >= since]
        return Report(
            namespace=self.namespace,
            node=self.node,
            model=self.model,
            clock='sim' if sim_time else 'system',
            rate_in=None
            if self.counted is None
            else sum(each >= since for each in self._sent) / seconds,
            rate_out=sum(each >= since for each in self._arrivals) / seconds,
            received=self.received.count,
            e2e_receive=summarize(ages, resamples=0),
            invalid_stamps=self.invalid_stamps,
            stages=dict(self._stages),
            means=dict(self._means),
            **balance,
            counters=self._last.counters if self._last else {},
            loss_out=self.received.lost,
            status=self.status,
            cpu_percent=float(np.median(self._cpu_percent)) if self._cpu_percent else None,
            rss_mib=self._rss_mib,
            trouble=trouble,
            watch=self.watch,
            lost_on_the_way=self._lost,
        )


class Monitor:
    """Observes the cameras of the given namespaces, or all that the graph shows."""

    def __init__(
        self,
        session: Session,
        namespaces: Sequence[str] = (),
        *,
        names: Names | None = None,
        count_by: str = 'camera_info',
        records: IO[str] | None = None,
    ) -> None:
        self.cameras: dict[str, Camera] = {}
        self._session = session
        self._names = names or Names()
        self._count_by = count_by
        self._records = records
        self._discover = not namespaces
        self._start = time.monotonic()
        for namespace in namespaces:
            self._add('/' + namespace.strip('/'))
        session.node.create_subscription(
            message_class('diagnostic_msgs/msg/DiagnosticArray'),
            '/diagnostics',
            self._on_diagnostics,
            _DEPTH,
        )

    def look(self) -> None:
        """Take up cameras and topics that have appeared."""
        if self._discover:
            for topic, types in self._session.node.get_topic_names_and_types():
                namespace, _, name = topic.rpartition('/')
                if name == self._names.detections and DETECTIONS_TYPE in types:
                    self._add(namespace or '/')
        for camera in self.cameras.values():
            camera.look()

    def spin(self, seconds: float) -> None:
        """Observe for `seconds`."""
        end = time.monotonic() + seconds
        while self._session.running and (left := end - time.monotonic()) > 0:
            self.look()
            self._session.spin_for(min(left, 0.5))

    def reports(self, seconds: float) -> list[Report]:
        """Return each camera's figures over the last `seconds`."""
        seconds = min(seconds, time.monotonic() - self._start)
        return [
            camera.report(seconds, self._trouble(camera, seconds))
            for camera in self.cameras.values()
        ]

    def totals(self) -> list[Report]:
        """Return each camera's figures since the start."""
        return self.reports(math.inf)

    @property
    def nothing(self) -> str:
        """Why there is no camera to show."""
        return f'no topic {self._names.detections} ({DETECTIONS_TYPE}) anywhere; {self._seen()}'

    def _add(self, namespace: str) -> None:
        if namespace not in self.cameras:
            camera = Camera(self._session, namespace, self._names, self._count_by, self._records)
            self.cameras[namespace] = camera

    def _on_diagnostics(self, message: Any) -> None:
        for camera in self.cameras.values():
            camera.on_diagnostics(message.status)

    def _trouble(self, camera: Camera, seconds: float) -> str | None:
        """Say why no detections arrived in the last `seconds`; None where some did."""
        since = max(self._start, time.monotonic() - seconds)
        if camera.last_arrival >= since:
            return None
        node = self._session.node
        publishers = node.get_publishers_info_by_topic(camera.detections_topic)
        if not publishers:
            return f'nobody publishes {camera.detections_topic}; {self._seen()}'
        if camera.node is None:
            types = ', '.join(sorted({each.topic_type for each in publishers}))
            return f'{camera.detections_topic} has type {types}, not {DETECTIONS_TYPE}'
        if not any(node.count_publishers(topic) for topic in camera.image_topics):
            return (
                f'{camera.node} runs, but nobody publishes {" or ".join(camera.image_topics)}'
                f'{self._advice(camera)}'
            )
        if camera.status is not None and camera.status[0] != 'OK':
            return f'{camera.node} says: {camera.status[1]}'
        return (
            f'{camera.node} and its camera are listed, but no detections arrive: does the process '
            'run (one that was killed is listed for some 20 s), is the node active, and does it '
            'receive frames (reliability, transport)? See /diagnostics'
        )

    def _advice(self, camera: Camera) -> str:
        """Return the command that starts the node on images that are there, as it is typed."""
        there = {
            topic: types
            for topic, types in self._session.node.get_topic_names_and_types()
            if _of_images(types)
            and not topic.endswith('/annotated_image')  # what nodes draw
            and self._session.node.count_publishers(topic)
        }
        if not there:
            return ', nor any other images: start the camera, in the same ROS_DOMAIN_ID'
        topic, types = next(iter(sorted(there.items())))
        command = ['pruned-perception up perception']
        if camera.namespace != '/':
            command.append(f'namespace:={camera.namespace}')
        command.append(f'image:={topic.removesuffix("/compressed")}')
        if TYPE_NAMES['raw'] not in types:
            command.append('image_transport:=compressed')
        return f'; images come on {", ".join(sorted(there))}: {" ".join(command)}'

    def _seen(self) -> str:
        domain = os.environ.get('ROS_DOMAIN_ID', '0')
        reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
        own = self._session.node.get_fully_qualified_name()
        pairs = self._session.node.get_node_names_and_namespaces()
        others = sorted({f'{space.rstrip("/")}/{name}' for name, space in pairs} - {own})
        where = f'ROS_DOMAIN_ID {domain}, discovery range {reach}'
        if not others:
            return f'no other node is seen at all ({where})'
        shown = ', '.join(others[:5]) + (', …' if len(others) > 5 else '')
        return f'seen: {shown} ({where})'


def _of_images(types: Sequence[str]) -> bool:
    return not set(TYPE_NAMES.values()).isdisjoint(types)


def _in(prefix: str, name: str) -> str:
    """Return a name in a namespace, or a full one as it is."""
    return name if name.startswith('/') else f'{prefix}/{name}'


def _severity(status: Any) -> int:
    level = status.level  # one byte: rclpy gives bytes, messages made by hand may hold an int
    return min(level[0] if isinstance(level, bytes) else int(level), len(_LEVELS) - 1)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or '')
    except ValueError:
        return None
    return number if math.isfinite(number) else None
