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

"""An ordinary ROS 2 node for the length of a `with` block, ended by Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pruned_perception.errors import UserError
from pruned_perception.nodes import security, transport


class Session:
    """A node, its executor, and whether somebody asked it to stop."""

    def __init__(self, node: Any, executor: Any, stop: threading.Event) -> None:
        self.node = node
        self._executor = executor
        self._stop = stop

    @property
    def running(self) -> bool:
        """False once Ctrl-C or SIGTERM came."""
        return not self._stop.is_set()

    def spin_for(self, seconds: float) -> None:
        """Run callbacks for `seconds`, or until asked to stop."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Run callbacks until `condition()` holds; False after `timeout` s or when stopped."""
        end = time.monotonic() + timeout
        while self.running:
            if condition():
                return True
            left = end - time.monotonic()
            if left <= 0:
                break
            # Short waits: Python's signal handlers run only between two of them.
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return False

    def sleep(self, seconds: float) -> None:
        """Wait without running callbacks (a publisher needs none), or until asked to stop."""
        self._stop.wait(max(0.0, seconds))


def private_domain() -> dict[str, str]:
    """Return the variables of a domain that nobody else uses, on this host alone."""
    return {
        'ROS_DOMAIN_ID': str(1 + os.getpid() % 100),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }


@contextmanager
def ros_session(name: str, *, use_sim_time: bool = False, enclave: str = '') -> Iterator[Session]:
    """Create a node `name`; SIGINT and SIGTERM end the session instead of the process.

    Images travel by the project's transport profile, unless the user has chosen transports.

    Raises:
        UserError: rclpy is not importable, or the middleware cannot be as secure as it is asked to.
    """
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise UserError(
            'rclpy is not importable: source a ROS 2 workspace, or enter the environment with '
            f'./dev shell ({error})'
        ) from error

    os.environ.update(transport.environment(os.environ))
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {each: signal.signal(each, ask_to_stop) for each in (signal.SIGINT, signal.SIGTERM)}
    context = rclpy.Context()
    arguments = ['--ros-args', '--enclave', enclave] if enclave else None
    try:
        with security.explained():
            rclpy.init(
                args=arguments, context=context, signal_handler_options=SignalHandlerOptions.NO
            )
            node = rclpy.create_node(
                name,
                context=context,
                parameter_overrides=[Parameter('use_sim_time', value=use_sim_time)],
                enable_rosout=False,
            )
        if open_door := security.remark(node, os.environ):
            node.get_logger().warning(open_door)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            yield Session(node, executor, stop)
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
        for each, handler in before.items():
            signal.signal(each, handler)


def matching_qos(publishers: Sequence[Any], depth: int, *, latched: bool | None = None) -> Any:
    """Return a subscriber's QoS that gets the most out of `publishers` (TopicEndpointInfo).

    Reliable where all publishers are; transient local where all are, or where `latched` says so.
    A subscriber that asks for more than a publisher offers would get nothing from it.
    """
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

    profiles = [each.qos_profile for each in publishers]
    reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in profiles)
    if latched is None:
        latched = bool(profiles) and all(
            each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in profiles
        )
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
