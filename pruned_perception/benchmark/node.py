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

"""The node on a source of frames: latency, drops, misses, accuracy, processor time and memory.

Every model runs on every rate in each round, by turns: what else the machine does falls on all of
them. What is compared with a limit is the figure over all rounds together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.benchmark.accuracy import accuracy
from pruned_perception.benchmark.camera import camera_command, data_set
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.overhead import PERCEPTION, Ratio, ratio
from pruned_perception.benchmark.series import Series, run_series, start_load
from pruned_perception.benchmark.session import Session, private_domain, ros_session
from pruned_perception.bundle import load_member, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.inference.frame_times import FRAME_QUANTITIES
from pruned_perception.inference.latency import NS_PER_MS, Summary, summarize
from pruned_perception.inference.providers import CPU
from pruned_perception.nodes import transport
from pruned_perception.nodes.up import node_command

WARM_UP_S = 1.0
SYNTHETIC, SIMULATION = 'synthetic', 'sim'
WITH_VALUE = ('images', 'bag', 'topic')
RAPL = Path('/sys/class/powercap/intel-rapl:0/energy_uj')
"""Linux's counter of the first processor package's energy."""


@dataclass(frozen=True)
class Source:
    """Where frames come from: `kind` and, of some, `value`."""

    kind: str
    value: str = ''

    @classmethod
    def parse(cls, text: str) -> Source:
        """Return it of `synthetic`, `sim`, `images:DIR`, `bag:PATH` or `topic:NAME`."""
        kind, colon, value = text.partition(':')
        if (kind in (SYNTHETIC, SIMULATION) and not colon) or (kind in WITH_VALUE and value):
            if kind in ('images', 'bag') and not Path(value).expanduser().exists():
                raise UserError(f'source {text}: {value}: no such file or folder')
            return cls(kind, value)
        raise UserError(
            f'source {text!r} is none of synthetic, sim, images:DIR, bag:PATH, topic:NAME'
        )


@dataclass(frozen=True)
class Setup:
    """What is run, `rounds` times `seconds` at each rate; a `budget_ms` of 0 is none."""

    models: tuple[str, ...]
    source: str = SYNTHETIC
    rates: tuple[float, ...] = (30.0,)
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
class Limits:
    """What must hold of every model and rate; None: nothing."""

    max_p90_ms: float | None = None
    min_ap50: float | None = None
    max_miss_rate: float | None = None


@dataclass(frozen=True)
class Figures:
    """One model at one rate, over all rounds; milliseconds."""

    model: str
    rate: float
    e2e_receive: Summary
    """From the stamp to an outside subscriber."""
    stages: Mapping[str, Summary]
    engine_wait: Summary
    counts: Mapping[str, int]
    middleware_loss: int | None
    miss_rate: float | None
    """Of the frames received: without detections, or with late ones; None without a budget."""
    saturated: bool
    members: Mapping[str, int]
    """How many results each member made."""
    ap50: float | None
    ap50_interval: tuple[float, float] | None
    first_detection_s: float
    """Median over the rounds, from the start of the process."""
    cpu_percent: float
    rss_mb: float
    joules_per_frame: float | None
    """Of the whole processor; None: there is no sensor that can be read."""
    p50_ratio: Ratio
    """Of e2e_receive, this model : the first one, round by round."""
    p90_ratio: Ratio


def measure(setup: Setup, on_series: Callable[[str, Series], None] = lambda *_: None) -> Any:
    """Run everything; return the list of `Figures`.

    Raises UserError where nothing can be measured: a model, a source, or a process that fails.
    """
    source = Source.parse(setup.source)
    bundles = [load_member(resolve_model(each)) for each in setup.models]
    truths = _truths(source, bundles[0].labels)
    if source.kind != 'topic':
        os.environ.update(private_domain())
    os.environ.update(transport.environment(os.environ))
    found: dict[tuple[int, float], list[Series]] = {}
    joules: dict[tuple[int, float], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ros_session('node_benchmark') as session:
        number = 0
        for turn in range(setup.rounds):
            cells = [(i, rate) for rate in setup.rates for i in range(len(setup.models))]
            for cell in cells if turn % 2 == 0 else cells[::-1]:
                before = _energy()
                series = _run(session, setup, source, *cell, Path(folder), f'/node_{number}')
                after = _energy()
                if before is not None and after is not None and after > before:
                    joules.setdefault(cell, []).append(
                        (after - before) / max(1, series.counts['published'])
                    )
                found.setdefault(cell, []).append(series)
                on_series(setup.models[cell[0]], series)
                number += 1
    return [
        _figures(setup, cell, each, found[(0, cell[1])], truths, bundles[cell[0]], joules.get(cell))
        for cell, each in found.items()
    ]


def failures(figures: Sequence[Figures], limits: Limits) -> list[str]:
    """Return what does not keep the limits, in words; raises UserError where it is not known."""
    failed = []
    for each in figures:
        where = f'{each.model} at {each.rate:g} Hz'
        if limits.max_p90_ms is not None and each.e2e_receive.p90 > limits.max_p90_ms:
            failed.append(
                f'{where}: p90 {each.e2e_receive.p90:.2f} ms is over {limits.max_p90_ms:g} ms'
            )
        if limits.min_ap50 is not None:
            if each.ap50 is None or np.isnan(each.ap50):
                raise UserError(
                    f'{where}: no ground truth, so AP50 cannot be measured: take the source sim, '
                    'or images:DIR of an annotated data set'
                )
            if each.ap50 < limits.min_ap50:
                failed.append(f'{where}: AP50 {each.ap50:.3f} is under {limits.min_ap50:g}')
        if limits.max_miss_rate is not None:
            if each.miss_rate is None:
                raise UserError('a limit of the miss rate needs a budget (--budget MS)')
            if each.miss_rate > limits.max_miss_rate:
                failed.append(
                    f'{where}: {100 * each.miss_rate:.1f} % of the frames received missed the '
                    f'budget, more than {100 * limits.max_miss_rate:g} %'
                )
    return failed


def as_json(figures: Sequence[Figures], setup: Setup, failed: Sequence[str]) -> dict[str, Any]:
    """Return figures, configuration and environment as JSON values."""
    return {
        'benchmark': 'node',
        'clock': 'system',
        'environment': environment(),
        'configuration': {**asdict(setup), 'warm_up_s': WARM_UP_S},
        'figures': [
            {
                **asdict(each),
                'energy': 'not measured'
                if each.joules_per_frame is None
                else 'RAPL, package 0: all that the processor did',
            }
            for each in figures
        ],
        'failed': list(failed),
    }


def as_table(figures: Sequence[Figures]) -> Table:
    """Return a table, a model and rate a line."""
    header = (
        ' | Hz:.4g | p50 ms:.2f | 95 % | p90 ms:.2f | p99 ms:.2f | engine:.2f | wait:.2f | '
        'received | superseded | other drops | missed | AP50:.3f | CPU %:.0f | MB:.0f | '
        'start s:.2f | made by | '
    )
    return Table.under(header, [_row(each) for each in figures])


def _row(each: Figures) -> tuple[Any, ...]:
    low, high = each.e2e_receive.p50_interval or (float('nan'),) * 2
    return (
        each.model,
        each.rate,
        each.e2e_receive.p50,
        f'{low:.2f} … {high:.2f}',
        each.e2e_receive.p90,
        each.e2e_receive.p99,
        each.stages['inference'].p50,
        each.engine_wait.p50,
        each.counts['received'],
        each.counts['superseded'],
        each.counts['stale'] + each.counts['error'],
        '' if each.miss_rate is None else f'{100 * each.miss_rate:.1f} %',
        each.ap50,
        each.cpu_percent,
        each.rss_mb,
        each.first_detection_s,
        ', '.join(f'{name} {count}' for name, count in each.members.items()),
        'SATURATED' if each.saturated else '',
    )


def _run(
    session: Session,
    setup: Setup,
    source: Source,
    model: int,
    rate: float,
    folder: Path,
    namespace: str,
) -> Series:
    parameters: dict[str, Any] = {
        'model': setup.models[model],
        'threads': setup.threads,
        'execution_provider': setup.execution_provider,
    }
    if setup.budget_ms:
        parameters['latency_budget_ms'] = setup.budget_ms
    if setup.active_member:
        parameters['active_member'] = setup.active_member
    camera: list[str] | None = None
    if source.kind == SIMULATION:
        camera = node_command('simulated_robot', namespace, {'rate_hz': rate})
    elif source.kind != 'topic':
        size = {'width': setup.width, 'height': setup.height}
        given = {'source': str(Path(source.value).expanduser())} if source.value else size
        camera = camera_command(
            f'{namespace}/image_raw', rate=rate, frames=round(setup.seconds * rate), **given
        )

    def with_load(_session: Session, children: Children, _node: Child) -> None:
        start_load(children, setup.load)

    return run_series(
        session,
        PERCEPTION,
        parameters,
        camera,
        folder=folder,
        namespace=namespace,
        seconds=setup.seconds,
        started=with_load,
        remap=source.value if source.kind == 'topic' else '',
        endless=source.kind == SIMULATION,
    )


def _truths(source: Source, labels: Sequence[str]) -> dict[int, list[list[Any]]] | None:
    """Return the ground truth of a source by the frames' index; None where there is none."""
    notes = data_set(str(Path(source.value).expanduser())) if source.kind == 'images' else None
    if notes is None:
        return None
    notes = notes.with_labels(labels, 'the model')
    return {
        index: [
            [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 1.0, labels[class_id]]
            for (x0, y0, x1, y1), class_id, crowd in zip(
                boxes.tolist(), ids.tolist(), crowds.tolist(), strict=True
            )
            if not crowd
        ]
        for index, (boxes, ids, crowds) in enumerate(
            zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)
        )
    }


def _figures(
    setup: Setup,
    cell: tuple[int, float],
    all_series: Sequence[Series],
    first: Sequence[Series],
    truths: Mapping[int, list[list[Any]]] | None,
    bundle: Any,
    joules: Sequence[float] | None,
) -> Figures:
    lines = [line for series in all_series for line in _steady(series)]
    e2e = [_e2e_receive(series) for series in all_series]
    whole = summarize(np.concatenate(e2e))
    if whole is None or any(not each.size for each in e2e):
        raise UserError(
            f'{setup.models[cell[0]]} at {cell[1]:g} Hz: no frame came back after the first '
            f'{WARM_UP_S:g} s: does the source end early? Run longer (--seconds), or give more '
            'frames'
        )

    def stage(name: str) -> Summary:
        known = [line[name] for line in lines if line[name] is not None]
        found = summarize(np.array(known, float) / NS_PER_MS, resamples=0)
        assert found is not None
        return found

    def percentile_ratio(q: float) -> Ratio:
        base = [np.percentile(_e2e_receive(series), q) for series in first]
        return ratio([float(np.percentile(each, q)) for each in e2e], base)

    counts = {key: sum(s.counts[key] for s in all_series) for key in all_series[0].counts}
    losses = [series.loss for series in all_series]
    members: dict[str, int] = {}
    for line in lines:
        members[line['model']] = members.get(line['model'], 0) + 1
    metrics = _accuracy(all_series, truths, bundle)
    return Figures(
        model=setup.models[cell[0]],
        rate=cell[1],
        e2e_receive=replace(whole),
        stages={name: stage(name) for name in FRAME_QUANTITIES},
        engine_wait=stage('engine_wait'),
        counts=counts,
        middleware_loss=None if None in losses else sum(each or 0 for each in losses),
        miss_rate=_miss_rate(all_series, setup.budget_ms) if setup.budget_ms else None,
        saturated=any(series.saturated for series in all_series),
        members=members,
        ap50=None if metrics is None else metrics.ap50,
        ap50_interval=None if metrics is None else metrics.ap50_interval,
        first_detection_s=float(np.median([each.first_detection_s for each in all_series])),
        cpu_percent=float(np.median([each.cpu_percent for each in all_series])),
        rss_mb=float(np.median([each.rss_mb for each in all_series])),
        joules_per_frame=None if not joules else float(np.median(joules)),
        p50_ratio=percentile_ratio(50),
        p90_ratio=percentile_ratio(90),
    )


def _steady(series: Series) -> list[Mapping[str, Any]]:
    """Return the lines of the frames after the warm-up."""
    if not series.timings:
        return []
    start = series.timings[0]['stamp_ns'] + round(WARM_UP_S * 1e9)
    return [line for line in series.timings if line['stamp_ns'] >= start]


def _e2e_receive(series: Series) -> np.ndarray:
    stamps = [line['stamp_ns'] for line in _steady(series) if line['stamp_ns'] in series.received]
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
    all_series: Sequence[Series], truths: Mapping[int, list[list[Any]]] | None, bundle: Any
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
    return accuracy(expected, published, bundle.labels, score_threshold=bundle.thresholds.score)


def _energy() -> float | None:
    """Return the joules that the processor has used; None where nothing can be read."""
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None
