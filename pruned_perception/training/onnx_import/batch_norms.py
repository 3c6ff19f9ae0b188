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

"""Batch norms put back into an imported network, and folded again.

An exported network has its batch norms folded into its convolutions; without them a fine-tuning of
more than a few steps runs away. What they were need not be known: see `training.batch_norms`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.training.batch_norms import convolution_statistics, norm_after

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_ACTIVATIONS = frozenset(
    (
        functional.relu, functional.leaky_relu, functional.silu, functional.hardswish,
        functional.elu, functional.celu, functional.gelu, functional.mish, functional.softplus,
        functional.hardsigmoid, torch.sigmoid, torch.tanh, torch.clamp, torch.erf,
    )
)  # fmt: skip


def with_batch_norms(module: fx.GraphModule, calibration: Iterable[Batch]) -> fx.GraphModule:
    """Return a copy with a batch norm after each convolution that feeds an activation or a layer.

    It computes the same in evaluation mode; in training mode its first step does, too, on batches
    like those of `calibration`. Convolutions that make the network's outputs, and those that are
    called several times, stay as they are.

    Args:
        module: an imported network, pruned or not; untouched.
        calibration: batches of inputs.
    """
    normalised = copy.deepcopy(module).eval()
    modules = dict(normalised.named_modules())
    places = _places(normalised, modules)
    statistics = convolution_statistics(normalised, [str(n.target) for n in places], calibration)
    for node in places:
        name = str(node.target)
        norm = norm_after(modules[name], *statistics[name])
        normalised.add_submodule(f'{name}_norm', norm)
        with normalised.graph.inserting_after(node):
            after = normalised.graph.call_module(f'{name}_norm', (node,))
        node.replace_all_uses_with(after)
        after.args = (node,)  # which it reads itself
    normalised.recompile()
    return normalised


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy, in evaluation mode, whose batch norms are folded into their convolutions."""
    plain = copy.deepcopy(module).eval()
    modules = dict(plain.named_modules())
    calls = Counter(node.target for node in plain.graph.nodes)
    for node in list(plain.graph.nodes):
        if node.op != 'call_module' or not isinstance(modules[node.target], _BatchNorm):
            continue
        before = node.args[0]
        conv = modules.get(before.target) if before.op == 'call_module' else None
        alone = calls[before.target] == calls[node.target] == len(before.users) == 1
        if not alone or not isinstance(conv, _CONVOLUTIONS):
            continue
        transposed = isinstance(conv, nn.ConvTranspose2d)
        _replace(plain, before.target, fuse_conv_bn_eval(conv, modules[node.target], transposed))
        node.replace_all_uses_with(before)
        plain.graph.erase_node(node)
    plain.delete_all_unused_submodules()
    plain.recompile()
    return plain


def _places(module: fx.GraphModule, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """Return the calls of convolutions after which a batch norm belongs."""
    calls = Counter(node.target for node in module.graph.nodes if node.op == 'call_module')
    feeds: dict[fx.Node, bool] = {}  # whether a layer reads it, at some distance
    for node in reversed(module.graph.nodes):
        feeds[node] = any(feeds[user] or _is(user, modules, LAYERS) for user in node.users)

    def wanted(node: fx.Node) -> bool:
        if not _is(node, modules, _CONVOLUTIONS) or calls[node.target] > 1 or not feeds[node]:
            return False
        return any(
            user.target in _ACTIVATIONS or _is(user, modules, (*LAYERS, nn.PReLU))
            for user in node.users
        )

    return [node for node in module.graph.nodes if wanted(node)]


def _is(node: fx.Node, modules: dict[str, nn.Module], kinds: Any) -> bool:
    return node.op == 'call_module' and isinstance(modules[str(node.target)], kinds)


def _replace(module: nn.Module, name: str, other: nn.Module) -> None:
    path, _, own = name.rpartition('.')
    setattr(module.get_submodule(path), own, other)
