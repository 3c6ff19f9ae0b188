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
