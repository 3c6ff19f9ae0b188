"""Methods of weight sparsity: which weights stay.

A method is a function in a module here and a line in `FUNCTIONS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from torch import nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.sparsity.selection import Choice, Request

# (network, its layers that may be pruned, what is asked) → choice
Method = Callable[[nn.Module, Mapping[str, Layer], Request], Choice]

FUNCTIONS: dict[str, str] = {
    'magnitude': 'magnitude.choose',
    'random': 'random.choose',
    'sipp_deterministic': 'sipp.deterministic',
    'sipp_hybrid': 'sipp.hybrid',
    'sipp_random': 'sipp.random',
    'snip': 'snip.choose',
}


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(FUNCTIONS)


def get(name: str) -> Method:
    """Return the method of that name; raises PruningError with the names that there are."""
    if name not in FUNCTIONS:
        raise PruningError(f'unknown method {name!r}; there are {", ".join(FUNCTIONS)}')
    module, function = FUNCTIONS[name].split('.')
    package = __name__.rpartition('.')[0]
    return cast(Method, getattr(importlib.import_module(f'{package}.{module}'), function))
