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

"""Labels of channels, and how the operations of a network pass them on.

Every channel that a layer makes has a label; the channels of a tensor on the way lie along one axis
and have the labels of what they were made of. Operations that only move elements are applied to the
labels themselves, whatever the shapes; where operations combine two tensors element by element,
labels that meet are tied: such channels go together or not at all. An operation that is not known
to keep channels apart makes all that it reads stay: nothing is assumed of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from pruned_perception.pruning.graph.operators import Operators

STAYS = 0  # the label of what is no channel of a layer: inputs of the network, constants


class Channels(NamedTuple):
    """The labels (n,) of a tensor's n channels, which lie along `axis`."""

    axis: int
    labels: Tensor


class Ties:
    """Which labels go together (a union–find), which stay, and why."""

    def __init__(self) -> None:
        self._parents = [STAYS]
        self._stays: dict[int, str] = {}
        self._joined: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Return `count` labels tied to nothing."""
        start = len(self._parents)
        self._parents.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def roots(self, labels: Tensor) -> tuple[int, ...]:
        """Return one representative for all labels that are tied to each other."""
        return tuple(self._root(label) for label in labels.tolist())

    def why_stays(self, root: int) -> str | None:
        """Return why these channels stay, if they do."""
        return 'is not made by a layer' if root == STAYS else self._stays.get(root)

    def why_joined(self, root: int) -> str:
        """Return what tied channels of one and the same tensor to each other."""
        return self._joined.get(root, 'it has one channel only')

    def fix(self, labels: Tensor, why: str) -> None:
        """Let these channels stay."""
        for label in labels.unique().tolist():
            if label != STAYS:
                self._stays.setdefault(self._root(label), why)

    def tie(self, these: Tensor, those: Tensor, why: str, *, joins: bool = False) -> None:
        """Tie labels pairwise; `joins`: both are channels of one tensor."""
        these, those = these.flatten(), those.flatten()
        pairs = ((these << 32) + those)[these != those].unique()  # as one number: quickly sorted
        for one, other in zip((pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), strict=True):
            if STAYS in (one, other):
                self.fix(torch.tensor([one, other]), f'meets what stays, {why}')
                continue
            first, second = sorted((self._root(one), self._root(other)))
            if first == second:
                continue
            self._parents[second] = first
            for reasons in (self._stays, self._joined):
                if second in reasons:
                    reasons.setdefault(first, reasons.pop(second))
            if joins:
                self._joined.setdefault(first, why)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label


# Element by element, though PyTorch does not tag them so.
POINTWISE = {
    '_prelu_kernel', '_to_copy', 'alias', 'copy', 'detach', 'hardswish', 'lift_fresh',
    'masked_fill', 'native_dropout',
}  # fmt: skip
# Only move elements: their result on labels is the labels of their result.
MOVES = {
    '_unsafe_view', 'cat', 'channel_shuffle', 'constant_pad_nd', 'expand', 'flip',
    'native_channel_shuffle', 'permute', 'pixel_shuffle', 'pixel_unshuffle', 'repeat', 'reshape',
    'select', 'slice', 'split', 'split_with_sizes', 'squeeze', 'stack', 't', 'transpose', 'unbind',
    'unsqueeze', 'view',
}  # fmt: skip
# Each channel by itself, over the last two or three axes.
SPATIAL = {
    '_adaptive_avg_pool2d', '_upsample_bilinear2d_aa', '_upsample_nearest_exact2d',
    'adaptive_max_pool2d', 'avg_pool2d', 'constant_pad_nd', 'max_pool2d_with_indices',
    'reflection_pad2d', 'replication_pad2d', 'upsample_bicubic2d', 'upsample_bilinear2d',
    'upsample_nearest2d',
}  # fmt: skip
# Over the axes named by the second argument.
REDUCTIONS = {'amax', 'amin', 'mean', 'prod', 'std', 'sum', 'var'}
ALONG = {'_log_softmax', '_softmax', 'cumsum'}


class LabelFlow(Operators):
    """While it is entered, every operation passes the labels of its inputs on to its outputs.

    Attributes:
        of: a tensor's channels; None if all of it stays; no entry for constants, which do not
            depend on the inputs of the network.
        owners: ids of layers' parameters → the layer.
        borrowed: layers whose parameters were read by others → the place.
        where: names of the modules that are running, the innermost last.
        paused: > 0 while a module with a rule of its own runs: its operations are not followed.
    """

    def __init__(self, ties: Ties) -> None:
        super().__init__()
        self.ties = ties
        self.of: Any = WeakTensorKeyDictionary()
        self.owners: dict[int, str] = {}
        self.borrowed: dict[str, str] = {}
        self.where: list[str] = []
        self.paused = 0

    def place(self) -> str:
        """Return the module that is running, for messages."""
        return self.where[-1] if self.where else 'the network'

    def stay(self, tensors: Sequence[Tensor], why: str) -> None:
        """Let all channels of these tensors stay."""
        for tensor in tensors:
            if (channels := self.of.get(tensor)) is not None:
                self.ties.fix(channels.labels, why)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        same = func.overloadpacket.__name__.startswith('as_strided') and _same_elements(*args)
        result = func(*args, **(kwargs or {}))
        if same:
            if args[0] in self.of:
                self.of[result] = self.of[args[0]]
        elif not self.paused:
            self._follow(func, args, dict(kwargs or {}), result)
        return result

    def _follow(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if not any(each in self.of for each in inputs):
            return
        for each in inputs:
            if id(each) in self.owners:
                self.borrowed[self.owners[id(each)]] = self.place()
        name = func.overloadpacket.__name__
        plain = name.removesuffix('_')
        why = f'by {plain} in {self.place()}'
        if _pointwise(func, plain):
            self._elementwise(inputs, outputs, why, in_place=name != plain)
        elif name != plain:  # writes into its input in a way that is not followed
            self._unknown(inputs, outputs, why)
        elif plain in SPATIAL and self._keeps_channels(inputs[0], outputs[0]):
            self._pass(inputs, outputs, why)
        elif plain in MOVES and func._overloadname != 'dtype':
            self._move(func, args, kwargs, outputs, why)
        elif plain in REDUCTIONS | ALONG:
            axes = args[1] if len(args) > 1 else kwargs.get('dim')
            self._reduce(inputs[0], outputs, axes, why)
        elif not plain.endswith('_like') and not plain.startswith('new_'):
            self._unknown(inputs, outputs, why)

    def _unknown(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], why: str) -> None:
        self.stay(inputs, f'is mixed {why}')
        for each in outputs:
            self.of[each] = None

    def _elementwise(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], why: str, *, in_place: bool
    ) -> None:
        if in_place and inputs[0] not in self.of:  # into a constant, of which there may be views
            return self._unknown(inputs, outputs, why)
        shape = outputs[0].shape
        placed: list[tuple[int, Channels]] = []  # of the result: axis and labels
        for each in inputs:
            if (channels := self.of.get(each)) is None:
                continue
            axis = channels.axis + len(shape) - each.ndim
            if each.shape[channels.axis] == 1 and shape[axis] > 1:
                self.ties.fix(channels.labels, f'is spread over channels {why}')
            else:
                placed.append((each.ndim, Channels(axis, channels.labels)))
        if not placed:
            for each in outputs:
                self.of[each] = None
            return None
        _, main = max(placed, key=lambda each: each[0])
        for _, other in placed:
            if other.axis != main.axis:
                self.ties.fix(other.labels, f'is combined along another axis {why}')
            else:
                self.ties.tie(main.labels, other.labels, why)
        for each in inputs:
            axis = main.axis - (len(shape) - each.ndim)
            if each in self.of and self.of[each] is None and axis >= 0 and each.shape[axis] > 1:
                self.ties.fix(main.labels, f'meets what stays, {why}')
        for each in outputs:
            self.of[each] = main
        return None

    def _keeps_channels(self, x: Tensor, output: Tensor) -> bool:
        channels = self.of.get(x)
        return channels is None or (
            channels.axis == x.ndim - 3
            and x.ndim == output.ndim
            and x.shape[: channels.axis + 1] == output.shape[: channels.axis + 1]
        )

    def _pass(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], why: str) -> None:
        self.stay(inputs[1:], f'is mixed {why}')
        for each in outputs:
            self.of[each] = self.of.get(inputs[0])

    def _reduce(self, x: Tensor, outputs: Sequence[Tensor], axes: Any, why: str) -> None:
        channels = self.of.get(x)
        axes = list(axes) if isinstance(axes, Sequence) else [axes] if axes is not None else []
        axes = [axis % x.ndim for axis in axes] or list(range(x.ndim))
        if channels is None or channels.axis in axes:
            return self._unknown([x], outputs, why)
        for each in outputs:
            gone = sum(axis < channels.axis for axis in axes) if each.ndim < x.ndim else 0
            self.of[each] = Channels(channels.axis - gone, channels.labels)
        return None

    def _move(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: Sequence[Tensor],
        why: str,
    ) -> None:
        plain = func.overloadpacket.__name__
        x = args[0]
        if isinstance(x, Tensor) and (channels := self.of.get(x)) is not None:
            length = x.shape[channels.axis]
            if plain in ('select', 'slice', 'split', 'split_with_sizes', 'unbind'):
                place = {'select': 1, 'slice': 1, 'unbind': 1}.get(plain, 2)
                axis = args[place] if len(args) > place else kwargs.get('dim', 0)
                if axis % x.ndim == channels.axis:
                    self._part(channels, length, plain, outputs, why)
            if plain.endswith('channel_shuffle'):
                parts = channels.labels.unflatten(0, (args[1], -1))
                self.ties.tie(parts[:1].expand_as(parts), parts, why, joins=True)
            if plain == 'expand' and length == 1:
                axis = channels.axis + outputs[0].ndim - x.ndim
                if outputs[0].shape[axis] > 1:  # the same for all channels, hence like a constant
                    return self.ties.fix(channels.labels, f'is spread over channels {why}')
        if plain == 'constant_pad_nd':
            args, kwargs = args[:2], {}  # whatever the value: with zeros, which are STAYS
        moved = func(*tree_map(self._full, args), **tree_map(self._full, kwargs))
        for each, labels in zip(outputs, tree_leaves(moved), strict=True):
            preferred = each.ndim - 3 if plain == 'pixel_shuffle' else None
            self.of[each] = self._collapse(labels, preferred, why)
        return None

    def _part(
        self, channels: Channels, length: int, plain: str, outputs: Sequence[Tensor], why: str
    ) -> None:
        """Tie the equal parts of a split to each other; let stay what is indexed otherwise."""
        if not plain.startswith('split'):
            if plain != 'slice' or outputs[0].shape[channels.axis] != length:
                self.ties.fix(channels.labels, f'is indexed along its channels {why}')
        elif len({each.shape[channels.axis] for each in outputs}) > 1:
            self.ties.fix(channels.labels, f'is split into unequal parts {why}')
        else:
            parts = channels.labels.unflatten(0, (len(outputs), -1))
            self.ties.tie(parts[:1].expand_as(parts), parts, f'{why} into equal parts', joins=True)

    def _full(self, each: Any) -> Any:
        """Return the labels of all elements of a tensor."""
        if not isinstance(each, Tensor):
            return each
        if (channels := self.of.get(each)) is None:
            return torch.full(each.shape, STAYS)
        shape = [-1 if axis == channels.axis else 1 for axis in range(each.ndim)]
        return channels.labels.reshape(shape).expand(each.shape).contiguous()

    def _collapse(self, labels: Tensor, preferred: int | None, why: str) -> Channels | None:
        """Tie labels so that they vary along one axis: the one with the most of them."""
        if labels.ndim == 0 or labels.numel() == 0 or not labels.any():
            self.ties.fix(labels, f'is indexed along its channels {why}')
            return None
        axis = min(1, labels.ndim - 1)
        if preferred is not None:
            axis = preferred
        else:
            most = 1
            for each in range(labels.ndim):
                line = labels.movedim(each, -1)[(0,) * (labels.ndim - 1)]
                if (many := line.unique().numel()) > 1 and many >= most:
                    axis, most = each, many
        rows = labels.movedim(axis, 0).flatten(1) if labels.ndim > 1 else labels[:, None]
        first = rows[:, :1]
        self.ties.tie(first.expand_as(rows), rows, why, joins=True)
        return Channels(axis, first[:, 0].clone())


def _pointwise(func: Any, plain: str) -> bool:
    variant = getattr(getattr(torch.ops.aten, plain, None), func._overloadname, func)
    return plain in POINTWISE or torch.Tag.pointwise in {*func.tags, *variant.tags}


def _same_elements(x: Tensor, size: Sequence[int], stride: Sequence[int], *offset: Any) -> bool:
    """Whether as_strided leaves elements where they are, as in pooling of channels-last images."""
    return (
        tuple(x.shape) == tuple(size)
        and all(n == 1 or a == b for n, a, b in zip(size, x.stride(), stride, strict=True))
        and offset in ((), (None,), (x.storage_offset(),))
    )
