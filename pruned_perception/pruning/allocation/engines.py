"""Two ways to divide a budget among groups, given each group's error at every width.

Both move in blocks: kept channels are multiples of the engine's block, since a partly filled
block costs as much as a full one. Sizes are exact at every step, and what is left of the budget in
the end is spent as long as another block of some group fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pruned_perception.pruning.structure import Widths

# Errors of a group at k = 0 … c channels kept; falling in k.
Curves = Mapping[str, Sequence[float]]
SizeOf = Callable[[Mapping[str, int]], float]
Engine = Callable[[Curves, SizeOf, float, Mapping[str, int]], Widths]


def floor_widths(channels: Mapping[str, int], blocks: Mapping[str, int]) -> Widths:
    """Return the smallest widths: one block, or the whole group where it has less."""
    return {name: min(blocks[name], count) for name, count in channels.items()}


def least_maximum(curves: Curves, size: SizeOf, budget: float, blocks: Mapping[str, int]) -> Widths:
    """Minimise the largest error of all groups.

    From one block each, the group with the largest error gets the next block (of equal ones, that
    whose block is cheapest), as long as something fits. Errors fall and sizes rise with widths, so
    that no other widths within the budget have a smaller maximum.
    """
    channels = {name: len(curve) - 1 for name, curve in curves.items()}
    widths = floor_widths(channels, blocks)
    open_groups = {name for name in widths if widths[name] < channels[name]}
    while open_groups:
        ranked = sorted(open_groups, key=lambda name: (-curves[name][widths[name]], name))
        worst = curves[ranked[0]][widths[ranked[0]]]
        equal = [name for name in ranked if curves[name][widths[name]] == worst]
        grown = {name: _larger(widths[name], channels[name], blocks[name]) for name in equal}
        prices = {name: size(widths | {name: grown[name]}) for name in equal}
        cheapest = min(equal, key=lambda name: (prices[name], name))
        if prices[cheapest] <= budget:
            widths[cheapest] = grown[cheapest]
            if widths[cheapest] == channels[cheapest]:
                open_groups.remove(cheapest)
        else:  # sizes only rise: it will not fit later either
            open_groups -= set(equal)
    return widths


def least_sum(curves: Curves, size: SizeOf, budget: float, blocks: Mapping[str, int]) -> Widths:
    """Minimise the sum of the groups' errors, greedily.

    From the dense widths, the block that adds least error per saved cost goes first; in the end,
    whatever block gains most is given back while it fits. Errors are replaced by their largest
    convex minorants first, so that a steep place in a curve does not hide a flat one behind it.
    """
    channels = {name: len(curve) - 1 for name, curve in curves.items()}
    floors = floor_widths(channels, blocks)
    convex = {name: _convex_minorant(curve, floors[name]) for name, curve in curves.items()}
    widths = dict(channels)
    current = size(widths)
    while current > budget:
        options = []
        for name, width in widths.items():
            less = max(floors[name], (width - 1) // blocks[name] * blocks[name])
            if less < width:
                saved = current - size(widths | {name: less})
                lost = convex[name][less] - convex[name][width]
                options.append((lost / max(saved, 1e-12), name, less))
        _, name, less = min(options)
        widths[name] = less
        current = size(widths)
    while True:
        fitting = []
        for name, width in widths.items():
            more = _larger(width, channels[name], blocks[name])
            if more > width and size(widths | {name: more}) <= budget:
                fitting.append((convex[name][width] - convex[name][more], name, more))
        if not fitting:
            return widths
        _, name, more = max(fitting)
        widths[name] = more


def _convex_minorant(curve: Sequence[float], first: int) -> list[float]:
    """Return the largest convex function below the curve, from index `first` on."""
    hull: list[tuple[int, float]] = []
    for point in list(enumerate(curve))[first:]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    corners, values = zip(*hull, strict=True)
    return np.interp(np.arange(len(curve)), corners, values).tolist()


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _larger(width: int, channels: int, block: int) -> int:
    return min(channels, (width // block + 1) * block)
