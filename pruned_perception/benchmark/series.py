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

"""One node on one series of frames: what an outside subscriber and the node itself saw of it.

Node, camera and what else runs are processes of their own; the subscriber is this process.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception.benchmark.accuracy import boxes_of
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.results import read_json_lines
from pruned_perception.benchmark.session import Session
from pruned_perception.errors import UserError
from pruned_perception.inference.latency import NS_PER_MS
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.latest_frame import COUNTERS
from pruned_perception.nodes.up import node_command

START_S = 30.0
_WATCHED = ('compared', 'skipped')
SATURATED_SHARE = 0.01
"""Of the frames received that gave way to newer ones, from which on a run is saturated."""
SATURATED_BUSY = 0.9
"""Share of the time in which the worker is busy, from which on a run is saturated."""

QUIET_S = 1.0
"""Without detections for longer, or for three periods, a camera that is not ours has ended."""

Started = Callable[[Session, Children, Child], None]


@dataclass(frozen=True)
class Series:
    """What became of the frames; stamps and clocks in nanoseconds."""

    node: str
    sent: tuple[int, ...]
    """Stamps of the frames, in order; () where the camera is not ours."""
    indices: tuple[int, ...]
    """Which of the source's frames each was."""
    counts: Mapping[str, int]
    """The node's own accounts: received, published, superseded, stale, error."""
    received: Mapping[int, int]
    """Stamp → the outside subscriber's clock at receipt of the detections."""
    boxes: Mapping[int, list[list[Any]]]
    """Stamp → rows of `accuracy.boxes_of`."""
    truth: Mapping[int, list[list[Any]]]
    """Stamp → rows of the ground truth that the camera publishes; {} where it has none."""
    timings: Sequence[Mapping[str, Any]]
    """Lines of the node's timings file."""
    models: Sequence[tuple[int, str]]
    """(stamp from which on, name) as the node announced them."""
    first_detection_s: float
    """From the start of the node's process."""
    cpu_percent: float
    """Of the node's process while frames came; 100 = one core."""
    rss_mb: float
    """Resident memory at the end, MB of 10⁶ bytes."""
    shared_mb: float = 0.0
    """The part of it that is shared: segments of the middleware, some of them the camera's."""
    compared: int = 0
    """Frames that the dense net saw beside the node, where it watches its certificate."""
    skipped: int = 0
    """Frames that were drawn for that and found no time."""

    @property
    def loss(self) -> int | None:
        """Frames sent that the node never received; None where the camera is not ours."""
        return len(self.sent) - self.counts['received'] if self.sent else None

    @property
    def balanced(self) -> bool:
        """Whether each frame received became detections, or was dropped for one of the reasons."""
        return self.counts['received'] == sum(self.counts[each] for each in COUNTERS[1:])

    @property
    def rate_hz(self) -> float:
        """Frames a second that were received, from the first to the last published one."""
        stamps = sorted(self.received)
        if len(stamps) < 2:
            return float('nan')
        between = self.counts['received'] - 1
        return float(between * 1e9 / max(1, stamps[-1] - stamps[0]))

    @property
    def busy(self) -> float:
        """Share of the time between the first and the last frame in which the worker was busy."""
        if len(self.timings) < 2:
            return 0.0
        stages = ('preprocess', 'inference', 'postprocess', 'publish')
        work = sum(line[stage] for line in self.timings[:-1] for stage in stages)
        return float(work / max(1, self.timings[-1]['stamp_ns'] - self.timings[0]['stamp_ns']))

    @property
    def starved(self) -> bool:
        """Whether frames gave way to newer ones."""
        return self.counts['superseded'] > SATURATED_SHARE * max(1, self.counts['received'])

    @property
    def saturated(self) -> bool:
        """Whether the node could not, or could only just, keep the rate of the frames."""
        return self.starved or self.busy > SATURATED_BUSY

    def missed(self, budget_ms: float, start: int = 0, end: float = float('inf')) -> float | None:
        """Return the share of frames sent from `start` until `end` without detections in time.

        In time is as the node promises: from stamp to publication. None where none was sent.
        """
        in_time = {
            line['stamp_ns']
            for line in self.timings
            if line['e2e_publish'] is not None and line['e2e_publish'] <= budget_ms * NS_PER_MS
        }
        frames = [stamp for stamp in self.sent if start <= stamp < end]
        if not frames:
            return None
        return sum(stamp not in in_time for stamp in frames) / len(frames)


def run_series(
    session: Session,
    node: str,
    parameters: Mapping[str, Any],
    camera: Sequence[str] | None,
    *,
    folder: Path,
    namespace: str,
    seconds: float,
    started: Started = lambda _session, _children, _node: None,
    finished: Callable[[], None] = lambda: None,
    require: Callable[[], None] = lambda: None,
    remap: str = '',
    endless: bool = False,
) -> Series:
    """Run one of our nodes on the frames of the process `camera`, at most `seconds` long.

    `camera` publishes `<namespace>/image_raw` and ends by itself, its last line being a JSON object
    with the stamps `sent`, and `indices`; unless it is `endless`: then it is ended. None where
    another camera publishes the topic `remap` already. `started` is called once frames come, while
    they do, and `finished` when they have ended. `require` raises where something else that frames
    need has ended; it is asked while they are waited for.

    Raises UserError where a process fails, nothing comes back, or the other camera ends early.
    """
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String
    from vision_msgs.msg import Detection2DArray

    received: dict[int, int] = {}
    boxes: dict[int, list[list[Any]]] = {}
    truth: dict[int, list[list[Any]]] = {}
    counts: dict[str, int] = {}
    watched = [0] * len(_WATCHED)
    models: list[tuple[int, str]] = []
    arrivals: list[float] = []
    reports = 0
    name = f'{namespace}/{node}'
    clock = session.node.get_clock()

    def on_detections(message: Any) -> None:
        now = clock.now().nanoseconds
        arrivals.append(time.monotonic())
        stamp = stamp_ns(message.header.stamp)
        received[stamp] = now
        boxes[stamp] = boxes_of(message)

    def on_truth(message: Any) -> None:
        truth[stamp_ns(message.header.stamp)] = boxes_of(message)

    def on_diagnostics(message: Any) -> None:
        nonlocal reports
        for status in message.status:
            if status.name == f'{name}: frames':
                accounts = (*COUNTERS, 'waiting')
                counts.update(
                    {each.key: int(each.value) for each in status.values if each.key in accounts}
                )
                reports += 1
            elif status.name == f'{name}: watch':
                pairs = {pair.key: pair.value for pair in status.values}
                watched[:] = [int(pairs.get(f'{each}_frames', 0)) for each in _WATCHED]

    def on_model(message: Any) -> None:
        content = json.loads(message.data)
        since = content['since']
        stamp = 0 if since is None else since['sec'] * 10**9 + since['nanosec']
        models.append((stamp, content['model']))

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    deep = QoSProfile(depth=100)
    subscribe = session.node.create_subscription
    subscriptions = [
        subscribe(Detection2DArray, f'{namespace}/detections', on_detections, deep),
        subscribe(Detection2DArray, f'{namespace}/ground_truth', on_truth, deep),
        subscribe(DiagnosticArray, '/diagnostics', on_diagnostics, 100),
        subscribe(String, f'{name}/active_model', on_model, latched),
    ]
    timings = folder / f'{namespace[1:]}.jsonl'
    command = node_command(node, namespace, {**parameters, 'timings_file': str(timings)})
    command += ['-r', f'image_raw:={remap}'] if remap else []
    sent: dict[str, Any] = {'sent': [], 'indices': []}
    try:
        with Children(folder, os.environ) as children:
            start = time.monotonic()
            wait = functools.partial(wait_for, session, require=require)
            tested = children.start(f'{namespace[1:]}_{node}', command)
            wait(lambda: bool(models), START_S, tested, f'{node} did not become active')
            source = None
            if camera is not None:
                source = children.start(f'{namespace[1:]}_camera', camera)
            wait(
                lambda: bool(arrivals) or (source is not None and not source.alive),
                START_S,
                tested,
                'no detections came back',
            )
            cpu, wall = _cpu_s(tested), time.monotonic()
            started(session, children, tested)
            if source is None or endless:
                session.spin_for(max(0.0, seconds - (time.monotonic() - wall)))
                require()
                if source is None:
                    _require_recent(arrivals, remap)
                else:
                    source.require_alive()
            else:
                wait(
                    lambda: not source.alive,
                    seconds + START_S,
                    tested,
                    'the camera did not end',
                )
                if source.process.returncode:
                    raise UserError(f'the camera failed:\n{source.last_lines()}')
                sent = json.loads(source.log.read_text().splitlines()[-1])
            finished()
            percent = 100 * (_cpu_s(tested) - cpu) / max(1e-9, time.monotonic() - wall)
            sizes = megabytes(tested.process.pid)
            if source is not None and endless:
                children.stop(source)
            # Two reports that began after the last frame: these counts are final.
            final = reports + 2
            wait(
                lambda: reports >= final and (camera is None or not counts['waiting']),
                START_S,
                tested,
                f'{node} did not report',
            )
            children.stop(tested)
    finally:
        for subscription in subscriptions:
            session.node.destroy_subscription(subscription)
    return Series(
        node=node,
        sent=tuple(sent['sent']),
        indices=tuple(sent['indices']),
        counts={each: counts[each] for each in COUNTERS},
        received=received,
        boxes=boxes,
        truth=truth,
        timings=read_json_lines(timings),
        models=models,
        first_detection_s=arrivals[0] - start if arrivals else float('nan'),
        cpu_percent=percent,
        rss_mb=sizes['VmRSS'],
        shared_mb=sizes['RssShmem'],
        compared=watched[0],
        skipped=watched[1],
    )


def wait_for(
    session: Session,
    condition: Callable[[], bool],
    timeout: float,
    child: Child,
    failure: str,
    require: Callable[[], None] = lambda: None,
) -> None:
    """Run callbacks until `condition()`.

    Raises UserError where the child ends or time runs out, and what `require` raises.
    """
    end = time.monotonic() + timeout
    while not session.spin_until(condition, 0.5):
        if not session.running:
            raise KeyboardInterrupt
        require()
        child.require_alive()
        if time.monotonic() > end:
            raise UserError(f'{failure} within {timeout:.0f} s:\n{child.last_lines()}')


def start_load(children: Children, count: int) -> list[Child]:
    """Start `count` processes that keep a processor busy each, at ordinary priority."""
    command = [sys.executable, '-c', 'while True: pass']
    return [children.start(f'busy_{time.monotonic_ns()}', command) for _ in range(count)]


def _cpu_s(child: Child) -> float:
    fields = Path(f'/proc/{child.process.pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def megabytes(pid: int) -> dict[str, float]:
    """Return the sizes in the status of a process, VmRSS and others, MB of 10⁶ bytes."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return {
        line.split(':')[0]: int(line.split()[1]) * 1024 / 1e6
        for line in lines
        if line.endswith(' kB')
    }


def _require_recent(arrivals: Sequence[float], topic: str) -> None:
    """Raise UserError where detections of somebody else's camera have ceased."""
    gaps = sorted(b - a for a, b in itertools.pairwise(arrivals))
    usual = gaps[len(gaps) // 2] if gaps else 0.0
    quiet = time.monotonic() - arrivals[-1]
    if quiet > max(QUIET_S, 3 * usual):
        raise UserError(
            f'source topic:{topic}: it ended early: nothing came for the last {quiet:.1f} s'
        )
