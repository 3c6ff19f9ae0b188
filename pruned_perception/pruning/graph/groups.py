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

"""Channels that must go together, found by running the network once with labels.

Layers (convolutions and linear layers) make and read channels; norms and per-channel parameters
follow them. The rules of these modules are here, those of the operations between them in `labels`.
The coupling is that of DepGraph (Fang et al., CVPR 2023), but of single channels instead of layers,
so that splits, shuffles, reshapes and shared layers need no rules of their own.

Coupled channels are sorted into groups, of which any number can be kept.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.channels import ChannelGroup, ChannelGroups, Slice
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.even import Balance, tie_evenly
from pruned_perception.pruning.graph.labels import STAYS, Channels, LabelFlow, Ties
from pruned_perception.pruning.graph.observation import check_model, tensors
from pruned_perception.pruning.graph.response import response_axis
from pruned_perception.pruning.graph.take import Take

# Treat each channel by itself and have something for each of them; group norms whole runs of them.
PER_CHANNEL = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.PReLU)


@dataclass(frozen=True)
class Coupling:
    """For each channel an integer: channels with the same one go together.

    Attributes:
        outputs: layer → its outputs' integers.
        inputs: layer → its inputs' integers.
        others: norms, and vectors that are parameters or buffers → their elements' integers.
        parameters: those of `others` that are parameters; one with several names is listed once.
        stays: integer → why its channels stay.
        joined: integer → what ties channels of one and the same tensor to each other.
        takes: `Take` → the integers of what it takes from.
        taken: `Take` → the integers of what it takes.
        trained: layers that run in training only.
        even: grouped convolutions whose groups stay and lose equally many channels.
    """

    outputs: dict[str, tuple[int, ...]]
    inputs: dict[str, tuple[int, ...]]
    others: dict[str, tuple[int, ...]]
    parameters: frozenset[str]
    stays: dict[int, str]
    joined: dict[int, str]
    takes: dict[str, tuple[int, ...]]
    taken: dict[str, tuple[int, ...]]
    trained: frozenset[str] = frozenset()
    even: frozenset[str] = frozenset()


@torch.no_grad()
def trace_channels(
    model: nn.Module, example_inputs: Sequence[Any], *, ignored_layers: Collection[str] = ()
) -> Coupling:
    """Run a copy of `model` once in evaluation mode and return the coupling of its channels.

    Where layers are left that were not reached, it is run in training mode, too: what they read is
    cut with the rest, and they themselves stay. Of a grouped convolution whole groups go; where
    none can, since all hang together, equally many channels of each.

    Raises:
        PruningError: the forward pass fails; says in which module.
    """
    check_model(model)
    coupling = _traced(model, example_inputs, ignored_layers, frozenset())
    kept = group_channels(coupling)[0].not_pruned
    even = frozenset(
        name
        for name, layer in model.named_modules()
        if name in kept
        and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        and 1 < layer.groups < min(layer.in_channels, layer.out_channels)
    )
    return _traced(model, example_inputs, ignored_layers, even) if even else coupling


def _traced(
    model: nn.Module,
    example_inputs: Sequence[Any],
    ignored_layers: Collection[str],
    even: frozenset[str],
) -> Coupling:
    traced = _Trace(copy.deepcopy(model).eval(), even)
    for name in ignored_layers:
        traced.ties.fix(traced.outputs[name], f'asked to keep {name}')
    return traced.run(example_inputs)


class _Trace:
    """One run with labels."""

    def __init__(self, model: nn.Module, even: frozenset[str]) -> None:
        self.model, self.even = model, even
        self.balances: list[Balance] = []
        self.ties = Ties()
        self.flow = LabelFlow(self.ties)
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.others: dict[str, Tensor] = {}
        self.takes: dict[str, Tensor] = {}
        self.taken: dict[str, Tensor] = {}
        self.reached: set[str] = set()
        self.rigid: dict[str, str] = {}  # layers of which nothing can be cut, and why
        self.responses: dict[str, int] = {}  # global response norms, and their axes of channels
        for name, module in model.named_modules():
            if isinstance(module, LAYERS):
                self._register_layer(name, module)
            elif not isinstance(module, Take):
                self._register_vectors(name, module)
                axis = None if isinstance(module, PER_CHANNEL) else response_axis(module)
                if axis is not None:
                    self.responses[name] = axis

    def run(self, example_inputs: Sequence[Any]) -> Coupling:
        for name, module in self.model.named_modules():
            module.register_forward_pre_hook(self._enter(name), with_kwargs=True)
            module.register_forward_hook(self._leave(name), with_kwargs=True)
        try:
            self._follow(example_inputs)
        except Exception as error:  # whatever the user's forward raises
            raise PruningError(
                f'{type(self.model).__name__}: cannot be run on the example inputs: in '
                f'{self.flow.place()}: {type(error).__name__}: {error}; give inputs that fit its '
                'forward'
            ) from error
        trained: set[str] = set()
        if left := set(self.outputs) - self.reached:
            trained = self._follow_training(example_inputs) & left
        for name in trained:
            self.rigid[name] = 'runs in training only'
            self.ties.fix(self.outputs[name], self.rigid[name])
        for name, place in self.flow.borrowed.items():
            self.rigid.setdefault(name, f'has parameters that {place} reads')
        for name, labels in self.outputs.items():
            if name not in self.reached and name not in self.rigid:
                self.rigid[name] = 'is not reached with the example inputs'
            if name in self.rigid and name not in trained:
                self.ties.fix(labels, self.rigid[name])
                if name in self.inputs:
                    self.ties.fix(self.inputs[name], f'is read by {name}, which {self.rigid[name]}')
        return replace(self._coupling(), trained=frozenset(trained))

    def _follow(self, example_inputs: Sequence[Any]) -> None:
        for each in tree_leaves(tuple(example_inputs)):
            if isinstance(each, Tensor):
                self.flow.of[each] = None
        with self.flow:
            results = self.model(*example_inputs)
        self.flow.stay(tensors(results), 'reaches the output of the network')

    def _follow_training(self, example_inputs: Sequence[Any]) -> set[str]:
        """Run in training mode, if that can be done with these inputs; return what is reached."""
        self.model.train()
        with torch.random.fork_rng(devices=()):
            try:
                self._follow(for_training(example_inputs))
            except Exception:  # it may want labels, for example: then nothing is known of it
                self.flow.where.clear()
                self.flow.paused = 0
        return self.reached

    def _coupling(self) -> Coupling:
        ties = self.ties
        tie_evenly(ties, self.balances)

        def roots(side: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
            return {name: ties.roots(labels) for name, labels in side.items()}

        outputs, inputs, others = roots(self.outputs), roots(self.inputs), roots(self.others)
        present = {
            root for side in (outputs, inputs, others) for each in side.values() for root in each
        }
        stays = {root: why for root in present if (why := ties.why_stays(root)) is not None}
        return Coupling(
            outputs=outputs,
            inputs=inputs,
            others=others,
            parameters=frozenset(name for name, _ in self.model.named_parameters()) & set(others),
            stays=stays,
            joined={root: ties.why_joined(root) for root in present - set(stays)},
            takes=roots(self.takes),
            taken=roots(self.taken),
            even=self.even,
        )

    def _register_layer(self, name: str, layer: nn.Module) -> None:
        size = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        assert isinstance(size, int)
        self.outputs[name] = self.ties.new(size)
        if 'weight' not in layer._parameters:
            self.rigid[name] = 'has a weight that is computed from other tensors'
        for each in layer.parameters():
            if other := self.flow.owners.get(id(each)):
                self.rigid[name] = f'shares parameters with {other}'
                self.rigid[other] = f'shares parameters with {name}'
            self.flow.owners[id(each)] = name
            self.flow.of[each] = None

    def _register_vectors(self, name: str, module: nn.Module) -> None:
        for own, each in {**module._parameters, **module._buffers}.items():
            if each is None or each.numel() < 2:
                continue
            long = [axis for axis, size in enumerate(each.shape) if size > 1]
            if len(long) > 1:
                self.flow.of[each] = None
                continue
            if each not in self.flow.of:
                self.flow.of[each] = Channels(long[0], self.ties.new(each.numel()))
            if (channels := self.flow.of[each]) is not None:
                self.others[_member(name, own)] = channels.labels

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kind = type(module).__name__
            self.flow.where.append(f'{name} ({kind})' if name else kind)
            self.flow.paused += _is_known(module) or name in self.responses

        return hook

    def _leave(self, name: str) -> Any:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            if _is_known(module) or name in self.responses:
                self.flow.paused -= 1
                x = args[0] if args else kwargs['input']
                if isinstance(module, LAYERS):
                    self._pass_layer(name, module, x, output)
                elif isinstance(module, Take):
                    self._pass_take(name, module, x, output)
                elif name in self.responses:
                    self._pass_response(name, x, output)
                else:
                    self._pass_per_channel(name, module, x, output)
            self.flow.where.pop()

        return hook

    def _pass_layer(self, name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        back = 1 if isinstance(layer, nn.Linear) else 3
        read = self._read(x, x.ndim - back, f'is read along another axis by {name}')
        if name in self.inputs:
            self.ties.tie(self.inputs[name], read, f'where {name} is shared')
        self.inputs[name] = read
        self.reached.add(name)
        made = self.outputs[name]
        count = getattr(layer, 'groups', 1)
        if name in self.even:
            assert isinstance(count, int)
            self.balances += [
                Balance(name, each.unflatten(0, (count, -1))) for each in (read, made)
            ]
        elif isinstance(count, int) and count > 1:
            # What one group of a grouped convolution reads and makes goes together: the weights of
            # the others are as before. A depthwise convolution has one input in each group.
            groups = torch.cat((read.unflatten(0, (count, -1)), made.unflatten(0, (count, -1))), 1)
            self.ties.tie(
                groups[:, :1].expand_as(groups), groups, f'by {name}, which is grouped', joins=True
            )
        self.flow.of[output] = Channels(output.ndim - back, made)

    def _pass_take(self, name: str, take: Take, x: Tensor, output: Tensor) -> None:
        if x not in self.flow.of:
            return
        channels = self.flow.of[x]
        if channels is not None and channels.axis == take.axis:
            if name in self.takes:
                self.ties.tie(self.takes[name], channels.labels, f'where {name} is shared')
            self.takes[name] = channels.labels
            self.taken[name] = channels.labels[take.indices]
            channels = Channels(take.axis, self.taken[name])
        self.flow.of[output] = channels

    def _pass_response(self, name: str, x: Tensor, output: Tensor) -> None:
        if x not in self.flow.of:
            return
        axis = x.ndim + self.responses[name]
        labels = self._read(x, axis, f'is read along another axis by {name}')
        for own in ('weight', 'bias'):
            self.ties.tie(labels, self.others[_member(name, own)], f'by {name}')
        if name in self.inputs:
            self.ties.tie(labels, self.inputs[name], f'where {name} is shared')
        self.inputs[name] = labels
        self.flow.of[output] = Channels(axis, labels) if labels.any() else None

    def _pass_per_channel(self, name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        if x not in self.flow.of:
            return
        labels = self._read(x, 1, f'is read along another axis by {name}')
        for own in ('weight', 'bias', 'running_mean', 'running_var'):
            each = self.others.get(_member(name, own))
            if each is not None:
                self.ties.tie(labels, each, f'by {name}')
        if isinstance(module, nn.GroupNorm):
            groups = labels.unflatten(0, (module.num_groups, -1))
            why = f'by {name}, which normalises them together'
            self.ties.tie(groups[:, :1].expand_as(groups), groups, why, joins=True)
        if name in self.others:
            self.ties.tie(labels, self.others[name], f'where {name} is shared')
        self.others[name] = labels
        self.flow.of[output] = Channels(1, labels) if labels.any() else None

    def _read(self, x: Tensor, axis: int, otherwise: str) -> Tensor:
        channels = self.flow.of.get(x)
        if channels is not None and channels.axis == axis:
            return channels.labels
        self.flow.stay([x], otherwise)
        return torch.full((x.shape[axis],), STAYS)


def for_training(example_inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return at least two examples of everything, as batch norms want them in training."""
    inputs = tuple(each for each in example_inputs if isinstance(each, Tensor) and each.ndim)
    if any(len(each) != 1 for each in inputs):
        return tuple(example_inputs)
    return tuple(
        torch.cat((each, each)) if isinstance(each, Tensor) and each.ndim else each
        for each in example_inputs
    )


def _member(module: str, own: str) -> str:
    return f'{module}.{own}' if module else own


def _is_known(module: nn.Module) -> bool:
    return isinstance(module, (*LAYERS, *PER_CHANNEL, Take))


# Of each group, in its order: the coupling's integers of what goes together.
Atoms = dict[str, tuple[int, ...]]
# Where the channels of one integer are: (side, layer or parameter) → indices.
Places = Mapping[tuple[str, str], list[int]]


def group_channels(coupling: Coupling) -> tuple[ChannelGroups, Atoms]:
    """Return the groups that may be pruned, and what goes together in each.

    A group is all channels that are made, read and followed at the same places equally often. So
    its cost is proportional to how many of them are kept, and no layer is left without channels
    as long as one is kept.
    """
    everywhere: dict[int, dict[tuple[str, str], list[int]]] = {}
    for side, layers in (
        ('outputs', coupling.outputs),
        ('inputs', coupling.inputs),
        ('others', coupling.others),
        ('taken', coupling.taken),  # of each, something is left
    ):
        for layer, labels in layers.items():
            for index, number in enumerate(labels):
                places = everywhere.setdefault(number, {})
                places.setdefault((side, layer), []).append(index)
    alike: dict[frozenset[tuple[tuple[str, str], int]], list[int]] = {}
    for number, places in everywhere.items():  # those of the first layer first
        if number not in coupling.stays and any(side == 'outputs' for side, _ in places):
            signature = frozenset((place, len(indices)) for place, indices in places.items())
            alike.setdefault(signature, []).append(number)
    prunable: list[ChannelGroup] = []
    atoms: Atoms = {}
    stays = dict(coupling.stays)
    for numbers in alike.values():
        group = _group([everywhere[number] for number in numbers], coupling)
        if {each.layer for each in group.consumers} <= {each.layer for each in group.producers}:
            stays |= dict.fromkeys(numbers, 'is read by no layer')
        elif len(numbers) == 1:
            why = coupling.joined[numbers[0]]
            stays[numbers[0]] = f'has channels that go all together, {why}'
        else:
            prunable.append(group)
            atoms[group.name] = tuple(numbers)
    even = tuple(sorted(coupling.even))
    return ChannelGroups(tuple(prunable), _not_pruned(coupling, stays), even), atoms


def _group(members: list[Places], coupling: Coupling) -> ChannelGroup:
    layers = [layer for side, layer in members[0] if side == 'outputs']
    whole = [
        layer
        for layer in layers
        if sum(len(each['outputs', layer]) for each in members) == len(coupling.outputs[layer])
    ]
    first = (whole or layers)[0]
    unit = len(members[0]['outputs', first])
    start = members[0]['outputs', first][0]

    def parts(side: str) -> tuple[Slice, ...]:
        slices = []
        for place in members[0]:
            if place[0] != side:
                continue
            pairs = sorted(
                (index, run * unit + nth * unit // len(each[place]))
                for run, each in enumerate(members)
                for nth, index in enumerate(each[place])
            )
            indices, roots = zip(*pairs, strict=True)
            slices.append(Slice(place[1], indices, roots))
        return tuple(slices)

    # Norms are listed beside their vectors; buffers are no parameters.
    vectors = [place for place in members[0] if place[1] in coupling.parameters]
    followers = sum(len(members[0][place]) for place in vectors)
    exact = followers % unit == 0
    return ChannelGroup(
        name=first if whole else f'{first}:{start}',
        channels=len(members) * unit,
        producers=parts('outputs'),
        consumers=parts('inputs'),
        channel_parameters=followers // unit if exact else followers / unit,
        unit=unit,
    )


def _not_pruned(coupling: Coupling, stays: Mapping[int, str]) -> dict[str, str]:
    kept = {}
    for layer, numbers in coupling.outputs.items():
        reasons = [stays.get(number) for number in numbers]
        if None not in reasons:
            kept[layer] = str(reasons[0])
        for index, why in enumerate(reasons):
            if None in reasons and why is not None and why not in reasons[:index]:
                kept[f'{layer}:{index}'] = why
    return kept
