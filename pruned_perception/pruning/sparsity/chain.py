"""Recognising a chain of ReLU weight layers, and folding its batch norms into them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import PruningError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NEUTRAL = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.MaxPool2d)
_AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_RELU = (torch.relu, functional.relu, 'relu', 'relu_')
_FLATTEN = (torch.flatten, 'flatten')


@dataclass(frozen=True, eq=False)
class Chain:
    """A folded chain in double precision.

    Attributes:
        network: computes what the original does in evaluation mode.
        names: of its weight layers, in order: their name in `network` → in the original.
    """

    network: nn.Sequential
    names: dict[str, str]

    @property
    def layers(self) -> dict[str, Layer]:
        """The weight layers of `network` by their names there, in order."""
        modules = dict(self.network.named_modules())
        return {name: modules[name] for name in self.names}


class _ToDouble(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def relu_chain(model: nn.Module) -> Chain:
    """Fold a chain: weight layer, batch norm, ReLU, and so on up to the last weight layer.

    Convolutions and linear layers count as weight layers; between a ReLU and the next of them
    there may be pooling, flattening and dropout. Nothing may branch.

    Args:
        model: the network, traceable by torch.fx; untouched.

    Raises:
        PruningError: it is no such chain; names the module.
    """
    source = copy.deepcopy(model).eval().double()
    try:
        graph = fx.symbolic_trace(source).graph
    except Exception as error:  # whatever the user's forward or the tracing raises
        raise PruningError(f'{type(model).__name__}: cannot be traced: {error}') from error
    steps: list[nn.Module] = [_ToDouble()]
    names: dict[str, str] = {}
    previous: fx.Node | None = None
    signed_sum = False  # whether the last weight layer's output has not met its ReLU yet
    for node in graph.nodes:
        if node.op == 'placeholder':
            if previous is not None:
                raise _refusal(node, 'is a second input')
            previous = node
            continue
        if previous is None or node.all_input_nodes != [previous] or len(previous.users) != 1:
            raise _refusal(node, 'branches or joins branches: a residual needs a Δ of its own')
        if node.op == 'output':
            break
        module = _module(source, node)
        if isinstance(module, nn.Conv2d | nn.Linear):
            if signed_sum:
                raise _refusal(node, 'follows another weight layer without a ReLU between them')
            if node.target in names.values():
                raise _refusal(node, 'is used twice')
            names[str(len(steps))] = str(node.target)
            signed_sum = True
        elif isinstance(module, _NORMS):
            if not isinstance(steps[-1], nn.Conv2d | nn.Linear) or module.running_var is None:
                raise _refusal(node, 'follows no weight layer that it could be folded into')
            module = _folded(steps.pop(), module)
        elif isinstance(module, nn.ReLU):
            signed_sum = False
        elif isinstance(module, _AVERAGES):
            if signed_sum:
                raise _refusal(node, 'averages values of both signs, which magnifies errors')
        elif not isinstance(module, _NEUTRAL):
            raise _refusal(node, f'({type(module).__name__}) does not keep relative errors')
        steps.append(module)
        previous = node
    if not names:
        raise PruningError(f'{type(model).__name__}: has no convolution or linear layer')
    return Chain(nn.Sequential(*steps).requires_grad_(False), names)


def _module(source: nn.Module, node: fx.Node) -> nn.Module:
    if node.op == 'call_module':
        return source.get_submodule(str(node.target))
    if node.target in _RELU:
        return nn.ReLU()
    if node.target in _FLATTEN:
        ends = dict(zip(('start_dim', 'end_dim'), node.args[1:], strict=False))
        return nn.Flatten(**{'start_dim': 0, **ends, **node.kwargs})  # type: ignore[arg-type]
    raise _refusal(node, 'is no operation of such a chain')


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)  # type: ignore[arg-type]
    return fuse_conv_bn_eval(layer, norm)  # type: ignore[type-var,arg-type]


def _refusal(node: fx.Node, why: str) -> PruningError:
    """Return the error that names the module: the node's own, or that of the operation."""
    where = str(node.target) if node.op == 'call_module' else node.name
    holders = list(node.meta.get('nn_module_stack', {}))
    if node.op != 'call_module' and holders:
        where = f'{holders[-1]}: {where}'
    return PruningError(
        f'{where} {why}; the bound is for chains of weight layers with a ReLU between them'
    )
