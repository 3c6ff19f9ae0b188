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

"""One YAML per comparison: methods × budgets × seeds (× fine-tunings) of one task."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Written, check_known, from_dict, names_of
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.method import (
    Function,
    Method,
    Scratch,
    budget_entry,
    budget_from,
    read_method,
)
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import load_function

PARENT = 'parent'
FIELDS = (
    'task', 'weights', 'methods', 'budgets', 'seeds', 'finetune', 'recalibrate', 'baseline',
    'chosen_on', 'data',
)  # fmt: skip
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.+-]*')


@dataclass(frozen=True)
class Finetuning(Written):
    """How a pruned network is fine-tuned: for how long, and how, where not as the task says."""

    budget: TrainingBudget
    changes: Mapping[str, Any]

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data['budget'], **data['changes']}

    @property
    def name(self) -> str:
        """The part of a cell's name: its budget."""
        unit, value = next(iter(self.budget.to_dict().items()))
        short = unit.replace('cpu_minutes', 'min').replace('wall_minutes', 'wallmin')
        return f'{value:g}{short}'


@dataclass(frozen=True)
class Cell:
    """One network to be made and judged, a process of its own."""

    study: Study
    label: str
    """Name of the method; PARENT for the parent itself."""
    method: Method | Scratch | None
    budget: Budget | None
    finetuning: Finetuning | None
    seed: int

    @property
    def name(self) -> str:
        """A readable name, of its files too."""
        if self.budget is None:
            return self.label
        unit, value = budget_entry(self.budget)
        tuned = [self.finetuning.name] if self.finetuning else []
        return '-'.join([self.label, f'{unit}{value:g}', *tuned, f'seed{self.seed}'])

    @property
    def source(self) -> Cell | None:
        """Of a control: the cell whose widths it has."""
        if not isinstance(self.method, Scratch):
            return None
        method = self.study.methods[self.method.of]
        return Cell(self.study, self.method.of, method, self.budget, self.finetuning, self.seed)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything in files that the result depends on, as plain data.

        What the task's function does is not part of it: after changing that, delete the results.
        """
        source = self.source
        return {
            'task': self.study.task,
            'weights_sha256': self.study.weights_sha256,
            'method': self.method and self.method.to_dict(),
            **_own_files(self.method),
            'of': source and source.configuration,
            'budget': self.budget and dict([budget_entry(self.budget)]),
            'finetune': self.finetuning and self.finetuning.to_dict(),
            'recalibrate': self.study.recalibrate,
            'seed': self.seed,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        text = json.dumps(self.configuration, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Study:
    """A comparison, as its file describes it."""

    path: Path
    task: str
    weights: Path | None
    methods: Mapping[str, Method | Scratch]
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...]
    finetunings: tuple[Finetuning | None, ...]
    recalibrate: bool
    baseline: str | None
    chosen_on: tuple[int, ...] = ()
    """Seeds by which the methods were chosen: no difference may count them."""
    data: tuple[Path, ...] = ()
    """Files and folders that the task reads: machines whose copies differ make no cells."""

    @cached_property
    def weights_sha256(self) -> str | None:
        """Hash of the file of weights."""
        return None if self.weights is None else _sha256(self.weights)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells: the parent, then each method's; controls after what they control."""
        ordered = sorted(self.methods.items(), key=lambda item: isinstance(item[1], Scratch))
        combined = itertools.product(ordered, self.budgets, self.finetunings, self.seeds)
        return (
            Cell(self, PARENT, None, None, None, 0),
            *(
                Cell(self, name, method, budget, finetuning, seed)
                for (name, method), budget, finetuning, seed in combined
            ),
        )

    def check_functions(self) -> None:
        """Raise PruningError where the task's function, or one of a method, is not there."""
        load_function(self.task, 'task')
        for method in self.methods.values():
            for cut in () if isinstance(method, Scratch) else (method.how, method.then):
                if isinstance(cut, Function):
                    load_function(cut.function, 'method')

    def cell(self, name: str) -> Cell:
        """Return the cell of that name; raise PruningError where there is none."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        raise PruningError(f'{self.path}: no cell {name!r}; there are {self.cells[1].name!r}, …')


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a comparison's YAML; raise PruningError that names file and field.

    Fields: `task` (package.module:function), `weights` (a file beside this one; optional),
    `methods` (name → see `read_method`), `budgets` (macs or params → shares), `seeds`, `finetune`
    (steps, epochs, cpu_minutes or wall_minutes, and what is to differ from the task's recipe, see
    `Recipe`; or a list of such; optional), `recalibrate` (default true), `baseline` (name of a
    method; default the first),
    `chosen_on` (seeds by which these methods were chosen among others: left out of differences),
    `data` (files and folders that the task reads, beside this one: machines of a cluster whose
    copies differ are refused; optional).
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise PruningError(f'{path}: cannot be read: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PruningError(f'{path}: not YAML: {error}') from error
    try:
        return _study(path, data)
    except ValueError as error:  # PruningError and BudgetError are such
        raise PruningError(f'{path}: {error}') from error


def _study(path: Path, data: Any) -> Study:
    check_known(data, FIELDS)
    for key in ('task', 'methods', 'budgets', 'seeds'):
        if data.get(key) in (None, [], {}, ''):
            raise PruningError(f'field {key} is missing')
    methods = {str(name): _method(str(name), each) for name, each in _mapping(data, 'methods')}
    for name, method in methods.items():
        if not isinstance(method, Scratch):
            continue
        if (of := methods.get(method.of)) is None:
            raise PruningError(f'field methods.{name}.of: no method {method.of!r}')
        kind = of.kind if isinstance(of, Scratch) else of.how.kind
        if kind in ('scratch', 'sparsity'):
            raise PruningError(
                f'field methods.{name}.of: {method.of!r} is of kind {kind!r}, which has no widths '
                'of its own'
            )
    seeds = data['seeds'] if isinstance(data['seeds'], list) else [data['seeds']]
    if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise PruningError(f'field seeds: must be integers ≥ 0: {seeds}')
    chosen_on = data.get('chosen_on') or []
    if not isinstance(chosen_on, list) or not set(chosen_on) <= set(seeds):
        raise PruningError(f'field chosen_on: must be a list of some of the seeds: {chosen_on}')
    baseline = data.get('baseline', next(iter(methods)))
    if baseline not in methods:
        raise PruningError(f'field baseline: no method {baseline!r}')
    tuned = data.get('finetune')
    study = Study(
        path=path,
        task=str(data['task']),
        weights=path.parent / data['weights'] if data.get('weights') else None,
        methods=methods,
        budgets=tuple(
            budget_from(unit, value)
            for unit, values in _mapping(data, 'budgets')
            for value in (values if isinstance(values, list) else [values])
        ),
        seeds=tuple(seeds),
        finetunings=tuple(
            each and _finetuning(each) for each in (tuned if isinstance(tuned, list) else [tuned])
        ),
        recalibrate=bool(data.get('recalibrate', True)),
        baseline=baseline,
        chosen_on=tuple(chosen_on),
        data=tuple(path.parent / each for each in _paths(data.get('data'))),
    )
    names = [cell.name for cell in study.cells]
    if twice := [name for name in names if names.count(name) > 1]:
        raise PruningError(f'two cells are called {twice[0]}: budgets, seeds or finetune repeat')
    return study


def _paths(data: Any) -> list[str]:
    listed = data if isinstance(data, list) else [] if data is None else [data]
    if not all(isinstance(each, str) and each for each in listed):
        raise PruningError(f'field data: must be a path or a list of them: {data}')
    return listed


def _mapping(data: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    if not isinstance(data[key], dict):
        raise PruningError(f'field {key}: must be a mapping')
    return list(data[key].items())


def _method(name: str, data: Any) -> Method | Scratch:
    if not _NAME.fullmatch(name) or name == PARENT:
        raise PruningError(
            f'field methods.{name}: names are letters, digits and _ . + -, and not {PARENT!r}'
        )
    return read_method(data, f'methods.{name}.')


def _finetuning(data: Any) -> Finetuning:
    if not isinstance(data, dict):
        raise PruningError('field finetune: must be a mapping, or a list of them')
    own = {key: value for key, value in data.items() if key in names_of(TrainingBudget)}
    changes = {key: value for key, value in data.items() if key not in own}
    try:
        Recipe().changed(changes)  # whatever the task's: a bad field shows before anything runs
        return Finetuning(from_dict(TrainingBudget, own, ''), changes)
    except PruningError as error:
        raise PruningError(f'finetune: {error}') from error


def _own_files(method: Method | Scratch | None) -> dict[str, Any]:
    """Return the hashes of a user's own criteria, which are files."""
    cuts = [] if method is None or isinstance(method, Scratch) else [method.how, method.then]
    names = [getattr(cut, field, None) for cut in cuts for field in ('criterion', 'allocation_by')]
    first, *others = [*names, None]
    hashes = {name: digest for name in others if (digest := _file_digest(name))}
    found: dict[str, Any] = {'criterion_sha256': _file_digest(first)}
    return found | ({'other_criteria_sha256': hashes} if hashes else {})


def _file_digest(criterion: str | None) -> str | None:
    own = criterion is not None and criterion.endswith('.py')
    return _sha256(Path(criterion)) if own and criterion else None


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PruningError(f'{path}: cannot be read: {error.strerror}') from error
