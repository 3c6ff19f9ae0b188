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
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pruned_perception.inference.latency_table import LatencyTable, convolution
from pruned_perception.pruning.budget import Latency, Macs, Params
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS, NetworkCost, count
from pruned_perception.pruning.structure import InputSpec


@dataclass(frozen=True)
class LayerSize:
    """Parameters (of a layer with its bias), and multiply-accumulates for one example."""

    parameters: int
    macs: int
    ms: float = 0.0
    """Milliseconds by a latency table; 0 without one."""

    def of(self, budget: Macs | Params | Latency) -> float:
        """Return the part that the budget is about."""
        if isinstance(budget, Latency):
            return self.ms
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
    ms: dict[int, float] | None = None
    """By a latency table: of the ranks at which one group is faster than the layer, and of the
    layer itself, as rank 0. Then no other rank is offered, and no slices, which no table has."""

    @property
    def groupings(self) -> tuple[int, ...]:
        """Numbers of groups k, ascending, into which the input channels can be sliced."""
        most = self.inputs if self.sliceable and self.ms is None else 1
        return tuple(k for k in range(1, most + 1) if self.inputs % k == 0)

    def full_rank(self, groups: int) -> int:
        """Return the largest rank that a slice of f × (c κ / groups) can have."""
        return min(self.outputs, self.inputs * self.taps // groups)

    @property
    def dense(self) -> LayerSize:
        """Size of the layer as it is."""
        return self._size(self.outputs * self.inputs * self.taps, self.bias, 0)

    def factored(self, groups: int, rank: int, *, shifted: bool = False) -> LayerSize:
        """Return the size of the factors; `shifted`: with a bias even where the layer has none."""
        weights = rank * (self.inputs * self.taps + groups * self.outputs)
        return self._size(weights, self.bias or shifted, rank)

    def shrinks(self, groups: int, rank: int, *, shifted: bool = False) -> bool:
        """Whether the factors have fewer parameters and fewer multiply-accumulates.

        With a latency table: whether it says that they are faster.
        """
        if self.ms is not None:
            return groups == 1 and rank in self.ms
        factored = self.factored(groups, rank, shifted=shifted)
        return factored.parameters < self.dense.parameters and factored.macs < self.dense.macs

    @property
    def shrinkable(self) -> bool:
        """Whether the factors do at any rank."""
        if self.ms is not None:
            return len(self.ms) > 1
        return any(self.shrinks(groups, 1) for groups in self.groupings)

    def _size(self, weights: int, bias: bool, rank: int) -> LayerSize:
        ms = 0.0 if self.ms is None else self.ms.get(rank, math.inf)
        return LayerSize(weights + self.outputs * bias, weights * self.positions, ms)


@dataclass(frozen=True)
class Candidates:
    """The network's inputs and dense cost, the layers that can be decomposed, why others cannot."""

    inputs: tuple[InputSpec, ...]
    cost: NetworkCost
    shapes: dict[str, LayerShape]
    left_alone: dict[str, str]
    ms: float = 0.0
    """Of the whole network, by a latency table."""

    @property
    def dense(self) -> LayerSize:
        """Size of the whole network as it is."""
        return LayerSize(self.cost.parameters, self.cost.macs, self.ms)


def find_layers(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    ignored_layers: Collection[str] = (),
    budget: Macs | Params | Latency | None = None,
) -> Candidates:
    """Return the layers of `model` that can be decomposed.

    Args:
        model: any network; it is run once, on zeros, and left untouched.
        example_inputs: its positional inputs.
        ignored_layers: names of layers to leave alone.
        budget: of milliseconds: layers have the ranks that its table says are faster, alone.

    Raises:
        LatencyTableError: the table does not hold a convolution.
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
    table = budget.table if isinstance(budget, Latency) else None
    runs = {layer.name: layer.shapes for layer in cost.layers}
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
            ms = None if table is None else _times(runs[name], table)
            shapes[name] = replace(_shape(layer, used), ms=ms)
            if not torch.isfinite(layer.weight).all():
                raise PruningError(f'{name}: the weight has values that are NaN or infinite')
        else:
            left_alone[name] = reason
    whole = 0.0
    if table is not None:
        whole = sum(_times(each, table)[0] for each in runs.values())
    return Candidates(inputs, cost, shapes, left_alone, whole)


def _times(runs: Sequence[tuple[int, ...]], table: LatencyTable) -> dict[int, float]:
    """Return milliseconds of a layer (rank 0), all its runs together, and of its faster ranks."""
    layers = [table.as_written(convolution(each[:4], each[4:8], each[8:])) for each in runs]
    faster = [table.faster_ranks(each) for each in layers]
    ranks = set.intersection(*map(set, faster)) if faster else set()
    return {
        0: table.predict(layers),
        **{rank: sum(each[rank] for each in faster) for rank in sorted(ranks)},
    }


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
