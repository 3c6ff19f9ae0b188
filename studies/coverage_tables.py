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

"""Rows of the study of coverage, their file, and the tables that the documentation shows."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scipy import stats

SURPRISE = 1e-3
"""A share of wrong statements that chance makes as large more rarely is a defect."""


@dataclass(frozen=True)
class Row:
    """One figure of one cell."""

    part: str
    scenario: str
    size: int
    """Drives, layouts, runs or images."""
    icc: float
    rate: float
    method: str
    offered: bool
    """Whether the package makes this statement in this cell."""
    measure: str
    """wrong, bound, power, delay (drives) or reached."""
    value: float
    nominal: float
    """Share of wrong statements that is promised, at most; NaN for other measures."""
    worlds: int

    @property
    def is_defect(self) -> bool:
        """Say whether an offered statement is wrong more often than promised and chance allows."""
        if not self.offered or self.measure != 'wrong':
            return False
        failures = round(self.value * self.worlds)
        return float(stats.binom.sf(failures - 1, self.worlds, self.nominal)) < SURPRISE


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV; none where there is no such file."""
    if not path.is_file():
        return []
    types: dict[str, Callable[[str], Any]] = {
        'size': int,
        'worlds': int,
        'offered': lambda text: text == 'True',
    }
    types |= dict.fromkeys(('icc', 'rate', 'value', 'nominal'), float)
    with path.open(newline='', encoding='utf-8') as file:
        return [
            Row(**{key: types.get(key, str)(text) for key, text in line.items()})
            for line in csv.DictReader(file)
        ]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows, whole or not at all."""
    temporary = path.with_suffix('.part')
    with temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)], lineterminator='\n')
        writer.writeheader()
        for row in rows:
            data = asdict(row)
            writer.writerow({k: f'{v:.5g}' if isinstance(v, float) else v for k, v in data.items()})
    temporary.replace(path)


def as_tables(rows: Sequence[Row]) -> str:
    """Return all tables, in Markdown."""
    tables = (
        _one_bound,
        _several,
        _stakes,
        _watched,
        _potential,
        _stricter,
        _compared,
        _medians,
        _factor,
    )
    return '\n\n'.join(table(rows) for table in tables)


def _table(caption: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = [f'**{caption}**', '', _line(header), _line(['---'] * len(header))]
    return '\n'.join([*text, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _pick(rows: Iterable[Row], **wanted: object) -> list[Row]:
    return [
        row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
    ]


def _values(rows: Iterable[Row], attribute: str) -> list:
    return list(dict.fromkeys(getattr(row, attribute) for row in rows))


def _coverage(rows: Sequence[Row], choose: Callable[[Iterable[float]], float] = max) -> str:
    """Return the least coverage of the rows, in percent."""
    wrong = [row.value for row in rows if row.measure == 'wrong']
    return f'{100 * (1 - choose(wrong)):.1f}' if wrong else '–'


def _mean(rows: Sequence[Row], measure: str = 'bound') -> str:
    values = [row.value for row in rows if row.measure == measure]
    return f'{100 * sum(values) / len(values):.1f}' if values else '–'


def _one_bound(rows: Sequence[Row]) -> str:
    part = _pick(rows, part='one bound')
    methods = _values(part, 'method')
    lines = []
    for world in _values(part, 'scenario'):
        for drives in _values(part, 'size'):
            cells = _pick(part, scenario=world, size=drives)
            each = [_pick(cells, method=name) for name in methods]
            usual = [_pick(cells, method=name, icc=0.1, rate=0.1) for name in methods]
            if not usual[0]:
                usual = [_pick(cells, method=name, icc=0.3, rate=0.1) for name in methods]
            lines.append([world, str(drives), *map(_coverage, each), *map(_mean, usual)])
    return _table(
        'One bound at 95 %: least coverage over ICC 0 … .7 and rates .02 … .3, and mean bound at '
        'the rate .1, ICC .1 (.3 with rare failures); percent',
        ['drives', 'number', *methods, *(f'bound: {name}' for name in methods)],
        lines,
    )


def _several(rows: Sequence[Row]) -> str:
    lines = []
    for name in ('four slices', 'three kinds', 'best of five', 'looked at again'):
        part = _pick(rows, part=name)
        for method in _values(part, 'method'):
            mine = _pick(part, method=method)
            sizes = [_coverage(_pick(mine, size=size)) for size in (3, 5, 8, 20, 40, 100, 300)]
            offered = 'yes' if any(row.offered for row in mine) else 'no'
            lines.append([name, method, offered, *sizes])
    return _table(
        'Several statements at once, at 95 % together: least coverage over ICC and lengths, by '
        'number of drives; percent',
        ['statements', 'method', 'offered', *map(str, (3, 5, 8, 20, 40, 100, 300))],
        lines,
    )


def _stakes(rows: Sequence[Row]) -> str:
    part = _pick(rows, part='stakes')
    cells = list(dict.fromkeys((r.scenario, r.size, r.icc, r.rate) for r in part))
    methods = _values(part, 'method')
    lines = []
    for scenario, size, icc, rate in cells:
        cell = _pick(part, scenario=scenario, size=size, icc=icc, rate=rate)
        values = [_mean(_pick(cell, method=name)) for name in methods]
        lines.append([scenario, str(size), f'{rate:g}', f'{icc:g}', *values])
    return _table(
        'Ways to choose λ, all proven: mean bound, percent',
        ['drives', 'number', 'rate', 'ICC', *methods],
        lines,
    )


def _watched(rows: Sequence[Row]) -> str:
    part = _pick(rows, part='watched')
    lines = []
    for scenario in _values(part, 'scenario'):
        for icc in _values(part, 'icc'):
            for bound in _values(part, 'rate'):
                cell = _pick(part, scenario=scenario, icc=icc, rate=bound)
                wrong = [
                    f'{100 * _pick(cell, method=name)[0].value:.2f}'
                    for name in ('by drives', 'by frames')
                ]
                delays = [
                    _delay(_pick(cell, method=f'by drives, {factor} × the bound'))
                    for factor in (2, 3)
                ]
                lines.append([scenario, f'{icc:g}', f'{bound:g}', *wrong, *delays])
    return _table(
        'Watched over 300 drives of 50 compared frames, α = 1 %: false alarms at the certified '
        'bound itself (percent), and the median drive of the alarm beyond it',
        ['drives', 'ICC', 'bound', 'by drives', 'by frames', 'at 2 × bound', 'at 3 × bound'],
        lines,
    )


def _delay(rows: Sequence[Row]) -> str:
    delay, found = _pick(rows, measure='delay')[0].value, _pick(rows, measure='power')[0].value
    return f'{delay:.0f}' if math.isfinite(delay) else f'> 300 ({100 * found:.0f} % found)'


def _potential(rows: Sequence[Row], part_name: str = 'prune potential', level: str = '95 %') -> str:
    part = _pick(rows, part=part_name)
    methods = _values(part, 'method')
    lines = []
    for scenario in _values(part, 'scenario'):
        for margin in _values(part, 'rate'):
            for size in _values(part, 'size'):
                cell = _pick(part, scenario=scenario, rate=margin, size=size)
                values = [
                    f'{100 * found[0].value:.1f}' if (found := _pick(cell, method=name)) else '–'
                    for name in methods
                ]
                lines.append([scenario, f'{margin:g}', str(size), *values])
    return _table(
        f'Prune potential at {level}, three members under four corruptions: worlds with any wrong '
        'certification, and certified members where all lose less than the margin; percent',
        ['layouts', 'margin', 'number', *methods],
        lines,
    )


def _stricter(rows: Sequence[Row]) -> str:
    return _potential(rows, 'stricter potential', '99.9 %')


def _compared(rows: Sequence[Row]) -> str:
    part = _pick(rows, part='methods compared')
    lines = []
    for scenario in _values(part, 'scenario'):
        for method in _values(part, 'method'):
            mine = _pick(part, scenario=scenario, method=method)
            values = []
            for size in _values(mine, 'size'):
                wrong, half = _pick(mine, size=size)
                values.append(f'{100 * wrong.value:.1f} (± {100 * half.value:.2f})')
            lines.append([scenario, method, 'yes' if mine[0].offered else 'no', *values])
    return _table(
        'Two methods that are equally good, on 1,000 images: intervals at 95 % that say otherwise, '
        'by number of seeds, and the mean half width; percent, points',
        ['what differs', 'interval over', 'offered', *map(str, _values(part, 'size'))],
        lines,
    )


def _medians(rows: Sequence[Row]) -> str:
    lines = []
    for name in ('median of runs', 'median of rounds'):
        part = _pick(rows, part=name)
        for scenario in _values(part, 'scenario'):
            for method in _values(part, 'method'):
                mine = _pick(part, scenario=scenario, method=method)
                if not mine:
                    continue
                offered = 'yes' if mine[0].offered else 'no'
                values = [_coverage(_pick(mine, size=size)) for size in (5, 6, 10, 20)]
                lines.append([scenario, method, offered, *values])
    return _table(
        'Intervals at 95 %: coverage by number of runs or rounds; percent',
        ['values', 'method', 'offered', '5', '6', '10', '20'],
        lines,
    )


def _factor(rows: Sequence[Row]) -> str:
    part = _pick(rows, part='conformal K')
    methods = _values(part, 'method')
    lines = [
        [
            str(size),
            *(f'{100 * _pick(part, size=size, method=name)[0].value:.1f}' for name in methods),
        ]
        for size in _values(part, 'size')
    ]
    return _table(
        'K for δ = .1 (half of it for K): new images that exceed it, and second halves with more '
        'than δ of such; percent',
        ['images of the second half', *methods],
        lines,
    )
