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

"""Which weights stay: the layers that may be pruned, what a method is asked, and simple methods.

A method is a function with the decorator `method`, here or in `sipp`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.records import CalibrationRecord


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """Return all convolutions and linear layers of `model` by name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, LAYERS)}


def weight_layers(model: nn.Module, *, ignored_layers: Collection[str] = ()) -> dict[str, Layer]:
    """Return the convolutions and linear layers of `model` by name, but the ignored ones.

    Args:
        model: any module.
        ignored_layers: layers, or prefixes of layers' names, whose weights all stay.

    Raises:
        PruningError: a name in `ignored_layers` is no such layer and holds none, a weight is shared
            by two layers or computed from other parameters, or nothing is left to prune.
    """
    found = find_layers(model)
    for prefix in ignored_layers:
        if not any(_within(name, prefix) for name in found):
            raise PruningError(
                f'ignored_layers: {prefix!r} is no convolution or linear layer, nor holds any'
            )
    layers = {
        name: layer
        for name, layer in found.items()
        if not any(_within(name, prefix) for prefix in ignored_layers)
    }
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        if layer._parameters.get('weight') is None:
            raise PruningError(
                f'{name}: its weight is computed from other parameters; remove the '
                'parametrization, or name the layer in `ignored_layers`'
            )
        other = owners.setdefault(id(layer.weight), name)
        if other != name:
            raise PruningError(
                f'{name} shares its weight with {other}: name both in `ignored_layers`'
            )
    if not layers:
        raise PruningError(f'{type(model).__name__}: no convolution or linear layer to prune')
    return layers


def from_kernel(layer: Layer, values: Tensor) -> Tensor:
    """Return values in the order of `contributions.kernel(layer)` in the weight's own shape."""
    if isinstance(layer, nn.ConvTranspose2d):  # kernels turned round, outputs before inputs
        c, f, *taps = layer.weight.shape
        split = values.reshape(layer.groups, f, c // layer.groups, *taps)
        return split.transpose(1, 2).reshape(layer.weight.shape).flip(2, 3)
    return values.reshape(layer.weight.shape)


def neuron_sums(layer: Layer, values: Tensor) -> Tensor:
    """Return the sums (f,) over each neuron's weights of values in the weight's shape."""
    if isinstance(layer, nn.ConvTranspose2d):  # (c, f/groups, h, w)
        return values.unflatten(0, (layer.groups, -1)).sum((1, 3, 4)).flatten()
    return values.flatten(1).sum(1)


def _within(layer: str, prefix: str) -> bool:
    return layer == prefix or layer.startswith(f'{prefix}.')


Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Pool:
    """Layers that share a number of `weights` to keep."""

    layers: tuple[str, ...]
    weights: int


@dataclass(frozen=True)
class Request:
    """What a method may use, beside the network.

    Attributes:
        pools: which layers may keep how many weights together; each layer is in one of them.
        parameters: of the dense network.
        fixed: how many of these are not up for pruning.
        calibration: batches, for the methods that look at data.
        loss: (model, batch) → scalar, for the methods that look at gradients.
        positions: output positions sampled per image for sensitivities; None for all.
        delta: probability that a random selection's bound fails.
        K: how far a future input may exceed the measured sensitivities.
        generator: of everything random.
    """

    pools: Sequence[Pool]
    parameters: int
    fixed: int
    calibration: Iterable[Any] | None
    loss: Loss | None
    positions: int | None
    delta: float
    K: float
    generator: torch.Generator

    def batches(self, method: str) -> Iterable[Any]:
        """Return the calibration batches; raise PruningError where there are none."""
        if self.calibration is None:
            raise PruningError(f'{method} measures on data: give `calibration` batches')
        return self.calibration

    def too_small(self, pool: Pool, needed: int, why: str) -> BudgetError:
        """Return the error that a pool may keep fewer weights than `needed`, with the nearest."""
        if len(self.pools) == 1:
            share = math.ceil(1e4 * (self.fixed + needed) / self.parameters) / 1e4
            where, nearest = 'the network', f'{share:g} of the parameters'
        else:
            where, nearest = ', '.join(pool.layers), f'{needed:,} weights'
        return BudgetError(
            f'{where} may keep {max(pool.weights, 0):,} weights, but {why}; the nearest budget is '
            f'{nearest}'
        )


@dataclass(frozen=True)
class Choice:
    """A method's answer.

    Attributes:
        factors: per layer, in its weight's shape: what each weight is multiplied with; 0 (or
            False) prunes it.
        bounds: per layer ε of |ẑ − z| ≤ ε Σ |w a| for each of its outputs, where the method has
            a guarantee.
        calibration: which inputs the bounds were measured on.
    """

    factors: Mapping[str, Tensor]
    bounds: Mapping[str, float] = field(default_factory=dict)
    calibration: CalibrationRecord | None = None


def keep_highest(
    layers: Mapping[str, Layer], scores: Mapping[str, Tensor], request: Request
) -> dict[str, Tensor]:
    """Return masks of the highest scores, as many as each of the request's pools may keep.

    Weights that are zero already are never among them, so that a mask counts what is there.

    Raises:
        BudgetError: what is not pruned is too much already.
    """
    masks: dict[str, Tensor] = {}
    for pool in request.pools:
        if pool.weights < 0:
            raise request.too_small(pool, 0, f'{request.fixed:,} parameters are not pruned')
        weights = [layers[name].weight.detach() for name in pool.layers]
        there = torch.cat([weight.flatten() for weight in weights]) != 0
        flat = torch.cat([scores[name].flatten() for name in pool.layers])
        wanted = min(pool.weights, int(there.sum()))
        mask = torch.zeros_like(there)
        mask[flat.masked_fill(~there, -torch.inf).topk(wanted).indices] = True
        parts = mask.split([weight.numel() for weight in weights])
        for name, weight, part in zip(pool.layers, weights, parts, strict=True):
            masks[name] = part.view(weight.shape)
    return masks


# (network, its layers that may be pruned, what is asked) → choice
WeightMethod = Callable[[nn.Module, Mapping[str, Layer], Request], Choice]

_METHODS: dict[str, WeightMethod] = {}


def method(function: WeightMethod) -> WeightMethod:
    """Register a method under its function's name."""
    _METHODS[function.__name__] = function
    return function


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(_METHODS)


def get(name: str) -> WeightMethod:
    """Return the method of that name; raises PruningError with the names that there are."""
    if name not in _METHODS:
        raise PruningError(f'unknown method {name!r}; there are {", ".join(_METHODS)}')
    return _METHODS[name]


@method
def magnitude(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep the largest |w|.

    Weight magnitude: keep the weights that are largest in absolute value.

    Sources: Han et al., Learning both weights and connections (NeurIPS 2015); with one threshold
    for the whole network Renda et al., Comparing rewinding and fine-tuning (ICLR 2020).
    """
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    return Choice(keep_highest(layers, scores, request))


@method
def random(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep weights uniformly at random.

    Random weights: with another method's counts per layer, the control for its choice.
    """
    scores = {
        name: torch.rand(layer.weight.shape, generator=request.generator)
        for name, layer in layers.items()
    }
    return Choice(keep_highest(layers, scores, request))


@method
def snip(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep the largest |w · ∂L/∂w|, L the sum of the loss over the calibration batches.

    SNIP: keep the weights whose removal would change the loss most, to first order.

    Removing w means multiplying it by c = 0 instead of 1; |∂L/∂c| at c = 1 is |w · ∂L/∂w|. Source:
    Lee et al., SNIP: single-shot network pruning based on connection sensitivity (ICLR 2019).

    Gradients are taken on a copy in evaluation mode, so that batch norms stay as they are.

    Raises:
        PruningError: no loss or no batches were given, or a layer has no finite gradient.
    """
    if request.loss is None:
        raise PruningError('snip looks at gradients: give `loss`, (model, batch) → scalar')
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    probe.zero_grad(set_to_none=True)
    with torch.enable_grad():
        for batch in request.batches('snip'):
            request.loss(probe, batch).backward()
    scores = {}
    for name, layer in layers.items():
        gradient = probe.get_parameter(f'{name}.weight').grad
        if gradient is None or not gradient.isfinite().all():
            raise PruningError(
                f'{name}: the loss has no finite gradient there; mend the loss, or name the layer '
                'in `ignored_layers`'
            )
        scores[name] = (layer.weight.detach() * gradient).abs()
    return Choice(keep_highest(layers, scores, request))
