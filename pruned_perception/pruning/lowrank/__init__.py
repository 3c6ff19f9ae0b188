"""Low-rank decomposition: ranks → plan → two layers in the place of one.

A method is a module here with `plan` and a line in `MODULES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.lowrank.assembly import make_decomposition
from pruned_perception.pruning.lowrank.decomposition import Decomposition, LayerPlan, Projection
from pruned_perception.pruning.lowrank.replacement import decompose

__all__ = [
    'Decomposition',
    'LayerPlan',
    'Method',
    'Projection',
    'decompose',
    'get',
    'make_decomposition',
    'names',
]

MODULES: dict[str, str] = {
    'alds': 'alds',
    'l_rank': 'l_rank',
    'pca': 'pca',
    'svd': 'svd',
    'svd_energy': 'svd_energy',
}


class Method(Protocol):
    """What a method's module offers."""

    @staticmethod
    def plan(
        model: nn.Module,
        example_inputs: Sequence[Tensor],
        budget: Macs | Params,
        *,
        keep: Collection[str] = (),
        seed: int = 0,
        calibration: Iterable[Batch] | None = None,
    ) -> Decomposition:
        """Choose groups and rank of each layer within the budget.

        Args:
            model: the dense network; untouched.
            example_inputs: its positional inputs, which are run once.
            budget: the share of the dense multiply-accumulates or parameters that may remain.
            keep: names of layers to leave alone.
            seed: of methods that draw random numbers.
            calibration: batches of inputs without labels, of methods that look at data.

        Raises:
            BudgetError: the budget cannot be met; says what can.
            PruningError: an unknown layer in `keep`, or no calibration set where one is needed.
        """


def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(MODULES)


def get(name: str) -> Method:
    """Return the method of that name; raises PruningError with the names that there are."""
    if name not in MODULES:
        raise PruningError(f'unknown low-rank method {name!r}; there are {", ".join(MODULES)}')
    return cast(Method, importlib.import_module(f'{__name__}.{MODULES[name]}'))
