"""Tensors of a network without some of the channels."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.graph.coupling import Coupling


def cut(model: nn.Module, coupling: Coupling, gone: Collection[int]) -> nn.Module:
    """Return a copy of `model` without the channels of these integers of its coupling.

    Parameters that were frozen are so in the copy; nothing has a gradient.
    """

    def rest(numbers: Sequence[int]) -> Tensor:
        return torch.tensor([i for i, number in enumerate(numbers) if number not in gone])

    small = copy.deepcopy(model)
    modules = dict(small.named_modules())
    for name, numbers in coupling.outputs.items():
        _cut_layer(modules[name], rest(numbers), rest(coupling.inputs.get(name, ())))
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
    for parameter in small.parameters():
        parameter.grad = None
    return small


def _cut_layer(layer: Any, outputs: Tensor, inputs: Tensor) -> None:
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
        if axis == 0 or groups == 1:  # whole groups go: axis 1, within one group, is as before
            layer.weight = _select(layer.weight, axis, rest)
        setattr(
            layer,
            f'{side}_{"features" if hasattr(layer, "in_features") else "channels"}',
            len(rest),
        )
    if 0 < len(outputs) < made:
        if layer.bias is not None:
            layer.bias = _select(layer.bias, 0, outputs)
        if groups > 1:
            layer.groups = groups * len(outputs) // made


def _select(old: Tensor, axis: int, rest: Tensor) -> Tensor:
    new = old.detach().index_select(axis, rest.to(old.device))
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _resize(norm: Any, channels: int) -> None:
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = norm.num_groups * channels // norm.num_channels
        norm.num_channels = channels
    elif isinstance(norm, nn.PReLU):
        norm.num_parameters = min(norm.num_parameters, channels)
    else:
        norm.num_features = channels
