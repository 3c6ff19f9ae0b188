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
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import (
    Batch,
    CalibrationRecord,
    CheckedBatches,
    as_inputs,
)
from pruned_perception.pruning.contributions import Layer, fields, kernel, sampled
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import observed, run

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
                'measured; name it in `keep`'
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
