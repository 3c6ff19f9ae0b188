"""Ranks that minimise Σ ‖W − W_j‖²_F + λ · cost(j) over all layers, λ chosen to meet the budget.

For a given λ the sum falls apart into the layers, and each layer's minimum over its ranks (and
staying as it is) is found exactly: it lies on the lower convex hull of its errors over its costs.
A point of the hull is the cheapest minimum for every λ from the slope of the segment to the next
dearer point upwards, so that these slopes are the levels of λ that the budget chooses from; k = 1.

Source: Idelbayev and Carreira-Perpiñán, Low-rank compression of neural nets: learning the rank of
each layer (CVPR 2020), of whose alternation between learning and compression this is the latter
step, at the weights as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.lowrank.assembly import assemble
from pruned_perception.pruning.lowrank.decomposition import Decomposition
from pruned_perception.pruning.lowrank.factorisation import slices
from pruned_perception.pruning.lowrank.layers import find_layers
from pruned_perception.pruning.lowrank.ranks import Option, equalise, frontier, options


def plan(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params,
    *,
    keep: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `Method.plan`. Needs neither `seed` nor `calibration`."""
    network = find_layers(model, example_inputs, keep=keep)
    found = {}
    for name, shape in network.shapes.items():
        values = torch.linalg.svdvals(slices(model.get_submodule(name), 1)[0])
        errors = [*values.square().flip(0).cumsum(0).flip(0)[1:].tolist(), 0.0]
        every = options(shape, {1: dict(enumerate(errors, 1))})
        found[name] = marginal(frontier(every, budget), budget)
    return assemble('l_rank', model, network, equalise(network, found, budget))


def marginal(front: Sequence[Option], budget: Macs | Params) -> list[Option]:
    """Return the options on the convex hull, each at the smallest λ at which it is the minimum.

    Args:
        front: from the cheapest to the dearest, with levels (errors) that fall.
        budget: what the cost is: parameters or multiply-accumulates.
    """

    def slope(cheap: Option, dear: Option) -> float:
        return (cheap.level - dear.level) / (dear.size.of(budget) - cheap.size.of(budget))

    hull: list[Option] = []
    for option in front:
        while len(hull) > 1 and slope(hull[-1], option) >= slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    slopes = [slope(cheap, dear) for cheap, dear in pairwise(hull)]
    return [
        replace(option, level=level) for option, level in zip(hull, [*slopes, 0.0], strict=True)
    ]
