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

"""Criteria: how much each channel of a group matters.

A criterion is a function (subject) → sensitivities or scores of all groups; the highest are kept.
Any function will do. The decorator `criterion` in any file of this folder is all it takes to have a
name; or it is the function `score` in a file of the user's own: `get('path/to/mine.py')`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.estimation import estimate_sensitivity
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.pruning.scores import Evidence, Scores
from pruned_perception.pruning.sensitivity import POSITIONS, Sensitivity
from pruned_perception.pruning.structure import Structure

__all__ = ['Criterion', 'Loss', 'Subject', 'criterion', 'evidence', 'get', 'names']

# (outputs of the network, index of the batch, generator) → a scalar to differentiate: a sum over
# the batch's examples, since its derivatives are taken apart by example.
Loss = Callable[[Any, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network to be scored, its structure, and what the criterion may use.

    `calibration` can be iterated over more than once. `loss`, for criteria that differentiate:
    by default a random projection of the outputs, so that squared gradients are those of the
    Gauss–Newton approximation of the squared output error; no labels are needed then.

    Wherever the network is, it takes inputs on the CPU and returns such outputs while a criterion
    looks at it; what hooks see is where it is.
    """

    model: nn.Module
    structure: Structure
    calibration: Iterable[Batch] | None = None
    loss: Loss | None = None
    seed: int = 0
    positions: int | None = POSITIONS
    """At which sensitivities are measured, per image; None for all."""

    @property
    def generator(self) -> torch.Generator:
        """A new generator with the subject's seed."""
        return torch.Generator().manual_seed(self.seed)

    def batches(self, criterion: str) -> Iterator[tuple[Tensor, ...]]:
        """Yield the calibration batches, checked; raise PruningError where there are none."""
        if self.calibration is None:
            raise PruningError(
                f'criterion {criterion!r} needs a calibration set: images, no labels'
            )
        example = [each.example() for each in self.structure.inputs]
        yield from CheckedBatches(self.calibration, example)

    def sensitivity(self, definition: str) -> Sensitivity:
        """Return the sensitivities by this definition."""
        return estimate_sensitivity(
            self.model,
            self.batches(definition),
            example_inputs=[each.example() for each in self.structure.inputs],
            definition=definition,
            positions=self.positions,
            seed=self.seed,
            structure=self.structure,
        )

    def scores(
        self,
        criterion: str,
        values: Mapping[str, Tensor],
        errors: Mapping[str, Tensor] | None = None,
    ) -> Scores:
        """Return scores (channels,) per group, and errors (channels + 1,) if known, of our own."""
        return Scores(
            criterion,
            self.structure,
            {name: each.detach().double() for name, each in values.items()},
            None if errors is None else {n: each.detach().double() for n, each in errors.items()},
        )

    def scalar(self, outputs: Any, index: int, generator: torch.Generator) -> Tensor:
        """Return what to differentiate for batch `index`: the loss, or a random projection."""
        if self.loss is not None:
            return self.loss(outputs, index, generator)
        total = torch.zeros(())
        for each in tensors(outputs):
            signs = torch.randint(0, 2, each.shape, generator=generator).to(each) * 2 - 1
            total = total + (each * signs).sum()
        return total


# The scores (channels,) of each group alone are evidence enough.
Criterion = Callable[['Subject'], Evidence | Mapping[str, Tensor]]
_CRITERIA: dict[str, Criterion] = {}
Named = TypeVar('Named', bound=Criterion)


def criterion(score: Named) -> Named:
    """Register a criterion under its function's name."""
    _CRITERIA[score.__name__] = score
    return score


def names() -> tuple[str, ...]:
    """Return the names of all criteria."""
    return tuple(_CRITERIA)


def get(name: str) -> Criterion:
    """Return the criterion of that name, or `score` of the Python file of that path.

    Raises:
        PruningError: unknown name; a file that is missing, fails, or has no function `score`.
    """
    if name in _CRITERIA:
        return _CRITERIA[name]
    if not name.endswith('.py'):
        raise PruningError(
            f'unknown criterion {name!r}; there are {", ".join(_CRITERIA)}, or give a Python file'
        )
    score = getattr(_load(Path(name)), 'score', None)
    if not callable(score):
        raise PruningError(f'{name}: a criterion is a function score(subject); there is none')
    return score


def evidence(criterion: str | Criterion, subject: Subject) -> Evidence:
    """Return what a criterion says of the subject.

    Args:
        criterion: a function, a name, or a file, see `get`.
        subject: what it looks at.

    Raises:
        PruningError: as `get`; or the function returns something else than evidence.
    """
    score = criterion if callable(criterion) else get(criterion)
    with fed_from_cpu(subject.model):
        found = score(subject)
    name = criterion if isinstance(criterion, str) else getattr(score, '__name__', repr(score))
    if isinstance(found, Mapping):
        return subject.scores(name, found)
    if not hasattr(found, 'offers'):
        raise PruningError(
            f'criterion {name!r}: returned a {type(found).__name__}; it must be the scores '
            '(channels,) of each group, or what subject.scores or subject.sensitivity return'
        )
    return found


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise PruningError(f'{path}: no such file')
    spec = importlib.util.spec_from_file_location(f'{__name__}:{path}', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        raise PruningError(f'{path}: cannot be imported: {error}') from error
    return module


for _page in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_page.name}')
