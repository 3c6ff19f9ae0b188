"""Automatic layer-wise decomposition selector: the largest error of any layer, made smallest.

Chooses groups k and rank j of every layer so that max over layers of ‖W − Ŵ‖₂ / σ₁(W) is minimal
within the budget. (Liebenwein et al., Towards determining the optimal layer-wise decomposition,
NeurIPS 2021.) Two things differ from the paper, which both make the largest error smaller:

* The search is exact. The paper alternates, from random starts, between the ranks at fixed groups
  and the groups at fixed sizes of the layers. But the problem falls apart into the layers: at a
  given ε each takes the cheapest of all its (k, j) whose error is at most ε, whatever the others
  do, and the total falls as ε rises. The smallest ε that meets the budget is the optimum.
* The error is ‖[E_1 … E_k]‖₂ itself and not its bound √k · max_i σ_{i,j+1}, which is loose for
  many groups and so would rule them out.

ε is relative to σ₁(W) ‖a‖ for a receptive field a. It is therefore not comparable with the ε of
channel pruning, which is relative to the contributions of the channels to an output: no common
budget of errors can be divided between the two.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.lowrank.assembly import assemble
from pruned_perception.pruning.lowrank.decomposition import Decomposition
from pruned_perception.pruning.lowrank.factorisation import relative_errors, slices
from pruned_perception.pruning.lowrank.layers import LayerShape, find_layers
from pruned_perception.pruning.lowrank.ranks import equalise, options

_RANKS = 64  # evaluated per number of groups: an error costs an eigendecomposition of f × f


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
        layer = model.get_submodule(name)
        errors = {
            groups: relative_errors(slices(layer, groups), ranks)
            for groups in shape.groupings
            if (ranks := _ranks(shape, groups))
        }
        found[name] = options(shape, errors)
    return assemble('alds', model, network, equalise(network, found, budget))


def _ranks(shape: LayerShape, groups: int) -> list[int]:
    """Return ranks that shrink the layer: all, or evenly spaced ones where there are many."""
    every = range(1, shape.full_rank(groups) + 1)
    shrinking = [rank for rank in every if shape.shrinks(groups, rank)]
    return shrinking[:: max(1, math.ceil(len(shrinking) / _RANKS))]
