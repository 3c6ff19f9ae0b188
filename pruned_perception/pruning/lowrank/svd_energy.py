"""Truncated singular value decomposition that retains the same energy everywhere.

The energy of a rank is the share Σ_{i≤j} σ_i² / Σ_i σ_i² of the weight's squared singular values.
Every layer gets the smallest rank that keeps a common share, one for all; k = 1. (Alvarez and
Salzmann, Compression-aware training of deep networks, NeurIPS 2017, choose ranks like this.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.lowrank.assembly import assemble
from pruned_perception.pruning.lowrank.decomposition import Decomposition
from pruned_perception.pruning.lowrank.factorisation import slices
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
        lost = lost_energy(torch.linalg.svdvals(slices(model.get_submodule(name), 1)[0]).square())
        found[name] = options(shape, {1: lost})
    return assemble('svd_energy', model, network, equalise(network, found, budget))


def lost_energy(energies: Tensor) -> dict[int, float]:
    """Return, for j = 1 … n, the share of the total in all but the first j of n `energies` ≥ 0."""
    tails = energies.flip(0).cumsum(0).flip(0)
    total = float(tails[0])
    lost = [*tails[1:].tolist(), 0.0]
    return {rank: each / total if total else 0.0 for rank, each in enumerate(lost, 1)}
