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

"""One cell of a comparison: make the network, judge it, write one file.

Everything that a cell needs to go on after an interruption is in a folder of its own beside its
result; a cell depends on no other, except that a control reads the result of what it controls.
"""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pruned_perception
from pruned_perception._io import locked, write_json
from pruned_perception.compare.result import (
    Result,
    failure_path,
    find_result,
    now,
    record_failure,
    result_path,
)
from pruned_perception.compare.study import Cell
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.training.compute import Compute
from pruned_perception.training.loop import OnProgress, train
from pruned_perception.training.method import Method, PruningRecord, Scratch
from pruned_perception.training.outcomes import Figures, Outcomes
from pruned_perception.training.pipeline import (
    PipelineRecord,
    Stage,
    architecture,
    own_recipe,
    prune_and_finetune,
)
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.scratch import reinitialised
from pruned_perception.training.task import Task, figures_of, load_task


def run_cell(
    cell: Cell,
    results: Path,
    *,
    test: bool = False,
    report: OnProgress | None = None,
    compute: Compute | None = None,
) -> Result:
    """Return the cell's result: at once if it is there, else made now and written.

    A failure is written, too, and stays until the cell succeeds.

    Args:
        cell: what to make.
        results: folder of the results.
        test: compute the figures on test data, once, of a result that is there.
        report: told what goes on.
        compute: where to train and to judge; by default where the task's network is.

    Raises:
        FolderError: another process works at this cell.
        Interrupted: the same call goes on later.
        PruningError: the cell cannot be made; other user errors of the task.
    """
    with locked(results / cell.name):
        failure_path(results, cell).unlink(missing_ok=True)
        try:
            result = (_tested if test else _made)(cell, results, report, compute or Compute())
        except Exception as error:
            record_failure(results, cell, f'{type(error).__name__}: {error}')
            raise
        write_json(result_path(results, cell), result.to_dict())
        return result


def _made(cell: Cell, results: Path, report: OnProgress | None, compute: Compute) -> Result:
    if (found := find_result(results, cell)) is not None:
        return found
    task = _task(cell)
    network, record = _network(cell, task, results, report, compute)
    before: dict[str, float] = {}
    shares = {'macs': 1.0, 'params': 1.0}
    if record.accepted:
        last = record.accepted[-1]
        before = last.before
        # Of a training that went on after an interruption, figures alone are kept.
        after = last.after if isinstance(last.after, Figures) else _judged(task, network, compute)
        parent = count(task.model, task.example_inputs)
        shares = {
            'macs': last.pruning.macs / parent.macs,
            'params': last.pruning.parameters / parent.parameters,
        }
    else:  # the parent itself, or nothing better was accepted
        before = after = _judged(task, task.model, compute)
    assert isinstance(after, Figures)
    return Result(
        cell=cell.name,
        label=cell.label,
        digest=cell.digest,
        configuration=cell.configuration,
        before=before,
        after=after,
        test=None,
        test_at=None,
        shares=shares,
        pipeline=record,
        cpu_seconds=record.cpu_seconds,
        finished_at=now(),
        versions=_versions(compute),
        outcomes=_kept(after),
    )


def _tested(cell: Cell, results: Path, report: OnProgress | None, compute: Compute) -> Result:
    result = find_result(results, cell)
    if result is None:
        raise PruningError(f'{cell.name}: no result yet; run the comparison first')
    if result.test is not None:
        return result
    task = _task(cell)
    if task.test is None:
        raise PruningError(f'task {cell.study.task!r}: has no `test`')
    network, _ = _network(cell, task, results, report, compute)
    figures = figures_of(task.test, compute.placed(network))
    return dataclasses.replace(result, test=figures, test_at=now(), test_outcomes=_kept(figures))


def _kept(figures: Figures) -> Outcomes | None:
    return None if figures.outcomes is None else Outcomes.of(figures.outcomes)


def _task(cell: Cell) -> Task:
    task = load_task(cell.study.task, weights=cell.study.weights)
    if task.evaluate is None:
        raise PruningError(f'task {cell.study.task!r}: comparing needs `evaluate`')
    return task


def _network(
    cell: Cell, task: Task, results: Path, report: OnProgress | None, compute: Compute
) -> tuple[nn.Module, PipelineRecord]:
    """Return the cell's network, made now or as far as it was left."""
    if cell.method is None or cell.budget is None:
        return task.model, PipelineRecord(())
    folder = results / cell.name / cell.digest[:16]  # an older configuration's is not touched
    if cell.source is not None:
        return _from_scratch(cell, cell.source, task, results, folder, report, compute)
    assert isinstance(cell.method, Method)
    tuned = cell.finetuning
    return prune_and_finetune(
        task,
        cell.method,
        cell.budget,
        training=tuned.budget if tuned else None,
        recipe=_recipe(cell, task),
        seed=cell.seed,
        recalibrated=cell.study.recalibrate,
        folder=folder,
        report=report,
        compute=compute if compute.device else None,
    )


def _from_scratch(
    cell: Cell,
    source: Cell,
    task: Task,
    results: Path,
    folder: Path,
    report: OnProgress | None,
    compute: Compute,
) -> tuple[nn.Module, PipelineRecord]:
    """Train the widths of another cell's network for the time of its parent and its own."""
    assert isinstance(cell.method, Scratch)
    assert isinstance(source.method, Method)
    assert source.budget is not None
    other = find_result(results, source)
    if other is None:
        raise PruningError(f'{cell.name}: needs the result of {source.name}; run that cell first')
    if task.trained_for is None:
        raise PruningError(
            f'task {cell.study.task!r}: a control from scratch needs `trained_for`, the training '
            'budget of the parent'
        )
    if not other.pipeline.accepted:
        raise PruningError(f'{source.name}: no network was accepted, so there are no widths')
    network = architecture(task, source.method, source.budget, source.seed, other.pipeline)
    budget = task.trained_for.extended(other.pipeline.cpu_seconds, other.pipeline.steps)
    trained = train(
        reinitialised(network, seed=cell.seed, initialise=task.initialise),
        task,
        budget,
        recipe=own_recipe(_recipe(cell, task), cell.method),
        seed=cell.seed,
        folder=folder,
        report=report,
        title='training from scratch',
        compute=compute,
    )
    sizes = other.pipeline.accepted[-1].pruning
    record = PruningRecord('scratch', None, *_costs(sizes), cpu_seconds=0.0)
    figures = _judged(task, trained.network, compute)
    stage = Stage(record, {}, figures, trained.steps, trained.cpu_seconds, accepted=True)
    return trained.network, PipelineRecord((stage,))


def _recipe(cell: Cell, task: Task) -> Recipe:
    return task.recipe.changed(cell.finetuning.changes) if cell.finetuning else task.recipe


def _costs(record: PruningRecord) -> tuple[int, int, int, int]:
    return record.dense_macs, record.macs, record.dense_parameters, record.parameters


def _judged(task: Task, network: nn.Module, compute: Compute) -> Figures:
    assert task.evaluate is not None
    return figures_of(task.evaluate, compute.placed(network))


def _versions(compute: Compute) -> dict[str, str]:
    """Return what computed; on the CPU, where most results are from, no device is named."""
    return {
        'pruned_perception': pruned_perception.__version__,
        'torch': str(torch.__version__),
        'numpy': np.__version__,
        'python': platform.python_version(),
        **({'device': str(compute.device)} if compute.device not in (None, CPU) else {}),
    }
