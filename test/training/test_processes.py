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

"""Several processes train as one does, go on after any of them died, and never wait for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blobs
import numpy as np
import pytest
import torch
from together import REFUSED, run_together
from torch import Tensor, nn

from pruned_perception._io import locked
from pruned_perception._processes import Interrupted
from pruned_perception.pruning import Macs
from pruned_perception.training import loop, processes
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.task import learning
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.loop import train
from pruned_perception.training.method import read_method
from pruned_perception.training.pipeline import prune_and_finetune
from pruned_perception.training.processes import in_parts
from pruned_perception.training.recipe import Phase, Recipe
from pruned_perception.training.task import Task

STEPS = TrainingBudget(steps=50)


def _batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches that two processes cannot halve."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield blobs.examples(15, generator)


def _step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of the images as they are: without random numbers of its own."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def _task(**changes: Any) -> Task:
    """Return the task; biases before a batch norm, whose gradients are rounding alone, are frozen.

    Adam makes whole steps of them, in any direction.
    """
    task = blobs.task(**({'training': _batches, 'step': _step} | changes))
    for layer in (task.model.first, task.model.second):
        layer.bias.requires_grad_(False)
    return task


def _losses(task: Task, path: Path, steps: int, **options: Any) -> None:
    """Train, and write the loss of each step and the weights."""
    losses: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Log, 'add', lambda log, values: losses.append(values['total']))
        network = train(task.model, task, TrainingBudget(steps=steps), **options).network
    torch.save({'losses': losses, 'weights': network.state_dict()}, path)


def _own(compute: Compute, path: Path) -> Path:
    return path / f'{compute.processes.rank}.pt'


@pytest.mark.parametrize(
    ('steps', 'options'),
    [
        (50, {}),
        (
            12,
            {
                'recipe': Recipe(optimiser='adamw', ema=0.9, clip=1.0, learning_rate=3e-3),
                'teacher': blobs.network(),
                'distillation': Distillation(0.5),
            },
        ),
    ],
)
def test_two_processes_have_the_losses_and_the_weights_of_one(
    tmp_path: Path, steps: int, options: dict[str, Any]
) -> None:
    task = _task()
    _losses(task, tmp_path / 'one.pt', steps, **options)
    ended = run_together(
        2, lambda compute: _losses(task, _own(compute, tmp_path), steps, **options, compute=compute)
    )
    assert ended == [0, 0]
    one, first, second = (torch.load(tmp_path / f'{each}.pt') for each in ('one', 0, 1))
    assert len(one['losses']) == steps
    np.testing.assert_allclose(first['losses'], one['losses'], rtol=0, atol=1e-4)
    for name, value in one['weights'].items():
        assert torch.equal(first['weights'][name], second['weights'][name]), name
        torch.testing.assert_close(first['weights'][name], value, rtol=1e-3, atol=1e-4)


def _frames() -> FrameSet:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 30, (6, 2, 2)).astype(np.float32)
    counts = (0, 2, 1, 2, 2, 1)
    return FrameSet(
        images=generator.integers(0, 255, (6, 64, 96, 3), np.uint8),
        boxes=[
            np.concatenate((each, each + 25), axis=1)[:count]
            for each, count in zip(corners, counts, strict=True)
        ],
        class_ids=[np.arange(count) for count in counts],
        crowd=[np.zeros(count, bool) for count in counts],
        groups=['a'] * 6,
        labels=('x', 'y', 'z'),
        digest='',
        notes=None,
    )


def _detector() -> Task:
    architecture = Architecture(
        input_size=(64, 96),
        num_classes=3,
        backbone=((8,), (8,), (8, 8), (8,), (8,)),
        neck=8,
        boxes=((8,),) * 3,
        classes=((8,),) * 3,
    )
    phases = (Phase(0.5, (32, 64), (0.8, 1.2)), Phase(1, (64, 96), (0.8, 1.2)))
    recipe = Recipe('adamw', learning_rate=1e-3, ema=0.9, clip=1.0, batch=5, phases=phases)
    torch.manual_seed(0)
    model = Detector(architecture)
    fields = learning(_frames(), recipe, 0, model.strides)
    return Task(model=model, example_inputs=(torch.zeros(1, 3, 64, 96),), calibration=(), **fields)


def test_a_detector_whose_losses_are_relative_to_all_objects_of_a_batch_is_trained_alike(
    tmp_path: Path,
) -> None:
    """And each process makes the views of its part alone."""
    task, budget = _detector(), TrainingBudget(steps=4)
    options: dict[str, Any] = {'teacher': task.model, 'distillation': Distillation(0.5)}
    wanted = train(task.model, task, budget, **options).network.state_dict()

    def run(compute: Compute) -> None:
        network = train(task.model, task, budget, **options, compute=compute).network
        torch.save(network.state_dict(), _own(compute, tmp_path))

    assert run_together(2, run) == [0, 0]
    found, same = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    for name, value in wanted.items():
        assert torch.equal(found[name], same[name]), name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


def _ending(rank: int, number: int, step: int) -> Callable[[nn.Module, Any], Tensor]:
    """Return a step in which a process of that rank gets a signal."""
    steps: list[int] = []

    def ending(model: nn.Module, batch: Any) -> Tensor:
        steps.append(1)
        if len(steps) == step and processes.current().rank == rank:
            os.kill(os.getpid(), number)
        return _step(model, batch)

    return ending


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_when_one_process_ends_all_do_and_go_on_from_the_last_checkpoint(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(loop, 'CHECKPOINT_SECONDS', -1.0)
    task, budget, folder = _task(), TrainingBudget(steps=12), tmp_path / 'run'

    def run(path: str, step: Any = _step) -> Callable[[Compute], None]:
        def inner(compute: Compute) -> None:
            own = _task(step=step)
            try:
                network = train(
                    task.model, own, budget, folder=folder if path != 'whole' else None,
                    compute=compute, validations=2,
                ).network  # fmt: skip
            except Interrupted:
                os._exit(130)
            torch.save(network.state_dict(), tmp_path / f'{path}{compute.processes.rank}.pt')

        return inner

    assert run_together(2, run('whole')) == [0, 0]
    ended = run_together(2, run('broken', _ending(1, number, 7)))
    assert ended == ([130, 130] if number == signal.SIGTERM else [REFUSED, -9])
    if number == signal.SIGKILL:
        assert 'another process of it has ended' in capfd.readouterr().out
    saved = torch.load(folder / 'training.pt')
    assert saved['steps'] == (7 if number == signal.SIGTERM else 6)
    assert run_together(2, run('again')) == [0, 0]
    whole, again = (torch.load(tmp_path / f'{each}0.pt') for each in ('whole', 'again'))
    for name, value in whole.items():
        assert torch.equal(again[name], value), name


def test_a_training_of_two_processes_is_ended_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, 'CHECKPOINT_SECONDS', -1.0)
    budget, folder = TrainingBudget(steps=12), tmp_path / 'run'
    wanted = train(_task().model, _task(), budget).network.state_dict()

    def broken(compute: Compute) -> None:
        own = _task(step=_ending(0, signal.SIGTERM, 5))
        with pytest.raises(Interrupted):
            train(own.model, own, budget, folder=folder, compute=compute)

    assert run_together(2, broken) == [0, 0]
    found = train(_task().model, _task(), budget, folder=folder).network.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_process_that_hears_nothing_of_a_collective_ends_as_well(
    monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """As one that waits for its GPU, which waits for a GPU whose process is gone."""
    monkeypatch.setattr(processes, 'GRACE_S', 0.1)

    def run(compute: Compute) -> None:
        if compute.processes.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)

    assert run_together(2, run) == [1, -9]
    assert 'another process of it has ended' in capfd.readouterr().err


def test_records_are_gathered_in_order_and_errors_of_the_first_are_everybodys(
    tmp_path: Path, capfd: Any
) -> None:
    def run(compute: Compute) -> None:
        here = compute.processes
        where = in_parts(range(5), lambda each: (each, here.rank))
        assert where == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
        with processes.apart():
            assert in_parts([here.rank], str) == [str(here.rank)]
        train(_task().model, _task(), STEPS, folder=tmp_path, compute=compute)

    with locked(tmp_path):
        assert run_together(2, run) == [REFUSED, REFUSED]
    printed = capfd.readouterr().out
    assert f'process 0: {tmp_path}: in use' in printed
    assert f'process 1: process 0: {tmp_path}: in use' in printed


def test_a_process_without_memory_says_what_would_fit_and_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(loop, 'CHECKPOINT_SECONDS', -1.0)

    def run(compute: Compute) -> None:
        steps: list[int] = []

        def small(model: nn.Module, batch: Any) -> Tensor:
            steps.append(1)
            if len(steps) > 3 and compute.processes.rank == 1 and len(batch[0]) > 2:
                raise torch.OutOfMemoryError('CUDA out of memory.')
            return _step(model, batch)

        task = _task(step=small)
        train(task.model, task, STEPS, folder=tmp_path, compute=compute)

    assert run_together(2, run) == [REFUSED, REFUSED]
    printed = capfd.readouterr().out
    assert 'process 1: training: cpu has too little memory for the batch of step 4 (8' in printed
    assert 'batches of 2 fit' in printed
    assert 'process 0: training: another process of it has ended' in printed
    assert torch.load(tmp_path / 'training.pt')['steps'] == 3


def test_processes_that_were_given_different_things_are_refused(capfd: Any) -> None:
    def run(compute: Compute) -> None:
        seed = compute.processes.rank
        train(_task().model, _task(), STEPS, seed=seed, compute=compute)

    assert run_together(2, run) == [REFUSED, REFUSED]
    assert 'several processes: their seed differ' in capfd.readouterr().out


def test_a_cut_is_chosen_once_and_its_stages_are_the_same_everywhere(tmp_path: Path) -> None:
    task, budget = _task(), TrainingBudget(steps=3)
    how = read_method(
        {'criterion': 'filter_l2', 'round_to': 1, 'schedule': 'cascade', 'iterations': 2}
    )
    options: dict[str, Any] = {'training': budget, 'validations': 1}
    wanted, record = prune_and_finetune(task, how, Macs(0.5), **options)

    def run(compute: Compute) -> None:
        small, own = prune_and_finetune(
            task, how, Macs(0.5), **options, folder=tmp_path / 'run', compute=compute
        )
        assert [each.pruning.plan for each in own.stages] == [
            each.pruning.plan for each in record.stages
        ]
        torch.save(small.state_dict(), _own(compute, tmp_path))

    for _ in range(2):  # the second time, all of it is in the folder
        assert run_together(2, run) == [0, 0]
        found, same = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
        for name, value in wanted.state_dict().items():
            assert torch.equal(found[name], same[name]), name
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
