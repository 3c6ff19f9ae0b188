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

"""What a frame costs outside the network: perception node against echo node.

`overhead` = an outside subscriber's `e2e_receive` − `inference`, frame by frame. Both nodes run as
processes of their own, in turns, on frames of a camera process: pairs, so that what else the
machine does falls on both, and the figure is the median of the pairs' ratios.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.camera import VARIANTS, camera_command, synthetic_frame
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.results import read_json_lines
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.intervals import median_interval_if_any
from pruned_perception.inference.latency import NS_PER_MS, Summary, summarize
from pruned_perception.nodes import transport
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.latest_frame import COUNTERS
from pruned_perception.nodes.up import node_command

PERCEPTION, ECHO = 'perception_node', 'echo_node'
START_S = 30.0
_WATCHED = ('compared', 'skipped')


@dataclass(frozen=True)
class Setup:
    """What is run; `member` '' is the dense one, `profile` False leaves Fast DDS alone."""

    model: str
    member: str = ''
    threads: int = 1
    pairs: int = 6
    frames: int = 300
    warm_up: int = 60
    rate: float = 30.0
    width: int = 640
    height: int = 480
    profile: bool = True


@dataclass(frozen=True)
class Run:
    """One node on one series of frames."""

    node: str
    sent: int
    counts: dict[str, int]
    """The node's own: received, published, superseded, stale, error."""
    arrived: int
    """Messages of detections that the outside subscriber got."""
    boxes: int
    """Median number of boxes in them."""
    e2e_receive: Summary
    inference: Summary
    overhead: Summary
    stages_p50: dict[str, float]
    """Where the time of the median frame goes, as the node itself measures it, milliseconds."""
    compared: int = 0
    """Frames that the dense net saw beside the node, where it watches its certificate."""
    skipped: int = 0
    """Frames that were drawn for that and found no time."""

    @property
    def loss(self) -> int:
        """Frames sent that the node never received: the middleware's loss."""
        return self.sent - self.counts['received']

    @property
    def balanced(self) -> bool:
        """Whether sent = published + superseded + stale + error + middleware loss."""
        return self.sent == sum(self.counts[each] for each in COUNTERS[1:]) + self.loss


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios perception : echo, with its 95 % interval.

    From order statistics; None with fewer pairs than six, which carry none.
    """

    median: float
    interval: tuple[float, float] | None
    pairs: list[float]


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Return the median of the ratios, pair by pair."""
    ratios = np.asarray(numerators, float) / np.asarray(denominators, float)
    interval = median_interval_if_any(ratios)
    return Ratio(float(np.median(ratios)), interval, [float(each) for each in ratios])


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return the interval of a ratio in words."""
    if interval is None:
        return 'no interval: it takes 6'
    return f'95 % interval {interval[0]:.2f} … {interval[1]:.2f}'


def frame_overheads(
    received: Mapping[int, int], timings: Sequence[Mapping[str, Any]], warm_up: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `e2e_receive` and `inference`, milliseconds, of the frames that have both.

    `received` is stamp → the subscriber's clock at receipt, ns; `timings` are the lines of the
    node's timings file. The first `warm_up` frames, by stamp, are left out.
    """
    rows = sorted(
        (line['stamp_ns'], received[line['stamp_ns']] - line['stamp_ns'], line['inference'])
        for line in timings
        if line['stamp_ns'] in received
    )[warm_up:]
    values = np.array([row[1:] for row in rows], float).reshape(-1, 2) / NS_PER_MS
    return values[:, 0], values[:, 1]


def stage_medians(timings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median of each stage in the lines of a timings file, milliseconds."""
    medians = {}
    for stage in FRAME_QUANTITIES[:-1]:
        values = [line[stage] for line in timings if line[stage] is not None]
        if values:
            medians[stage] = float(np.median(values)) / NS_PER_MS
    return medians


def measure(setup: Setup, on_run: Callable[[Run], None] = lambda _: None) -> dict[str, Any]:
    """Run all pairs, calling `on_run` after each run; return the result as JSON values.

    The domain is a private one on this host, so that no robot is disturbed.
    """
    bundle = load_member(resolve_model(setup.model), setup.member)
    os.environ.update(private_domain())
    if setup.profile:
        os.environ.update(transport.environment(os.environ))
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, ros_session('overhead_benchmark') as session:
        boxes = 0
        for pair in range(setup.pairs):
            # The order alternates: a drift of the machine does not always favour the same node.
            first = [PERCEPTION, ECHO] if pair % 2 == 0 else [ECHO, PERCEPTION]
            for node in first:
                own = {'boxes': boxes} if node == ECHO else model_parameters(setup)
                run = run_node(session, node, own, setup, Path(folder), f'/run_{len(runs)}')
                if node == PERCEPTION:
                    boxes = run.boxes  # the echo node publishes as many
                runs.append(run)
                on_run(run)
    perception = [run for run in runs if run.node == PERCEPTION]
    echo = [run for run in runs if run.node == ECHO]
    ratios = {
        name: asdict(
            ratio(
                [getattr(run.overhead, name) for run in perception],
                [getattr(run.overhead, name) for run in echo],
            )
        )
        for name in ('p50', 'p90', 'p99')
    }
    return {
        'benchmark': 'overhead',
        'clock': 'system',
        'environment': environment(),
        'configuration': asdict(setup),
        'model': {'name': bundle.name, 'sha256': bundle.sha256, 'input': bundle.input.shape},
        'frames_sha256': _frames_hash(setup),
        'runs': [
            {**asdict(run), 'middleware_loss': run.loss, 'balanced': run.balanced} for run in runs
        ],
        'overhead_ratio': ratios,
    }


def model_parameters(setup: Setup) -> dict[str, Any]:
    """Return the perception node's parameters."""
    parameters: dict[str, Any] = {'model': setup.model, 'threads': setup.threads}
    return parameters | ({'member': setup.member} if setup.member else {})


def run_node(
    session: Session,
    node: str,
    parameters: Mapping[str, Any],
    setup: Setup,
    folder: Path,
    namespace: str,
) -> Run:
    """Run a node with its parameters on one series of frames of a camera process.

    Raises UserError where it does not start, ends, or nothing is left to measure.
    """
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String
    from vision_msgs.msg import Detection2DArray

    received: dict[int, int] = {}
    sizes: list[int] = []
    counts: dict[str, int] = {}
    compared = [0] * len(_WATCHED)
    reports = 0
    active: list[Any] = []
    name = f'{namespace}/{node}'
    clock = session.node.get_clock()

    def on_detections(message: Any) -> None:
        now = clock.now().nanoseconds
        received[stamp_ns(message.header.stamp)] = now
        sizes.append(len(message.detections))

    def on_diagnostics(message: Any) -> None:
        nonlocal reports
        for status in message.status:
            if status.name == f'{name}: frames':
                counts.update({pair.key: int(pair.value) for pair in status.values})
                reports += 1
            elif status.name == f'{name}: watch':
                pairs = {pair.key: pair.value for pair in status.values}
                compared[:] = [int(pairs.get(f'{each}_frames', 0)) for each in _WATCHED]

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscriptions = [
        session.node.create_subscription(
            Detection2DArray, f'{namespace}/detections', on_detections, QoSProfile(depth=100)
        ),
        session.node.create_subscription(DiagnosticArray, '/diagnostics', on_diagnostics, 100),
        session.node.create_subscription(String, f'{name}/active_model', active.append, latched),
    ]
    timings = folder / f'{namespace[1:]}.jsonl'
    parameters = {'timings_file': str(timings), **parameters}
    with Children(folder, os.environ) as children:
        tested = children.start(
            f'{namespace[1:]}_{node}', node_command(node, namespace, parameters)
        )
        wait_for(session, lambda: bool(active), START_S, tested, f'{node} did not become active')
        command = camera_command(
            f'{namespace}/image_raw',
            rate=setup.rate,
            frames=setup.frames,
            width=setup.width,
            height=setup.height,
        )
        camera = children.start(f'{namespace[1:]}_camera', command)
        length = setup.frames / setup.rate
        wait_for(
            session, lambda: not camera.alive, length + START_S, tested, 'the camera did not end'
        )
        if camera.process.returncode:
            raise UserError(f'the camera failed:\n{camera.last_lines()}')
        sent = int(json.loads(camera.log.read_text().splitlines()[-1])['sent'])
        # Two reports that began after the last frame: these counts are final.
        final = reports + 2
        wait_for(
            session,
            lambda: reports >= final and not counts['waiting'],
            START_S,
            tested,
            f'{node} did not report',
        )
        children.stop(tested)
    for subscription in subscriptions:
        session.node.destroy_subscription(subscription)
    lines = read_json_lines(timings)
    e2e, inference = frame_overheads(received, lines, setup.warm_up)
    summaries = [summarize(each) for each in (e2e, inference, e2e - inference)]
    if summaries[0] is None or summaries[1] is None or summaries[2] is None:
        raise UserError(
            f'{node}: {len(received)} of {sent} frames came back as detections, the first '
            f'{setup.warm_up} of which are warm-up: nothing is left to measure'
        )
    return Run(
        node=node,
        sent=sent,
        counts={each: counts[each] for each in COUNTERS},
        arrived=len(sizes),
        boxes=int(np.median(sizes)),
        e2e_receive=summaries[0],
        inference=summaries[1],
        overhead=summaries[2],
        stages_p50=stage_medians(lines[setup.warm_up :]),
        compared=compared[0],
        skipped=compared[1],
    )


def wait_for(
    session: Session, condition: Callable[[], bool], timeout: float, child: Child, failure: str
) -> None:
    """Run callbacks until `condition()`; raises UserError where the child ends or time runs out."""
    end = time.monotonic() + timeout
    while not session.spin_until(condition, 0.5):
        if not session.running:
            raise KeyboardInterrupt
        child.require_alive()
        if time.monotonic() > end:
            raise UserError(f'{failure} within {timeout:.0f} s:\n{child.last_lines()}')


def _frames_hash(setup: Setup) -> str:
    digest = hashlib.sha256()
    for index in range(VARIANTS):
        digest.update(synthetic_frame(index, setup.height, setup.width).tobytes())
    return digest.hexdigest()
