"""A comparison's results as a picture: figure against what is left of the network."""

from __future__ import annotations

from pathlib import Path

from pruned_perception.pruning.compare.study import PARENT
from pruned_perception.pruning.compare.table import Mean, Row, Table
from pruned_perception.pruning.errors import PruningError

FORMATS = ('.png', '.svg', '.pdf')
_COLOURS = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000', '#999933',
    '#882255', '#44aa99',
)  # fmt: skip
_MARKERS = 'osD^vP*Xph'


def draw(table: Table, path: Path) -> None:
    """Write a plot: a panel without fine-tuning and one for each fine-tuning.

    Where nothing was made without fine-tuning, the first panel is before the first of them.

    Points are means over seeds at the mean share of MACs (of parameters where those do not differ),
    bars the standard deviation over seeds; the dashed line is the parent.

    Raises:
        PruningError: another format than PNG, SVG or PDF, no results, or matplotlib is missing.
    """
    if path.suffix not in FORMATS:
        raise PruningError(f'{path}: a plot is one of {", ".join(FORMATS)}')
    rows = [row for row in table.rows if row.method != PARENT]
    if not rows:
        raise PruningError(f'{path}: no results to draw yet')
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PruningError(
            "plots need matplotlib: pip install 'pruned_perception[bench]'"
        ) from error
    methods = list(dict.fromkeys(row.method for row in rows))
    by_params = all(row.macs == 1 for row in rows)
    panels: dict[str, list[tuple[Row, Mean]]] = {}
    for tuning in dict.fromkeys(row.finetuning for row in rows):
        own = [row for row in rows if row.finetuning == tuning]
        title = 'not fine-tuned' if tuning == '–' else f'fine-tuned: {tuning}'
        if not panels and (before := [(row, row.before) for row in own if row.before]):
            panels['before fine-tuning'] = before
        panels[title] = [(row, row.after) for row in own]
    with mpl.rc_context({'font.size': 10, 'svg.fonttype': 'none'}):
        figure = Figure(figsize=(5.2 * len(panels) + 2.0, 4.2), layout='constrained')
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, points) in zip(axes, panels.items(), strict=True):
            for number, method in enumerate(methods):
                line = [(row, mean) for row, mean in points if row.method == method]
                line.sort(key=lambda each: _share(each[0], by_params))
                axis.errorbar(
                    [100 * _share(row, by_params) for row, _ in line],
                    [mean.mean for _, mean in line],
                    yerr=[mean.deviation or 0.0 for _, mean in line],
                    label=method,
                    color=_COLOURS[number % len(_COLOURS)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=5,
                    capsize=3,
                    linewidth=1.4,
                )
            for row in table.rows:
                if row.method == PARENT:
                    axis.axhline(row.after.mean, color='0.4', linestyle='--', label=PARENT)
            axis.set_title(title)
            axis.set_xlabel(f'{"parameters" if by_params else "MACs"} left, % of the parent')
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(table.figure)
        handles, labels = axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside right upper', frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _share(row: Row, by_params: bool) -> float:
    return row.params if by_params else row.macs
