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

"""A method as plain data, and the network that it makes: one way in for all kinds of pruning.

`Channels`, `LowRank`, `Sparsity` and `Function` say how one cut is made; a `Method` is one of them
with what comes between several cuts; `Scratch` is the control. Experiments, comparisons and the
command line name them with the same fields, which `read_method` reads. `pruned` makes the network,
and `PruningRecord` says what was done, so that it can be done again.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pruned_perception.pruning import criteria, lowrank, sparsity
from pruned_perception.pruning.allocation import RULES
from pruned_perception.pruning.budget import Budget, ErrorBound, Latency, Macs, Params
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.outcome import Outcome, finish, warn_of, with_nearest
from pruned_perception.pruning.plan import AnyPlan, Plan, Planner
from pruned_perception.pruning.presets import find_preset
from pruned_perception.pruning.records import (
    Record,
    Written,
    changed,
    check_known,
    from_dict,
    names_of,
)
from pruned_perception.pruning.selection import SELECTIONS
from pruned_perception.pruning.sensitivity import POSITIONS
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.losses import total
from pruned_perception.training.task import Task, load_function

SCHEDULES = ('one_shot', 'cascade', 'replicate')
UNITS: dict[str, type[Macs | Params | ErrorBound]] = {
    'macs': Macs,
    'params': Params,
    'error': ErrorBound,
}
LOSS_BATCHES = 8  # of training data, for weight sparsity by gradients
RENAMED = {'block': 'round_to', 'keep': 'ignored_layers'}  # fields in earlier files → their name


class ByKind(Written):
    """A method of a `kind`; in files it stands with the fields that differ from their defaults."""

    kind: ClassVar[str]

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {'kind': self.kind, **changed(self, data)}


class ByPlan(ByKind, abc.ABC):
    """A cut that is planned first."""

    @abc.abstractmethod
    def plan(self, task: Task, budget: Budget, seed: int) -> AnyPlan:
        """Return what would be cut of the task's network, within a budget."""

    def prune(self, task: Task, budget: Budget, seed: int) -> tuple[nn.Module, AnyPlan]:
        """Return the task's network cut, and the plan."""
        plan = self.plan(task, budget, seed)
        return plan.apply(task.model), plan


@dataclass(frozen=True)
class Channels(ByPlan):
    """Channels are cut. What is None is left to `make_plan`: all of it, for the recommended way."""

    criterion: str | None = None
    """What ranks them: one of `criteria.names()`, or a file."""
    allocation: str | None = None
    allocation_by: str | None = None
    selection: str | None = None
    round_to: int | None = None
    ranks: bool = False
    """Divide the budget among channels and ranks of layers together."""
    ignored_layers: tuple[str, ...] = ()
    refit: bool | None = None
    """Fit layers by least squares to the parent's. None: where nothing else is named and no
    fine-tuning follows, if that makes the error on held-out calibration frames smaller; and with
    ranks always, for their factors are found by it."""
    kind: ClassVar[str] = 'channels'

    def __post_init__(self) -> None:
        for name in ('criterion', 'allocation_by'):
            if (value := getattr(self, name)) is not None:
                _known(name, criteria.get, value)
        _one_of('allocation', self.allocation, RULES)
        _one_of('selection', self.selection, SELECTIONS)
        if self.round_to is not None and self.round_to < 1:
            raise PruningError(f'round_to: must be at least 1 channel, got {self.round_to}')

    def planner(self, task: Task, seed: int, *, positions: int | None = POSITIONS) -> Planner:
        """Return what plans cuts of the task's network."""
        names = ('criterion', 'allocation', 'allocation_by', 'selection', 'round_to', 'ranks')
        return Planner(
            task.model,
            task.example_inputs,
            positions=positions,
            seed=seed,
            ignored_layers=self.ignored_layers,
            calibration=None if task.calibration == () else task.calibration,
            loss=task.loss,
            **{name: getattr(self, name) for name in names},
        )

    def plan(self, task: Task, budget: Budget, seed: int) -> Plan:
        """Return what would be cut of the task's network, within a budget."""
        return self.planner(task, seed).plan(budget)

    def refits(self, *, tuned: bool) -> bool | None:
        """Return whether to fit layers anew; None: if it helps. `tuned`: fine-tuning follows."""
        if self.refit is not None or self.ranks:
            return self.refit is not False
        named = (self.criterion, self.allocation, self.allocation_by) != (None, None, None)
        return False if named or tuned else None


@dataclass(frozen=True)
class LowRank(ByPlan):
    """Two thin layers take the place of one, at ranks that are chosen at once."""

    criterion: str
    """What chooses the ranks: one of `lowrank.names()`."""
    ignored_layers: tuple[str, ...] = ()
    kind: ClassVar[str] = 'low_rank'

    def __post_init__(self) -> None:
        _known('criterion', lowrank.get, self.criterion)

    def plan(self, task: Task, budget: Budget, seed: int) -> lowrank.Decomposition:
        """Return the ranks within a budget of MACs, parameters or milliseconds."""
        if not isinstance(budget, Macs | Params | Latency):
            raise BudgetError(
                f'low rank: the budget must be of MACs, parameters or milliseconds, got {budget}'
            )
        return lowrank.get(self.criterion)(
            task.model,
            task.example_inputs,
            budget,
            ignored_layers=self.ignored_layers,
            seed=seed,
            calibration=task.calibration,
        )


@dataclass(frozen=True)
class Sparsity(ByPlan):
    """Weights become zero: for size, dense kernels run no faster."""

    criterion: str
    """What chooses them: one of `sparsity.names()`."""
    ignored_layers: tuple[str, ...] = ()
    kind: ClassVar[str] = 'sparsity'

    def __post_init__(self) -> None:
        _known('criterion', sparsity.get, self.criterion)

    def plan(self, task: Task, budget: Budget, seed: int) -> sparsity.SparsityPlan:
        """Return the weights that stay within a budget of parameters."""
        if not isinstance(budget, Params):
            raise BudgetError(
                f'weight sparsity: zeros cost as much as other weights, so the budget must be of '
                f'parameters, got {budget}'
            )
        data: Iterable[Any] = task.calibration
        if self.criterion == 'snip' and task.training is not None:
            data = itertools.islice(task.training(seed), LOSS_BATCHES)
        return sparsity.make_plan(
            task.model,
            criterion=self.criterion,
            budget=budget,
            calibration=data,
            loss=_loss_of(task),
            seed=seed,
            ignored_layers=self.ignored_layers,
        )


@dataclass(frozen=True)
class Function(ByKind):
    """A user's own function prunes: package.module:function, (task, budget, seed, **options)."""

    function: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kind: ClassVar[str] = 'function'

    def prune(self, task: Task, budget: Budget, seed: int) -> tuple[nn.Module, None]:
        """Return what the function makes of the task's network; there is no plan."""
        small = load_function(self.function, 'method')(task, budget, seed, **self.options)
        if not isinstance(small, nn.Module):
            raise PruningError(f'method {self.function!r}: returned {type(small).__name__}')
        if small is task.model:
            raise PruningError(f'method {self.function!r}: returned the parent; prune a copy')
        return small, None


@dataclass(frozen=True)
class Scratch(ByKind):
    """The control: the widths of another method, trained from scratch."""

    of: str
    """That method's name in the comparison."""
    learning_rate: float | None = None
    """Instead of the comparison's."""
    kind: ClassVar[str] = 'scratch'

    def __post_init__(self) -> None:
        _positive('learning_rate', self.learning_rate)


Cut = Channels | LowRank | Sparsity | Function
KINDS: dict[str, Any] = {
    each.kind: each for each in (Channels, LowRank, Sparsity, Function, Scratch)
}
PLANS: dict[str, Any] = {
    Channels.kind: Plan,
    LowRank.kind: lowrank.Decomposition,
    Sparsity.kind: sparsity.SparsityPlan,
}


@dataclass(frozen=True)
class Method(Written):
    """How a network is cut, how often, and what comes between the cuts."""

    how: Cut
    schedule: str = 'one_shot'
    """See `pipeline`."""
    iterations: int = 1
    max_loss: float | None = None
    """Iterations end when the figure that counts is so much below the parent's."""
    then: Channels | LowRank | None = None
    """What makes the last of several cuts instead, like ranks after channels."""
    distill: Distillation | None = None
    """The parent is the teacher while fine-tuning."""
    learning_rate: float | None = None
    """Instead of the comparison's."""

    def __post_init__(self) -> None:
        _one_of('schedule', self.schedule, SCHEDULES)
        if self.iterations < 1 or (self.iterations > 1) != (self.schedule != 'one_shot'):
            raise PruningError(
                f'iterations: {self.iterations} with schedule {self.schedule!r}: one_shot has one, '
                'cascade and replicate have several'
            )
        if self.how.kind == LowRank.kind and self.schedule != 'one_shot':
            raise PruningError('schedule: low rank is chosen at once, so it must be one_shot')
        if self.then is not None:
            if self.iterations == 1:
                raise PruningError('then: makes the last of several cuts; give a schedule')
            if self.how.kind not in (Channels.kind, Function.kind):
                raise PruningError(f'then: {self.then.kind!r} cannot follow {self.how.kind!r}')
        if self.max_loss is not None and not 0 <= self.max_loss < math.inf:
            raise PruningError(f'max_loss: must be ≥ 0 and finite, got {self.max_loss}')
        _positive('learning_rate', self.learning_rate)

    def cut(self, number: int) -> Cut:
        """Return what makes cut `number`, counted from 1."""
        return self.how if self.then is None or number < self.iterations else self.then

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        own = changed(self, data)
        return {**own.pop('how'), **own}


def read_method(
    data: Any, where: str = '', *, elsewhere: Mapping[str, str] | None = None
) -> Method | Scratch:
    """Return the method that plain data name: fields of its kind, and those of a `Method`.

    `kind` is 'channels' by default; `method` names a preset, whose fields count where they are not
    given.

    Args:
        data: a mapping, of a user's file or of `to_dict`.
        where: what stands before a field's name in errors, like 'methods.ours.'.
        elsewhere: fields that cannot be given here → why.

    Raises:
        PruningError: naming the field; see `records.from_dict`.
    """
    kind, own = _kind_of(data, where, KINDS)
    beside = () if kind is Scratch else names_of(Method)[1:]
    _check_names(own, kind, beside, where, elsewhere or {})
    around = {name: own.pop(name) for name in beside if name in own}
    first = from_dict(kind, own, where)
    if kind is Scratch:
        return first
    if (distill := around.get('distill')) is not None:
        given = {} if distill is True else distill
        around['distill'] = from_dict(Distillation, given, f'{where}distill.')
    if (then := around.get('then')) is not None:
        place = f'{where}then.'
        last, fields = _kind_of(then, place, (Channels.kind, LowRank.kind))
        whole = dict.fromkeys(names_of(Method)[1:], 'is of the whole method, not of its end')
        _check_names(fields, last, (), place, whole)
        around['then'] = from_dict(last, fields, place)
    return from_dict(Method, {'how': first, **around}, where)


def _kind_of(data: Any, where: str, kinds: Iterable[str]) -> tuple[Any, dict[str, Any]]:
    """Return the class of a method's kind, and its fields with those of its preset."""
    if not isinstance(data, Mapping):
        raise PruningError(f'field {where.rstrip(".") or "(all)"}: must be a mapping, got {data!r}')
    own = dict(data)
    try:
        preset = find_preset(own.pop('method')) if 'method' in own else None
        kind = own.pop('kind', preset.kind if preset else Channels.kind)
        _one_of('kind', kind, kinds)
        if preset is not None:
            find_preset(data['method'], kind)
            own = {**preset.fields, **own}
    except PruningError as error:
        raise PruningError(f'field {where}{error}') from error
    return KINDS[kind], own


def _check_names(
    own: Mapping[str, Any],
    kind: Any,
    beside: Iterable[str],
    where: str,
    elsewhere: Mapping[str, str],
) -> None:
    """Raise PruningError where a field is not of this kind, nor of what stands beside it."""
    known = [name for name in (*names_of(kind), *beside) if name not in elsewhere]
    for name in own:
        if name in known:
            continue
        if name in elsewhere:
            raise PruningError(f'field {where}{name}: {elsewhere[name]}')
        if RENAMED.get(name) in known:
            raise PruningError(f'field {where}{name}: is called {RENAMED[name]} now')
        owners = [other for other, each in KINDS.items() if name in names_of(each)]
        if owners:
            raise PruningError(
                f'field {where}{name}: belongs to kind {" or ".join(map(repr, owners))}, not to '
                f'{kind.kind!r}'
            )
    check_known(own, (*known, 'kind', 'method'), where)


@dataclass(frozen=True)
class PruningRecord(Record):
    """What a method made of a network: its plan, what it costs, and the CPU time of choosing.

    `outcome` is what the cut did to the outputs, where there is a calibration set.
    Of weight sparsity, `parameters` are those that are not zero; of a user's function there is no
    plan.
    """

    kind: str
    plan: AnyPlan | None
    dense_macs: int
    macs: int
    dense_parameters: int
    parameters: int
    cpu_seconds: float
    outcome: Outcome | None = None

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in data.items() if k != 'outcome' or v is not None}

    @property
    def masks(self) -> dict[str, Tensor]:
        """Which weights are not zero, for fine-tuning; empty unless weights are sparse."""
        return {} if self.plan is None else self.plan.masks

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        if not data.get('plan'):
            return data
        return {**data, 'plan': read_plan(data.get('kind'), data['plan'])}

    def to_text(self) -> str:
        """Return the plan's table, or the sizes; and the errors of the outputs."""
        parts = [self._sizes() if self.plan is None else self.plan.to_text()]
        if self.outcome is not None:
            parts.append(self.outcome.to_text())
        return '\n\n'.join(parts)

    def _sizes(self) -> str:
        return (
            f'{self.macs:,} of {self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%}), '
            f'{self.parameters:,} of {self.dense_parameters:,} parameters '
            f'({self.parameters / self.dense_parameters:.1%})'
        )


def read_plan(kind: Any, data: Any) -> AnyPlan:
    """Return the plan of that kind; raise PruningError where it is none."""
    if kind not in tuple(PLANS):
        raise PruningError(f'kind: unknown plan {kind!r}; there are {", ".join(PLANS)}')
    return from_dict(PLANS[kind], data)


def budget_from(unit: str, value: float) -> Budget:
    """Return the budget of a unit's name in files: macs, params or error."""
    if unit not in UNITS:
        raise BudgetError(f'unknown unit {unit!r} of budgets; there are {", ".join(UNITS)}')
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BudgetError(f'budget: {unit} must be a number, got {value!r}')
    return UNITS[unit](value)


def budget_entry(budget: Budget) -> tuple[str, float]:
    """Return a budget as `budget_from` takes it; milliseconds, which need a table, as 'ms'."""
    if isinstance(budget, Latency):
        return 'ms', budget.ms
    unit = next(name for name, kind in UNITS.items() if isinstance(budget, kind))
    return unit, next(iter(asdict(budget).values()))


def pruned(
    task: Task,
    how: Cut,
    budget: Budget,
    seed: int = 0,
    *,
    recalibrated: bool = True,
    tuned: bool = False,
    nearest: bool = True,
) -> tuple[nn.Module, PruningRecord]:
    """Return the network that one cut makes of the task's, and what was done.

    Args:
        task: the network, calibration set and, where the method asks for it, training data.
        how: how it is cut.
        budget: what may remain.
        seed: of everything random.
        recalibrated: measure the statistics of batch norms again, in the end.
        tuned: fine-tuning follows: then nothing is refitted unless asked for, and a network that
            is useless without it is nothing to warn of.
        nearest: of channels that are cut too far, look for the nearest budget that holds.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: options that do not fit the network or each other.
    """
    began = time.process_time()
    planner: Planner | None = None
    refit: bool | None = False
    if isinstance(how, Channels):
        planner, refit = how.planner(task, seed), how.refits(tuned=tuned)
        plan: AnyPlan | None
        plan = channels = planner.plan(budget)
        small = planner.cut(channels)
    else:
        small, plan = how.prune(task, budget, seed)
    small, outcome = finish(
        task.model,
        small,
        task.calibration,
        plan=plan if isinstance(plan, Plan) else None,
        refit=refit,
        recalibrated=recalibrated,
        seed=seed,
        loss=task.loss,
    )
    if not tuned:
        if planner is not None and nearest:
            outcome = with_nearest(outcome, budget, planner, seed=seed)
        warn_of(outcome)
    dense, now = (count(each, task.example_inputs) for each in (task.model, small))
    record = PruningRecord(
        how.kind,
        plan,
        dense.macs,
        now.macs,
        dense.parameters,
        now.parameters,
        time.process_time() - began,
        outcome,
    )
    zeros = sum(int((~mask).sum()) for mask in record.masks.values())
    return small, dataclasses.replace(record, parameters=now.parameters - zeros)


def rebuilt(task: Task, how: Cut, budget: Budget, seed: int, record: PruningRecord) -> nn.Module:
    """Return the network of a record, its architecture: weights are to be loaded."""
    if record.plan is not None:
        return record.plan.apply(task.model)
    return how.prune(task, budget, seed)[0]


def _loss_of(task: Task) -> Callable[[nn.Module, Any], Tensor] | None:
    """Return the step's loss as one scalar."""
    step = task.step
    return None if step is None else lambda network, batch: total(step(network, batch))


def _known(name: str, get: Any, value: str) -> None:
    try:
        get(value)
    except PruningError as error:
        raise PruningError(f'{name}: {error}') from error


def _one_of(name: str, value: Any, options: Iterable[str]) -> None:
    if value is not None and value not in (known := tuple(options)):
        raise PruningError(f'{name}: unknown {name} {value!r}; there are {", ".join(known)}')


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise PruningError(f'{name}: must be > 0 and finite, got {value}')
