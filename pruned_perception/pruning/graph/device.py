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

"""On which device a network is; what is to be shown to it goes there."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec('P')
R = TypeVar('R')

CPU = torch.device('cpu')


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first parameter or buffer; the CPU where it has none."""
    for tensors in (network.parameters(), network.buffers()):
        for each in tensors:
            return each.device
    return CPU


def moved(values: Any, device: torch.device) -> Any:
    """Return values with their tensors on a device; those that are there stay the same objects."""
    return mapped(values, lambda each: each if each.device == device else each.to(device))


def mapped(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return values with each of their tensors changed.

    Tensors are found in sequences, mappings and dataclasses; anything else is returned as it is.
    """
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, tuple) and hasattr(values, '_fields'):
        return type(values)(*(mapped(each, change) for each in values))
    if isinstance(values, list | tuple):
        return type(values)(mapped(each, change) for each in values)
    if isinstance(values, Mapping):
        return {name: mapped(each, change) for name, each in values.items()}
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        fields = [each.name for each in dataclasses.fields(values) if each.init]
        own = {name: mapped(getattr(values, name), change) for name in fields}
        return dataclasses.replace(values, **own)
    return values


def on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what takes networks: wherever they are, it computes on the CPU, with copies there.

    Its sums are in double precision, which not every device has. Tensors that are given go along;
    a network that is returned comes back to the device.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        devices = {device_of(x) for x in (*args, *kwargs.values()) if isinstance(x, nn.Module)}
        if not devices - {CPU}:
            return function(*args, **kwargs)
        home = (devices - {CPU}).pop()
        there = {name: _placed(value, CPU) for name, value in kwargs.items()}
        found: Any = function(*(_placed(each, CPU) for each in args), **there)
        if type(found) is tuple:
            return tuple(_placed(each, home) for each in found)  # type: ignore[return-value]
        return _placed(found, home) if isinstance(found, nn.Module) else found

    return call


def _placed(value: Any, device: torch.device) -> Any:
    if not isinstance(value, nn.Module):
        return moved(value, device) if isinstance(value, Tensor | list | tuple) else value
    return value if device_of(value) == device else copy.deepcopy(value).to(device)


@contextlib.contextmanager
def fed_from_cpu(network: nn.Module) -> Iterator[None]:
    """Let a network, wherever it is, take tensors on the CPU and return such.

    So a function of a user's need not know of devices to judge it.
    """
    if device_of(network) == CPU:
        yield
        return

    def to_device(module: nn.Module, args: Any, kwargs: Any) -> Any:
        device = device_of(module)  # a copy, which has this hook, too, may be elsewhere
        return moved(args, device), moved(kwargs, device)

    def to_cpu(module: nn.Module, args: Any, outputs: Any) -> Any:
        return moved(outputs, CPU)

    handles = (
        network.register_forward_pre_hook(to_device, with_kwargs=True),
        network.register_forward_hook(to_cpu),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
