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

"""The node on a source of frames: latency, drops, misses, accuracy, processor time, memory, energy.

Every model runs at every rate in each round, by turns: what else the machine does falls on all of
them. What is compared with a limit is the figure over all rounds together.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark import energy
from pruned_perception.benchmark.accuracy import accuracy
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.frame_source import MAX, OWN, SIMULATION, SYNTHETIC, TOPIC, Source
from pruned_perception.benchmark.frame_source import rate_text as rate_text
from pruned_perception.benchmark.in_process import detect_at
from pruned_perception.benchmark.overhead import PERCEPTION, Ratio, ratio
from pruned_perception.benchmark.series import Series, run_series, start_load
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import (
    Bundle,
    is_family,
    load_bundle,
    load_family,
    resolve_model,
)
from pruned_perception.errors import UserError
from pruned_perception.inference import Detector
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.latency import NS_PER_MS, Summary, summarize
from pruned_perception.inference.providers import CPU
from pruned_perception.nodes import transport

WARM_UP_S = 1.0
IN_PROCESS_S = 2.0
"""Most time of a round for the network without ROS."""


@dataclass(frozen=True)
class Setup:
    """What is run, `rounds` times `seconds` at each rate: Hz, MAX or OWN.

    Without `rates` it is 30 Hz, or the topic's own. A `budget_ms` of 0 is none.
    """

    models: tuple[str, ...]
    source: str = SYNTHETIC
    rates: tuple[float, ...] = ()
    load: int = 0
    rounds: int = 6
    seconds: float = 5.0
    budget_ms: float = 0.0
    active_member: str = ''
    threads: int = 1
    execution_provider: str = CPU
    width: int = 640
    height: int = 480


@dataclass(frozen=True)
class Figures:
    """One model at one rate, over all rounds; milliseconds."""

    model: str
    sha256: tuple[str, ...]
    """Of its members."""
    rate: float
    achieved_hz: float
    """Frames received a second, median over the rounds."""
    e2e_receive: Summary
    """From the stamp to an outside subscriber."""
    overhead: Summary
    """Of that, all but the engine's run and the wait for it."""
    in_process: Summary
    """From the message to the boxes without ROS, of the member that made most results."""
    jitter: Summary | None
    """Of the detections' arrival: |period − the one before|."""
    stages: Mapping[str, Summary]
    engine_wait: Summary
    counts: Mapping[str, int]
    middleware_loss: int | None
    invalid_ages: int
    """Frames whose stamp was ahead of the node's clock, or 0: the clock was set, or differs."""
    miss_rate: float | None
    """Of the frames received: without detections, or with late ones; None without a budget."""
    saturated: bool
    members: Mapping[str, int]
    """How many results each member made."""
    ap50: float | None
    ap50_interval: tuple[float, float] | None
    ap50_95: float | None
    first_detection_s: float
    """Cold start: median over the rounds, from the start of the process."""
    cpu_percent: float
    rss_mb: float
    shared_mb: float
    joules_per_frame: float | None
    """By the sensor, of all that it counts; None: not measured."""
    p50_ratio: Ratio
    """Of e2e_receive, this model : the first one, round by round."""
    p90_ratio: Ratio
    ros_ratio: Ratio
    """Of the medians, e2e_receive : in_process, round by round."""


@dataclass(frozen=True)
class Measured:
    """All figures, and the sensor that energy was read from ('' where there is none).

    The setup has the rates that were run, where none were asked for, too.
    """

    setup: Setup
    figures: Sequence[Figures]
    sensor: str


@dataclass
class _Cell:
    """What was found of one model at one rate, a round each."""

    series: list[Series] = field(default_factory=list)
    in_process: list[NDArray[np.float64]] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)


def measure(setup: Setup, on_series: Callable[[str, Series], None] = lambda *_: None) -> Measured:
    """Run everything.

    Raises UserError where nothing can be measured: a model, a source, or a process that fails.
    """
    source = Source.parse(setup.source)
    rates = setup.rates or ((OWN,) if source.kind == TOPIC else (30.0,))
    for rate in rates:
        source.check_rate(rate)
    bundles = [_bundles(model) for model in setup.models]
    truths = source.truths(bundles[0][0].labels)
    if source.kind != TOPIC:
        os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    sensor = energy.find_sensor()
    cells = [(model, rate) for rate in rates for model in range(len(setup.models))]
    found = {cell: _Cell() for cell in cells}
    detectors: dict[tuple[int, str], Detector] = {}
    with tempfile.TemporaryDirectory() as folder, ros_session('node_benchmark') as session:
        sample = source.sample(session, Path(folder), (setup.height, setup.width))
        for turn in range(setup.rounds):
            for number, cell in enumerate(cells if turn % 2 == 0 else cells[::-1]):
                model, rate = cell
                meter = energy.Meter(sensor)
                where = Path(folder), f'/node_{turn}_{number}'
                series, joules = _run(session, setup, source, cell, meter, *where)
                found[cell].series.append(series)
                if joules is not None:
                    found[cell].joules.append(joules / max(1, series.counts['published']))
                on_series(setup.models[model], series)
                name = _most(series)
                if (model, name) not in detectors:
                    [bundle] = [each for each in bundles[model] if each.name == name]
                    detectors[model, name] = Detector(
                        bundle,
                        threads=setup.threads,
                        execution_provider=setup.execution_provider,
                    )
                pace = series.rate_hz if rate == OWN else rate
                found[cell].in_process.append(
                    detect_at(
                        detectors[model, name], sample, pace, min(setup.seconds, IN_PROCESS_S)
                    )
                )
    figures = [_figures(setup, cell, found, truths, bundles[cell[0]]) for cell in cells]
    return Measured(replace(setup, rates=rates), figures, '' if sensor is None else sensor.name)


def _bundles(model: str) -> list[Bundle]:
    path = resolve_model(model)
    return list(load_family(path).members) if is_family(path) else [load_bundle(path)]


def _run(
    session: Session,
    setup: Setup,
    source: Source,
    cell: tuple[int, float],
    meter: energy.Meter,
    folder: Path,
    namespace: str,
) -> tuple[Series, float | None]:
    """Return what became of the frames, and the joules while they came."""
    own, remap = source.node_parameters(session)
    parameters: dict[str, Any] = {
        'model': setup.models[cell[0]],
        'threads': setup.threads,
        'execution_provider': setup.execution_provider,
        **own,
    }
    if setup.budget_ms:
        parameters['latency_budget_ms'] = setup.budget_ms
    if setup.active_member:
        parameters['active_member'] = setup.active_member
    joules: list[float | None] = []

    def started(_session: Session, children: Children, _node: Child) -> None:
        start_load(children, setup.load)
        meter.start()

    series = run_series(
        session,
        PERCEPTION,
        parameters,
        source.camera(namespace, cell[1], setup.seconds, (setup.height, setup.width)),
        folder=folder,
        namespace=namespace,
        seconds=setup.seconds,
        started=started,
        finished=lambda: joules.append(meter.stop()),
        remap=remap,
        endless=source.kind == SIMULATION,
    )
    return series, joules[0]


def _figures(
    setup: Setup,
    cell: tuple[int, float],
    found: Mapping[tuple[int, float], _Cell],
    truths: Mapping[int, list[list[Any]]] | None,
    bundles: Sequence[Bundle],
) -> Figures:
    all_series = found[cell].series
    model, rate = setup.models[cell[0]], cell[1]
    lines = [line for series in all_series for line in _steady(series)]
    e2e = [_e2e_receive(series) for series in all_series]
    if any(not each.size for each in e2e):
        raise UserError(
            f'{model} at {rate_text(rate)}: no frame came back after the first {WARM_UP_S:g} s: '
            'does the source end early? Run longer (--seconds)'
        )

    def stage(name: str) -> Summary:
        return _summary([line[name] for line in lines if line[name] is not None])

    def percentile_ratio(q: float) -> Ratio:
        base = [np.percentile(_e2e_receive(each), q) for each in found[0, rate].series]
        return ratio([float(np.percentile(each, q)) for each in e2e], base)

    counts = {key: sum(s.counts[key] for s in all_series) for key in all_series[0].counts}
    losses = [series.loss for series in all_series]
    members: dict[str, int] = {}
    for line in lines:
        members[line['model']] = members.get(line['model'], 0) + 1
    metrics = _accuracy(all_series, truths, bundles[0])
    joules = found[cell].joules
    return Figures(
        model=model,
        sha256=tuple(bundle.sha256 for bundle in bundles),
        rate=rate,
        achieved_hz=float(np.median([each.rate_hz for each in all_series])),
        e2e_receive=_summary(np.concatenate(e2e) * NS_PER_MS),
        overhead=_summary(
            [
                each.received[line['stamp_ns']]
                - line['stamp_ns']
                - line['inference']
                - line['engine_wait']
                for each in all_series
                for line in _received(each)
            ]
        ),
        in_process=_summary(np.concatenate(found[cell].in_process) * NS_PER_MS),
        jitter=_jitter(all_series),
        stages={name: stage(name) for name in FRAME_QUANTITIES},
        engine_wait=stage('engine_wait'),
        counts=counts,
        middleware_loss=None if None in losses else sum(each or 0 for each in losses),
        invalid_ages=sum(line['e2e_publish'] is None for line in lines),
        miss_rate=_miss_rate(all_series, setup.budget_ms) if setup.budget_ms else None,
        saturated=any(_saturated(series, rate) for series in all_series),
        members=members,
        ap50=None if metrics is None else metrics.ap50,
        ap50_interval=None if metrics is None else metrics.ap50_interval,
        ap50_95=None if metrics is None else metrics.ap50_95,
        first_detection_s=float(np.median([each.first_detection_s for each in all_series])),
        cpu_percent=float(np.median([each.cpu_percent for each in all_series])),
        rss_mb=float(np.median([each.rss_mb for each in all_series])),
        shared_mb=float(np.median([each.shared_mb for each in all_series])),
        joules_per_frame=float(np.median(joules)) if joules else None,
        p50_ratio=percentile_ratio(50),
        p90_ratio=percentile_ratio(90),
        ros_ratio=ratio(
            [float(np.median(each)) for each in e2e],
            [float(np.median(each)) for each in found[cell].in_process],
        ),
    )


def _summary(nanoseconds: Any) -> Summary:
    found = summarize(np.asarray(nanoseconds, float) / NS_PER_MS)
    if found is None:
        raise UserError(
            'no frame has a valid age: are the stamps of its camera 0, or ahead of this clock?'
        )
    return found


def _most(series: Series) -> str:
    """Return the member that made most of the results."""
    names = [line['model'] for line in series.timings]
    return max(dict.fromkeys(names), key=names.count)


def _saturated(series: Series, rate: float) -> bool:
    """At MAX the camera waits for the node, which is busy all the time and falls behind never."""
    return series.starved if rate == MAX else series.saturated


def _jitter(all_series: Sequence[Series]) -> Summary | None:
    arrivals = [np.sort(list(series.received.values())) for series in all_series]
    jitters = np.concatenate([np.abs(np.diff(each, 2)) for each in arrivals])
    return summarize(jitters / NS_PER_MS)


def _steady(series: Series) -> list[Mapping[str, Any]]:
    """Return the lines of the frames after the warm-up."""
    if not series.timings:
        return []
    start = series.timings[0]['stamp_ns'] + round(WARM_UP_S * 1e9)
    return [line for line in series.timings if line['stamp_ns'] >= start]


def _received(series: Series) -> list[Mapping[str, Any]]:
    """Return those whose detections arrived, at a valid age: after their stamp, which is not 0."""
    received = series.received
    return [
        line
        for line in _steady(series)
        if 0 < line['stamp_ns'] <= received.get(line['stamp_ns'], 0)
    ]


def _e2e_receive(series: Series) -> NDArray[np.float64]:
    stamps = [line['stamp_ns'] for line in _received(series)]
    return np.array([series.received[stamp] - stamp for stamp in stamps], float) / NS_PER_MS


def _miss_rate(all_series: Sequence[Series], budget_ms: float) -> float:
    """Return the share of frames received without detections in time, warm-up included."""
    received = sum(series.counts['received'] for series in all_series)
    in_time = sum(
        line['e2e_publish'] is not None and line['e2e_publish'] <= budget_ms * NS_PER_MS
        for series in all_series
        for line in series.timings
    )
    return 1 - in_time / max(1, received)


def _accuracy(
    all_series: Sequence[Series], truths: Mapping[int, list[list[Any]]] | None, bundle: Bundle
) -> Any:
    """Return the accuracy of the published boxes; None where there is no ground truth."""
    expected: dict[int, list[list[Any]]] = {}
    published: dict[int, list[list[Any]]] = {}
    for series in all_series:
        published |= series.boxes
        expected |= series.truth
        if truths is not None:
            expected |= {
                stamp: truths[index]
                for stamp, index in zip(series.sent, series.indices, strict=True)
            }
    if not expected:
        return None
    found = accuracy(expected, published, bundle.labels, score_threshold=bundle.thresholds.score)
    return None if math.isnan(found.ap50) else found
