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

"""What the tests of nodes share: an observer of a namespace, nodes in this process or their own."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_domain import DOMAIN
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from pruned_perception.nodes.latest_frame import COUNTERS

TIMEOUT = 60.0  # seconds; only a failing test waits so long
TRANSPORTS = (
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS',
)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process of these tests: their domain, this host alone."""
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(DOMAIN),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        **changes,
    }


def new_context() -> Context:
    """Return an initialised context in the tests' domain, with the middleware's transports."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    for variable in TRANSPORTS:
        os.environ.pop(variable, None)
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    return context


def image_message(
    image: np.ndarray, encoding: str = 'rgb8', *, stamp: int | None = None, step: int | None = None
) -> Image:
    """Return a message of `image`, (H, W) or (H, W, C) uint8; the stamp, ns, is now by default."""
    stamp = time.time_ns() if stamp is None else stamp
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        step=image[0].nbytes if step is None else step,
    )
    message.header.frame_id = 'camera_optical_frame'
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.data = array.array('B', image.tobytes())
    return message


class Observer:
    """A node in a namespace that sends images and keeps what comes back."""

    def __init__(self, context: Context, namespace: str, name: str = 'perception_node') -> None:
        self.context = context
        self.node = rclpy.create_node('observer', namespace=namespace, context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.namespace = namespace
        self.tested = f'{namespace}/{name}'
        self.detections: list[Detection2DArray] = []
        self.statuses: dict[str, Any] = {}
        self.history: dict[str, list[Any]] = defaultdict(list)
        self.node.create_subscription(
            Detection2DArray, 'detections', self.detections.append, QoSProfile(depth=100)
        )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 100)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id == self.tested:
                topic = status.name.removeprefix(f'{self.tested}: ')
                self.statuses[topic] = status
                self.history[topic].append(status)

    def wait(self, condition: Callable[[], Any], what: str = '') -> Any:
        """Run callbacks until `condition()` is true, and return its value; fail in the end."""
        end = time.monotonic() + TIMEOUT
        while not (value := condition()):
            assert time.monotonic() < end, f'waited in vain: {what}; last status {self.summary()}'
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def summary(self) -> dict[str, str]:
        return {topic: status.message for topic, status in self.statuses.items()}

    def status(self, topic: str, words: str, level: int | None = None) -> Any:
        """Wait for a status with `words` in its message, and return it."""

        def found() -> Any:
            for status in self.history[topic]:
                if words in status.message and level in (None, status.level[0]):
                    return status
            return None

        return self.wait(found, f'{topic}: …{words}…')

    def value(self, topic: str, key: str) -> str:
        """Return a value of the latest status; '' before the first one."""
        return values(self.statuses[topic]).get(key, '') if topic in self.statuses else ''

    def collect(self, type_: Any, topic: str, qos: Any = 100) -> list[Any]:
        """Subscribe, and return the list that the messages go to."""
        messages: list[Any] = []
        self.node.create_subscription(type_, topic, messages.append, qos)
        return messages

    def camera(self, type_: Any = Image, topic: str = 'image_raw', *, reliable: bool = True) -> Any:
        """Return a publisher of images to which the node has subscribed."""
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=10, reliability=policy)
        publisher = self.node.create_publisher(type_, topic, qos)
        self.wait(publisher.get_subscription_count, f'a subscription to {topic}')
        return publisher

    def detect(self, camera: Any, message: Any) -> Detection2DArray:
        """Send one image until its detections are back, and return them.

        A frame may be lost on its way (best effort, or a subscription that is just being made),
        so it is sent again from time to time, as a camera would.
        """
        key = message.header.stamp
        sent = -1.0

        def found() -> Detection2DArray | None:
            nonlocal sent
            if time.monotonic() > sent + 1.0:
                camera.publish(message)
                sent = time.monotonic()
            return next((each for each in self.detections if each.header.stamp == key), None)

        return self.wait(found, f'detections of {message.header}')

    def call(self, type_: Any, service: str, request: Any) -> Any:
        """Call a service of the tested node."""
        client = self.node.create_client(type_, f'{self.tested}/{service}')
        self.wait(client.service_is_ready, service)
        future = client.call_async(request)
        self.wait(future.done, service)
        self.node.destroy_client(client)
        return future.result()

    def set(self, **values: Any) -> SetParametersResult:
        """Set parameters of the tested node; return the last result."""
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        request = SetParameters.Request(parameters=[each.to_parameter_msg() for each in parameters])
        return self.call(SetParameters, 'set_parameters', request).results[-1]

    def describe(self, names: Sequence[str]) -> Sequence[Any]:
        request = DescribeParameters.Request(names=list(names))
        return self.call(DescribeParameters, 'describe_parameters', request).descriptors

    def transition(self, label: str) -> bool:
        """Trigger a transition of the tested node; tell whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(ChangeState, 'change_state', request).success)

    def state(self) -> str:
        return str(self.call(GetState, 'get_state', GetState.Request()).current_state.label)

    def counts(self) -> dict[str, int]:
        """Return the latest accounts of frames; {} before the first report."""
        status = self.statuses.get('frames')
        return {} if status is None else counts_of(status)

    def settled_counts(self) -> dict[str, int]:
        """Return the accounts once every frame that has arrived so far is in them."""
        reports = len(self.history['frames'])
        self.wait(
            lambda: len(self.history['frames']) >= reports + 2 and not self.counts()['waiting'],
            'the accounts',
        )
        return self.counts()


def balanced(counts: Mapping[str, int]) -> bool:
    """Tell whether received = published + superseded + stale + error + waiting."""
    outcomes = ('published', 'superseded', 'stale', 'error', 'waiting')
    return counts['received'] == sum(counts[each] for each in outcomes)


def values(status: Any) -> dict[str, str]:
    """Return the values of a diagnostic status."""
    return {pair.key: pair.value for pair in status.values}


def counts_of(status: Any) -> dict[str, int]:
    """Return the accounts in a status `frames`."""
    accounts = (*COUNTERS, 'waiting', 'lost')
    return {key: int(value) for key, value in values(status).items() if key in accounts}


class InProcess:
    """A node of this process, spun by a thread."""

    def __init__(
        self,
        context: Context,
        create_node: Callable[..., Any],
        namespace: str,
        parameters: Mapping[str, Any],
        arguments: Sequence[str] = (),
    ) -> None:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = create_node(
            context=context,
            namespace=namespace,
            parameter_overrides=overrides,
            cli_args=['--ros-args', *arguments] if arguments else None,
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        started = self._executor.create_task(self.node.start)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        end = time.monotonic() + TIMEOUT
        while not started.done():
            assert time.monotonic() < end, 'the node has not started'
            time.sleep(0.01)
        started.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(TIMEOUT)
        self.node.stop()
        self.node.destroy_node()


class NodeProcess:
    """A node as a process; its output goes to a file."""

    def __init__(
        self,
        log: Path,
        name: str,
        namespace: str,
        parameters: Mapping[str, Any],
        *,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        **environment_changes: str,
    ) -> None:
        command = [*prefix, sys.executable, '-m', f'pruned_perception.nodes.{name}', '--ros-args']
        command += ['-r', f'__ns:={namespace}', *arguments]
        for key, value in parameters.items():
            command += ['-p', f'{key}:={value}']
        self._log = log
        with log.open('wb') as output:
            self.process = subprocess.Popen(
                command,
                env=environment(**environment_changes),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors='replace')

    def signals_are_ours(self) -> bool:
        """Tell whether the process has come so far that it handles SIGINT and SIGTERM itself."""
        try:
            lines = Path(f'/proc/{self.process.pid}/status').read_text().splitlines()
        except FileNotFoundError:
            return False
        blocked = next((int(line.split()[1], 16) for line in lines if line[:6] == 'SigBlk'), 0)
        wanted = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGTERM - 1)
        return blocked & wanted == wanted

    def wait(self) -> int:
        """Wait for the end of the process, and return its status."""
        return self.process.wait(TIMEOUT)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, and return the status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
