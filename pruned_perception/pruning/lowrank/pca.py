"""Principal components of a layer's outputs: low rank where the data is, not the weight.

Over the calibration set a layer's outputs y = W a + b have the mean ȳ and the covariance C. Of all
projections of rank j, U Uᵀ with the leading eigenvectors U of C minimises the mean of
‖(y − ȳ) − U Uᵀ (y − ȳ)‖²; what is lost are the eigenvalues that are left out. The projected outputs
U Uᵀ (y − ȳ) + ȳ are two layers: Uᵀ W, then U with the bias b + (I − U Uᵀ) (ȳ − b), so that the mean
is exact. Every layer gets the smallest rank that retains a common share of the variance; k = 1.

Each layer is measured in the dense network, in evaluation mode; the non-linearity that follows is
not taken into account.

Source: Zhang et al., Accelerating very deep convolutional networks for classification and detection
(TPAMI 2016), section 3.1, with a common share in place of its greedy selection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.lowrank.assembly import assemble
from pruned_perception.pruning.lowrank.decomposition import Decomposition, Projection
from pruned_perception.pruning.lowrank.layers import find_layers
from pruned_perception.pruning.lowrank.ranks import equalise, options
from pruned_perception.pruning.lowrank.svd_energy import lost_energy


def plan(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params,
    *,
    keep: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `Method.plan`. Needs `calibration`, but no `seed`."""
    if calibration is None:
        raise PruningError(
            'pca: needs a calibration set; give batches of inputs without labels as `calibration`'
        )
    network = find_layers(model, example_inputs, keep=keep)
    batches = CheckedBatches(calibration, example_inputs)
    means, bases, found = {}, {}, {}
    for name, (mean, covariance) in _moments(model, network.shapes, batches).items():
        bias = model.get_submodule(name).bias
        means[name] = mean - bias.detach().cpu().double() if isinstance(bias, Tensor) else mean
        values, vectors = torch.linalg.eigh(covariance)
        bases[name] = vectors.flip(1)  # eigh sorts from the smallest
        lost = lost_energy(values.flip(0).clamp(min=0))
        found[name] = options(network.shapes[name], {1: lost}, shifted=True)
    choice = equalise(network, found, budget)
    projections = {}
    for name, (_, rank) in choice.items():
        basis, mean = bases[name][:, :rank].contiguous(), means[name]
        projections[name] = Projection(basis, mean - basis @ (basis.T @ mean))
    return assemble(
        'pca', model, network, choice, projections=projections, calibration=batches.record
    )


def _moments(
    model: nn.Module, layers: Collection[str], batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean (f,) and covariance (f, f) of each layer's outputs over all positions."""
    totals: dict[str, list[Tensor]] = {}

    def add(name: str, _: Tensor, output: Tensor) -> None:
        channel = 1 if isinstance(model.get_submodule(name), nn.Conv2d) else -1
        rows = output.detach().cpu().double().movedim(channel, -1).flatten(0, -2)
        sums = [rows.new_tensor(len(rows)), rows.sum(0), rows.T @ rows]
        known = totals.get(name, [torch.zeros_like(each) for each in sums])
        totals[name] = [old + new for old, new in zip(known, sums, strict=True)]

    with observed(model, layers, add):
        run(model, batches)
    moments = {}
    for name, (count, total, squares) in totals.items():
        mean = total / count
        moments[name] = (mean, squares / count - mean.outer(mean))
    return moments
