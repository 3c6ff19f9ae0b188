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

"""The node on a camera in Gazebo, in two passes, since simulated time is no measure of latency.

*Accuracy*: stamps and the node's clock are the simulation's; detections are compared with the
bounding-box camera by equal stamps. *Latency*: images are stamped with the wall clock by the
bridge, the node's clock is the system's, and nothing renders boxes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception import _pages as pages
from pruned_perception._tables import Table
from pruned_perception.benchmark.accuracy import accuracy
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.gazebo_simulation import (
    SLOWEST,
    Commands,
    Simulation,
    Watch,
    simulator_commands,
    simulator_facts,
)
from pruned_perception.benchmark.overhead import PERCEPTION
from pruned_perception.benchmark.series import Series, run_series
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import Bundle, load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.coco_metrics import Metrics
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.latency import DROP_REASONS, NS_PER_MS, Summary, summarize
from pruned_perception.nodes import gazebo, transport
from pruned_perception.simulation.world_check import WorldFacts, read_world

WARM_UP_S = 1.0
IN_PROCESS_RUNS = 60
WORLD = 'package://pruned_perception/worlds/warehouse.sdf'
ROUTE = 'package://pruned_perception/worlds/warehouse_route.csv'

MakeCommands = Callable[[Path, Path | None, str, str, Path], Commands]


@dataclass(frozen=True)
class Setup:
    """What is run: each member of `members` ('' the dense one) in each pass, by turns."""

    model: str
    members: tuple[str, ...] = ('',)
    world: str = WORLD
    route: str = ROUTE
    passes: tuple[str, ...] = gazebo.PASSES
    seconds: float = 60.0
    """Of each pass, by the wall clock."""
    threads: int = 1
    budget_ms: float = 0.0


@dataclass(frozen=True)
class Losses:
    """Where the frames of a pass stayed, stage by stage; from the first published one to the last.

    `due` frames should have been rendered in the simulated time that went by, `bridged` came out of
    the bridge, `published` are results of the node, `received` those that this process got.
    """

    due: int
    bridged: int
    middleware: int
    """Bridged, but neither published nor dropped by the node; below 0: camera_info was lost."""
    superseded: int
    stale: int
    error: int
    published: int
    received: int


@dataclass(frozen=True)
class PassResult:
    """One member in one pass; milliseconds."""

    member: str
    pass_: str
    clock: str
    """sim: ages are of simulated time and no latencies; system: of the wall clock."""
    simulated_s: float
    wall_s: float
    real_time_factor: float
    slow: bool
    """Real-time factor below 0.1: the machine is too slow for this world."""
    frames_per_simulated_s: float
    frames_per_wall_s: float
    losses: Losses
    accuracy: Metrics | None
    """Against the bounding-box camera; None in the latency pass."""
    with_truth: int | None
    """Published frames that have boxes of an equal stamp."""
    e2e_receive: Summary | None
    """From the bridge's wall-clock stamp to an outside subscriber; None in the accuracy pass."""
    stages: dict[str, Summary] = field(default_factory=dict)
    in_process: Summary | None = None
    """The same bundle on images of this camera in this process, with Gazebo ended."""
    cpu_percent: float = 0.0
    rss_mb: float = 0.0


@dataclass(frozen=True)
class Result:
    """All passes, and what they ran in."""

    setup: Setup
    world: WorldFacts
    world_sha256: str
    simulator: dict[str, Any]
    remarks: tuple[str, ...]
    passes: tuple[PassResult, ...]
    picture: NDArray[np.uint8]
    """The first image of the last pass, RGB."""


def measure(
    setup: Setup,
    tell: Callable[[str], None] = lambda _text: None,
    make_commands: MakeCommands = simulator_commands,
) -> Result:
    """Run every member in every pass; `make_commands` says what is started for one.

    Raises UserError where nothing can be measured: no Gazebo, a world without what it takes, black
    images, a process that ends, a time that stands still or jumps.
    """
    world = resolve_model(setup.world)
    route = None if setup.route in ('', 'none') else resolve_model(setup.route)
    bundles = [load_member(resolve_model(setup.model), each) for each in setup.members]
    labels = bundles[0].labels
    facts = read_world(world, labels)
    remarks = [f'no object of the world is labelled as {each}' for each in facts.unlabelled(labels)]
    os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    results: list[PassResult] = []
    with tempfile.TemporaryDirectory() as name:
        for number, (pass_, bundle) in enumerate(
            (pass_, bundle) for pass_ in setup.passes for bundle in bundles
        ):
            folder = Path(name, str(number))
            folder.mkdir()
            namespace = f'/gazebo_{number}'
            tell(f'{pass_}, {bundle.name}: starting Gazebo')
            commands = make_commands(world, route, pass_, namespace, folder)
            simulated = pass_ == gazebo.ACCURACY
            with (
                ros_session('gazebo_benchmark') as session,
                Simulation(session, commands, folder, namespace, pass_) as simulation,
            ):
                tell(f'{pass_}, {bundle.name}: {setup.seconds:g} s')
                series = _run(session, setup, bundle, simulated, folder, namespace, simulation)
                watch = simulation.watch
            found = pass_result(setup, facts, bundle, pass_, series, watch)
            remarks += slow_remarks(found)
            results.append(found)
    return Result(
        setup=setup,
        world=facts,
        world_sha256=hashlib.sha256(world.read_bytes()).hexdigest(),
        simulator=simulator_facts(),
        remarks=tuple(remarks),
        passes=tuple(results),
        picture=watch.images[0],
    )


def slow_remarks(found: PassResult) -> list[str]:
    """Return what is to be said of a pass whose real-time factor is below `SLOWEST`."""
    if not found.slow:
        return []
    return [
        f'{found.pass_}, {found.member}: the real-time factor is {found.real_time_factor:.3f}, '
        f'below {SLOWEST}: take a smaller world (warehouse_light.sdf) or a machine with a graphics '
        'card'
    ]


def _run(
    session: Session,
    setup: Setup,
    bundle: Bundle,
    simulated: bool,
    folder: Path,
    namespace: str,
    simulation: Simulation,
) -> Series:
    parameters: dict[str, Any] = {
        'model': str(resolve_model(setup.model)),
        'threads': setup.threads,
        'use_sim_time': simulated,
    }
    if len(setup.members) > 1 or setup.members[0]:
        parameters['member'] = bundle.name
    if setup.budget_ms:
        parameters['latency_budget_ms'] = setup.budget_ms
    return run_series(
        session,
        PERCEPTION,
        parameters,
        None,
        folder=folder,
        namespace=namespace,
        seconds=0.0,
        started=lambda *_: simulation.measure(setup.seconds),
        require=simulation.require_alive,
    )


def pass_result(
    setup: Setup, facts: WorldFacts, bundle: Bundle, pass_: str, series: Series, watch: Watch
) -> PassResult:
    """Return the figures of one pass; raises UserError where nothing came back."""
    if not series.timings:
        raise UserError(f'{pass_}, {bundle.name}: the node published nothing')
    simulated = pass_ == gazebo.ACCURACY
    bridged = len(watch.span(watch.infos))
    metrics = None
    if simulated:
        metrics = accuracy(
            watch.truth,
            series.boxes,
            bundle.labels,
            score_threshold=bundle.thresholds.score,
        )
    return PassResult(
        member=bundle.name,
        pass_=pass_,
        clock='sim' if simulated else 'system',
        simulated_s=watch.simulated_s,
        wall_s=watch.wall_s,
        real_time_factor=watch.real_time_factor,
        slow=watch.real_time_factor < SLOWEST,
        frames_per_simulated_s=bridged / watch.simulated_s,
        frames_per_wall_s=bridged / watch.wall_s,
        losses=losses(series, watch, facts.rate_hz, simulated=simulated),
        accuracy=metrics,
        with_truth=len(set(series.boxes) & set(watch.truth)) if simulated else None,
        e2e_receive=None if simulated else _e2e(series),
        stages=_stages(series),
        in_process=None if simulated else _in_process(bundle, watch.images, setup.threads),
        cpu_percent=series.cpu_percent,
        rss_mb=series.rss_mb,
    )


def losses(series: Series, watch: Watch, rate_hz: float, *, simulated: bool) -> Losses:
    """Return the balance of a pass; `simulated`: its stamps are of simulated time.

    Counts at the edges can differ by a frame: what is counted comes by several ways.
    """
    stamps = [line['stamp_ns'] for line in series.timings]
    first, last = min(stamps), max(stamps)
    inside = [(at, stamp) for at, stamp in watch.infos if first <= stamp <= last]
    due = 0
    if inside:
        # Wall-clock stamps say nothing about the simulated time; the clock at the receipts does.
        ends = (inside[0], inside[-1])
        start, end = (stamp if simulated else _simulated(watch, at) for at, stamp in ends)
        due = round((end - start) / 1e9 * rate_hz) + 1
    published = len(stamps)
    dropped = {reason: series.counts.get(reason, 0) for reason in DROP_REASONS}
    return Losses(
        due=due,
        bridged=len(inside),
        middleware=len(inside) - published - sum(dropped.values()),
        published=published,
        received=sum(stamp in series.received for stamp in stamps),
        **dropped,
    )


def _simulated(watch: Watch, at: float) -> float:
    """Return the simulated time, ns, at a moment of the monotonic clock."""
    moments, times = zip(*watch.clock, strict=True)
    return float(np.interp(at, moments, times))


def _steady(series: Series) -> list[Any]:
    start = series.timings[0]['stamp_ns'] + round(WARM_UP_S * 1e9)
    return [line for line in series.timings if line['stamp_ns'] >= start] or list(series.timings)


def _e2e(series: Series) -> Summary | None:
    stamps = [line['stamp_ns'] for line in _steady(series) if line['stamp_ns'] in series.received]
    ages = np.array([series.received[each] - each for each in stamps], float) / NS_PER_MS
    return summarize(ages[ages >= 0])


def _stages(series: Series) -> dict[str, Summary]:
    """Return what the node measured; ages only mean something on the wall clock."""
    found = {}
    for name in (*FRAME_QUANTITIES, 'engine_wait'):
        known = [line[name] for line in _steady(series) if line[name] is not None]
        summary = summarize(np.array(known, float) / NS_PER_MS, resamples=0)
        if summary is not None:
            found[name] = summary
    return found


def _in_process(
    bundle: Bundle, images: Sequence[NDArray[np.uint8]], threads: int
) -> Summary | None:
    """Return the latency of the detector alone, from image to boxes, on the camera's images."""
    detector = Detector(bundle, threads=threads)
    times = []
    for number in range(IN_PROCESS_RUNS + len(images)):
        start = time.monotonic_ns()
        detector.detect(images[number % len(images)], 'rgb')
        times.append((time.monotonic_ns() - start) / NS_PER_MS)
    return summarize(times[len(images) :])


def as_json(result: Result) -> dict[str, Any]:
    """Return passes, configuration, simulator and environment as JSON values."""
    return {
        'benchmark': 'gazebo',
        'environment': environment(),
        'configuration': {**asdict(result.setup), 'warm_up_s': WARM_UP_S},
        'simulator': result.simulator,
        'world': {**asdict(result.world), 'sha256': result.world_sha256},
        'remarks': list(result.remarks),
        'figures': [
            {
                **{
                    ('pass' if name == 'pass_' else name): value
                    for name, value in asdict(each).items()
                    if name != 'accuracy'
                },
                'accuracy': None if each.accuracy is None else each.accuracy.to_dict(),
            }
            for each in result.passes
        ],
    }


def pass_table(result: Result) -> Table:
    """Return a table, a pass and member a line."""
    header = (
        ' | member | AP50:.3f | 95 % | p50 ms:.2f | p90 ms:.2f | p99 ms:.2f | inference:.2f | '
        'in process:.2f | real-time factor:.2f | frames/simulated s:.1f | frames/wall s:.1f | '
        'CPU %:.0f'
    )
    rows = []
    for each in result.passes:
        e2e, metrics = each.e2e_receive, each.accuracy
        interval = None if metrics is None else metrics.ap50_interval
        rows.append(
            (
                f'{each.pass_} (SLOW)' if each.slow else each.pass_,
                each.member,
                None if metrics is None else metrics.ap50,
                '' if interval is None else f'{interval[0]:.3f} … {interval[1]:.3f}',
                None if e2e is None else e2e.p50,
                None if e2e is None else e2e.p90,
                None if e2e is None else e2e.p99,
                each.stages['inference'].p50,
                None if each.in_process is None else each.in_process.p50,
                each.real_time_factor,
                each.frames_per_simulated_s,
                each.frames_per_wall_s,
                each.cpu_percent,
            )
        )
    return Table.under(header, rows)


def loss_table(result: Result) -> Table:
    """Return a table of where frames stayed, a pass and member a line."""
    header = (
        ' | member | due | bridged | lost by the middleware | superseded | stale | errors | '
        'published | received | with boxes'
    )
    rows = [
        (
            each.pass_,
            each.member,
            each.losses.due,
            each.losses.bridged,
            each.losses.middleware,
            each.losses.superseded,
            each.losses.stale,
            each.losses.error,
            each.losses.published,
            each.losses.received,
            '' if each.with_truth is None else each.with_truth,
        )
        for each in result.passes
    ]
    return Table.under(header, rows)


def class_table(result: Result) -> Table | None:
    """Return a table of AP50 per class, a class a line; None without an accuracy pass."""
    measured = [each for each in result.passes if each.accuracy is not None]
    if not measured:
        return None
    header = 'class | boxes:d | ' + ' | '.join(f'{each.member}:.3f' for each in measured)
    first = measured[0].accuracy
    assert first is not None
    rows = []
    for name, counted in first.per_class.items():
        found = [each.accuracy.per_class[name].ap50 for each in measured if each.accuracy]
        rows.append((name, counted.boxes, *(found if counted.boxes else [None] * len(found))))
    return Table.under(header, rows)


def render(result: Result) -> str:
    """Return the page; raises UserError where jinja2 is missing."""
    _, png = cv2.imencode('.png', result.picture[..., ::-1])
    return pages.render(
        'benchmark/gazebo.html',
        result=result,
        passes=pass_table(result),
        losses=loss_table(result),
        classes=class_table(result),
        image=f'data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}',
        simulator=list(result.simulator.items()),
        machine=[(name, str(value)) for name, value in environment().items()],
    )
