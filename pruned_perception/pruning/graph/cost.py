"""Parameters and multiply-accumulates of a network, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruned_perception.pruning.graph.observation import evaluating

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer: its name and multiply-accumulates for one example."""

    name: str
    macs: int


@dataclass(frozen=True)
class NetworkCost:
    """Parameters, and multiply-accumulates for one example (convolutions and linear layers)."""

    parameters: int
    macs: int
    layers: tuple[LayerCost, ...]


@torch.no_grad()
def count(model: nn.Module, example_inputs: Sequence[Tensor]) -> NetworkCost:
    """Run `model` once on `example_inputs` and count; a layer used twice counts twice.

    Parameters are all of the module's; those of batch norms vanish where they are folded.
    """
    macs: dict[str, int] = {}
    handles = []

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + _macs(module, inputs[0], output)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(observe(name)))
    try:
        with evaluating(model):
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    batch = example_inputs[0].shape[0]
    layers = tuple(LayerCost(name, value // batch) for name, value in macs.items())
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(layer.macs for layer in layers),
        layers=layers,
    )


def _macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * weight[0].numel()  # each input value meets (out/groups) · k² weights
    if isinstance(module, nn.Conv2d):
        return output.numel() * weight[0].numel()  # each output value needs (in/groups) · k²
    return output.numel() * weight.shape[1]
