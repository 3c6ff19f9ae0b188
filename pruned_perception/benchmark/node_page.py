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

"""What `benchmark node` found, as JSON, as tables and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pruned_perception import _pages as pages
from pruned_perception._tables import Table, shown
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.frame_source import MAX, OWN, rate_text
from pruned_perception.benchmark.node import WARM_UP_S, Figures, Measured
from pruned_perception.benchmark.overhead import Ratio, interval_text
from pruned_perception.inference.frame_times import FRAME_QUANTITIES

NOT_MEASURED = 'not measured'
_STAGES = FRAME_QUANTITIES[:-1]


def as_json(measured: Measured, failed: Sequence[str]) -> dict[str, Any]:
    """Return figures, configuration and environment as JSON values."""
    rates = [_rate(rate) for rate in measured.setup.rates]
    content = {
        'benchmark': 'node',
        'clock': 'system',
        'environment': environment(),
        'configuration': {**asdict(measured.setup), 'rates': rates, 'warm_up_s': WARM_UP_S},
        'energy': measured.sensor or NOT_MEASURED,
        'figures': [{**asdict(each), 'rate': _rate(each.rate)} for each in measured.figures],
        'failed': list(failed),
    }
    found: dict[str, Any] = _finite(content)
    return found


def _rate(rate: float) -> float | str:
    return rate_text(rate) if rate in (MAX, OWN) else rate


def _finite(value: Any) -> Any:
    """Return JSON values with null for what is no number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def latency_table(measured: Measured) -> Table:
    """Return the latencies, a model and rate a line; milliseconds."""
    header = (
        'end to end, ms | rate:s | Hz:.1f | p50:.2f | 95 %:s | p90:.2f | p99:.2f | engine:.2f | '
        'wait:.2f | overhead:.2f | no ROS:.2f | made by | saturated'
    )
    return Table.under(
        header,
        [
            (
                each.model,
                rate_text(each.rate),
                each.achieved_hz,
                each.e2e_receive.p50,
                _interval(each.e2e_receive.p50_interval, '.2f'),
                each.e2e_receive.p90,
                each.e2e_receive.p99,
                each.stages['inference'].p50,
                each.engine_wait.p50,
                each.overhead.p50,
                each.in_process.p50,
                ', '.join(f'{name} {count}' for name, count in each.members.items()),
                'SATURATED' if each.saturated else '',
            )
            for each in measured.figures
        ],
    )


def account_table(measured: Measured) -> Table:
    """Return what became of the frames and what it cost, a model and rate a line."""
    header = (
        'frames and cost | rate:s | received:d | superseded:d | stale, error:d | lost:d | '
        'missed:.1% | AP50:.3f | 95 %:s | start, s:.2f | CPU, %:.0f | MB:.0f | shared:.0f | '
        'J a frame:.2f'
    )
    return Table.under(
        header,
        [
            (
                each.model,
                rate_text(each.rate),
                each.counts['received'],
                each.counts['superseded'],
                each.counts['stale'] + each.counts['error'],
                each.middleware_loss,
                each.miss_rate,
                each.ap50,
                _interval(each.ap50_interval, '.2f'),
                each.first_detection_s,
                each.cpu_percent,
                each.rss_mb,
                each.shared_mb,
                NOT_MEASURED if each.joules_per_frame is None else each.joules_per_frame,
            )
            for each in measured.figures
        ],
    )


def stage_table(measured: Measured) -> Table:
    """Return where the time goes, a model and rate a line; medians, milliseconds."""
    header = ' | '.join(['stages, p50, ms', 'rate:s', *(f'{each}:.2f' for each in _STAGES)])
    return Table.under(
        header,
        [
            (each.model, rate_text(each.rate), *(each.stages[stage].p50 for stage in _STAGES))
            for each in measured.figures
        ],
    )


def ratio_lines(measured: Measured) -> list[str]:
    """Return the comparisons in words: through ROS with without, and models with the first."""
    lines = []
    for each in measured.figures:
        where = f'{each.model} at {rate_text(each.rate)}'
        lines.append(f'{where}, through ROS : without, p50: {_ratio(each.ros_ratio)}')
        if len(measured.setup.models) > 1 and each.model != measured.setup.models[0]:
            lines += [
                f'{where} : {measured.setup.models[0]}, {name}: {_ratio(ratio)}'
                for name, ratio in (('p50', each.p50_ratio), ('p90', each.p90_ratio))
            ]
    return lines


def remarks(measured: Measured) -> list[str]:
    """Return what else is to be said of the figures."""
    said = [f'energy: {measured.sensor}' if measured.sensor else f'energy: {NOT_MEASURED}']
    for each in measured.figures:
        where = f'{each.model} at {rate_text(each.rate)}'
        if each.saturated:
            said.append(
                f'{where}: SATURATED: it could only just keep the rate, or not: its latencies are '
                'those of a queue'
            )
        if each.invalid_ages:
            said.append(
                f'{where}: {each.invalid_ages} frames had stamps of 0 or ahead of the clock, and '
                'are left out: was a clock set?'
            )
    return said


def as_markdown(measured: Measured, failed: Sequence[str], same: Sequence[str]) -> str:
    """Return all of it in Markdown."""
    tables = [table(measured) for table in (latency_table, account_table, stage_table)]
    lines = [*ratio_lines(measured), *same, *remarks(measured), *(f'FAILED: {t}' for t in failed)]
    return '\n\n'.join(
        [*(table.to_markdown() for table in tables), '\n'.join(f'* {line}' for line in lines)]
    )


def as_page(measured: Measured, failed: Sequence[str], same: Sequence[str], command: str) -> str:
    """Return one page that holds all of it.

    Raises UserError where jinja2 is missing.
    """
    machine = environment()
    names = _short_names(measured.setup.models)
    versions = ', '.join(f'{name} {value}' for name, value in machine['versions'].items())
    return pages.render(
        'benchmark/node.html',
        cards=_cards(measured.figures),
        failed=failed,
        remarks=[*same, *remarks(measured)],
        ratios=ratio_lines(measured),
        ranges=_ranges(measured.figures, names),
        latency=_turned(latency_table(measured), names),
        tables=[_turned(table(measured), names) for table in (account_table, stage_table)],
        setup=measured.setup,
        WARM_UP_S=WARM_UP_S,
        made=[
            ('command', command),
            ('date', machine['date']),
            ('CPU', f'{machine["cpu"]}, {machine["cores_usable"]} cores'),
            ('load before', ', '.join(map(str, machine['load_average']))),
            ('system', f'{machine["os"]}, Python {machine["python"]}'),
            ('versions', versions),
            *(
                (f'{each.model}, SHA-256', ', '.join(each.sha256))
                for each in {each.model: each for each in measured.figures}.values()
            ),
        ],
    )


def _cards(figures: Sequence[Figures]) -> list[tuple[str, str]]:
    """Return the first model's figures at its first rate, beside the last model's."""
    ends = [figures[0], *([figures[-1]] if len(figures) > 1 else [])]

    def both(values: Sequence[object], spec: str) -> str:
        return ' → '.join(shown(value, spec) for value in values)

    cards = [
        (both([e.e2e_receive.p50 for e in ends], '.1f') + ' ms', 'end to end, median'),
        (both([e.e2e_receive.p90 for e in ends], '.1f') + ' ms', 'end to end, 90th percentile'),
        (both([e.cpu_percent for e in ends], '.0f') + ' %', 'of a core'),
        (both([e.rss_mb for e in ends], '.0f') + ' MB', 'resident memory'),
    ]
    if figures[0].ap50 is not None:
        cards.append((both([e.ap50 for e in ends], '.3f'), 'AP50 of the published boxes'))
    if figures[0].miss_rate is not None:
        cards.append((both([e.miss_rate for e in ends], '.1%'), 'missed the budget'))
    return cards


def _short_names(models: Sequence[str]) -> dict[str, str]:
    """Return the models' folders, where these tell them apart."""
    short = {model: Path(model).name for model in models}
    return short if len(set(short.values())) == len(short) else {each: each for each in models}


def _turned(table: Table, names: Mapping[str, str]) -> Table:
    """Return a table with a model and rate a column: few of them fit a narrow window."""
    cells = table.cells()
    heads = [(f'{names[model]}\n{rate}', 's') for model, rate, *_ in cells]
    rows = [
        [name, *(row[index] for row in cells)]
        for index, (name, _) in enumerate(table.columns)
        if index > 1
    ]
    return Table([('', ''), *heads], rows)


def _ranges(figures: Sequence[Figures], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the ranges to draw, in shares of the longest 99th percentile."""
    longest = max(each.e2e_receive.p99 for each in figures)
    return [
        {
            'name': f'{names[each.model]}\n{rate_text(each.rate)}',
            'p50': each.e2e_receive.p50 / longest,
            'p90': each.e2e_receive.p90 / longest,
            'p99': each.e2e_receive.p99 / longest,
            'text': ' / '.join(
                f'{value:.1f}'
                for value in (each.e2e_receive.p50, each.e2e_receive.p90, each.e2e_receive.p99)
            ),
            'saturated': each.saturated,
        }
        for each in figures
    ]


def _interval(interval: tuple[float, float] | None, spec: str) -> str | None:
    return None if interval is None else f'{interval[0]:{spec}} … {interval[1]:{spec}}'


def _ratio(ratio: Ratio) -> str:
    return f'{ratio.median:.2f} ({interval_text(ratio.interval)})'
