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

"""A comparison's results as one table: means over seeds, differences to a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruned_perception._tables import Table as Columns
from pruned_perception.compare.result import Result, find_failure, find_result
from pruned_perception.compare.study import PARENT, Cell, Study
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record
from pruned_perception.pruning.statistics import (
    PairedDifference,
    crossed_difference,
    holm,
    paired_difference,
)
from pruned_perception.training.task import first_figure

_LEAST_P = 1e-4
"""Tails beyond it are no better known than their normality."""


@dataclass(frozen=True)
class Mean:
    """Mean over seeds and, of two or more, their standard deviation."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean | None:
        """Return the mean of some values; None where there are none."""
        if not values:
            return None
        spread = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), spread)

    def to_text(self) -> str:
        """Return both, to four digits."""
        spread = '' if self.deviation is None else f' ± {self.deviation:.2g}'
        return f'{self.mean:.4g}{spread}'


@dataclass(frozen=True)
class Row(Record):
    """One method at one budget and fine-tuning.

    `macs_share` and `params_share` are left of the parent, means over seeds; `before` is the figure
    before the (last) fine-tuning, None where there is none, `after` the final one.
    `difference` is that of the final one to the baseline's, paired by seed, with its 95 % interval:
    over seeds and images where the task's figures have outcomes of the images, else over seeds,
    two at least.
    """

    method: str
    budget: str
    finetuning: str
    seeds: tuple[int, ...]
    macs_share: float
    params_share: float
    before: Mean | None
    after: Mean
    test: Mean | None
    difference: PairedDifference | None
    test_difference: PairedDifference | None
    cpu_seconds: float | None = None
    """Of choosing and fine-tuning, mean over seeds; None unless times were asked for."""
    steps: float | None = None
    """Of fine-tuning, mean over seeds; None in tables that did not keep them."""
    values: dict[str, float] = field(default_factory=dict)
    """Seed → the final figure: what the differences can be computed from again."""
    test_values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        former = {'macs': 'macs_share', 'params': 'params_share'}  # names in tables of before
        return {former.get(name, name): value for name, value in data.items()}


@dataclass(frozen=True)
class Table(Record):
    """All rows, the parent's first.

    `figure` names what is compared; `missing` the cells without a result, `failed` why some have
    none.
    """

    figure: str
    baseline: str | None
    rows: tuple[Row, ...]
    cells: int
    missing: tuple[str, ...]
    failed: dict[str, str]
    chosen_on: tuple[int, ...] = ()
    """Seeds by which the methods were chosen: left out of all differences."""

    @property
    def adjusted(self) -> dict[tuple[int, str], float]:
        """(row, 'difference' or 'test_difference') → its p, by Holm over all of the table."""
        every = [
            (n, name, found)
            for n, row in enumerate(self.rows)
            for name in ('difference', 'test_difference')
            if (found := getattr(row, name)) is not None
        ]
        values = holm([found.p_value for *_, found in every])
        return {(n, name): p for (n, name, _), p in zip(every, values, strict=True)}

    @property
    def _intervals(self) -> str:
        """Say what the intervals are over."""
        found = [getattr(self.rows[n], name) for n, name in self.adjusted]
        images = sorted({each.images for each in found if each.images is not None})
        kinds = {(each.images is not None, each.pairs > 1) for each in found}
        counts = ' or '.join(f'{count:,}' for count in images)
        text = {
            (True, True): f'seeds and {counts} images (or groups of frames)',
            (True, False): f'{counts} images (or groups of frames), of these very networks',
            (False, True): 'seeds alone, on these very images',
        }
        return 'Intervals are over ' + '; or '.join(text[kind] for kind in sorted(kinds)[::-1])

    def to_text(self) -> str:
        """Return the table in Markdown."""
        tested = any(row.test for row in self.rows)
        timed = any(row.cpu_seconds is not None for row in self.rows)
        header = [
            'method', 'budget', 'fine-tuning', 'seeds', 'MACs', 'parameters',
            'before fine-tuning', self.figure, f'against {self.baseline}',
            *([f'test {self.figure}', f'test, against {self.baseline}'] if tested else []),
            *(['CPU min'] if timed else []), 'steps',
        ]  # fmt: skip
        adjusted = self.adjusted
        rows = [
            [
                row.method,
                row.budget,
                row.finetuning,
                str(len(row.seeds)),
                f'{row.macs_share:.1%}',
                f'{row.params_share:.1%}',
                row.before.to_text() if row.before else '–',
                row.after.to_text(),
                _interval(row.difference, adjusted.get((n, 'difference'))),
                *([row.test.to_text() if row.test else '–'] if tested else []),
                *(
                    [_interval(row.test_difference, adjusted.get((n, 'test_difference')))]
                    if tested
                    else []
                ),
                *([_minutes(row.cpu_seconds)] if timed else []),
                '–' if row.steps is None else f'{row.steps:.0f}',
            ]
            for n, row in enumerate(self.rows)
        ]
        text = [Columns([(each, '') for each in header], rows).to_markdown(padded=True)]
        done = self.cells - len(self.missing)
        text += ['', f'{done} of {self.cells} cells done; ± is the standard deviation over seeds']
        if adjusted:
            text.append(
                f'p: of {len(adjusted)} differences, by Holm: those below .05 stand together. '
                + self._intervals
            )
        if self.chosen_on:
            seeds = ', '.join(map(str, self.chosen_on))
            text.append(f'seeds that chose the methods, left out of the differences: {seeds}')
        if self.missing:
            text.append(f'missing: {", ".join(self.missing)}')
        text += [f'failed: {name}: {reason}' for name, reason in self.failed.items()]
        return '\n'.join(text)


def _interval(difference: PairedDifference | None, p: float | None) -> str:
    if difference is None or p is None:
        return '–'
    low, high = difference.low, difference.high
    small = f'< {_LEAST_P:g}' if p < _LEAST_P else f'{p:.2g}'
    return f'{difference.mean:+.3g} [{low:+.3g}, {high:+.3g}], p {small}'


def _minutes(cpu_seconds: float | None) -> str:
    return '–' if cpu_seconds is None else f'{cpu_seconds / 60:.2g}'


def make_table(study: Study, results: Path, *, times: bool = False) -> Table:
    """Return the table of all results that are there.

    With `times`, CPU minutes as well: the one thing in it that another run makes otherwise.
    """
    found = {cell.name: find_result(results, cell) for cell in study.cells}
    groups: dict[tuple[str, str, str], list[tuple[Cell, Result]]] = {}
    for cell in study.cells:
        if (result := found[cell.name]) is not None:
            groups.setdefault(_key(cell), []).append((cell, result))
    order = list(dict.fromkeys(_key(cell)[1:] for cell in study.cells))  # what is to be compared
    rows = [
        _row(key, groups[key], groups, study, times=times)
        for key in sorted(groups, key=lambda key: order.index(key[1:]))
    ]
    some = next((each for each in found.values() if each is not None), None)
    return Table(
        figure=next(iter(some.after)) if some else 'figure',
        baseline=study.baseline,
        rows=tuple(rows),
        cells=len(study.cells),
        missing=tuple(name for name, result in found.items() if result is None),
        failed={
            cell.name: reason
            for cell in study.cells
            if (reason := find_failure(results, cell)) is not None
        },
        chosen_on=study.chosen_on,
    )


def _key(cell: Cell) -> tuple[str, str, str]:
    budget = '' if cell.budget is None else str(cell.budget)
    return cell.label, budget, str(cell.finetuning.budget) if cell.finetuning else ''


def _row(
    key: tuple[str, str, str],
    members: list[tuple[Cell, Result]],
    groups: dict[tuple[str, str, str], list[tuple[Cell, Result]]],
    study: Study,
    *,
    times: bool,
) -> Row:
    results = [result for _, result in members]
    opposite = groups.get((study.baseline or '', *key[1:]), [])
    own = key[0] in (study.baseline, PARENT)
    after = Mean.of([first_figure(each.after) for each in results])
    assert after is not None
    return Row(
        method=key[0],
        budget=key[1] or '–',
        finetuning=key[2] or '–',
        seeds=tuple(cell.seed for cell, _ in members),
        macs_share=statistics.fmean(each.shares['macs'] for each in results),
        params_share=statistics.fmean(each.shares['params'] for each in results),
        before=Mean.of([first_figure(each.before) for each in results if each.before and key[2]]),
        after=after,
        test=Mean.of([first_figure(each.test) for each in results if each.test]),
        difference=None if own else _difference(members, opposite, 'after', study.chosen_on),
        test_difference=None if own else _difference(members, opposite, 'test', study.chosen_on),
        cpu_seconds=statistics.fmean(each.cpu_seconds for each in results) if times else None,
        steps=statistics.fmean(
            sum(stage.steps for stage in each.pipeline.stages) for each in results
        ),
        values={str(cell.seed): first_figure(each.after) for cell, each in members},
        test_values={
            str(cell.seed): first_figure(each.test) for cell, each in members if each.test
        },
    )


def _difference(
    ours: list[tuple[Cell, Result]],
    theirs: list[tuple[Cell, Result]],
    which: str,
    chosen_on: Collection[int],
) -> PairedDifference | None:
    """Return the difference over the fresh seeds that both have; None where there are too few."""
    mine, other = ({cell.seed: result for cell, result in each} for each in (ours, theirs))
    common = [
        (result, other[seed])
        for seed, result in mine.items()
        if seed in other
        and seed not in chosen_on
        and getattr(result, which)
        and getattr(other[seed], which)
    ]
    sides = list(zip(*common, strict=True))
    name = 'outcomes' if which == 'after' else 'test_outcomes'
    kept = [[getattr(result, name) for result in side] for side in sides]
    if kept and all(each is not None for side in kept for each in side):
        if len({each.images for side in kept for each in side}) > 1:
            raise PruningError(
                f'{ours[0][1].cell}: its outcomes are of another number of images than those of '
                f'{theirs[0][1].cell}: the task has changed; delete the results'
            )
        return crossed_difference(*([each.values for each in side] for side in kept))
    if len(common) < 2:
        return None
    return paired_difference(
        *([first_figure(getattr(result, which)) for result in side] for side in sides)
    )
