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

"""SiPP: weights pruned by their sensitivity, with a guarantee for every neuron.

With the sensitivities and the two ways of pruning a side that `sensitivity` describes:

* `deterministic`: the largest sensitivities of the network are kept. The bound of a side is
  K Σ_{pruned} s; the choice makes the sum of these bounds as small as the budget allows.
* `random`: every side draws, one ε for all of them. (The published allocation minimises Σ ε_i
  over the draws instead; one ε makes the largest error smallest, which is what a claim about all
  neurons needs.)
* `hybrid`: every side takes whichever way keeps fewer weights at the common ε. Its largest bound
  is not above that of `random` with the same budget, nor above that of `deterministic` where the
  latter is below 1: of the hybrid division, all sides drawn and all sides certain, the best is
  taken. (A side that is dropped altogether loses exactly 1, whatever its sensitivities, which is
  why `deterministic` may drop sides and the others keep one weight of each.)

A layer's bound is the largest of its sides': |ẑ − z| ≤ ε V for each of its neurons, the layer fed
with the dense network's activations. At 1 and more it is vacuous. Weights that never mattered on
the calibration set (s = 0) go first and add nothing to the bound.

Source: Baykal et al., SiPPing neural networks (SIAM J. Math. Data Sci. 2022), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import Layer, kernel
from pruned_perception.pruning.records import CalibrationRecord
from pruned_perception.pruning.sparsity.selection import (
    Choice,
    Pool,
    Request,
    from_kernel,
    keep_highest,
    method,
    neuron_sums,
)
from pruned_perception.pruning.sparsity.sensitivity import (
    Claim,
    LayerSensitivity,
    Part,
    Side,
    drawn,
    fit,
    level,
    sides_of,
    smaller,
    weight_sensitivities,
)

Division = Callable[[Sequence[Side], int, Claim], list[Part]]


@method
def sipp_deterministic(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep the largest sensitivities."""
    measured, record = _measure(model, layers, request, 'sipp_deterministic')
    scores = {name: from_kernel(layers[name], each.values) for name, each in measured.items()}
    masks = keep_highest(layers, scores, request)
    bounds = {
        name: request.K * _largest_loss(layers[name], scores[name] * ~masks[name])
        for name in layers
    }
    return Choice(masks, bounds, record)


@method
def sipp_random(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Draw weights in proportion to their sensitivities; unbiased."""
    return _divided(model, layers, request, 'sipp_random', _all_drawn)


@method
def sipp_hybrid(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Draw or keep the largest, per side whichever errs less."""
    return _divided(model, layers, request, 'sipp_hybrid', _hybrid)


def _all_drawn(sides: Sequence[Side], wanted: int, claim: Claim) -> list[Part]:
    return fit(drawn, sides, wanted, claim)


def _hybrid(sides: Sequence[Side], wanted: int, claim: Claim) -> list[Part]:
    divisions = (
        fit(smaller, sides, wanted, claim),
        level(sides, wanted, claim),
        fit(drawn, sides, wanted, claim),
    )
    return min(divisions, key=lambda parts: max(part.error for part in parts))


def _measure(
    model: nn.Module, layers: Mapping[str, Layer], request: Request, method: str
) -> tuple[dict[str, LayerSensitivity], CalibrationRecord]:
    return weight_sensitivities(
        model,
        layers,
        request.batches(method),
        positions=request.positions,
        generator=request.generator,
    )


def _divided(
    model: nn.Module,
    layers: Mapping[str, Layer],
    request: Request,
    method: str,
    division: Division,
) -> Choice:
    measured, record = _measure(model, layers, request, method)
    sides = sides_of(layers, measured)
    events = sum(each.events for each in measured.values())
    claim = Claim(events, request.delta, request.K)
    seed = int(torch.randint(2**62, (1,), generator=request.generator))
    rng = np.random.default_rng(seed)
    factors = {name: torch.zeros(layer.weight.numel()) for name, layer in layers.items()}
    bounds = dict.fromkeys(layers, 0.0)
    for pool in request.pools:
        own = [side for side in sides if side.layer in pool.layers]
        if not own:
            continue
        parts = _parts(own, pool, request, claim, division)
        for part, values in zip(parts, _sample(parts, pool.weights, rng), strict=True):
            name = part.side.layer
            factors[name][part.side.indices] = values.float()
            bounds[name] = max(bounds[name], part.error)
    shaped = {
        name: from_kernel(layer, factors[name].view_as(kernel(layer)))
        for name, layer in layers.items()
    }
    return Choice(shaped, bounds, record)


def _parts(
    sides: Sequence[Side], pool: Pool, request: Request, claim: Claim, division: Division
) -> list[Part]:
    if pool.weights >= sum(map(len, sides)):
        return [Part(side, 0.0, len(side)) for side in sides]
    if pool.weights < len(sides):
        raise request.too_small(
            pool, len(sides), 'one weight for each sign of each active neuron is needed'
        )
    return division(sides, pool.weights, claim)


def _sample(parts: Sequence[Part], wanted: int, rng: np.random.Generator) -> list[Tensor]:
    """Return each part's factors; draw again in the rare case that too many are distinct.

    Four standard deviations of margin leave that a probability of some 3e-5, which moves the
    mean of a weight by less than 1 % of its standard deviation.
    """
    while True:
        found = [_factors(part, rng) for part in parts]
        if sum(int((values > 0).sum()) for values in found) <= wanted:
            return found


def _factors(part: Part, rng: np.random.Generator) -> Tensor:
    if part.draws is not None:
        return part.side.draw(part.draws, rng)
    return (torch.arange(len(part.side)) < part.kept).double()


def _largest_loss(layer: Layer, lost: Tensor) -> float:
    """Return the largest sum over a side of what is lost, given in the weight's shape."""
    return max(
        float(neuron_sums(layer, lost.double() * (sign * layer.weight.detach() > 0)).max())
        for sign in (1, -1)
    )
