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

"""Methods that choose ranks, and how a budget is divided among the layers.

A method is a function here with the decorator `method`. It says what level each option has, for
example its relative error; options are pairs of k groups and rank j, and staying as it is.

The highest level of any layer becomes as low as the budget allows: all layers start at their
cheapest option, and the one at the highest level takes its next, as long as something fits. The
first that does not fit is at the lowest common level that the budget allows: each layer is at its
cheapest option not above that level, and a lower one needs a dearer option here. What remains goes
to the others, so that no part of the budget is left to rounding.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Latency, Macs, Params
from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.lowrank.decomposition import Decomposition, Projection, assemble
from pruned_perception.pruning.lowrank.factorisation import relative_errors, slices
from pruned_perception.pruning.lowrank.layers import Candidates, LayerShape, LayerSize, find_layers


class RankMethod(Protocol):
    """From a network and a budget to a decomposition: the groups and rank of each layer."""

    __name__: str

    def __call__(
        self,
        model: nn.Module,
        example_inputs: Sequence[Tensor],
        budget: Macs | Params | Latency,
        *,
        ignored_layers: Collection[str] = (),
        seed: int = 0,
        calibration: Iterable[Batch] | None = None,
    ) -> Decomposition:
        """Choose groups and rank of each layer within the budget.

        Args:
            model: the dense network; untouched.
            example_inputs: its positional inputs, which are run once.
            budget: the share of the dense multiply-accumulates or parameters that may remain, or
                milliseconds: then a layer has the ranks that the table says are faster, alone.
            ignored_layers: names of layers to leave alone.
            seed: of methods that draw random numbers.
            calibration: batches of inputs without labels, of methods that look at data.

        Raises:
            BudgetError: the budget cannot be met; says what can.
            PruningError: an unknown layer in `ignored_layers`, or no calibration set where one is
                needed.
        """


_METHODS: dict[str, RankMethod] = {}


def method(function: RankMethod) -> RankMethod:
    """Register a method under its function's name."""
    placed = _METHODS[function.__name__] = on_cpu(function)
    return placed


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(_METHODS)


def get(name: str) -> RankMethod:
    """Return the method of that name; raises PruningError with the names that there are."""
    if name not in _METHODS:
        raise PruningError(f'unknown low-rank method {name!r}; there are {", ".join(_METHODS)}')
    return _METHODS[name]


# Groups k and rank j of each layer that is decomposed.
Choice = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Option:
    """What a layer can become: k groups of rank j (rank 0: it stays as it is), at which level."""

    groups: int
    rank: int
    size: LayerSize
    level: float


def options(
    shape: LayerShape, levels: Mapping[int, Mapping[int, float]], *, shifted: bool = False
) -> list[Option]:
    """Return a layer's options: those that are smaller than it, and staying as it is at level 0.

    Args:
        shape: of the layer.
        levels: for numbers of groups k and ranks j: the level ≥ 0.
        shifted: the factors have a bias even where the layer has none.
    """
    found = [Option(1, 0, shape.dense, 0.0)]
    for groups, each in levels.items():
        found += [
            Option(groups, rank, shape.factored(groups, rank, shifted=shifted), level)
            for rank, level in each.items()
            if shape.shrinks(groups, rank, shifted=shifted)
        ]
    return found


def frontier(options: Sequence[Option], budget: Macs | Params | Latency) -> list[Option]:
    """Return the options that no other beats in cost and level, from the cheapest to level 0."""
    best: list[Option] = []
    for option in sorted(options, key=lambda each: (each.size.of(budget), each.level)):
        if not best or option.level < best[-1].level:
            best.append(option)
    return best


def equalise(
    network: Candidates, options: Mapping[str, Sequence[Option]], budget: Macs | Params | Latency
) -> Choice:
    """Return the choice whose highest level is the lowest that the budget allows.

    Args:
        network: as `find_layers` returns.
        options: of each layer that can be decomposed; one of them at level 0.
        budget: a share of the dense network, or milliseconds.

    Raises:
        BudgetError: the cheapest options of all layers do not meet it; says what can be met.
    """
    if not isinstance(budget, Macs | Params | Latency):
        raise BudgetError(f'budget: ranks are chosen for Macs, Params or Latency, got {budget}')
    fronts = {name: frontier(each, budget) for name, each in options.items()}
    dense = network.dense.of(budget)
    fixed = dense - sum(network.shapes[name].dense.of(budget) for name in fronts)
    least = fixed + sum(front[0].size.of(budget) for front in fronts.values())
    if isinstance(budget, Latency):
        allowed = budget.ms
        if least > allowed:
            raise BudgetError(
                f'a budget of {budget} cannot be met by low rank: where it is faster at all, the '
                f'nearest is {math.ceil(1e3 * least) / 1e3:g} ms ({dense:.4g} ms whole); prune '
                'channels'
            )
    elif least > (allowed := math.floor(budget.share * dense)):
        share = math.ceil(1e4 * least / dense) / 1e4
        raise BudgetError(
            f'a budget of {budget} cannot be met by low rank: at rank 1 wherever it is smaller, '
            f'the nearest is {share:g} ({least:,} of {dense:,}); allow it, keep fewer layers or '
            'prune channels'
        )

    spare = allowed - least
    position = dict.fromkeys(fronts, 0)

    def entry(name: str) -> tuple[float, float, str] | None:
        now, *later = fronts[name][position[name] : position[name] + 2]
        price = later[0].size.of(budget) - now.size.of(budget) if later else 0
        return (-now.level, price, name) if later else None

    queue = [each for name in fronts if (each := entry(name))]
    heapq.heapify(queue)
    while queue:
        _, price, name = heapq.heappop(queue)
        if price <= spare:
            spare -= price
            position[name] += 1
            if later := entry(name):
                heapq.heappush(queue, later)
    chosen = {name: front[position[name]] for name, front in fronts.items()}
    return {name: (each.groups, each.rank) for name, each in chosen.items() if each.rank}


_RANKS = 64  # evaluated per number of groups: an error costs an eigendecomposition of f × f


@method
def alds(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params | Latency,
    *,
    ignored_layers: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `RankMethod`. Needs neither `seed` nor `calibration`.

    Automatic layer-wise decomposition selector: the largest error of any layer, made smallest.

    Chooses groups k and rank j of every layer so that max over layers of ‖W − Ŵ‖₂ / σ₁(W) is
    minimal within the budget. (Liebenwein et al., Towards determining the optimal layer-wise
    decomposition, NeurIPS 2021.) Two things differ from the paper, which both make the largest
    error smaller:

    * The search is exact. The paper alternates, from random starts, between the ranks at fixed
      groups and the groups at fixed sizes of the layers. But the problem falls apart into the
      layers: at a given ε each takes the cheapest of all its (k, j) whose error is at most ε,
      whatever the others do, and the total falls as ε rises. The smallest ε that meets the budget
      is the optimum.
    * The error is ‖[E_1 … E_k]‖₂ itself and not its bound √k · max_i σ_{i,j+1}, which is loose for
      many groups and so would rule them out.

    ε is relative to σ₁(W) ‖a‖ for a receptive field a. It is therefore not comparable with the ε of
    channel pruning, which is relative to the contributions of the channels to an output: no common
    budget of errors can be divided between the two.
    """
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers, budget=budget)
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


@method
def l_rank(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params | Latency,
    *,
    ignored_layers: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `RankMethod`. Needs neither `seed` nor `calibration`.

    Ranks that minimise Σ ‖W − W_j‖²_F + λ · cost(j) over all layers, λ chosen to meet the budget.

    For a given λ the sum falls apart into the layers, and each layer's minimum over its ranks (and
    staying as it is) is found exactly: it lies on the lower convex hull of its errors over its
    costs. A point of the hull is the cheapest minimum for every λ from the slope of the segment to
    the next dearer point upwards, so that these slopes are the levels of λ that the budget chooses
    from; k = 1.

    Source: Idelbayev and Carreira-Perpiñán, Low-rank compression of neural nets: learning the rank
    of each layer (CVPR 2020), of whose alternation between learning and compression this is the
    latter step, at the weights as they are.
    """
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers, budget=budget)
    found = {}
    for name, shape in network.shapes.items():
        values = torch.linalg.svdvals(slices(model.get_submodule(name), 1)[0])
        errors = [*values.square().flip(0).cumsum(0).flip(0)[1:].tolist(), 0.0]
        every = options(shape, {1: dict(enumerate(errors, 1))})
        found[name] = marginal(frontier(every, budget), budget)
    return assemble('l_rank', model, network, equalise(network, found, budget))


def marginal(front: Sequence[Option], budget: Macs | Params | Latency) -> list[Option]:
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


@method
def pca(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params | Latency,
    *,
    ignored_layers: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `RankMethod`. Needs `calibration`, but no `seed`.

    Principal components of a layer's outputs: low rank where the data is, not the weight.

    Over the calibration set a layer's outputs y = W a + b have the mean ȳ and the covariance C. Of
    all projections of rank j, U Uᵀ with the leading eigenvectors U of C minimises the mean of ‖(y −
    ȳ) − U Uᵀ (y − ȳ)‖²; what is lost are the eigenvalues that are left out. The projected outputs U
    Uᵀ (y − ȳ) + ȳ are two layers: Uᵀ W, then U with the bias b + (I − U Uᵀ) (ȳ − b), so that the
    mean is exact. Every layer gets the smallest rank that retains a common share of the variance; k
    = 1.

    Each layer is measured in the dense network, in evaluation mode; the non-linearity that follows
    is not taken into account.

    Source: Zhang et al., Accelerating very deep convolutional networks for classification and
    detection (TPAMI 2016), section 3.1, with a common share in place of its greedy selection.
    """
    if calibration is None:
        raise PruningError(
            'pca: needs a calibration set; give batches of inputs without labels as `calibration`'
        )
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers, budget=budget)
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


@method
def svd(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params | Latency,
    *,
    ignored_layers: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `RankMethod`. Needs neither `seed` nor `calibration`.

    Truncated singular value decomposition with the same share of the rank everywhere.

    Every layer keeps the share ρ of its full rank min(f, c κ), one ρ for all; k = 1. The baseline
    without any choice per layer (Denton et al., Exploiting linear structure, NeurIPS 2014).
    """
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers, budget=budget)
    found = {}
    for name, shape in network.shapes.items():
        full = shape.full_rank(1)
        lost = {rank: 1 - rank / full for rank in range(1, full + 1)}
        found[name] = options(shape, {1: lost})
    return assemble('svd', model, network, equalise(network, found, budget))


@method
def svd_energy(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Macs | Params | Latency,
    *,
    ignored_layers: Collection[str] = (),
    seed: int = 0,
    calibration: Iterable[Batch] | None = None,
) -> Decomposition:
    """Choose the ranks; see `RankMethod`. Needs neither `seed` nor `calibration`.

    Truncated singular value decomposition that retains the same energy everywhere.

    The energy of a rank is the share Σ_{i≤j} σ_i² / Σ_i σ_i² of the weight's squared singular
    values. Every layer gets the smallest rank that keeps a common share, one for all; k = 1.
    (Alvarez and Salzmann, Compression-aware training of deep networks, NeurIPS 2017, choose ranks
    like this.)
    """
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers, budget=budget)
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
