"""Making and applying plans of weight sparsity."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.budget import Params
from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.plan import DELTA
from pruned_perception.pruning.sensitivity import POSITIONS
from pruned_perception.pruning.sparsity import methods
from pruned_perception.pruning.sparsity.layers import find_layers, weight_layers
from pruned_perception.pruning.sparsity.record import LayerSparsity, SparsityPlan
from pruned_perception.pruning.sparsity.selection import Loss, Pool, Request

SCOPES = ('network', 'layer')


def make_plan(
    model: nn.Module,
    *,
    method: str,
    budget: Params | None = None,
    kept: Mapping[str, int] | None = None,
    calibration: Iterable[Any] | None = None,
    loss: Loss | None = None,
    scope: str = 'network',
    positions: int | None = POSITIONS,
    delta: float = DELTA,
    K: float = 1.0,
    seed: int = 0,
    keep: Collection[str] = (),
) -> SparsityPlan:
    """Choose the weights to keep. Zeros do not make dense kernels faster; see `record`.

    Args:
        model: the dense network; untouched.
        method: what chooses the weights, see `methods.names()`.
        budget: share of all the network's parameters that may remain; biases and norms stay.
        kept: instead of a budget: the weights that each layer keeps, for example another plan's
            `kept`, so that two methods are compared under one allocation.
        calibration: batches of inputs without labels (SiPP), or whatever `loss` takes (SNIP).
        loss: (model, batch) → scalar, for SNIP.
        scope: 'network' divides the budget over all layers together, 'layer' gives each layer the
            same share.
        positions: output positions sampled per image for sensitivities; None for all of them.
        delta: probability with which the bounds of random draws may fail.
        K: how far a future input may exceed the sensitivities, see `bounds`.
        seed: of everything random.
        keep: layers, or prefixes of layers' names, whose weights all stay.

    Raises:
        BudgetError: the budget cannot be met; says the nearest that can.
        PruningError: unknown names, options that do not fit together, missing or unusable data.
    """
    choose = methods.get(method)
    if positions is not None and positions < 1:
        raise PruningError(f'positions: at least 1 per image, got {positions}')
    if not 0 < delta < 1 or not K > 0:
        raise PruningError(f'delta must be in (0, 1) and K > 0, got {delta} and {K}')
    layers = weight_layers(model, keep=keep)
    parameters = sum(each.numel() for each in model.parameters())
    fixed = parameters - sum(layer.weight.numel() for layer in layers.values())
    if (budget is None) == (kept is None):
        raise PruningError('give either a budget or the weights that each layer keeps')
    if kept is not None:
        scope, pools = 'layer', _given(kept, layers)
    else:
        assert budget is not None
        pools = _pools(scope, math.floor(budget.share * parameters) - fixed, layers)
    generator = torch.Generator().manual_seed(seed)
    request = Request(pools, parameters, fixed, calibration, loss, positions, delta, K, generator)
    choice = choose(model, layers, request)
    return SparsityPlan(
        method=method,
        scope=scope,
        seed=seed,
        delta=delta,
        K=K,
        positions=positions,
        calibration=choice.calibration,
        parameters=parameters,
        dense_bytes=sum(each.numel() * each.element_size() for each in model.parameters()),
        layers=tuple(
            _layer(name, layer, choice.factors[name], choice.bounds.get(name))
            for name, layer in layers.items()
        ),
        not_pruned={name: 'asked to keep' for name in find_layers(model) if name not in layers},
    )


@torch.no_grad()
def apply(model: nn.Module, plan: SparsityPlan) -> nn.Module:
    """Return a copy of `model` with the plan's zeros and factors; the original is untouched.

    Raises:
        PruningError: the plan does not fit the network.
    """
    sparse = copy.deepcopy(model)
    layers = find_layers(sparse)
    for each in plan.layers:
        if each.name not in layers:
            raise PruningError(f'plan: {each.name!r} is no layer of this network')
        weight = layers[each.name].weight
        if tuple(weight.shape) != each.shape:
            raise PruningError(
                f'plan: the weight of {each.name!r} is {tuple(weight.shape)}, planned for '
                f'{each.shape}'
            )
        weight.mul_(each.factors.to(weight))
    return sparse


def _pools(scope: str, wanted: int, layers: Mapping[str, Layer]) -> Sequence[Pool]:
    if scope not in SCOPES:
        raise PruningError(f'unknown scope {scope!r}; there are {", ".join(SCOPES)}')
    if scope == 'network' or wanted < 0:
        return (Pool(tuple(layers), wanted),)
    total = sum(layer.weight.numel() for layer in layers.values())
    return tuple(
        Pool((name,), wanted * layer.weight.numel() // total) for name, layer in layers.items()
    )


def _given(kept: Mapping[str, int], layers: Mapping[str, Layer]) -> Sequence[Pool]:
    if kept.keys() != layers.keys():
        name = sorted(kept.keys() ^ layers.keys())[0]
        raise PruningError(f'kept: {name!r} must be a layer, and be named there or in `keep`')
    for name, wanted in kept.items():
        there = layers[name].weight.numel()
        if not 0 <= wanted <= there:
            raise BudgetError(f'kept: {name!r} has {there} weights, {wanted} cannot be kept')
    return tuple(Pool((name,), kept[name]) for name in layers)


def _layer(name: str, layer: Layer, factors: Tensor, bound: float | None) -> LayerSparsity:
    mask = factors != 0
    values = factors[mask].float().numpy()
    return LayerSparsity(
        name=name,
        shape=tuple(layer.weight.shape),
        kept=int(mask.sum()),
        value_bytes=layer.weight.element_size(),
        bits=np.packbits(mask.flatten().numpy()).tobytes(),
        values=b'' if (values == 1).all() else values.astype('<f4').tobytes(),
        bound=bound,
    )
