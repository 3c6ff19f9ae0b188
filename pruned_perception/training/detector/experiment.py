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
from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.errors import BudgetError
from pruned_perception.training.budget import Schedule
from pruned_perception.training.budget import TrainingBudget as Budget
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.method import (
    Channels,
    Method,
    budget_entry,
    budget_from,
    read_method,
)

# Fields of methods that are given otherwise in an experiment.
ELSEWHERE = {
    'distill': 'stands beside prune',
    'learning_rate': 'is optimiser.learning_rate',
    'max_loss': 'all iterations are run',
    'then': 'our detector is exported by its widths: all cuts are of channels',
}


class ExperimentError(UserError):
    """An experiment's file is missing, malformed or contradicts itself."""


@dataclass(frozen=True)
class Phase:
    """Until this fraction of the budget: size (height, width) and magnification of the views."""

    until: float
    size: tuple[int, int]
    scale: tuple[float, float]


@dataclass(frozen=True)
class Optimiser(Schedule):
    """AdamW, and its learning rate over the budget."""

    learning_rate: float = 2e-3
    weight_decay: float = 0.02


@dataclass(frozen=True)
class Pruning:
    """How the parent is pruned before this experiment fine-tunes it.

    With several iterations it is cut in as many steps, each by the same factor, scored anew and
    fine-tuned, with a learning rate that starts again: for an equal part of the budget (cascade),
    or for all of it (replicate), see `training.pipeline`.
    """

    budget: Macs | Params
    method: Method

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as an experiment's file has it."""
        return dict([budget_entry(self.budget)]) | self.method.to_dict()


@dataclass(frozen=True)
class Distillation:
    """Learning from the parent's outputs too, `weight` times as much as from the labels."""

    weight: float


@dataclass(frozen=True)
class Experiment:
    """One training run.

    Exactly one of `architecture` (train from scratch), `parent` (prune the result of that
    experiment, then fine-tune) and `control_of` (the widths of that experiment's net from
    scratch) is set. The `budget` of a control is by default the CPU time of that experiment's whole
    ancestry; on a faster or slower machine than the ancestry's, give as many steps as its time
    bought. `data` names folders below the data root. With `distill` the parent is the teacher; its
    time counts against the budget.
    """

    name: str
    data: Mapping[str, str]
    phases: tuple[Phase, ...]
    budget: Budget | None = None
    architecture: Architecture | None = None
    parent: str | None = None
    prune: Pruning | None = None
    distill: Distillation | None = None
    control_of: str | None = None
    batch: int = 16
    optimiser: Optimiser = field(default_factory=Optimiser)
    ema: float = 0.998
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for logs, checkpoints and manifests."""
        data = {key: value for key, value in asdict(self).items() if value is not None}
        for name in ('architecture', 'prune'):
            if (value := getattr(self, name)) is not None:
                data[name] = value.to_dict()
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


def recorded_experiment(data: Mapping[str, Any]) -> Experiment:
    """Return the experiment in a checkpoint, whatever version wrote it."""
    found = dict(data)
    if (former := data.get('prune')) is not None:
        now = {'round_to' if name == 'block' else name: each for name, each in former.items()}
        if now.get('iterations', 1) > 1:  # which were a cascade's, before schedules had a name
            now.setdefault('schedule', 'cascade')
        found['prune'] = now
    return experiment_from(found)


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
    if 'distill' in values and 'parent' not in values:
        raise ExperimentError('field distill: needs the field parent, the net to learn from')
    if 'budget' not in values and 'control_of' not in values:
        raise ExperimentError('field budget: needed, except beside control_of')
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
        values['prune'] = _pruning(values['prune'])
    if 'distill' in values:
        values['distill'] = _distillation(values['distill'])
    if 'optimiser' in values:
        values['optimiser'] = Optimiser(**_fields(Optimiser, values['optimiser'], 'optimiser.'))
    values['phases'] = _phases(values['phases'])
    for key in ('train', 'validation'):
        if not isinstance(values['data'], dict) or key not in values['data']:
            raise ExperimentError(f'field data.{key} is missing')
    if not isinstance(values.get('batch', 1), int) or values.get('batch', 1) < 1:
        raise ExperimentError(f'field batch: must be an integer ≥ 1, got {values["batch"]!r}')
    return Experiment(**values)


def _pruning(data: Any) -> Pruning:
    if not isinstance(data, dict):
        raise ExperimentError('field prune: must be a mapping')
    units = [unit for unit in ('macs', 'params') if unit in data]
    if len(units) != 1:
        raise ExperimentError(f'field prune: needs exactly one of macs and params: {data!r}')
    own = {name: value for name, value in data.items() if name not in units}
    method = read_method(own, 'prune.', elsewhere=ELSEWHERE)
    if not isinstance(method, Method) or method.how.kind != Channels.kind:
        raise ExperimentError('field prune.kind: our detector is exported by its widths: channels')
    try:
        return Pruning(budget_from(units[0], data[units[0]]), method)  # type: ignore[arg-type]
    except BudgetError as error:
        raise ExperimentError(f'field prune.{units[0]}: {error}') from error


def _distillation(data: Any) -> Distillation:
    values = _fields(Distillation, data, 'distill.')
    if not _number(values.get('weight')) < math.inf:
        raise ExperimentError(f'field distill.weight: must be a number > 0: {data!r}')
    return Distillation(**values)


def _number(value: Any) -> float:
    """Return the number if it is one, and > 0; else NaN, which is within no bounds."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if good else math.nan


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
