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

"""How long to train, in each of the units."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blobs
import pytest
import torch
from torch import Tensor

from pruned_perception.pruning import PruningError
from pruned_perception.training import loop
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.task import RandomViews
from pruned_perception.training.loop import train
from pruned_perception.training.recipe import Phase, Recipe


class Epochs(Iterator):
    """The batches of blobs, of which two and a half make an epoch."""

    steps_per_epoch = 2.5

    def __init__(self, seed: int) -> None:
        self.batches = blobs.training(seed)

    def __next__(self) -> Any:
        return next(self.batches)


def test_epochs_are_steps_of_batches_that_say_how_many_make_one() -> None:
    task = blobs.task(training=Epochs)
    epochs = train(task.model, task, TrainingBudget(epochs=2))
    steps = train(task.model, task, TrainingBudget(steps=5))
    assert epochs.steps == 5
    for name, value in epochs.network.state_dict().items():
        assert torch.equal(value, steps.network.state_dict()[name])
    with pytest.raises(PruningError, match=r'no `steps_per_epoch`; give steps'):
        train(task.model, blobs.task(), TrainingBudget(epochs=2))


def test_our_detectors_batches_say_how_many_make_an_epoch() -> None:
    frames = FrameSet(torch.zeros(10, 8, 8, 3).numpy(), [], [], [], [], (), '', None)
    recipe = Recipe(batch=4, phases=(Phase(1, (8, 8), (1, 1)),))
    assert RandomViews(frames, recipe, (0, 0)).steps_per_epoch == 2.5


def test_wall_time_is_that_of_steps_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step, in which it is looked at three times, takes ten seconds by this clock."""
    clock = itertools.count(0, 5)
    monkeypatch.setattr(loop.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(loop, 'CHECKPOINT_SECONDS', -1.0)
    task, budget = blobs.task(), TrainingBudget(wall_minutes=1)
    assert train(task.model, task, budget).steps == 6
    steps: list[int] = []

    def dying(model: Any, batch: Any) -> Tensor:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return blobs.step(model, batch)

    task = blobs.task(step=dying)
    with pytest.raises(KeyboardInterrupt):
        train(task.model, task, budget, folder=tmp_path)
    assert train(task.model, task, budget, folder=tmp_path).steps == 6
    assert len(steps) == 3 + 4


@pytest.mark.parametrize(
    ('fields', 'text', 'half'),
    [
        ({'cpu_minutes': 3}, '3 CPU minutes', {'cpu_minutes': 1.5}),
        ({'wall_minutes': 3}, '3 wall minutes', {'wall_minutes': 1.5}),
        ({'epochs': 3}, '3 epochs', {'epochs': 1.5}),
        ({'steps': 3001}, '3,001 steps', {'steps': 1501}),
    ],
)
def test_budgets_are_plain_data_that_can_be_divided(
    fields: dict[str, Any], text: str, half: dict[str, Any]
) -> None:
    budget = TrainingBudget(**fields)
    assert str(budget) == text
    assert TrainingBudget.from_dict(budget.to_dict()) == budget
    assert budget.to_dict() == fields
    assert budget.divided(2).to_dict() == half


def test_a_control_is_given_the_time_or_the_steps_of_others_and_no_unit_that_nobody_kept() -> None:
    assert TrainingBudget(cpu_minutes=1).extended(60, 5) == TrainingBudget(cpu_minutes=2)
    assert TrainingBudget(steps=1).extended(60, 5) == TrainingBudget(steps=6)
    with pytest.raises(PruningError, match='must be in steps or cpu_minutes, not 2 epochs'):
        TrainingBudget(epochs=2).extended(60, 5)


@pytest.mark.parametrize(
    'fields',
    [{}, {'steps': 1, 'epochs': 1}, {'epochs': 0}, {'wall_minutes': -1}, {'cpu_minutes': True}],
)
def test_anything_but_one_positive_number_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PruningError, match='exactly one of cpu_minutes, steps, epochs, wall_mi'):
        TrainingBudget(**fields)
