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

"""A network as pruning sees it: groups of channels, and what the network costs at which widths.

It is plain data, found once (by `tracing`); sensitivities, curves and plans carry it, so that sizes
can be predicted without the network, and without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruned_perception.pruning.graph.channels import ChannelGroup, ChannelGroups, Slice
from pruned_perception.pruning.records import Record

if TYPE_CHECKING:
    from torch import Tensor

Widths = dict[str, int]
"""Channels that groups keep; and, as `rank_of(layer)`, the ranks of layers that become two."""
_RANK = 'rank of '


def rank_of(layer: str) -> str:
    """Return how the rank of a layer is called among widths: from its full rank on it is whole."""
    return f'{_RANK}{layer}'


def is_rank(name: str) -> bool:
    """Say whether a width is the rank of a layer."""
    return name.startswith(_RANK)


class Size(NamedTuple):
    """Multiply-accumulates of one example, and parameters; expectations need not be integers."""

    macs: float
    parameters: float


@dataclass(frozen=True)
class InputSpec:
    """Shape and type of one positional input of a network, with a batch of one."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, example: Tensor | None) -> InputSpec:
        """Describe a tensor, or an argument that is None."""
        if example is None:
            return cls((), 'None')
        return cls((1, *example.shape[1:]), str(example.dtype).removeprefix('torch.'))

    def example(self) -> Tensor:
        """Return zeros of this shape and type; None where the argument is."""
        if self.dtype == 'None':
            return None  # type: ignore[return-value]  # one that tensors stand beside
        import torch

        return torch.zeros(self.shape, dtype=getattr(torch, self.dtype))


@dataclass(frozen=True)
class LayerTerm:
    """One layer's cost: proportional to the shares of its outputs and inputs that are kept.

    `outputs` and `inputs` list (group, share of the layer's outputs or inputs that are its).
    """

    layer: str
    macs: int
    weights: int
    bias: int
    outputs: tuple[tuple[str, float], ...]
    inputs: tuple[tuple[str, float], ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of a convolution, each time that it runs: of its weights, its input and its output."""

    @property
    def folded(self) -> tuple[int, int]:
        """Rows and columns of a convolution's weight, f × (c κ)."""
        outputs, *others = self.shapes[0][:4]
        return outputs, math.prod(others)


class _Shares(NamedTuple):
    """The terms as arrays: a budget is divided by thousands of sizes."""

    outputs: NDArray[np.float64]  # (terms, groups), as are the inputs
    inputs: NDArray[np.float64]
    macs: NDArray[np.float64]  # (terms,), as are weights and biases
    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    followers: NDArray[np.float64]  # (groups,) of a group as a whole


@dataclass(frozen=True)
class Structure(Record):
    """Groups of coupled channels and the cost of a network as a function of their widths."""

    groups: ChannelGroups
    terms: tuple[LayerTerm, ...]
    macs: int
    parameters: int
    inputs: tuple[InputSpec, ...]

    @cached_property
    def channels(self) -> Widths:
        """The dense width of every prunable group."""
        return {group.name: group.channels for group in self.groups.prunable}

    def size(
        self,
        widths: Mapping[str, float],
        variances: Mapping[str, float] | None = None,
        *,
        cheapest: bool = False,
    ) -> Size:
        """Return the cost at these widths (groups and layers that are left out: whole).

        Args:
            widths: channels kept of each group, or their expectation.
            variances: with expectations of independent groups, the variances of the widths: a
                layer between channels of one and the same group needs them.
            cheapest: a layer whose factors of the given rank would cost more is whole.
        """
        shares = self._shares
        kept = np.array([widths.get(name, full) / full for name, full in self.channels.items()])
        made = 1 - shares.outputs @ (1 - kept)
        read = 1 - shares.inputs @ (1 - kept)
        both = made * read
        if variances:
            spread = [variances.get(n, 0.0) / full**2 for n, full in self.channels.items()]
            both += (shares.outputs * shares.inputs) @ np.array(spread)
        for name, (row, outputs, inputs) in self._foldings.items():
            if 0 < (rank := widths.get(name, 0)) < min(outputs, inputs):
                factors = rank * (read[row] / outputs + made[row] / inputs)
                both[row] = min(both[row], factors) if cheapest else factors
        macs = self.macs + shares.macs @ (both - 1)
        parameters = shares.weights @ both + shares.biases @ made + shares.followers @ kept
        return Size(float(macs), float(parameters) + self._fixed)

    @cached_property
    def _shares(self) -> _Shares:
        order = {name: index for index, name in enumerate(self.channels)}
        outputs, inputs = np.zeros((2, len(self.terms), len(order)))
        for row, term in enumerate(self.terms):
            for matrix, side in ((outputs, term.outputs), (inputs, term.inputs)):
                for name, share in side:
                    matrix[row, order[name]] += share
        numbers = [(term.macs, term.weights, term.bias) for term in self.terms]
        macs, weights, biases = np.array(numbers, dtype=float).reshape(-1, 3).T
        followers = [each.channel_parameters * each.channels for each in self.groups.prunable]
        return _Shares(outputs, inputs, macs, weights, biases, np.array(followers, dtype=float))

    @cached_property
    def _foldings(self) -> dict[str, tuple[int, int, int]]:
        """Of convolutions, by the name of their rank: the term's row, f and c κ."""
        rows = enumerate(self.terms)
        return {rank_of(each.layer): (row, *each.folded) for row, each in rows if each.shapes}

    @cached_property
    def squared(self) -> frozenset[str]:
        """Groups that a layer both reads and makes: of these, expected costs need variances."""
        both = (self._shares.outputs * self._shares.inputs).sum(0).tolist()
        return frozenset(name for name, each in zip(self.channels, both, strict=True) if each)

    @cached_property
    def _fixed(self) -> float:
        """Parameters that no width changes."""
        layers = sum(term.weights + term.bias for term in self.terms)
        others = sum(group.channel_parameters * group.channels for group in self.groups.prunable)
        return self.parameters - layers - others

    def exact_size(self, widths: Mapping[str, int]) -> tuple[int, int]:
        """Return multiply-accumulates and parameters at integer widths and ranks, as integers."""
        size = self.size(widths)
        return round(size.macs), round(size.parameters)

    def without(self, reasons: Mapping[str, str]) -> Structure:
        """Return the structure in which these groups (name → reason) are kept whole."""
        kept = dict(self.groups.not_pruned)
        for group in self.groups.prunable:
            if group.name in reasons:
                kept |= {each.layer: reasons[group.name] for each in group.producers}
        rest = tuple(group for group in self.groups.prunable if group.name not in reasons)
        terms = tuple(
            replace(
                term,
                outputs=tuple(each for each in term.outputs if each[0] not in reasons),
                inputs=tuple(each for each in term.inputs if each[0] not in reasons),
            )
            for term in self.terms
        )
        return replace(
            self, groups=replace(self.groups, prunable=rest, not_pruned=kept), terms=terms
        )

    def nothing_to_prune(self) -> str:
        """Return why no channel of this network can go: the reasons, layer by layer."""
        reasons = [f'{layer}: {why}' for layer, why in self.groups.not_pruned.items()]
        shown = '; '.join(reasons[:3]) + (f'; and {len(reasons) - 3} more' * (len(reasons) > 3))
        return f'nothing in it can be pruned ({shown or "it has no layer with channels"})'

    def readers(self) -> dict[str, list[tuple[ChannelGroup, Slice]]]:
        """Return, for each layer that mixes channels of prunable groups, whom it reads where.

        Layers that run in training only are not among them.
        """
        mixing = {term.layer for term in self.terms if term.inputs and term.macs}
        found: dict[str, list[tuple[ChannelGroup, Slice]]] = {}
        for group in self.groups.prunable:
            for each in group.consumers:
                if each.layer in mixing:
                    found.setdefault(each.layer, []).append((group, each))
        return found

    def side_by_side(self) -> dict[str, int]:
        """Return of how many groups a consumer reads a concatenation, at most, for each group.

        Their errors add up in that consumer.
        """
        found = dict.fromkeys(self.channels, 1)
        for who in self.readers().values():
            for group, _ in who:
                found[group.name] = max(found[group.name], len(who))
        return found

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        groups = data.pop('groups')
        even = {'even': groups['even']} if groups['even'] else {}
        return {'groups': groups['prunable'], 'not_pruned': groups['not_pruned'], **even, **data}

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        own = dict(data)
        groups = {'prunable': own.get('groups'), 'not_pruned': own.pop('not_pruned', None)}
        if 'even' in own:
            groups['even'] = own.pop('even')
        return {**own, 'groups': groups}
