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

"""One YAML per experiment: what is trained, from what, on what, for how long."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from pruned_perception.errors import UserError
from pruned_perception.inference.latency_table import read_table
from pruned_perception.pruning.budget import Latency, Macs, Params
from pruned_perception.pruning.errors import BudgetError
from pruned_perception.pruning.records import Written, from_dict
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import PRECISIONS
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.method import (
    Channels,
    Method,
    budget_entry,
    budget_from,
    read_method,
)
from pruned_perception.training.recipe import FIELDS, Recipe

# Fields of methods that are given otherwise in an experiment.
ELSEWHERE = {
    'distill': 'stands beside prune',
    'learning_rate': 'stands in optimiser',
    'max_loss': 'all iterations are run',
    'then': 'our detector is exported by its widths: all cuts are of channels',
}


class ExperimentError(UserError):
    """An experiment's file is missing, malformed or contradicts itself."""


RECIPE = Recipe(
    optimiser='adamw',
    learning_rate=2e-3,
    weight_decay=0.02,
    ema=0.998,
    clip=10.0,
    batch=16,
    channels_last=True,
)
"""What an experiment has where its file says nothing else; its phases are its own."""


@dataclass(frozen=True)
class Pruning(Written):
    """How the parent is pruned before this experiment fine-tunes it.

    With several iterations it is cut in as many steps, each by the same factor, scored anew and
    fine-tuned, with a learning rate that starts again: for an equal part of the budget (cascade),
    or for all of it (replicate), see `training.pipeline`.
    """

    budget: Macs | Params | Latency
    method: Method
    table: str | None = None
    """File of the latency table that milliseconds are of, below the experiment's folder."""

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        budget: dict[str, Any] = dict([budget_entry(self.budget)])
        return budget | ({'table': self.table} if self.table else {}) | data['method']


@dataclass(frozen=True)
class Experiment(Written):
    """One training run.

    Exactly one of `architecture` (train from scratch), `parent` (prune the result of that
    experiment, then fine-tune) and `control_of` (the widths of that experiment's net from scratch)
    is set. `pretrained` names weights that the backbone of an `architecture` starts from, see
    `pretrained.PRETRAINED`; a control's are random. `freeze` says how many of its first stages keep
    them (what is pruned from the result learns in all). The `budget` of a control is by default the
    CPU time of that experiment's whole ancestry; on a faster or slower machine than the ancestry's,
    give as many steps as its time bought. `data` names folders below the data root. With `distill`
    the parent is the teacher; its time counts against the budget. In its file, the fields of the
    `recipe` stand among the others.
    """

    name: str
    data: Mapping[str, str]
    recipe: Recipe
    budget: TrainingBudget | None = None
    architecture: Architecture | None = None
    pretrained: str | None = None
    freeze: int = 0
    parent: str | None = None
    prune: Pruning | None = None
    distill: Distillation | None = None
    control_of: str | None = None
    precision: str | None = None
    """Of products, of `compute.PRECISIONS`, whatever a command says; None: the command's."""
    seed: int = 0

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        recipe = data.pop('recipe')
        if not self.freeze:
            del data['freeze']
        return {name: value for name, value in data.items() if value is not None} | recipe


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
        return experiment_from(data, path.parent)
    except UserError as error:
        raise ExperimentError(f'{path}: {error}') from error


def experiment_from(data: Any, folder: Path = Path()) -> Experiment:
    """Return the experiment that plain data describe; raise ExperimentError naming the field.

    A latency table is read from the `folder`.
    """
    values = _fields((*OWN, *FIELDS), data, '')
    recipe = recipe_of(values)
    values = {key: value for key, value in values.items() if key in OWN}
    for key in ('name', 'data', 'phases'):
        if key not in data:
            raise ExperimentError(f'field {key} is missing')
    origins = [key for key in ('architecture', 'parent', 'control_of') if values.get(key)]
    if len(origins) != 1:
        raise ExperimentError(
            'exactly one of the fields architecture, parent and control_of says where the net '
            f'comes from; here: {", ".join(origins) or "none"}'
        )
    if ('prune' in values) != ('parent' in values):
        raise ExperimentError('the fields parent and prune belong together')
    if 'pretrained' in values and 'architecture' not in values:
        raise ExperimentError('field pretrained: needs the field architecture, of its layers')
    freeze = values.get('freeze', 0)
    if isinstance(freeze, bool) or not isinstance(freeze, int) or not 0 <= freeze <= 5:
        raise ExperimentError(f'field freeze: must be a number of stages, 0 … 5; got {freeze!r}')
    if freeze and 'pretrained' not in values:
        raise ExperimentError('field freeze: needs the field pretrained; random weights must learn')
    precision = values.get('precision')
    if precision is not None and precision not in PRECISIONS:
        raise ExperimentError(
            f'field precision: there are {", ".join(PRECISIONS)}; got {precision!r}'
        )
    if 'distill' in values and 'parent' not in values:
        raise ExperimentError('field distill: needs the field parent, the net to learn from')
    if 'budget' not in values and 'control_of' not in values:
        raise ExperimentError('field budget: needed, except beside control_of')
    if 'architecture' in values:
        values['architecture'] = from_dict(Architecture, values['architecture'], 'architecture.')
    if 'budget' in values:
        values['budget'] = from_dict(TrainingBudget, values['budget'], 'budget.')
    if 'prune' in values:
        values['prune'] = _pruning(values['prune'], folder)
    if 'distill' in values:
        values['distill'] = from_dict(Distillation, values['distill'], 'distill.')
    for key in ('train', 'validation'):
        if not isinstance(values['data'], dict) or key not in values['data']:
            raise ExperimentError(f'field data.{key} is missing')
    return Experiment(**values, recipe=recipe)


def recipe_of(experiment: Mapping[str, Any]) -> Recipe:
    """Return the recipe among the fields of an experiment; raise PruningError naming the field."""
    return RECIPE.changed({key: experiment[key] for key in FIELDS if key in experiment})


def _pruning(data: Any, folder: Path) -> Pruning:
    if not isinstance(data, dict):
        raise ExperimentError('field prune: must be a mapping')
    units = [unit for unit in ('macs', 'params', 'ms') if unit in data]
    if len(units) != 1:
        raise ExperimentError(f'field prune: needs exactly one of macs, params and ms: {data!r}')
    if ('table' in data) != (units == ['ms']):
        raise ExperimentError(
            'the fields prune.ms and prune.table belong together: milliseconds are of the machine '
            'of a latency table (pruned-perception profile DENSE --out TABLE)'
        )
    own = {name: value for name, value in data.items() if name not in (*units, 'table')}
    method = read_method(own, 'prune.', elsewhere=ELSEWHERE)
    if not isinstance(method, Method) or method.how.kind != Channels.kind:
        raise ExperimentError('field prune.kind: our detector is exported by its widths: channels')
    value = data[units[0]]
    try:
        if units == ['ms']:
            return Pruning(_latency(value, folder / str(data['table'])), method, str(data['table']))
        return Pruning(budget_from(units[0], value), method)  # type: ignore[arg-type]
    except BudgetError as error:
        raise ExperimentError(f'field prune.{units[0]}: {error}') from error


def _latency(ms: Any, table: Path) -> Latency:
    if not isinstance(ms, int | float) or isinstance(ms, bool):
        raise BudgetError(f'must be a number, got {ms!r}')
    budget = Latency(ms, read_table(table))
    budget.table.check_complete()
    return budget


def _fields(known: Sequence[str], data: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ExperimentError(f'field {prefix.rstrip(".") or "(all)"}: must be a mapping')
    for key in data:
        if key not in known:
            raise ExperimentError(f'unknown field {prefix}{key}; known: {", ".join(sorted(known))}')
    return dict(data)


OWN = tuple(each.name for each in fields(Experiment) if each.name != 'recipe')
