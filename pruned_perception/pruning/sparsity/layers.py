"""The layers whose weights may be pruned."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """Return all convolutions and linear layers of `model` by name."""
    return {name: each for name, each in model.named_modules() if isinstance(each, LAYERS)}


def weight_layers(model: nn.Module, *, keep: Collection[str] = ()) -> dict[str, Layer]:
    """Return the convolutions and linear layers of `model` by name, without those to `keep`.

    Args:
        model: any module.
        keep: layers, or prefixes of layers' names, whose weights all stay.

    Raises:
        PruningError: a name in `keep` is no such layer and holds none, a weight is shared by two
            layers or computed from other parameters, or nothing is left to prune.
    """
    found = find_layers(model)
    for prefix in keep:
        if not any(_within(name, prefix) for name in found):
            raise PruningError(f'keep: {prefix!r} is no convolution or linear layer, nor holds any')
    layers = {
        name: layer
        for name, layer in found.items()
        if not any(_within(name, prefix) for prefix in keep)
    }
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        if layer._parameters.get('weight') is None:
            raise PruningError(
                f'{name}: its weight is computed from other parameters; remove the '
                'parametrization, or name the layer in `keep`'
            )
        other = owners.setdefault(id(layer.weight), name)
        if other != name:
            raise PruningError(f'{name} shares its weight with {other}: name both in `keep`')
    if not layers:
        raise PruningError(f'{type(model).__name__}: no convolution or linear layer to prune')
    return layers


def from_kernel(layer: Layer, values: Tensor) -> Tensor:
    """Return values in the order of `contributions.kernel(layer)` in the weight's own shape."""
    if isinstance(layer, nn.ConvTranspose2d):  # kernels turned round, outputs before inputs
        c, f, *taps = layer.weight.shape
        split = values.reshape(layer.groups, f, c // layer.groups, *taps)
        return split.transpose(1, 2).reshape(layer.weight.shape).flip(2, 3)
    return values.reshape(layer.weight.shape)


def neuron_sums(layer: Layer, values: Tensor) -> Tensor:
    """Return the sums (f,) over each neuron's weights of values in the weight's shape."""
    if isinstance(layer, nn.ConvTranspose2d):  # (c, f/groups, h, w)
        return values.unflatten(0, (layer.groups, -1)).sum((1, 3, 4)).flatten()
    return values.flatten(1).sum(1)


def _within(layer: str, prefix: str) -> bool:
    return layer == prefix or layer.startswith(f'{prefix}.')
