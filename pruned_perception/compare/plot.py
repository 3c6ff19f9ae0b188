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

"""A comparison's results as a picture: figure against what is left of the network, or by method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception._plots import literal, matplotlib
from pruned_perception.compare.study import PARENT
from pruned_perception.compare.table import Mean, Row, Table
from pruned_perception.pruning.errors import PruningError

FORMATS = ('.png', '.svg', '.pdf')
_COLOURS = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000', '#999933',
    '#882255', '#44aa99',
)  # fmt: skip
_MARKERS = 'osD^vP*Xp'  # no multiple of the colours: a pair returns after 90 methods


@dataclass(frozen=True)
class _Panel:
    title: str
    points: list[tuple[Row, Mean]]
    parent: float | None


def draw(table: Table, path: Path) -> None:
    """Write a plot: a panel without fine-tuning and one for each fine-tuning.

    Where nothing was made without fine-tuning, the first panel is before the first of them. What
    was measured on test data, too, has a panel more.

    Points are means over seeds, bars the standard deviation over seeds, the dashed line is the
    parent. Of several budgets, a line per method over the mean share of MACs (of parameters where
    those do not differ); of one, a row per method, the best on top, by the last panel that has it.

    Raises:
        PruningError: another format than PNG, SVG or PDF, no results, or matplotlib is missing.
    """
    if path.suffix not in FORMATS:
        raise PruningError(f'{path}: a plot is one of {", ".join(FORMATS)}')
    rows = [row for row in table.rows if row.method != PARENT]
    if not rows:
        raise PruningError(f'{path}: no results to draw yet')
    library = matplotlib(PruningError)
    panels = _panels(rows, next((row for row in table.rows if row.method == PARENT), None))
    of_one_budget = len({row.budget for row in rows}) == 1
    with library.rc_context({'font.size': 10, 'svg.fonttype': 'none'}):
        figure = library.figure.Figure(layout='constrained')
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        make = _by_method if of_one_budget else _by_share
        make(figure, axes, rows, panels, literal(table.figure))
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_title(literal(panel.title))
            axis.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _panels(rows: list[Row], parent: Row | None) -> list[_Panel]:
    whole = parent.after.mean if parent else None
    panels: list[_Panel] = []
    for tuning in dict.fromkeys(row.finetuning for row in rows):
        own = [row for row in rows if row.finetuning == tuning]
        title = 'not fine-tuned' if tuning == '–' else f'fine-tuned: {tuning}'
        if not panels and (before := [(row, row.before) for row in own if row.before]):
            panels.append(_Panel('before fine-tuning', before, whole))
        panels.append(_Panel(title, [(row, row.after) for row in own], whole))
        if tested := [(row, row.test) for row in own if row.test]:
            whole_tested = parent.test.mean if parent and parent.test else None
            panels.append(_Panel(f'{title}; test data', tested, whole_tested))
    return panels


def _by_share(figure: Any, axes: Any, rows: list[Row], panels: list[_Panel], name: str) -> None:
    """Draw a line per method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    by_params = all(row.macs_share == 1 for row in rows)
    figure.set_size_inches(5.2 * len(panels) + 2.0, max(4.2, 0.25 * (len(methods) + 3)))
    for axis, panel in zip(axes, panels, strict=True):
        for number, method in enumerate(methods):
            line = [(row, mean) for row, mean in panel.points if row.method == method]
            line.sort(key=lambda each: _share(each[0], by_params))
            axis.errorbar(
                [100 * _share(row, by_params) for row, _ in line],
                [mean.mean for _, mean in line],
                yerr=[mean.deviation or 0.0 for _, mean in line],
                label=literal(method),
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=5,
                capsize=3,
                linewidth=1.4,
            )
        if panel.parent is not None:
            axis.axhline(panel.parent, color='0.4', linestyle='--', label=PARENT)
        axis.set_xlabel(f'{"parameters" if by_params else "MACs"} left, % of the parent')
    axes[0].set_ylabel(name)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right upper', frameon=False)


def _by_method(figure: Any, axes: Any, rows: list[Row], panels: list[_Panel], name: str) -> None:
    """Draw a row per method: with one budget, shares say nothing."""
    last = {row.method: mean.mean for panel in panels for row, mean in panel.points}
    methods = sorted(last, key=lambda method: last[method])
    places = {method: place for place, method in enumerate(methods)}
    figure.set_size_inches(4.2 * len(panels) + 2.4, 1.4 + 0.26 * len(methods))
    for axis, panel in zip(axes, panels, strict=True):
        axis.errorbar(
            [mean.mean for _, mean in panel.points],
            [places[row.method] for row, _ in panel.points],
            xerr=[mean.deviation or 0.0 for _, mean in panel.points],
            color=_COLOURS[0],
            marker='o',
            markersize=5,
            capsize=3,
            linestyle='none',
        )
        if panel.parent is not None:
            axis.axvline(panel.parent, color='0.4', linestyle='--', label=PARENT)
        axis.set_xlabel(f'{name}, {literal(rows[0].budget)}')
    axes[0].set_yticks(range(len(methods)), [literal(each) for each in methods])
    axes[0].set_ylim(-0.5, len(methods) - 0.5)  # else bars of the outer rows touch the frame
    if panels[0].parent is not None:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc='outside lower right', frameon=False
        )


def _share(row: Row, by_params: bool) -> float:
    return row.params_share if by_params else row.macs_share
