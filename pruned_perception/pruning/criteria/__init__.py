"""Criteria: how much each channel of a group matters.

A criterion is a module here with `score(subject)` and a line in `MODULES`, or a file of the user's
own: `get('path/to/mine.py')`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from pruned_perception.pruning.allocation import Evidence
from pruned_perception.pruning.criteria.subject import Loss, Subject
from pruned_perception.pruning.errors import PruningError

__all__ = ['MODULES', 'Criterion', 'Loss', 'Subject', 'get', 'names']

MODULES: dict[str, str] = {
    name: name
    for name in (
        'quadrants',
        'absolute',
        'summed',
        'joint_error',
        'end_to_end',
        'fisher',
        'filter_l1',
        'filter_l2',
        'taylor',
        'snip',
        'thinet',
        'random',
    )
}


class Criterion(Protocol):
    """What a criterion module offers."""

    @staticmethod
    def score(subject: Subject) -> Evidence:
        """Return sensitivities or scores of all groups of the subject; the highest are kept."""


def names() -> tuple[str, ...]:
    """Return the names of all criteria."""
    return tuple(MODULES)


def get(name: str) -> Criterion:
    """Return the criterion of that name, or the one in the Python file of that path.

    Raises:
        PruningError: unknown name; a file that is missing, fails, or has no function `score`.
    """
    if name in MODULES:
        return cast(Criterion, importlib.import_module(f'{__name__}.{MODULES[name]}'))
    if not name.endswith('.py'):
        raise PruningError(
            f'unknown criterion {name!r}; there are {", ".join(MODULES)}, or give a Python file'
        )
    module = _load(Path(name))
    if not callable(getattr(module, 'score', None)):
        raise PruningError(f'{name}: a criterion is a function score(subject); there is none')
    return cast(Criterion, module)


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
