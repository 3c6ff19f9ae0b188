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

"""Empirical sensitivity of single weights: how much of a neuron's output can hang on one of them.

A neuron i computes z = Σ_k w_k a_k (before its bias) at each output position, k running over its
input channels and kernel taps. Its positive and its negative weights are two *sides*, each with

    z± = Σ_{k on the side} |w_k| a_k,      V± = Σ_{k on the side} |w_k| |a_k|,      z = z⁺ − z⁻.

The sensitivity of a weight is the largest share it ever has of its own side,

    s_k = max over calibration inputs and positions of |w_k a_k| / V±,

which is the paper's where activations are non-negative (after ReLU) and holds for any activation:
whatever a side's estimate ẑ± guarantees relative to V± it guarantees, both sides together,
relative to V = V⁺ + V⁻ ≥ |z|. The sum S of a side's sensitivities is at least 1 where the side is
ever active, and at most its number of weights.

Positions are sampled, so s is an estimate from below of the maximum over all of them.

Source: Baykal et al., SiPPing neural networks (SIAM J. Math. Data Sci. 2022), section 3.

Pruning sides, and the division of a budget among them.

A side with sensitivities s_k, S = Σ s_k, keeps its guarantee |ẑ± − z±| ≤ ε V± in two ways:

* certain: the n largest s_k are kept. Exactly, on the calibration inputs, and on any input whose
  shares are at most K s_k: ε = K Σ_{pruned} s_k.
* random: m draws with replacement from p_k = s_k / S; ŵ_k = w_k n_k / (m p_k) with n_k the times
  that k was drawn, so that E[ŵ] = w. A draw's term |w_k a_k| / (m p_k) is at most K S V± / m,
  which is the setting of `bounds`: m(ε) draws suffice with probability ≥ 1 − δ for N events. Kept
  are the distinct weights, U(m) of them in expectation.

A neuron whose sides have ε each has |ẑ − z| ≤ ε (V⁺ + V⁻) = ε V, by the triangle inequality.
One ε for all sides (`fit`) makes the largest of their errors as small as the budget allows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.bounds import Claim, expected_distinct, sample_complexity
from pruned_perception.pruning.calibration import Batch, CheckedBatches, as_inputs
from pruned_perception.pruning.contributions import Layer, fields, kernel, sampled
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.records import CalibrationRecord

# What is lost of sides this far below others is lost below the rounding of the others' outputs.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class LayerSensitivity:
    """Sensitivities of one layer's weights.

    Attributes:
        values: (groups, f/groups, c/groups · κ), in the order of `contributions.kernel`.
        events: outputs × positions × 2 sides on one example.
        signed: whether the layer ever saw a negative activation.
    """

    values: Tensor
    events: int
    signed: bool


@torch.no_grad()
def weight_sensitivities(
    model: nn.Module,
    layers: Mapping[str, Layer],
    calibration: Iterable[Batch],
    *,
    positions: int | None,
    generator: torch.Generator,
    negligible: float = _NEGLIGIBLE,
) -> tuple[dict[str, LayerSensitivity], CalibrationRecord]:
    """Measure the sensitivity of every weight of `layers` in one pass over `calibration`.

    Memory does not depend on the number of images: one batch, and one number per weight.

    Args:
        model: is run in evaluation mode and left as it was.
        layers: of `model`, by name.
        calibration: batches of inputs, without labels.
        positions: output positions sampled per image; None for all of them.
        generator: of the positions.
        negligible: a side below this share of the largest of its layer, on the inputs that are
            looked at together, counts as silent there, and 0/0 = 0.

    Raises:
        PruningError: an empty or unusable calibration set, or a layer that it never reaches.
    """
    values = {name: torch.zeros_like(kernel(layer).flatten(2)) for name, layer in layers.items()}
    outputs = dict.fromkeys(layers, 0)
    signed = dict.fromkeys(layers, False)

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        layer = layers[name]
        found, weight = fields(layer, x), kernel(layer)
        outputs[name] += output.numel()
        signed[name] |= bool((x < 0).any())
        for field in sampled(found, weight, positions, generator):
            for part, own, largest in zip(
                field.chunk(weight.shape[0]), weight.flatten(2), values[name], strict=True
            ):
                _update(largest, part.transpose(0, 1).flatten(1).abs(), own, negligible)

    batches = _checked(calibration)
    with observed(model, layers, observe):
        run(model, batches)
    images = batches.record.images
    found = {}
    for name in layers:
        if not outputs[name]:
            raise PruningError(
                f'{name}: the network never calls it as a layer, so its inputs cannot be '
                'measured; name it in `ignored_layers`'
            )
        events = 2 * math.ceil(outputs[name] / images)
        found[name] = LayerSensitivity(values[name].clamp(max=1), events, signed[name])
    return found, batches.record


def _update(largest: Tensor, activations: Tensor, weight: Tensor, negligible: float) -> None:
    """Raise `largest` (f, d) to the shares at n positions; `activations` (n, d) ≥ 0."""
    sides = torch.cat((weight.clamp(min=0), (-weight).clamp(min=0)))
    sums = activations @ sides.T
    silent = sums <= negligible * sums.max()
    upper, lower = sums.reciprocal_().masked_fill_(silent, 0.0).chunk(2, dim=1)
    positive, magnitude = weight > 0, weight.abs()
    for values, above, below in zip(activations, upper, lower, strict=True):
        share = torch.where(positive, above[:, None], below[:, None])
        torch.maximum(largest, share.mul_(values).mul_(magnitude), out=largest)


def _checked(calibration: Iterable[Batch]) -> CheckedBatches:
    """Return the batches, checked to be all like the first."""
    iterator = iter(calibration)
    first = next(iterator, None)
    if first is None:
        return CheckedBatches((), ())
    return CheckedBatches(itertools.chain((first,), iterator), as_inputs(first))


# Standard deviations by which the expected number of distinct weights stays below the budget.
_MARGIN = 4.0
_SMALLEST_ERROR = 1e-6
_PRECISION = 1e-3  # relative, of ε


@dataclass(frozen=True, eq=False)
class Side:
    """The weights of one sign of one neuron that were ever active.

    Attributes:
        layer: name of the layer.
        indices: (n,) of the weights in the flattened `contributions.kernel`.
        sensitivities: (n,) > 0, largest first, in double precision.
        signed: whether the activations have both signs.
    """

    layer: str
    indices: Tensor
    sensitivities: Tensor
    signed: bool

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def total(self) -> float:
        """S, the sum of the sensitivities."""
        return float(self.sensitivities.sum())

    @cached_property
    def probabilities(self) -> Tensor:
        """p_k = s_k / S."""
        return self.sensitivities / self.total

    @cached_property
    def tails(self) -> Tensor:
        """(n + 1,): what is lost, Σ_{pruned} s, when the 0 … n largest are kept."""
        zero = self.sensitivities.new_zeros(1)
        return torch.cat((zero, self.sensitivities.flip(0).cumsum(0))).flip(0)

    def draw(self, draws: int, rng: np.random.Generator) -> Tensor:
        """Return (n,) factors n_k / (m p_k) of m draws, 0 where a weight was not drawn."""
        p = self.probabilities.numpy()
        return torch.from_numpy(rng.multinomial(draws, p / p.sum()) / (draws * p))


@dataclass(frozen=True)
class Part:
    """How one side is pruned, and what that costs.

    Attributes:
        side: which.
        error: ε, relative to V±.
        kept: weights kept, in expectation where they are drawn.
        draws: how many draws; None where the largest are kept for certain.
        variance: of the number of weights kept.
    """

    side: Side
    error: float
    kept: float
    draws: int | None = None
    variance: float = 0.0


Way = Callable[[Side, float, Claim], Part]


def sides_of(
    layers: Mapping[str, Layer], sensitivities: Mapping[str, LayerSensitivity]
) -> list[Side]:
    """Return all sides that were ever active, layer by layer, neuron by neuron."""
    found = []
    for name, layer in layers.items():
        signs = kernel(layer).flatten(2).flatten(0, 1).sign()
        measured = sensitivities[name]
        values = measured.values.flatten(0, 1).double()
        inputs = values.shape[1]
        for neuron, (row, own) in enumerate(zip(values, signs, strict=True)):
            for sign in (1, -1):
                (indices,) = torch.where((own == sign) & (row > 0))
                if len(indices):
                    ordered = row[indices].sort(descending=True, stable=True)
                    where = neuron * inputs + indices[ordered.indices]
                    found.append(Side(name, where, ordered.values, measured.signed))
    return found


def certain(side: Side, epsilon: float, claim: Claim) -> Part:
    """Keep as few of the largest as `epsilon` allows, but one."""
    losses = claim.K * side.tails
    kept = max(1, int((losses > epsilon).sum()))
    return Part(side, float(losses[kept]), kept)


def drawn(side: Side, epsilon: float, claim: Claim) -> Part:
    """Draw as many times as `epsilon` needs.

    The variance of the number of distinct weights D is at most E[D] and at most E[n − D], since
    their indicators are negatively correlated; E[m − D], the repeated draws, bounds it where few
    are repeated (exactly for equal p_k, where D is a sum of independent indicators).
    """
    draws = sample_complexity(
        epsilon, side.total, claim.events, delta=claim.delta, K=claim.K, signed=side.signed
    )
    kept = expected_distinct(side.probabilities, draws)
    variance = max(0.0, min(kept, len(side) - kept, draws - kept))
    return Part(side, epsilon, kept, draws, variance)


def smaller(side: Side, epsilon: float, claim: Claim) -> Part:
    """Take whichever way keeps fewer weights at this error."""
    return min(certain(side, epsilon, claim), drawn(side, epsilon, claim), key=lambda p: p.kept)


def fit(way: Way, sides: Sequence[Side], wanted: int, claim: Claim) -> list[Part]:
    """Return parts of one ε, the smallest (to 0.1 %) that keeps at most `wanted` weights.

    Where weights are drawn their expected number stays four standard deviations below `wanted`.
    There must be at least as many `wanted` as sides.
    """

    def parts(epsilon: float) -> list[Part]:
        return [way(side, epsilon, claim) for side in sides]

    def fits(parts: list[Part]) -> bool:
        spread = math.sqrt(sum(part.variance for part in parts))
        return sum(part.kept for part in parts) + _MARGIN * spread <= wanted + 1e-6

    low, high = _SMALLEST_ERROR, 1.0
    while not fits(best := parts(high)):
        low, high = high, 4 * high
    while high > (1 + _PRECISION) * low:
        middle = math.sqrt(low * high)
        if fits(found := parts(middle)):
            high, best = middle, found
        else:
            low = middle
    return best


def level(sides: Sequence[Side], wanted: int, claim: Claim) -> list[Part]:
    """Return certain parts that keep `wanted` weights with the smallest largest error, exactly.

    Keeping the n-th weight of a side lowers its error from tail n − 1, and these fall with n: the
    weights in front of the highest tails are those to keep.
    """
    order = torch.cat([side.tails[:-1] for side in sides])
    owners = torch.cat([torch.full((len(side),), i) for i, side in enumerate(sides)])
    starts = torch.tensor([0, *(len(side) for side in sides[:-1])]).cumsum(0)
    order[starts] = torch.inf  # one weight each
    chosen = order.topk(min(wanted, len(order))).indices
    counts = torch.bincount(owners[chosen], minlength=len(sides)).tolist()
    return [
        Part(side, claim.K * float(side.tails[kept]), kept)
        for side, kept in zip(sides, counts, strict=True)
    ]
