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

"""Layers that a low-rank decomposition can replace, and what their factors cost.

A weight folded to f × (c κ) (f outputs, c inputs, κ taps) that is applied at P positions of one
example has f c κ parameters and P f c κ multiply-accumulates. Its factors of rank j over k slices
of the input channels have j (c κ + k f) and P j (c κ + k f): both shrink by the same share.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS, NetworkCost, count
from pruned_perception.pruning.structure import InputSpec


@dataclass(frozen=True)
class LayerSize:
    """Parameters (of a layer with its bias), and multiply-accumulates for one example."""

    parameters: int
    macs: int

    def of(self, budget: Macs | Params) -> int:
        """Return the part that the budget is about."""
        return self.macs if isinstance(budget, Macs) else self.parameters


@dataclass(frozen=True)
class LayerShape:
    """A layer's folded weight: f outputs, c inputs, κ taps, P positions of one example.

    A convolution's input channels can be sliced into any number of groups that divides them. A
    linear layer has one group: PyTorch has no grouped linear layer, and a block-diagonal product
    would need reshapes that exporters do not fuse.
    """

    outputs: int
    inputs: int
    taps: int
    positions: int
    bias: bool
    sliceable: bool

    @property
    def groupings(self) -> tuple[int, ...]:
        """Numbers of groups k, ascending, into which the input channels can be sliced."""
        most = self.inputs if self.sliceable else 1
        return tuple(k for k in range(1, most + 1) if self.inputs % k == 0)

    def full_rank(self, groups: int) -> int:
        """Return the largest rank that a slice of f × (c κ / groups) can have."""
        return min(self.outputs, self.inputs * self.taps // groups)

    @property
    def dense(self) -> LayerSize:
        """Size of the layer as it is."""
        return self._size(self.outputs * self.inputs * self.taps, self.bias)

    def factored(self, groups: int, rank: int, *, shifted: bool = False) -> LayerSize:
        """Return the size of the factors; `shifted`: with a bias even where the layer has none."""
        weights = rank * (self.inputs * self.taps + groups * self.outputs)
        return self._size(weights, self.bias or shifted)

    def shrinks(self, groups: int, rank: int, *, shifted: bool = False) -> bool:
        """Whether the factors have fewer parameters and fewer multiply-accumulates."""
        factored = self.factored(groups, rank, shifted=shifted)
        return factored.parameters < self.dense.parameters and factored.macs < self.dense.macs

    def _size(self, weights: int, bias: bool) -> LayerSize:
        return LayerSize(weights + self.outputs * bias, weights * self.positions)


@dataclass(frozen=True)
class Candidates:
    """The network's inputs and dense cost, the layers that can be decomposed, why others cannot."""

    inputs: tuple[InputSpec, ...]
    cost: NetworkCost
    shapes: dict[str, LayerShape]
    left_alone: dict[str, str]

    @property
    def dense(self) -> LayerSize:
        """Size of the whole network as it is."""
        return LayerSize(self.cost.parameters, self.cost.macs)


def find_layers(
    model: nn.Module, example_inputs: Sequence[Tensor], *, ignored_layers: Collection[str] = ()
) -> Candidates:
    """Return the layers of `model` that can be decomposed.

    Args:
        model: any network; it is run once, on zeros, and left untouched.
        example_inputs: its positional inputs.
        ignored_layers: names of layers to leave alone.

    Raises:
        PruningError: a name in `ignored_layers` is no layer of the network, or a weight is not
            finite.
    """
    layers = {name: each for name, each in model.named_modules() if isinstance(each, LAYERS)}
    if unknown := set(ignored_layers) - set(layers):
        raise PruningError(
            f'ignored_layers: {sorted(unknown)[0]!r} is no convolution or linear layer'
        )
    inputs = tuple(InputSpec.of(each) for each in example_inputs)
    # A copy, since counting sets all of a network's layers to one training mode.
    cost = count(copy.deepcopy(model), tuple(each.example() for each in inputs))
    macs = {layer.name: layer.macs for layer in cost.layers}
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    shapes: dict[str, LayerShape] = {}
    left_alone: dict[str, str] = {}
    for name, layer in layers.items():
        used = macs.get(name, 0)
        reason = (
            'asked to keep it' if name in ignored_layers else _obstacle(name, layer, used, owners)
        )
        if reason is None:
            shapes[name] = _shape(layer, used)
            if not torch.isfinite(layer.weight).all():
                raise PruningError(f'{name}: the weight has values that are NaN or infinite')
        else:
            left_alone[name] = reason
    return Candidates(inputs, cost, shapes, left_alone)


def _obstacle(name: str, layer: nn.Module, macs: int, owners: dict[int, list[str]]) -> str | None:
    if type(layer) not in (nn.Conv2d, nn.Linear):  # of a subclass, others may read the weight
        return f'is of type {type(layer).__name__}, not Conv2d or Linear'
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return f'is a grouped convolution ({layer.groups} groups)'
    if not name:
        return 'is the network itself: wrap it in nn.Sequential'
    if layer._forward_hooks or layer._forward_pre_hooks:
        return 'has forward hooks, which would be lost'
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if others := [each for each in owners[id(weight)] if each != name]:
        return f'shares its weight with {others[0]}'
    if not macs:
        return 'is not run by the example inputs'
    return None


def _shape(layer: nn.Module, macs: int) -> LayerShape:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    outputs, inputs = weight.shape[:2]
    return LayerShape(
        outputs=outputs,
        inputs=inputs,
        taps=weight[0, 0].numel(),
        positions=macs // weight.numel(),
        bias=layer.bias is not None,
        sliceable=isinstance(layer, nn.Conv2d),
    )
