"""One YAML per experiment: what is trained, from what, on what, for how long."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from pruned_perception.errors import UserError
from pruned_perception.training.architecture import Architecture


class ExperimentError(UserError):
    """An experiment's file is missing, malformed or contradicts itself."""


@dataclass(frozen=True)
class Budget:
    """How long to train: CPU minutes of the process in training steps, or steps.

    CPU time, not wall time, because it is fair on a machine that does other things as well; the
    learning rate follows the fraction that is used up.
    """

    cpu_minutes: float | None = None
    steps: int | None = None

    def fraction(self, cpu_seconds: float, steps: int) -> float:
        """Return the share of the budget that is used up, at most 1."""
        if self.cpu_minutes is not None:
            return min(1.0, cpu_seconds / (60 * self.cpu_minutes))
        assert self.steps is not None
        return min(1.0, steps / self.steps)


@dataclass(frozen=True)
class Phase:
    """Until this fraction of the budget: size (height, width) and magnification of the views."""

    until: float
    size: tuple[int, int]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Optimiser:
    """AdamW; the rate rises over the fraction `warm_up`, then falls as a cosine to `final`."""

    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: float = 0.03
    final: float = 0.01

    def rate(self, fraction: float) -> float:
        """Return the learning rate at a fraction of the budget."""
        if fraction < self.warm_up:
            return self.learning_rate * max(fraction / self.warm_up, 0.01)
        past = (fraction - self.warm_up) / (1 - self.warm_up)
        cosine = (1 + math.cos(math.pi * past)) / 2
        return self.learning_rate * (self.final + (1 - self.final) * cosine)


@dataclass(frozen=True)
class Pruning:
    """How the parent is pruned before this experiment fine-tunes it.

    `macs` is the share of the parent's multiply-accumulates that is left, at most; what is None is
    left to `pruning.make_plan`.
    """

    macs: float
    criterion: str | None = None
    allocation: str | None = None
    block: int | None = None


@dataclass(frozen=True)
class Experiment:
    """One training run.

    Exactly one of `architecture` (train from scratch), `parent` (prune the result of that
    experiment, then fine-tune) and `control_of` (the widths of that experiment's net from
    scratch, for the CPU time of its whole ancestry) is set. `data` names folders below the data
    root.
    """

    name: str
    data: Mapping[str, str]
    phases: tuple[Phase, ...]
    budget: Budget | None = None
    architecture: Architecture | None = None
    parent: str | None = None
    prune: Pruning | None = None
    control_of: str | None = None
    batch: int = 16
    optimiser: Optimiser = field(default_factory=Optimiser)
    ema: float = 0.998
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for logs, checkpoints and manifests."""
        data = {key: value for key, value in asdict(self).items() if value is not None}
        if self.architecture is not None:
            data['architecture'] = self.architecture.to_dict()
        return _plain(data)


def read_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Read an experiment's YAML; raise ExperimentError that names file and field."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ExperimentError(f'{path}: cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise ExperimentError(f'{path}: not YAML: {error}') from error
    try:
        return experiment_from(data)
    except UserError as error:
        raise ExperimentError(f'{path}: {error}') from error


def experiment_from(data: Any) -> Experiment:
    """Return the experiment that plain data describe; raise ExperimentError naming the field."""
    values = _fields(Experiment, data, '')
    for key in ('name', 'data', 'phases'):
        if key not in values:
            raise ExperimentError(f'field {key} is missing')
    origins = [key for key in ('architecture', 'parent', 'control_of') if values.get(key)]
    if len(origins) != 1:
        raise ExperimentError(
            'exactly one of the fields architecture, parent and control_of says where the net '
            f'comes from; here: {", ".join(origins) or "none"}'
        )
    if ('prune' in values) != ('parent' in values):
        raise ExperimentError('the fields parent and prune belong together')
    if ('budget' in values) == ('control_of' in values):
        raise ExperimentError(
            'field budget: needed, except beside control_of, whose budget is that of the '
            'experiment it controls'
        )
    if 'architecture' in values:
        values['architecture'] = Architecture.from_dict(values['architecture'])
    if 'budget' in values:
        budget = Budget(**_fields(Budget, values['budget'], 'budget.'))
        given = [value for value in (budget.cpu_minutes, budget.steps) if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ExperimentError(
                f'field budget: exactly one of cpu_minutes and steps, > 0: {values["budget"]!r}'
            )
        values['budget'] = budget
    if 'prune' in values:
        values['prune'] = Pruning(**_fields(Pruning, values['prune'], 'prune.'))
    if 'optimiser' in values:
        values['optimiser'] = Optimiser(**_fields(Optimiser, values['optimiser'], 'optimiser.'))
    values['phases'] = _phases(values['phases'])
    for key in ('train', 'validation'):
        if not isinstance(values['data'], dict) or key not in values['data']:
            raise ExperimentError(f'field data.{key} is missing')
    if not isinstance(values.get('batch', 1), int) or values.get('batch', 1) < 1:
        raise ExperimentError(f'field batch: must be an integer ≥ 1, got {values["batch"]!r}')
    return Experiment(**values)


def _phases(data: Any) -> tuple[Phase, ...]:
    if not isinstance(data, list) or not data:
        raise ExperimentError('field phases: must be a list of phases')
    phases = []
    for index, item in enumerate(data):
        values = _fields(Phase, item, f'phases[{index}].')
        if set(values) != {'until', 'size', 'scale'}:
            raise ExperimentError(f'field phases[{index}]: needs until, size and scale: {item!r}')
        phase = Phase(values['until'], tuple(values['size']), tuple(values['scale']))
        pairs = len(phase.size) == 2 and len(phase.scale) == 2
        if not pairs or not 0 < phase.scale[0] <= phase.scale[1]:
            raise ExperimentError(
                f'field phases[{index}]: size is [height, width], scale is [low, high]: {item!r}'
            )
        phases.append(phase)
    ends = [phase.until for phase in phases]
    if ends != sorted(ends) or ends[-1] != 1:
        raise ExperimentError(f'field phases: until must rise to 1, got {ends}')
    return tuple(phases)


def _fields(kind: type, data: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ExperimentError(f'field {prefix.rstrip(".") or "(all)"}: must be a mapping')
    known = {each.name for each in fields(kind)}
    for key in data:
        if key not in known:
            raise ExperimentError(f'unknown field {prefix}{key}; known: {", ".join(sorted(known))}')
    return dict(data)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
