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

"""Running a network over a set of inputs while its layers' inputs and outputs are observed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import device_of, moved

P = ParamSpec('P')
R = TypeVar('R')

# Called with a layer's name, its input and its output, at every call of the layer.
Observer = Callable[[str, Tensor, Tensor], None]


@contextlib.contextmanager
def observed(model: nn.Module, layers: Collection[str], observer: Observer) -> Iterator[None]:
    """Call `observer` whenever one of the named layers has run."""
    handles = []
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: observer(name, inputs[0], output)

    for name in layers:
        handles.append(modules[name].register_forward_hook(hook(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outside_inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate what returns a network: its tensors can be trained wherever it is called from.

    Tensors made in PyTorch's inference mode never can. Gradients are off.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return call


def check_model(model: nn.Module) -> None:
    """Raise PruningError where the network is no Python code to be followed, or has no sizes."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise PruningError(
                f'{name or "the network"} is TorchScript, whose layers cannot be followed or cut: '
                'give the nn.Module that it was made of'
            )
        if hasattr(module, '_orig_mod'):  # torch.compile's wrapper
            raise PruningError(
                f'{name or "the network"} is compiled (torch.compile): give its _orig_mod, and '
                'compile what pruning returns'
            )
    for name, each in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(each):
            raise PruningError(
                f'{name} has no size yet, as in lazy modules before their first run: run the '
                'network once on example inputs'
            )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode; restore each module's own mode in the end."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def run(model: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> None:
    """Run the network in evaluation mode, whatever its mode, where it is; restore the mode."""
    device = device_of(model)
    with evaluating(model):
        for inputs in batches:
            model(*moved(inputs, device))


def tensors(outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a network's output: one, or those of whatever holds them.

    That is (nested) sequences, mappings, dataclasses and other plain objects; what is no tensor,
    such as None, numbers or names, is left out.

    Raises:
        PruningError: there is no tensor.
    """
    found = tuple(_tensors(outputs, []))
    if not found:
        raise PruningError(f'the network returns {type(outputs).__name__}, which holds no tensors')
    return found


def _tensors(outputs: Any, holders: list[Any]) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, str | bytes | bytearray | type) or any(
        each is outputs for each in holders
    ):
        return
    else:
        parts: Iterable[Any] = ()
        if isinstance(outputs, Mapping):
            parts = outputs.values()
        elif isinstance(outputs, Iterable):
            parts = outputs
        elif hasattr(outputs, '__dict__') and not isinstance(outputs, nn.Module):
            parts = vars(outputs).values()
        elif dataclasses.is_dataclass(outputs):  # with slots
            parts = [getattr(outputs, each.name) for each in dataclasses.fields(outputs)]
        for each in parts:
            yield from _tensors(each, [*holders, outputs])
