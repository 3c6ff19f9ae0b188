"""Criteria: how much each channel of a group matters.

A criterion is a module here with `score` and a line in `MODULES`.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.groups import ChannelGroup

MODULES: dict[str, str] = {
    'filter_l1': 'filter_l1',
    'filter_l2': 'filter_l2',
    'random': 'random',
}


class Criterion(Protocol):
    """What a criterion module offers."""

    @staticmethod
    def score(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
        """Return (channels,) scores ≥ 0; the highest are kept. `generator`: for random ones."""


def names() -> tuple[str, ...]:
    """Return the names of all criteria."""
    return tuple(MODULES)


def get(name: str) -> Criterion:
    """Return the criterion of that name; raises PruningError with the names that there are."""
    if name not in MODULES:
        raise PruningError(f'unknown criterion {name!r}; there are {", ".join(MODULES)}')
    return cast(Criterion, importlib.import_module(f'{__name__}.{MODULES[name]}'))
