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

`overhead` = an outside subscriber's `e2e_receive` − `inference` − `engine_wait`, frame by frame:
where the network fills the period, frames wait for it, which is no cost of the node. Both nodes
run as processes of their own, in turns, on frames of a camera process: pairs, so that what else the
machine does falls on both, and the figure is the median of the pairs' ratios.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.camera import VARIANTS, camera_command, synthetic_frame
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.series import run_series
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.intervals import median_interval_if_any
from pruned_perception.inference.latency import NS_PER_MS, Summary, summarize
from pruned_perception.nodes import transport
from pruned_perception.nodes.latest_frame import COUNTERS

PERCEPTION, ECHO = 'perception_node', 'echo_node'


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
    engine_wait: Summary
    """For the worker, while that was busy with an earlier frame."""
    overhead: Summary
    saturated: bool
    """Whether the node could not, or could only just, keep the rate."""
    rss_mb: float
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
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return `e2e_receive`, `inference` and `engine_wait`, ms, of the frames that have all.

    `received` is stamp → the subscriber's clock at receipt, ns; `timings` are the lines of the
    node's timings file. The first `warm_up` frames, by stamp, are left out.
    """
    rows = sorted(
        (
            line['stamp_ns'],
            received[line['stamp_ns']] - line['stamp_ns'],
            line['inference'],
            line['engine_wait'],
        )
        for line in timings
        if line['stamp_ns'] in received
    )[warm_up:]
    values = np.array([row[1:] for row in rows], float).reshape(-1, 3) / NS_PER_MS
    return values[:, 0], values[:, 1], values[:, 2]


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
    series = run_series(
        session,
        node,
        parameters,
        camera_command(
            f'{namespace}/image_raw',
            rate=setup.rate,
            frames=setup.frames,
            width=setup.width,
            height=setup.height,
        ),
        folder=folder,
        namespace=namespace,
        seconds=setup.frames / setup.rate,
    )
    parts = frame_overheads(series.received, series.timings, setup.warm_up)
    e2e, inference, wait = parts
    summaries = [summarize(each) for each in (*parts, e2e - inference - wait)]
    if any(each is None for each in summaries):
        raise UserError(
            f'{node}: {len(series.received)} of {len(series.sent)} frames came back as detections, '
            f'the first {setup.warm_up} of which are warm-up: nothing is left to measure'
        )
    found = [each for each in summaries if each is not None]
    return Run(
        node=node,
        sent=len(series.sent),
        counts=dict(series.counts),
        arrived=len(series.received),
        boxes=int(np.median([len(each) for each in series.boxes.values()])),
        e2e_receive=found[0],
        inference=found[1],
        engine_wait=found[2],
        overhead=found[3],
        saturated=series.saturated,
        rss_mb=series.rss_mb,
        stages_p50=stage_medians(series.timings[setup.warm_up :]),
        compared=series.compared,
        skipped=series.skipped,
    )


def _frames_hash(setup: Setup) -> str:
    digest = hashlib.sha256()
    for index in range(VARIANTS):
        digest.update(synthetic_frame(index, setup.height, setup.width).tobytes())
    return digest.hexdigest()
