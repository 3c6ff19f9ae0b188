"""Replacing layers by their factors, after a plan."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.lowrank.assembly import factors_of
from pruned_perception.pruning.lowrank.decomposition import Decomposition
from pruned_perception.pruning.lowrank.factorisation import factored_layer, slices
from pruned_perception.pruning.lowrank.layers import LayerSize, find_layers


@torch.no_grad()
def decompose(model: nn.Module, plan: Decomposition) -> nn.Module:
    """Return a copy of `model` in which each layer of the plan is two; the original is untouched.

    A layer `name` becomes `name.0`, which has its geometry, and `name.1`, which has its bias.
    `model` may have been pruned or decomposed before. In the result, whoever reads the structure
    sees ordinary layers: the ranks of one group are channels like others, a sliced `name.0` is a
    grouped convolution.

    Raises:
        PruningError: the plan is not for this network, or its forward needs the layer as it was.
        RuntimeError: the network does not cost what was planned (a defect of ours).
    """
    example = tuple(each.example() for each in plan.inputs)
    _check_fits(model, plan, example)
    small = copy.deepcopy(model)
    for name, each in plan.layers.items():
        layer = small.get_submodule(name)
        parts = slices(layer, each.groups)
        projection = plan.projections.get(name)
        bias = layer.bias.detach().cpu().double() if isinstance(layer.bias, Tensor) else None
        if projection is not None:
            bias = projection.shift if bias is None else bias + projection.shift
        factors = factors_of(parts, each.rank, projection)
        _replace(small, layer, factored_layer(layer, factors, bias))
    probe = copy.deepcopy(small).eval()
    try:
        probe(*example)
    except Exception as error:  # whatever the user's forward raises
        raise PruningError(
            f'{type(model).__name__} does not run when decomposed ({error}): name the layers whose '
            'attributes its forward reads in `keep`'
        ) from error
    real = count(probe, example)
    if (real.parameters, real.macs) != (plan.parameters, plan.macs):
        raise RuntimeError(
            f'planned {plan.parameters} parameters and {plan.macs} MACs, but the decomposed '
            f'network has {real.parameters} and {real.macs}'
        )
    return small


def _check_fits(model: nn.Module, plan: Decomposition, example: Sequence[Tensor]) -> None:
    network = find_layers(model, example)
    for name, each in plan.layers.items():
        if name not in network.shapes:
            reason = network.left_alone.get(name, 'is no layer of this network')
            raise PruningError(f'plan: {name!r} {reason}')
        shape = network.shapes[name]
        planned = LayerSize(each.parameters, each.macs)
        factored = shape.factored(each.groups, each.rank, shifted=name in plan.projections)
        if each.groups not in shape.groupings or factored != planned:
            raise PruningError(f'plan: {name!r} has another shape in this network')
    dense = network.dense
    if (dense.parameters, dense.macs) != (plan.dense_parameters, plan.dense_macs):
        raise PruningError(
            f'the plan is for a network of {plan.dense_parameters:,} parameters and '
            f'{plan.dense_macs:,} MACs, this one has {dense.parameters:,} and {dense.macs:,}'
        )


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # one layer may have several names
            if child is old:
                setattr(parent, name, new)
