"""A method as plain data, and the network that it makes: one way in for all kinds of pruning.

Channels, low rank, weight sparsity, or a user's own function: `pruned` makes the network, and
`PruningRecord` says what it did, so that it can be done again.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from pruned_perception.pruning import criteria, lowrank, sparsity
from pruned_perception.pruning.budget import Budget, Error, Macs, Params
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.plan import Plan, make_plan, prune
from pruned_perception.pruning.recalibration import recalibrate
from pruned_perception.pruning.refit import refit
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.losses import total
from pruned_perception.training.task import Task, load_function

KINDS = ('channels', 'low_rank', 'sparsity', 'function', 'scratch')
SCHEDULES = ('one_shot', 'cascade', 'replicate')
PLANS: dict[str, Any] = {
    'channels': Plan,
    'low_rank': lowrank.Decomposition,
    'sparsity': sparsity.SparsityPlan,
}
UNITS: dict[str, type[Budget]] = {'macs': Macs, 'params': Params, 'error': Error}
LOSS_BATCHES = 8  # of training data, for weight sparsity by gradients


@dataclass(frozen=True)
class Method:
    """How a network is made smaller, and what comes between the cuts.

    What is None is left to the functions that do it. Which fields count depends on `kind`.
    """

    kind: str = 'channels'
    criterion: str | None = None
    """What ranks channels (`criteria.names()` or a file), or chooses ranks or weights."""
    allocation: str | None = None
    allocation_by: str | None = None
    selection: str | None = None
    round_to: int | None = None
    keep: tuple[str, ...] = ()
    refit: bool = False
    function: str | None = None
    """Of kind 'function': package.module:function, (task, budget, seed, **options) → network."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    of: str | None = None
    """Of kind 'scratch': the method whose widths are trained from scratch."""
    schedule: str = 'one_shot'
    """See `pipeline`."""
    iterations: int = 1
    max_loss: float | None = None
    """Iterations end when the figure that counts is so much below the parent's."""
    then: Method | None = None
    """What makes the last of several cuts instead, like ranks after channels."""
    distill: Distillation | None = None
    """The parent teaches while fine-tuning."""
    learning_rate: float | None = None
    """Instead of the comparison's."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PruningError(f'unknown kind {self.kind!r}; there are {", ".join(KINDS)}')
        if self.schedule not in SCHEDULES:
            raise PruningError(
                f'unknown schedule {self.schedule!r}; there are {", ".join(SCHEDULES)}'
            )
        if self.iterations < 1 or (self.iterations > 1) != (self.schedule != 'one_shot'):
            raise PruningError(
                f'schedule {self.schedule!r} with {self.iterations} iterations: one_shot has one, '
                'cascade and replicate have several'
            )
        for field, kind in (('function', 'function'), ('of', 'scratch')):
            if (getattr(self, field) is not None) != (self.kind == kind):
                raise PruningError(f'field {field!r} belongs to kind {kind!r}, and must be there')
        if self.kind == 'low_rank' and self.schedule != 'one_shot':
            raise PruningError('low rank is chosen at once: schedule must be one_shot')
        if self.then is not None:
            self._check_then(self.then)
        if self.kind == 'low_rank':
            lowrank.get(self.criterion or '')
        elif self.kind == 'sparsity':
            sparsity.get(self.criterion or '')
        elif self.criterion is not None:
            criteria.get(self.criterion)

    def _check_then(self, then: Method) -> None:
        if self.iterations == 1:
            raise PruningError('field then: makes the last of several cuts; give a schedule')
        if self.kind not in ('channels', 'function') or then.kind not in ('channels', 'low_rank'):
            raise PruningError(f'field then: {then.kind!r} cannot follow {self.kind!r}')
        for field in ('iterations', 'then', 'max_loss', 'distill', 'learning_rate'):
            if getattr(then, field) != getattr(Method, field):
                raise PruningError(f'field then.{field}: is of the whole method, not of its end')

    def cut(self, number: int) -> Method:
        """Return what makes cut `number`, counted from 1."""
        return self if self.then is None or number < self.iterations else self.then

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the fields that differ from the defaults."""
        default = Method(self.kind, self.criterion, function=self.function, of=self.of)
        values = {'kind': self.kind} | {
            name: value for name, value in vars(self).items() if value != getattr(default, name)
        }
        for name in ('criterion', 'function', 'of'):
            if getattr(self, name) is not None:
                values[name] = getattr(self, name)
        if self.distill is not None:
            values['distill'] = self.distill.to_dict()
        if self.then is not None:
            values['then'] = self.then.to_dict()
        return values | ({'keep': list(self.keep)} if self.keep else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Method:
        """Read what `to_dict` wrote, or a user's file; raise PruningError naming the field."""
        known = {each.name for each in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise PruningError(f'unknown field {unknown[0]}; known: {", ".join(sorted(known))}')
        values = {**data, 'keep': tuple(data.get('keep', ()))}
        if (distill := data.get('distill')) is not None:
            values['distill'] = Distillation.from_dict({} if distill is True else distill)
        if (then := data.get('then')) is not None:
            if not isinstance(then, Mapping):
                raise PruningError(f'field then: must be the fields of a method, got {then!r}')
            values['then'] = cls.from_dict(then)
        return cls(**values)


@dataclass(frozen=True)
class PruningRecord:
    """What a method made of a network: its plan, what it costs, and the CPU time of choosing.

    Of weight sparsity, `parameters` are those that are not zero; of a user's function there is no
    plan.
    """

    kind: str
    plan: Plan | lowrank.Decomposition | sparsity.SparsityPlan | None
    dense_macs: int
    macs: int
    dense_parameters: int
    parameters: int
    cpu_seconds: float

    @property
    def masks(self) -> dict[str, Tensor]:
        """Which weights are not zero, for fine-tuning; empty unless weights are sparse."""
        if not isinstance(self.plan, sparsity.SparsityPlan):
            return {}
        return {f'{each.name}.weight': each.mask for each in self.plan.layers}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), 'plan': self.plan and self.plan.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PruningRecord:
        """Read what `to_dict` wrote; raise PruningError where it is something else."""
        try:
            plan = data['plan'] and PLANS[data['kind']].from_dict(data['plan'])
            return cls(**{**data, 'plan': plan})
        except (KeyError, TypeError) as error:
            raise PruningError(f'not a record of pruning: {error}') from error

    def to_text(self) -> str:
        """Return the plan's table, or the sizes."""
        if self.plan is not None:
            return self.plan.to_text()
        return (
            f'{self.macs:,} of {self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%}), '
            f'{self.parameters:,} of {self.dense_parameters:,} parameters '
            f'({self.parameters / self.dense_parameters:.1%})'
        )


def budget_from(unit: str, value: float) -> Budget:
    """Return the budget of a unit's name in files: macs, params or error."""
    if unit not in UNITS:
        raise BudgetError(f'unknown unit {unit!r} of budgets; there are {", ".join(UNITS)}')
    return UNITS[unit](value)


def budget_entry(budget: Budget) -> tuple[str, float]:
    """Return a budget as `budget_from` takes it."""
    unit = next(name for name, kind in UNITS.items() if isinstance(budget, kind))
    return unit, next(iter(asdict(budget).values()))


def pruned(
    task: Task, method: Method, budget: Budget, seed: int = 0, *, recalibrated: bool = True
) -> tuple[nn.Module, PruningRecord]:
    """Return the network that a method makes of the task's at one cut, and what was done.

    Args:
        task: the network, calibration set and, where the method asks for it, training data.
        method: of any kind but 'scratch'; its schedule is for `pipeline`.
        budget: what may remain.
        seed: of everything random.
        recalibrated: measure the statistics of batch norms again, in the end.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: options that do not fit the network or each other.
    """
    began = time.process_time()
    if method.kind == 'channels':
        plan = make_plan(
            task.model,
            task.example_inputs,
            budget=budget,
            seed=seed,
            keep=method.keep,
            calibration=task.calibration,
            loss=task.loss,
            **_given(method, 'criterion', 'allocation', 'allocation_by', 'selection', 'round_to'),
        )
        small = prune(task.model, plan)
        if method.refit:
            small = refit(task.model, small, plan, task.calibration, seed=seed)
        sizes = (plan.dense_macs, plan.macs, plan.dense_parameters, plan.parameters)
    else:
        plan = _other_plan(task, method, budget, seed)
        small = _applied(task, method, plan, budget, seed)
        dense, now = (count(each, task.example_inputs) for each in (task.model, small))
        left = now.parameters
        if isinstance(plan, sparsity.SparsityPlan):
            left -= plan.pruned
        sizes = (dense.macs, now.macs, dense.parameters, left)
    if recalibrated:
        small = recalibrate(small, task.calibration)
    seconds = time.process_time() - began
    return small, PruningRecord(method.kind, plan, *sizes, seconds)


def rebuilt(
    task: Task, method: Method, budget: Budget, seed: int, record: PruningRecord
) -> nn.Module:
    """Return the network of a record, its architecture: weights are to be loaded."""
    if isinstance(record.plan, Plan):
        return prune(task.model, record.plan)
    return _applied(task, method, record.plan, budget, seed)


def _other_plan(task: Task, method: Method, budget: Budget, seed: int) -> Any:
    if method.kind == 'low_rank':
        if isinstance(budget, Error):
            raise BudgetError(f'low rank: the budget must be of MACs or parameters, got {budget}')
        return lowrank.get(method.criterion or '')(
            task.model,
            task.example_inputs,
            budget,
            keep=method.keep,
            seed=seed,
            calibration=task.calibration,
        )
    if method.kind == 'sparsity':
        if not isinstance(budget, Params):
            raise BudgetError(
                f'weight sparsity: zeros cost as much as other weights, so the budget must be of '
                f'parameters, got {budget}'
            )
        data: Iterable[Any] = task.calibration
        if method.criterion == 'snip' and task.training is not None:
            data = itertools.islice(task.training(seed), LOSS_BATCHES)
        return sparsity.make_plan(
            task.model,
            method=method.criterion or '',
            budget=budget,
            calibration=data,
            loss=_loss_of(task),
            seed=seed,
            keep=method.keep,
        )
    return None


def _loss_of(task: Task) -> Callable[[nn.Module, Any], Tensor] | None:
    """Return the step's loss as one scalar."""
    step = task.step
    return None if step is None else lambda network, batch: total(step(network, batch))


def _applied(task: Task, method: Method, plan: Any, budget: Budget, seed: int) -> nn.Module:
    if method.kind == 'low_rank':
        return lowrank.decompose(task.model, plan)
    if method.kind == 'sparsity':
        return sparsity.apply(task.model, plan)
    if method.kind != 'function':
        raise PruningError(f'kind {method.kind!r} does not prune')
    function = load_function(method.function or '', 'method')
    small = function(task, budget, seed, **method.options)
    if not isinstance(small, nn.Module):
        raise PruningError(f'method {method.function!r}: returned {type(small).__name__}')
    if small is task.model:
        raise PruningError(f'method {method.function!r}: returned the parent; prune a copy')
    return small


def _given(method: Method, *names: str) -> dict[str, Any]:
    values = {name: getattr(method, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
