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

"""Cutting channels out of a network, and the proof on example inputs that it was done right.

What is cut, and how much, is decided elsewhere. A channel is cut in every layer that makes or reads
it; the sliced network must compute what the dense one does when its layers read zeros in place of
these channels. That is checked each time, since a network may have sizes and indices in its code
that no tracing shows.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.agreement import (
    TOLERANCE,
    check_deterministic,
    deviation,
    in_double,
    telling,
    verifying_inputs,
)
from pruned_perception.pruning.graph.channels import ChannelGroup, ChannelGroups
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.groups import (
    Atoms,
    Coupling,
    for_training,
    group_channels,
    trace_channels,
)
from pruned_perception.pruning.graph.observation import outside_inference_mode
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.graph.response import keep_response, response_axis
from pruned_perception.pruning.graph.take import Take

__all__ = [
    'check_deterministic',
    'find_groups',
    'mask_channels',
    'slice_channels',
    'unsliceable',
]

_FEW = 4  # groups that are tried alone


@on_cpu
@outside_inference_mode
def find_groups(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    ignored_layers: Collection[str] = (),
    calibration: Iterable[Batch] | None = None,
    verify: bool = True,
) -> ChannelGroups:
    """Return the groups of coupled channels of `model`, which is left untouched.

    Args:
        model: any module whose forward computes the same each time.
        example_inputs: its positional inputs; it is run on them in evaluation mode.
        ignored_layers: names of layers whose outputs must stay.
        calibration: batches of inputs (a list), to verify on beside the example inputs.
        verify: slice a random half of every group and compare with the masked network; groups that
            cannot be sliced rightly are kept.

    Raises:
        PruningError: the model cannot be run, computes something else each time or what is not
            finite, or a name in `ignored_layers` is no layer of it.
    """
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    if unknown := set(ignored_layers) - layers:
        raise PruningError(
            f'ignored_layers: {sorted(unknown)[0]!r} is no convolution or linear layer'
        )
    network = _Network(model, example_inputs, ignored_layers, calibration)
    halves = {group.name: _half(group) for group in network.groups.prunable}
    if verify and (failed := network.failures(halves)):
        staying = {each: why for name, why in failed.items() for each in network.atoms[name]}
        coupling = replace(network.coupling, stays=network.coupling.stays | staying)
        return group_channels(coupling)[0]
    return network.groups


@on_cpu
@outside_inference_mode
def unsliceable(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    kept: Mapping[str, Sequence[int]],
    *,
    calibration: Iterable[Batch] | None = None,
) -> dict[str, str]:
    """Return the groups that cannot be sliced to these channels beside the others, and why."""
    network = _Network(model, example_inputs, calibration=calibration)
    network.check(kept)
    return network.failures(kept)


@on_cpu
@outside_inference_mode
def slice_channels(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    kept: Mapping[str, Sequence[int]],
    *,
    calibration: Iterable[Batch] | None = None,
) -> nn.Module:
    """Return a copy of `model` in which each named group has its `kept` channels only.

    Groups that are not named stay whole; the original is untouched. The copy has the training
    modes and the frozen parameters of the original.

    Raises:
        PruningError: unknown group, no channel left, channels that cannot go apart, or a sliced
            network that does not compute what the masked one does on the example inputs, or on
            those of the `calibration` set.
    """
    network = _Network(model, example_inputs, calibration=calibration)
    network.check(kept)
    small = network.slice(kept)
    if network.why_wrong(small, kept) is not None:
        failed = network.failures(kept)
        if not failed:  # the parts are right, and so is the whole by now: it is not the same twice
            check_deterministic(model, network.inputs)
        reasons = '; '.join(f'{name} {why}' for name, why in failed.items())
        raise PruningError(f'plan: {reasons}; leave out {", ".join(failed)}')
    return small


@on_cpu
def mask_channels(
    model: nn.Module, groups: ChannelGroups, kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Return a copy of `model` whose consumers read zeros in place of the channels not kept.

    It computes what the sliced network must compute.
    """
    masked = copy.deepcopy(model)
    _mask(masked, groups, kept)
    return masked


def _mask(
    model: nn.Module, groups: ChannelGroups, kept: Mapping[str, Sequence[int]]
) -> list[RemovableHandle]:
    modules, handles = dict(model.named_modules()), []
    for name, indices in kept.items():
        group = groups[name]
        gone = set(range(group.channels)) - set(indices)
        for consumer in group.consumers:
            layer = modules[consumer.layer]
            dead = torch.tensor(consumer.of(gone), dtype=torch.long)
            axis = -1 if isinstance(layer, nn.Linear) else response_axis(layer) or -3
            handles.append(layer.register_forward_pre_hook(_zeroing(dead, axis)))
    return handles


class _Network:
    """A network, its groups, and what slicing it gives."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Sequence[Tensor],
        ignored_layers: Collection[str] = (),
        calibration: Iterable[Batch] | None = None,
    ) -> None:
        self.model = model = plain(model)
        self.inputs = telling(example_inputs)
        self._calibration = calibration
        self.coupling: Coupling = trace_channels(model, self.inputs, ignored_layers=ignored_layers)
        self.groups: ChannelGroups
        self.atoms: Atoms
        self.groups, self.atoms = group_channels(self.coupling)

    def check(self, kept: Mapping[str, Sequence[int]]) -> None:
        """Raise PruningError where these channels cannot be kept."""
        names = {group.name for group in self.groups.prunable}
        for name, indices in kept.items():
            if name not in names:
                why = self.groups.not_pruned.get(name, f'the groups are {", ".join(sorted(names))}')
                raise PruningError(f'plan: {name!r} is no group that can be pruned: {why}')
            group = self.groups[name]
            if not indices or not set(indices) <= set(range(group.channels)):
                raise PruningError(
                    f'plan: {name!r} has the channels 0 to {group.channels - 1}; kept: '
                    f'{list(indices)}'
                )
            runs = {index // group.unit for index in indices}
            if len(set(indices)) != len(runs) * group.unit:
                raise PruningError(
                    f'plan: channels of {name!r} go in whole runs of {group.unit}, the first from '
                    f'0 to {group.unit - 1}; kept: {list(indices)}'
                )

    def slice(self, kept: Mapping[str, Sequence[int]]) -> nn.Module:
        """Return the sliced network, not yet checked."""
        gone: set[int] = set()
        for name, indices in kept.items():
            runs = {index // self.groups[name].unit for index in indices}
            gone |= {number for run, number in enumerate(self.atoms[name]) if run not in runs}
        return cut(self.model, self.coupling, gone)

    @cached_property
    def verifying(self) -> list[tuple[Tensor, ...]]:
        """Inputs on which the sliced network is compared with the masked one."""
        return verifying_inputs(self.model, self.inputs, self._calibration)

    def why_wrong(self, small: nn.Module, kept: Mapping[str, Sequence[int]]) -> str | None:
        """Say what is wrong with the sliced network, if anything is."""
        gone: dict[str, list[int]] = {}
        for name, indices in kept.items():
            lost = set(range(self.groups[name].channels)) - set(indices)
            for producer in self.groups[name].producers:
                gone.setdefault(producer.layer, []).extend(producer.of(lost))
        handles = _mask(self._masked, self.groups, kept)
        try:
            for inputs in self.verifying:
                found, where = deviation(self._masked, small, inputs, gone)
                if TOLERANCE < found < float('inf'):
                    found, where = in_double(self._masked, small, inputs, gone) or (found, where)
                if found == float('inf'):
                    return f'cannot be sliced, perhaps for a size or index in the code: {where}'
                if found > TOLERANCE:
                    return (
                        f'cannot be sliced: {where} computes something else then, by {found:.2g} '
                        'of its range'
                    )
        finally:
            for handle in handles:
                handle.remove()
        return self._why_untrainable(small) if self.coupling.trained else None

    @cached_property
    def _masked(self) -> nn.Module:
        """A copy that is masked anew for each comparison."""
        return copy.deepcopy(self.model)

    @torch.no_grad()
    def _why_untrainable(self, small: nn.Module) -> str | None:
        """Say why heads for training fail in the sliced network, if they do."""
        with torch.random.fork_rng(devices=()):
            try:
                copy.deepcopy(small).train()(*for_training(self.inputs))
            except Exception as error:  # whatever the user's forward raises
                return f'cannot be trained then: {type(error).__name__}: {error}'
        return None

    def failures(self, kept: Mapping[str, Sequence[int]]) -> dict[str, str]:
        """Return groups that cannot be sliced to these channels, and why.

        If all cannot be sliced together, those by the layer where it shows are tried first, each
        alone: f that fail cost some 2 f comparisons, most of which end early. Where none of them
        is to blame, those that can be sliced are found by bisection: 2 f log₂ n.
        """
        failed: dict[str, str] = {}

        def wrong(tried: list[str]) -> str | None:
            chosen = {name: kept[name] for name in tried}
            return self.why_wrong(self.slice(chosen), chosen)

        def sound(given: list[str], tried: list[str], *, known: bool = False) -> list[str]:
            """Return those of `tried` that can be sliced beside all of `given`."""
            why = '' if known else wrong(given + tried) if tried else None
            if why is None:
                return tried
            if len(tried) == 1:
                failed[tried[0]] = why
                return []
            middle = len(tried) // 2
            first = sound(given, tried[:middle])
            # If all of the first half can be, it is the second that cannot.
            second_fails = len(first) == middle and middle < len(tried) - 1
            return first + sound(given + first, tried[middle:], known=second_fails)

        rest = list(kept)
        why = wrong(rest) if rest else None
        if why is not None:
            check_deterministic(self.model, self.inputs)  # before any group is blamed
        while why is not None:
            for near in self._near(why, rest):
                alone = {name: wrong([name]) for name in near}
                if blamed := {name: each for name, each in alone.items() if each is not None}:
                    break
            else:
                sound([], rest, known=len(rest) > 1)
                break
            failed |= blamed
            rest = [name for name in rest if name not in blamed]
            why = wrong(rest) if rest else None
        return failed

    def _near(self, why: str, names: Sequence[str]) -> Iterator[list[str]]:
        """Yield the groups, a few at most, that the layer named in the reason makes, or reads."""
        found = re.search(r' after ([\w.]+): | sliced: ([\w.]+) computes', why)
        layer = found and (found[1] or found[2])
        for side in ('producers', 'consumers'):
            near = [
                name
                for name in names
                if any(each.layer == layer for each in getattr(self.groups[name], side))
            ]
            if len(near) <= _FEW:
                yield near


def _half(group: ChannelGroup) -> list[int]:
    """Return about half of a group's channels, drawn at random, but the same each time.

    An odd number of runs: widths written into the code are even, and should not divide it.
    """
    runs = group.channels // group.unit
    generator = torch.Generator().manual_seed(runs)
    chosen = torch.randperm(runs, generator=generator)[: runs // 2 | 1].sort().values
    return [run * group.unit + index for run in chosen.tolist() for index in range(group.unit)]


def _zeroing(dead: Tensor, axis: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].index_fill(axis, dead.to(inputs[0].device), 0), *inputs[1:])

    return hook


def cut(model: nn.Module, coupling: Coupling, gone: Collection[int]) -> nn.Module:
    """Return a copy of `model` without the channels of these integers of its coupling.

    Parameters that were frozen are so in the copy; nothing has a gradient.
    """

    def rest(numbers: Sequence[int]) -> Tensor:
        left = [i for i, number in enumerate(numbers) if number not in gone]
        return torch.tensor(left, dtype=torch.long)

    small = copy.deepcopy(model)
    modules = dict(small.named_modules())
    for name, numbers in coupling.outputs.items():
        made, read = rest(numbers), rest(coupling.inputs.get(name, ()))
        _cut_layer(modules[name], made, read, even=name in coupling.even)
    for name, numbers in coupling.takes.items():
        take = modules[name]
        assert isinstance(take, Take)
        take.follow(rest(numbers).tolist())
    selected: dict[int, Tensor] = {}  # one parameter may have several names
    for name, numbers in coupling.others.items():
        left = rest(numbers)
        if len(left) == len(numbers):
            continue
        if name in modules:
            _resize(modules[name], len(left))
            continue
        path, _, own = name.rpartition('.')
        old = getattr(modules[path], own)
        if id(old) not in selected:
            axis = max(range(old.ndim), key=old.shape.__getitem__)
            selected[id(old)] = _select(old, axis, left)
        setattr(modules[path], own, selected[id(old)])
    for name in coupling.inputs.keys() - coupling.outputs.keys():
        before = coupling.inputs[name]
        if (after := len(rest(before))) < len(before):
            keep_response(modules[name], len(before), after)
    for parameter in small.parameters():
        parameter.grad = None
    return small


def _cut_layer(layer: Any, outputs: Tensor, inputs: Tensor, *, even: bool) -> None:
    groups = 1
    if isinstance(layer, nn.Linear):
        made, read = layer.out_features, layer.in_features
    else:
        made, read, groups = layer.out_channels, layer.in_channels, layer.groups
    sides = [('out', outputs, made), ('in', inputs, read)]
    if isinstance(layer, nn.ConvTranspose2d):
        sides.reverse()  # its weight is (in, out / groups, …)
    for axis, (side, rest, size) in enumerate(sides):
        if not 0 < len(rest) < size:  # without integers: never run
            continue
        if axis == 0 or groups == 1:
            layer.weight = _select(layer.weight, axis, rest)
        elif even:
            layer.weight = _select_in_groups(layer.weight, rest.unflatten(0, (groups, -1)))
        # Else whole groups go: axis 1, within one group, is as before.
        setattr(
            layer,
            f'{side}_{"features" if hasattr(layer, "in_features") else "channels"}',
            len(rest),
        )
    if 0 < len(outputs) < made:
        if layer.bias is not None:
            layer.bias = _select(layer.bias, 0, outputs)
        if groups > 1 and not even:
            layer.groups = groups * len(outputs) // made


def _select(old: Tensor, axis: int, rest: Tensor) -> Tensor:
    new = old.detach().index_select(axis, rest.to(old.device))
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _select_in_groups(old: Any, rest: Tensor) -> Any:
    """Select along axis 1 of a grouped weight: `rest` (groups, n) counts through all groups."""
    groups = len(rest)
    blocks = old.detach().unflatten(0, (groups, -1))
    within = (rest % blocks.shape[2]).to(old.device)
    picked = [each[:, own] for each, own in zip(blocks, within, strict=True)]
    return nn.Parameter(torch.cat(picked), old.requires_grad)


def _resize(norm: Any, channels: int) -> None:
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = norm.num_groups * channels // norm.num_channels
        norm.num_channels = channels
    elif isinstance(norm, nn.PReLU):
        norm.num_parameters = min(norm.num_parameters, channels)
    else:
        norm.num_features = channels
