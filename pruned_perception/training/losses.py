"""What a step says of a batch: one loss, or several by name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

from torch import Tensor

Losses = Tensor | Mapping[str, Tensor]
"""A scalar to minimise, or scalars by name, of which the sum is minimised."""


def named(losses: Losses, name: str) -> dict[str, Tensor]:
    """Return losses by name; a single one has the name that is given."""
    return {name: losses} if isinstance(losses, Tensor) else dict(losses)


def total(losses: Losses) -> Tensor:
    """Return the scalar that is minimised."""
    if isinstance(losses, Tensor):
        return losses
    return functools.reduce(operator.add, losses.values())
