"""Running a network over a set of inputs while its layers' inputs and outputs are observed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.errors import PruningError

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
    """Run the network in evaluation mode, whatever its mode; restore the mode."""
    with evaluating(model):
        for inputs in batches:
            model(*inputs)


def tensors(outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a network's output: one, or those of (nested) sequences or mappings."""
    if isinstance(outputs, Tensor):
        return (outputs,)
    if isinstance(outputs, Mapping):
        outputs = outputs.values()
    if isinstance(outputs, Iterable) and not isinstance(outputs, str):
        return tuple(each for item in outputs for each in tensors(item))
    raise PruningError(f'the network returns {type(outputs).__name__}, which holds no tensors')
