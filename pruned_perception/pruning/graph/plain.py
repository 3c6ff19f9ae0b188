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

"""Layers whose weights are computed in the forward pass, with the weights that come of it.

Weight norm and spectral norm, weight standardisation (NF-Nets, BiT), masks of PyTorch's own
pruning: in evaluation their weights are constants that other parameters describe. What such a layer
computes depends on all of its weights, so that it cannot be cut as it is; with the constants in
their place it can.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.operators import Operators

_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
_SPARE = 3  # positions of a convolution that is tried, each way
_TOLERANCE = 1e-5


@torch.no_grad()
def plain(model: nn.Module) -> nn.Module:
    """Return a copy in which layers hold the weights they compute; the model itself, if all do.

    It computes the same in evaluation mode. In training, the constants are what is trained: a
    network that goes on training with its norms of weights wants them put on again. Layers whose
    weights depend on the input, or which do more than convolve, stay as they are.
    """
    if not any(_computes(each) for each in model.modules()):
        return model
    for layer in model.modules():
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, _HOOKS):  # what it computed last, with a gradient, cannot be copied
                name = hook.name if hasattr(hook, 'name') else hook._tensor_name
                layer.__dict__[name] = layer.__dict__[name].detach()
    found = copy.deepcopy(model)
    modes = {module: module.training for module in found.modules()}
    found.eval()  # power iterations of spectral norm go on in training
    for name, layer in list(found.named_modules()):
        if not isinstance(layer, LAYERS):
            continue
        if parametrize.is_parametrized(layer):
            _take_parametrizations_off(layer)
        for key, hook in list(layer._forward_pre_hooks.items()):
            if isinstance(hook, _HOOKS):
                _take_off(layer, key, hook)
        if _is_own(layer) and (new := _constant(layer)) is not None:
            new.train(modes[layer])
            parent, _, own = name.rpartition('.')
            setattr(found.get_submodule(parent), own, new)
    for module, training in modes.items():
        module.training = training
    return found


def _computes(module: nn.Module) -> bool:
    return isinstance(module, LAYERS) and (
        parametrize.is_parametrized(module)
        or any(isinstance(each, _HOOKS) for each in module._forward_pre_hooks.values())
        or (_is_own(module) and _constant(module) is not None)
    )


def _is_own(layer: nn.Module) -> bool:
    """Whether somebody wrote what the layer computes anew."""
    kind = next(each for each in LAYERS if isinstance(layer, each))
    return any(
        getattr(type(layer), name, None) is not getattr(kind, name, None)
        for name in ('forward', '_conv_forward')
    )


def _take_parametrizations_off(layer: nn.Module) -> None:
    """Leave the constants; PyTorch's own function would change the copy's original, too."""
    parts: Any = layer.parametrizations
    values = {
        own: nn.Parameter(
            getattr(layer, own).detach().clone(),
            requires_grad=any(each.requires_grad for each in part.parameters()),
        )
        for own, part in parts.items()
    }
    del layer._modules['parametrizations']
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    for own, value in values.items():
        layer.register_parameter(own, value)


def _take_off(layer: nn.Module, key: int, hook: Any) -> None:
    """Leave the weight that the hook would compute, and take the hook away."""
    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(layer, hook._tensor_name)
        return
    hook.remove(layer)
    del layer._forward_pre_hooks[key]
    if isinstance(hook, SpectralNorm):
        for each in (layer._state_dict_hooks, layer._load_state_dict_pre_hooks):
            each.clear()


def _constant(layer: nn.Module) -> nn.Module | None:
    """Return the plain layer with the weight that this one computes.

    None where that is the weight it has, or more than a convolution or product of its input.
    """
    weight = getattr(layer, 'weight', None)
    if not isinstance(weight, Tensor) or weight.ndim not in (2, 4):
        return None
    calls = [_called(layer, _probe(layer, weight, seed)) for seed in range(2)]
    if any(each is None for each in calls):
        return None
    (used, bias, options), (again, *_) = calls  # type: ignore[misc]
    if used.shape != weight.shape or torch.equal(used, weight) or not torch.equal(used, again):
        return None
    new = _made(used, bias, options)
    x = _probe(layer, weight, 2)
    wanted, found = layer(x), new(x)
    close = torch.allclose(
        wanted, found, rtol=_TOLERANCE, atol=_TOLERANCE * float(wanted.abs().max())
    )
    if not close:
        return None
    for each in new.parameters():
        each.requires_grad_(weight.requires_grad)
    return new


def _probe(layer: nn.Module, weight: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(layer, nn.Linear):
        shape: tuple[int, ...] = (_SPARE, layer.in_features)
    else:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        pairs = zip(layer.dilation, layer.kernel_size, layer.stride, strict=True)
        sizes = [d * (k - 1) + 1 + s * (_SPARE - 1) for d, k, s in pairs]
        shape = (1, layer.in_channels, *sizes)
    return torch.randn(shape, generator=generator).to(weight)


class _Calls(Operators):
    """Records what convolutions and products are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor, Tensor | None, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == 'convolution':
            self.found.append((args[0], args[1], args[2], tuple(args[3:])))
        elif name == 'addmm':
            self.found.append((args[1], args[2].t(), args[0], ()))
        elif name == 'mm':
            self.found.append((args[0], args[1].t(), None, ()))
        return func(*args, **(kwargs or {}))


def _called(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None, tuple[Any, ...]] | None:
    """Return weight, bias and options of the one call that a layer makes with its input."""
    try:
        with _Calls() as calls:
            layer(x)
    except Exception:  # whatever somebody wrote; it is tried with a size of ours
        return None
    if len(calls.found) != 1:
        return None
    read, weight, bias, options = calls.found[0]
    if read.shape != x.shape or read.data_ptr() != x.data_ptr():
        return None  # it pads, say
    return weight.detach().clone(), bias, options


def _made(weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> nn.Module:
    new: nn.Module
    if not options:
        new = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    else:
        stride, padding, dilation, transposed, output_padding, groups = options
        first, second = weight.shape[0], weight.shape[1] * groups
        given = {
            'kernel_size': tuple(weight.shape[2:]),
            'stride': tuple(stride),
            'padding': tuple(padding),
            'dilation': tuple(dilation),
            'groups': groups,
            'bias': bias is not None,
        }
        if transposed:
            new = nn.ConvTranspose2d(first, second, output_padding=tuple(output_padding), **given)
        else:
            new = nn.Conv2d(second, first, **given)
    new = new.to(weight)
    new.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        new.bias = nn.Parameter(bias.detach().clone())
    return new
