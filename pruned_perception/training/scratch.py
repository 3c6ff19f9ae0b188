"""A network with all weights random again: the control of what pruning is worth."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from pruned_perception.pruning.errors import PruningError


def reinitialised(
    model: nn.Module, *, seed: int = 0, initialise: Callable[[nn.Module], None] | None = None
) -> nn.Module:
    """Return a copy of `model` that knows nothing; frozen layers stay as they are.

    Args:
        model: any network.
        seed: of the weights.
        initialise: makes all weights random in place; by default each layer's own
            `reset_parameters`.

    Raises:
        PruningError: no `initialise`, and a module with parameters that cannot reset them.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if initialise is not None:
            initialise(fresh)
            return fresh
        for name, module in fresh.named_modules():
            own = list(module.parameters(recurse=False))
            if own and not all(each.requires_grad for each in own):
                continue
            if callable(reset := getattr(module, 'reset_parameters', None)):
                reset()
            elif own:
                raise PruningError(
                    f'{name or type(model).__name__}: {type(module).__name__} has parameters but '
                    'no reset_parameters(); give the task `initialise`'
                )
    return fresh
