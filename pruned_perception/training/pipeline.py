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

"""Prune and fine-tune, once or again and again.

Schedules, with n iterations, a share s of the dense network as budget, and a training budget B:

* `one_shot`: one cut to s, one fine-tuning of B.
* `cascade`: n cuts, each by the same factor, so that s^(i/n) is left after cut i. What is scored
  is the network as it is then, fine-tuned after the cut before. Each fine-tuning has B/n: the total
  is that of `one_shot`.
* `replicate`: the same n cuts, but the whole fine-tuning is repeated after each: n·B in all, which
  is what its control must have, too. Renda et al. (Comparing rewinding and fine-tuning in neural
  network pruning, ICLR 2020) prune iteratively like this, retraining each time for the full
  original time.

Where the method has a `then`, that makes the last cut, like ranks after channels.

In all of them the learning rate starts again with each fine-tuning (learning-rate rewinding), and
each fine-tuning sees other batches. An `accept` rule ends the iterations; the last network that
fulfilled it is returned.

A pruned network in a file is tensors and plain data, from which it is cut again. No pickle: the
file holds the weights and the plans, not the module. `load_pruned` cuts the parent, whatever its
weights are by then, after the same plans and puts the weights in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pruned_perception._io import FolderError, locked, read_json, write_json
from pruned_perception._tables import Table
from pruned_perception.pruning.budget import Budget, Latency, Macs, Params
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.graph.device import CPU, device_of
from pruned_perception.pruning.plan import AnyPlan
from pruned_perception.pruning.records import Record, from_dict, to_dict
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint, weights_of
from pruned_perception.training.compute import Compute
from pruned_perception.training.loop import OnProgress, Trained, train, weights_digest
from pruned_perception.training.method import (
    Cut,
    Method,
    PruningRecord,
    Scratch,
    budget_entry,
    pruned,
    read_plan,
    rebuilt,
)
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task, figures_of, first_figure

Accept = Callable[[nn.Module], bool]


def prune_and_finetune(
    task: Task,
    method: Method,
    budget: Budget,
    *,
    training: TrainingBudget | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    recalibrated: bool = True,
    validations: int = 0,
    accept: Accept | None = None,
    folder: Path | None = None,
    report: OnProgress | None = None,
    compute: Compute | None = None,
) -> tuple[nn.Module, PipelineRecord]:
    """Return the network after the method's schedule of cuts and fine-tunings, and the record.

    Args:
        task: the parent with calibration and, to fine-tune, training data; with `evaluate`, the
            record has figures.
        method: what cuts, how often, who teaches.
        budget: what may remain in the end.
        training: B above; None to prune only.
        recipe: how to fine-tune; the task's own by default. A method's learning rate comes first.
        seed: of everything random.
        recalibrated: measure batch norms again after each cut.
        validations: see `train`.
        accept: whether a network may be returned, by data that choices may see: `loses_at_most`,
            or, say, `lambda small: accuracy(small, validation) > 0.9`. What chooses cannot
            certify: certify what is returned, on drives of its own. If the first network is not
            accepted, the parent is returned.
        folder: for what an interrupted call needs to go on, a sub-folder for each stage.
        report: told what goes on, the share of it that is done, and a remark.
        compute: where to fine-tune and to judge, by default where the parent is, as the result is.
            What goes is chosen on the CPU, wherever that may be.

    Raises:
        PruningError, BudgetError, FolderError, Interrupted: see `pruned` and `finetune`.
    """
    cascade = method.schedule == 'cascade'
    part = training.divided(method.iterations) if training and cascade else training
    if method.distill is not None and training is None:
        raise PruningError('distill: needs fine-tuning')
    if method.iterations > 1 and not isinstance(budget, Macs | Params):
        raise PruningError(
            f'schedule {method.schedule!r}: cuts to a share, not to {budget}; ask for one cut'
        )
    recipe = own_recipe(recipe or task.recipe, method)
    if accept is None and method.max_loss is not None:
        accept = loses_at_most(method.max_loss, task, compute)
    home = device_of(task.model)
    compute = compute or Compute(home)
    on_cpu, taught = Compute(CPU).placed, task.teacher
    task = dataclasses.replace(
        task, model=on_cpu(task.model), teacher=None if taught is None else on_cpu(taught)
    )
    teacher = task.model if task.teacher is None else task.teacher
    current = returned = task.model
    stages: list[Stage] = []
    with contextlib.ExitStack() as stack:
        if folder is not None:
            hold = locked(folder)
            compute.processes.first(lambda: stack.enter_context(hold))
        for number in range(1, method.iterations + 1):
            current, stage = _stage(
                dataclasses.replace(task, model=current),
                method,
                number,
                _step_budget(task, current, method, budget, number),
                part,
                recipe,
                teacher=teacher if method.distill else None,
                seed=_step_seed(seed, number),
                recalibrated=recalibrated,
                accept=accept,
                validations=validations,
                compute=compute,
                folder=folder and folder / str(number),
                report=report or (lambda title, share, remark: None),
            )
            stages.append(stage)
            if not stage.accepted:
                break
            returned = current
    return returned.to(home), PipelineRecord(tuple(stages))


def architecture(
    task: Task, method: Method, budget: Budget, seed: int, record: PipelineRecord
) -> nn.Module:
    """Return the network that a pipeline returned, with weights that mean nothing."""
    current = task.model
    for number, stage in enumerate(record.accepted, start=1):
        if stage.pruning.plan is None and number > 1:
            raise PruningError(
                f'method {method.to_dict()}: what it cuts later depends on fine-tuned weights'
            )
        current = rebuilt(
            dataclasses.replace(task, model=current),
            method.cut(number),
            _step_budget(task, current, method, budget, number),
            _step_seed(seed, number),
            stage.pruning,
        )
    return current


def loses_at_most(loss: float, task: Task, compute: Compute | None = None) -> Accept:
    """Return the rule that the first figure of `evaluate` is at most `loss` below the parent's."""
    if task.evaluate is None:
        raise PruningError('a rule on accuracy needs a task with `evaluate`')
    evaluate, where = task.evaluate, compute or Compute()
    limit: list[float] = []

    def figure(network: nn.Module) -> float:
        found = figures_of(evaluate, where.placed(network))
        return first_figure(where.processes.gathered(found)[0])

    def accept(small: nn.Module) -> bool:
        if not limit:
            limit.append(figure(task.model) - loss)
        return figure(small) >= limit[0]

    return accept


def _step_budget(
    task: Task, current: nn.Module, method: Method, budget: Budget, number: int
) -> Budget:
    """Return what may remain of the current network after cut `number`."""
    if method.iterations == 1:
        return budget
    assert isinstance(budget, Macs | Params)
    share = budget.share ** (number / method.iterations)
    if method.how.kind == 'sparsity':  # zeros are still counted: of the parent and of what is left
        return type(budget)(share)
    dense, now = (count(each, task.example_inputs) for each in (task.model, current))
    if isinstance(budget, Macs):
        return Macs(min(1.0, share * dense.macs / now.macs))
    return type(budget)(min(1.0, share * dense.parameters / now.parameters))


def _step_seed(seed: int, number: int) -> int:
    """Return the seed of cut `number`; all methods with one seed see the same batches."""
    return seed if number == 1 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _stage(
    task: Task,
    method: Method,
    number: int,
    budget: Budget,
    training: TrainingBudget | None,
    recipe: Recipe,
    *,
    teacher: nn.Module | None,
    seed: int,
    recalibrated: bool,
    accept: Accept | None,
    validations: int,
    compute: Compute,
    folder: Path | None,
    report: OnProgress,
) -> tuple[nn.Module, Stage]:
    """Cut and fine-tune the task's network; whatever is in the folder is not done again."""
    title = f'cut {number} of {method.iterations}'
    cut = folder / 'pruned.pt' if folder else None
    asked = [*budget_entry(budget), *([budget.table.sha256] if isinstance(budget, Latency) else [])]
    identity = json.dumps([method.to_dict(), asked, seed, recalibrated, weights_digest(task.model)])
    processes = compute.processes
    how = method.cut(number)
    content = processes.first(lambda: read_checkpoint(cut) if cut and cut.is_file() else None)
    if content is not None:
        if content.get('identity') != identity:
            raise FolderError(
                f'{folder}: holds the cut of another network, method, budget or seed; choose '
                'another folder, or delete this one'
            )
        small, record = _recut(task, how, budget, seed, content)
        before = content['before']
    else:
        report(title, 0.0, 'choosing what goes')
        made: list[tuple[nn.Module, PruningRecord]] = []

        def choose() -> dict[str, Any]:
            tuned = training is not None
            options = {'recalibrated': recalibrated, 'tuned': tuned, 'nearest': False}
            made.append(pruned(task, how, budget, seed, **options))
            small, record = made[0]
            return {'record': json.dumps(record.to_dict()), 'weights': weights_of(small)}

        content = processes.first(choose)
        small, record = made[0] if made else _recut(task, how, budget, seed, content)
        before = _judged(task, small, compute)
        if cut:
            content = {'identity': identity, 'before': dict(before), **content}
            processes.first(lambda: save_checkpoint(cut, content))
    trained = Trained(small, 0, 0.0)
    if training is not None:
        trained = train(
            small,
            task,
            training,
            recipe=recipe,
            teacher=teacher,
            distillation=method.distill,
            masks=record.masks,
            validations=validations,
            seed=seed,
            folder=folder,
            report=report,
            title=title,
            compute=compute,
        )
    small = trained.network
    finished = folder / 'stage.json' if folder else None
    known = processes.first(
        lambda: read_json(finished) if finished and finished.is_file() else None
    )
    if known is not None:
        return small, from_dict(Stage, known)
    after = before
    if training is not None:
        after = trained.figures or _judged(task, small, compute)
    accepted = accept is None or accept(small)
    stage = Stage(record, before, after, trained.steps, trained.cpu_seconds, accepted)
    if finished:
        processes.first(lambda: write_json(finished, to_dict(stage)))
    return small, stage


def _recut(
    task: Task, how: Cut, budget: Budget, seed: int, content: dict[str, Any]
) -> tuple[nn.Module, PruningRecord]:
    """Return the network and the record of a cut that was made before, or by another process."""
    record = PruningRecord.from_dict(json.loads(content['record']))
    small = rebuilt(task, how, budget, seed, record)
    small.load_state_dict(content['weights'])
    return small, record


def _judged(task: Task, small: nn.Module, compute: Compute) -> dict[str, float]:
    if task.evaluate is None:
        return {}
    return compute.processes.gathered(figures_of(task.evaluate, compute.placed(small)))[0]


def own_recipe(recipe: Recipe, method: Method | Scratch) -> Recipe:
    """Return the recipe with the method's own learning rate, where it has one."""
    if method.learning_rate is None:
        return recipe
    return dataclasses.replace(recipe, learning_rate=method.learning_rate)


@dataclass(frozen=True)
class Stage:
    """One cut and its fine-tuning: what was left, and the figures before and after."""

    pruning: PruningRecord
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    cpu_seconds: float
    accepted: bool


@dataclass(frozen=True)
class PipelineRecord(Record):
    """All stages that were run; those after the last accepted one were given up."""

    stages: tuple[Stage, ...]

    @property
    def accepted(self) -> tuple[Stage, ...]:
        """The stages of the network that was returned."""
        accepted = [number for number, each in enumerate(self.stages, 1) if each.accepted]
        return self.stages[: max(accepted, default=0)]

    @property
    def steps(self) -> int:
        """Steps of fine-tuning, those given up included."""
        return sum(stage.steps for stage in self.stages)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of choosing and fine-tuning, that given up included."""
        return sum(stage.pruning.cpu_seconds + stage.cpu_seconds for stage in self.stages)

    def to_text(self) -> str:
        """Return a table: what each stage left, and its figures before and after fine-tuning."""
        header = 'stage:d | MACs:11,d | parameters:,d | steps:6,d | before → after'
        rows = []
        for number, stage in enumerate(self.stages, 1):
            figures = ', '.join(
                f'{name} {value:.4g} → {stage.after.get(name, value):.4g}'
                for name, value in stage.before.items()
            )
            remark = '' if stage.accepted else '  not accepted'
            pruning = stage.pruning
            rows.append((number, pruning.macs, pruning.parameters, stage.steps, figures + remark))
        return Table.under(header, rows).to_text()


def save_pruned(path: str | os.PathLike[str], model: nn.Module, plans: Sequence[AnyPlan]) -> None:
    """Write the weights of `model`, and the plans by which it was made of its parent, in order."""
    entries = [{'kind': plan.kind, 'plan': plan.to_dict()} for plan in plans]
    save_checkpoint(Path(path), {'weights': weights_of(model), 'plans': entries})


def load_pruned(task: Task, path: str | os.PathLike[str]) -> nn.Module:
    """Return the network in `path`: the task's, cut after the file's plans, with its weights.

    The task's own network is untouched; the result is in its mode.

    Raises:
        CheckpointError: no such file, or a damaged one.
        PruningError: something else than `save_pruned` wrote, or of another network.
    """
    small = task.model
    try:
        for plan in read_plans(path):
            small = plan.apply(small)
        small.load_state_dict(_content(path)['weights'])
    except (PruningError, RuntimeError) as error:
        why = ' '.join(' '.join(str(error).splitlines()[:2]).split())
        raise PruningError(f'{path}: does not fit {type(task.model).__name__}: {why}') from error
    return small


def read_plans(path: str | os.PathLike[str]) -> tuple[AnyPlan, ...]:
    """Return the plans of a file, in order; raises as `load_pruned`."""
    return tuple(read_plan(each['kind'], each['plan']) for each in _content(path)['plans'])


def _content(path: str | os.PathLike[str]) -> dict[str, Any]:
    content = read_checkpoint(path)
    if 'plans' not in content:
        raise PruningError(
            f'{path}: not a pruned network: it holds {", ".join(map(str, content))} instead of '
            'weights and plans'
        )
    return content
