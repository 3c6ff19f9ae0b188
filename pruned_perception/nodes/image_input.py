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

"""The image subscription: its topic, its type, and a reliability that follows the publishers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from pruned_perception.nodes import qos, shared_memory
from pruned_perception.nodes.image_topic import image_topic
from pruned_perception.nodes.parameter_declaration import given_values

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

if TYPE_CHECKING:
    from rclpy.node import Node

TOPIC = 'image_raw'
DEPTH = 5
TYPES: dict[str, Any] = {'raw': Image, 'compressed': CompressedImage}
TYPE_NAMES = {'raw': 'sensor_msgs/msg/Image', 'compressed': 'sensor_msgs/msg/CompressedImage'}
RELIABLE, BEST_EFFORT = 'reliable', 'best_effort'
# Representation identifiers of OMG RTPS 2.3, section 10.2: big and little endian.
_PLAIN_CDR = (b'\x00\x00', b'\x00\x01')
_LEAST_BYTES = 20  # representation and options, stamp, length of the frame_id; and padding


@dataclass(frozen=True)
class Publisher:
    """One publisher of the topic, as the graph shows it."""

    node: str
    type: str
    reliability: str
    gid: bytes = b''
    """The middleware's identifier of the endpoint."""


def choose_reliability(setting: str, offered: Sequence[str], present: str) -> str:
    """Return the reliability to subscribe with.

    `setting` is the parameter image_reliability, `offered` the reliability of every publisher of
    the right type, `present` that of the subscription so far. `auto` is reliable if all publishers
    are: a best-effort reader of a reliable camera loses nearly every large frame, and a reliable
    reader of a best-effort camera is never connected. Without publishers nothing changes.
    """
    if setting != 'auto':
        return setting
    if not offered:
        return present
    return RELIABLE if all(each == RELIABLE for each in offered) else BEST_EFFORT


def _check_stream(data: bytes) -> None:
    """Raise ValueError for what no publisher of ROS 2 sends, and Fast CDR crashes on.

    It takes as many bytes from the stream's end as the options say that padding is, there or not.
    """
    if data[:2] not in _PLAIN_CDR:
        raise ValueError(f'representation {data[:2].hex()}, not plain CDR')
    if len(data) < _LEAST_BYTES:
        raise ValueError('shorter than any message')


class ImageInput:
    """The subscription of `node` to its images, by `image_transport` and `image_reliability`.

    Each message goes to `on_image`; of bytes that are none, `on_malformed` is told why: rclpy alone
    would drop them without a word. `look()` compares the subscription with the publishers and
    renews it where another reliability fits them; events of the middleware call it, and the node
    calls it once a second besides.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        setting: str,
        on_image: Callable[[Any], None],
        on_malformed: Callable[[str], None],
    ) -> None:
        self._node = node
        self.lost = 0
        """Images that never arrived, as the middleware counts them."""
        self._on_image = on_image
        self._on_malformed = on_malformed
        self.transport = transport
        self.type_name = TYPE_NAMES[transport]
        self.topic = image_topic(node.resolve_topic_name(TOPIC), transport)
        override = qos.override_name(self.topic, 'subscription', 'reliability')
        self._overridden = override in given_values(node)
        self._setting = str(given_values(node).get(override, setting))
        self.publishers: tuple[Publisher, ...] = ()
        self.reliability = RELIABLE if self._setting == 'auto' else self._setting
        self._subscription: Any = None
        # A subscription must not be destroyed within its own event's callback.
        self._graph_changed = node.create_guard_condition(self.look)
        self.publishers = self._find_publishers()
        self.reliability = self._choice()
        self._subscribe()

    def look(self) -> None:
        """Look at the publishers, and subscribe anew where they ask for another reliability."""
        if self._subscription is None:
            return
        self.publishers = self._find_publishers()
        wanted = self._choice()
        if wanted != self.reliability:
            self._node.get_logger().info(
                f'{self.topic}: subscribing {wanted} (was {self.reliability}), as its publishers do'
            )
            self.reliability = wanted
            self._node.destroy_subscription(self._subscription)
            self._subscribe()

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_guard_condition(self._graph_changed)
        self._node.destroy_subscription(self._subscription)
        self._subscription = None

    def of_type(self) -> list[Publisher]:
        """Return the publishers whose type is that of the subscription."""
        return [each for each in self.publishers if each.type == self.type_name]

    def unreachable(self) -> list[str]:
        """Return the publishers from which nothing can arrive: their shared memory is elsewhere.

        For use where nothing arrives; see `shared_memory`.
        """
        own = self._own_gid()
        return [
            f'the publisher {each.gid[:12].hex()}'
            for each in self.of_type()
            if each.node.endswith(shared_memory.UNKNOWN_NODE)
            and shared_memory.on_this_host(each.gid, own)
            and shared_memory.has_other_shared_memory(each.gid) is not False
        ]

    def _own_gid(self) -> bytes:
        """Return an identifier of our own subscription; b'' where the graph does not show it."""
        own = (self._node.get_name(), self._node.get_namespace())
        for info in self._node.get_subscriptions_info_by_topic(self.topic):
            if (info.node_name, info.node_namespace) == own:
                return bytes(info.endpoint_gid)
        return b''

    def _choice(self) -> str:
        offered = [each.reliability for each in self.of_type()]
        return choose_reliability(self._setting, offered, self.reliability)

    def _find_publishers(self) -> tuple[Publisher, ...]:
        return tuple(
            Publisher(
                f'{info.node_namespace.rstrip("/")}/{info.node_name}',
                info.topic_type,
                RELIABLE
                if info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
                else BEST_EFFORT,
                bytes(info.endpoint_gid),
            )
            for info in self._node.get_publishers_info_by_topic(self.topic)
        )

    def _subscribe(self) -> None:
        try:
            self._create_subscription(message_lost=self._on_lost)
        except UnsupportedEventTypeError:  # of this middleware
            self._create_subscription()

    def _create_subscription(self, **events: Callable[[Any], None]) -> None:
        reliable = self.reliability == RELIABLE
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        with qos.explained(self.topic):
            self._subscription = self._node.create_subscription(
                TYPES[self.transport],
                self.topic,
                self._on_bytes,
                qos.newest(DEPTH, policy),
                raw=True,
                event_callbacks=self._event_callbacks(events),
                # Declared once, it would hold for all subscriptions: not while we follow others.
                qos_overriding_options=qos.overridable(reliability=self._overridden),
            )

    def _on_bytes(self, data: bytes) -> None:
        try:
            _check_stream(data)
            message = deserialize_message(data, TYPES[self.transport])
        except Exception as error:  # of several types, by middleware and version
            reason = str(error).strip().partition('\n')[0]
            self._on_malformed(
                f'{len(data)} bytes on {self.topic} are no {self.type_name}: {reason}'
            )
        else:
            self._on_image(message)

    def _event_callbacks(
        self, more: Mapping[str, Callable[[Any], None]]
    ) -> SubscriptionEventCallbacks:
        """Look at the graph when the middleware reports a publisher, fitting or not."""
        events = {**more, 'incompatible_qos': self._on_event, 'matched': self._on_event}
        # Humble has no `matched`: there `look` comes once a second.
        known = inspect.signature(SubscriptionEventCallbacks.__init__).parameters
        return SubscriptionEventCallbacks(
            use_default_callbacks=False,
            **{name: callback for name, callback in events.items() if name in known},
        )

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _on_event(self, _event: Any) -> None:
        self._graph_changed.trigger()
