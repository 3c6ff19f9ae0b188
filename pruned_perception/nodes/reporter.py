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

"""The node's reports: `~/metrics` and `/diagnostics`, once a second."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from statistics_msgs.msg import MetricsMessage

from pruned_perception._tables import printable
from pruned_perception.inference import latency as lat
from pruned_perception.nodes import diagnostics, messages, qos, shared_memory
from pruned_perception.nodes.frame_watch import FrameWatch
from pruned_perception.nodes.header_stamps import StampCounts, StampWatch
from pruned_perception.nodes.image_input import ImageInput
from pruned_perception.nodes.latest_frame import FrameCounts
from pruned_perception.nodes.machine import processor_times, usable_cores

if TYPE_CHECKING:
    from rclpy.node import Node

    from pruned_perception.nodes.image_node import Pipeline

RECENT_REPORTS = 10


class Reporter:
    """Collects what the node's threads measure and publishes it.

    `recorder` and `watch` take what the worker notices, `stamps` what the callback does.
    """

    def __init__(self, node: Node, depth: int) -> None:
        self._node = node
        self._name = node.get_fully_qualified_name()
        self._diagnostics = node.create_publisher(
            DiagnosticArray, '/diagnostics', qos.reliable(depth)
        )
        with qos.explained(f'{self._name}/metrics'):
            self._metrics = node.create_publisher(
                MetricsMessage,
                '~/metrics',
                qos.reliable(depth),
                qos_overriding_options=qos.overridable(),
            )
        self.recorder = lat.LatencyRecorder()
        self.reset()
        self._jump_handle = node.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._on_time_jump,
        )

    def reset(self) -> None:
        """Start anew, at activation."""
        self.stamps = StampWatch()
        self.watch = FrameWatch()
        self.last_rx = time.monotonic_ns()
        self.recorder.take()
        self.recorder.restart_intervals()
        self._recent: deque[lat.Window] = deque(maxlen=RECENT_REPORTS)
        self._lost: deque[int] = deque([0], maxlen=RECENT_REPORTS + 1)
        self._counts_before = FrameCounts()
        self._stamps_before = StampCounts()
        self._jumps = self._jumps_before = 0
        self._jump_s = 0.0
        self._now_before = -1
        self._lost_port_before: int | None = None
        self._window_start = self._node.get_clock().now().to_msg()
        self._cpu_before = (time.process_time(), time.monotonic())
        self._processors_before = processor_times()

    def report_inactive(self, status: diagnostics.Status, left_behind: diagnostics.Status) -> None:
        """Publish the diagnostics of a node that is not active."""
        worse = left_behind.level != diagnostics.OK
        self._publish([status, left_behind] if worse else [status])

    def report(
        self,
        image_input: ImageInput,
        counts: FrameCounts,
        pipeline: Pipeline,
        parameters: Mapping[str, Any],
        worker: diagnostics.Status,
        not_swapped: str,
    ) -> str:
        """Publish the metrics of the last second and the diagnostics of an active node.

        `not_swapped`: why another model that was asked for has not taken over; '' for nothing.
        Returns why the process will never hear an image again; '' where it may.
        """
        window, cpu = self.recorder.take(), self._cpu_percent()
        machine = diagnostics.Machine(
            self._busy_percent(), usable_cores(), parameters.get('threads', 1)
        )
        self._recent.append(window)
        self._lost.append(image_input.lost)
        recent = lat.merge(tuple(self._recent))
        self._publish_metrics(window, cpu)

        budget_ms = parameters['latency_budget_ms']
        stamps = self.stamps.counts
        now = self._node.get_clock().now().nanoseconds
        sim_time = bool(self._node.get_parameter('use_sim_time').value)
        content, failures, made = self.watch.take()
        filters, contract, watch = pipeline.filters, pipeline.contract, pipeline.watch
        silent_s = (time.monotonic_ns() - self.last_rx) / 1e9
        silent = silent_s > parameters['image_timeout_s']
        lost_port = shared_memory.lost_port() if silent and image_input.publishers else None
        state = diagnostics.Input(
            topic=image_input.topic,
            type=image_input.type_name,
            transport=image_input.transport,
            reliability=image_input.reliability,
            publishers=[
                (each.node, each.type, each.reliability) for each in image_input.publishers
            ],
            received=counts.received,
            silent_s=silent_s,
            unreachable=image_input.unreachable() if silent and not counts.received else (),
            # Once alone, it might be about to be made anew.
            lost_port=lost_port if lost_port == self._lost_port_before else None,
            lost=image_input.lost,
            lost_recently=self._lost[-1] - self._lost[0],
            received_recently=recent.received,
        )
        input_status = diagnostics.image_input(
            state, parameters['image_timeout_s'], window.received / window.seconds
        )
        if state.unreachable:  # diagnostics do not leave this /dev/shm either
            self._node.get_logger().error(
                printable(input_status.message), throttle_duration_sec=30.0
            )
        elif input_status.level == diagnostics.WARN:
            self._node.get_logger().warning(
                printable(input_status.message), throttle_duration_sec=30.0
            )
        statuses = [
            input_status,
            diagnostics.image_content(content),
            diagnostics.stamps(stamps, stamps.since(self._stamps_before), sim_time),
            diagnostics.clock(
                sim_time=sim_time,
                now_ns=now,
                stands_still=now == self._now_before,
                jumps=self._jumps,
                jumped=self._jumps > self._jumps_before,
                jump_s=self._jump_s,
            ),
            worker,
            diagnostics.frames(counts, self._counts_before, recent, machine, image_input.lost),
            diagnostics.latency(
                window,
                recent,
                budget_ms,
                {
                    'cpu_percent': cpu,
                    'rss_mib': _resident_mib(),
                    'machine_busy_percent': (
                        '' if machine.busy_percent is None else machine.busy_percent
                    ),
                },
                machine,
            ),
            diagnostics.model(pipeline.description, failures, not_swapped),
            *([] if contract is None else [diagnostics.contract(contract, budget_ms)]),
            *([] if filters is None else [diagnostics.settings(filters)]),
            *([] if watch is None else [diagnostics.watch(watch)]),
        ]
        made_by = ', '.join(f'{name} {count}' for name, count in made.items())
        member = {'model': pipeline.description['model'], 'results_made_by': made_by}
        statuses = [replace(each, values={**each.values, **member}) for each in statuses]
        self._counts_before, self._stamps_before = counts, stamps
        self._jumps_before, self._now_before = self._jumps, now
        self._lost_port_before = lost_port
        self._publish(statuses)
        return '' if state.lost_port is None else input_status.message

    def _publish(self, statuses: list[diagnostics.Status]) -> None:
        stamp = self._node.get_clock().now().to_msg()
        statuses = [*statuses, self._name_status()]
        self._diagnostics.publish(messages.diagnostic_array(stamp, self._name, statuses))

    def _publish_metrics(self, window: lat.Window, cpu: float) -> None:
        """Publish at most ten messages, the depth of the topic, so that no window is cut."""
        start, stop = self._window_start, self._node.get_clock().now().to_msg()
        self._window_start = stop
        samples = {name: window.samples.get(name) for name in lat.QUANTITIES}
        for quantity, values in {**samples, 'cpu': np.array([cpu])}.items():
            if values is not None:
                unit = 'percent' if quantity == 'cpu' else 'ms'
                self._metrics.publish(
                    messages.metrics_message(self._name, quantity, unit, values, (start, stop))
                )

    def _name_status(self) -> diagnostics.Status:
        own = (self._node.get_name(), self._node.get_namespace())
        same = self._node.get_node_names_and_namespaces().count(own)
        status = diagnostics.node_name(self._name, same)
        if status.level != diagnostics.OK:
            self._node.get_logger().warning(status.message, throttle_duration_sec=60.0)
        return status

    def _cpu_percent(self) -> float:
        """Return the process's CPU seconds per wall second since the last call; 100 = one core."""
        now = (time.process_time(), time.monotonic())
        before, self._cpu_before = self._cpu_before, now
        return 100 * (now[0] - before[0]) / max(1e-9, now[1] - before[1])

    def _busy_percent(self) -> float | None:
        """Return how busy all processors were since the last call; None where it is not known."""
        now = processor_times()
        before, self._processors_before = self._processors_before, now
        if now is None or before is None or now[1] <= before[1]:
            return None
        return 100 * (1 - (now[0] - before[0]) / (now[1] - before[1]))

    def _on_time_jump(self, jump: TimeJump) -> None:
        """Start the windows anew: ages across a jump back of the clock mean nothing."""
        self._jumps += 1
        self._jump_s = jump.delta.nanoseconds / 1e9
        self._recent.clear()
        self.recorder.take()


def _resident_mib() -> float:
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / (1 << 20)
