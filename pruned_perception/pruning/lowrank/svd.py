"""Truncated singular value decomposition with the same share of the rank everywhere.

Every layer keeps the share ρ of its full rank min(f, c κ), one ρ for all; k = 1. The baseline
without any choice per layer (Denton et al., Exploiting linear structure, NeurIPS 2014).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.lowrank.assembly import assemble
from pruned_perception.pruning.lowrank.decomposition import Decomposition
from pruned_perception.pruning.lowrank.layers import find_layers
from pruned_perception.pruning.lowrank.ranks import equalise, options


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
        full = shape.full_rank(1)
        lost = {rank: 1 - rank / full for rank in range(1, full + 1)}
        found[name] = options(shape, {1: lost})
    return assemble('svd', model, network, equalise(network, found, budget))
