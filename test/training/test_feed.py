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

"""Batches that are made ahead by other processes are the same batches."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import blobs
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from pruned_perception.pruning.errors import PruningError
from pruned_perception.training import loop
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute
from pruned_perception.training.feed import LIGHT, Feed
from pruned_perception.training.loop import train
from pruned_perception.training.processes import ALONE
from pruned_perception.training.recipe import Recipe


class Drawn:
    """Blobs that are drawn here and made anywhere; `makers` has the processes that made some."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.fractions: list[float] = []

    def follow(self, recipe: Recipe, fraction: float) -> None:
        self.fractions.append(fraction)

    def draw(self) -> list[tuple[int, float]]:
        seeds = self.generator.integers(2**31, size=4)
        return [(int(seed), self.fractions[-1]) for seed in seeds]

    def make(self, drawn: Sequence[tuple[int, float]]) -> tuple[Tensor, Tensor, Tensor]:
        every = [blobs.examples(1, torch.Generator().manual_seed(seed)) for seed, _ in drawn]
        images, labels = (torch.cat(each) for each in zip(*every, strict=True))
        return images, labels, torch.tensor([(os.getpid(), fraction) for _, fraction in drawn])

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.make(self.draw())

    def state_dict(self) -> dict[str, Any]:
        return {'generator': self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.bit_generator.state = state['generator']


def _feed(workers: int, **options: Any) -> Feed:
    return Feed(Drawn(0), Recipe(), lambda steps: steps / 100, ALONE, workers=workers, **options)


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_are_the_same_whoever_makes_them_and_others_do(workers: int) -> None:
    alone, ahead = _feed(0), _feed(workers)
    makers = set()
    for number in range(6):
        wanted, part = alone.next(), ahead.next()
        assert torch.equal(part.batch[0], wanted.batch[0])
        assert torch.equal(part.batch[1], wanted.batch[1])
        # What a recipe says of a batch depends on when it is used, not on when it is drawn.
        assert part.batch[2][:, 1].tolist() == pytest.approx([number / 100] * 4)
        makers |= set(part.batch[2][:, 0].tolist())
        assert part.cpu_seconds > 0
        assert wanted.cpu_seconds == 0  # it is the step's own
    assert len(makers) == workers
    assert float(os.getpid()) not in makers
    ahead.close()


class Odd(Drawn):
    """Tensors of every kind, light and heavy."""

    def make(self, drawn: Sequence[tuple[int, float]]) -> Any:
        generator = torch.Generator().manual_seed(drawn[0][0])
        heavy = torch.rand(4, 80, 80, 3, generator=generator)
        assert heavy.nbytes > LIGHT
        return {
            'channels last': heavy.permute(0, 3, 1, 2),
            'brain floats': torch.rand(4, 3, generator=generator).bfloat16(),
            'turned': torch.rand(3, 4, generator=generator).T,
            'flags': torch.rand(4, generator=generator) > 0.5,
            'number': torch.tensor(7),
            'nothing': torch.zeros(4, 0, dtype=torch.int32),
        }


def test_tensors_of_every_kind_arrive_as_they_were_made() -> None:
    alone, ahead = (
        Feed(Odd(0), Recipe(), lambda steps: 0.0, ALONE, workers=workers) for workers in (0, 1)
    )
    for _ in range(3):
        wanted, found = alone.next().batch, ahead.next().batch
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)
        assert found['channels last'].stride() == wanted['channels last'].stride()
        found['number'] += 1  # what arrives may be written to
    ahead.close()


def test_workers_are_made_beside_the_threads_of_opencv() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        image = np.zeros((1000, 1000, 3), np.uint8)
        cv2.GaussianBlur(cv2.resize(image, (2000, 2000)), (5, 5), 0)  # in two threads
        feed = _feed(1)
        feed.batches.make = lambda drawn: torch.tensor(cv2.getNumThreads())
        assert feed.next().batch == 1  # copies of threads would never answer
        feed.close()
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_place_in_the_data_is_that_of_the_last_batch_not_of_those_made_ahead() -> None:
    ahead, alone = _feed(2), _feed(0)
    for _ in range(3):
        ahead.next(), alone.next()
    state = ahead.state_dict()
    assert state == alone.state_dict()
    again = _feed(1)
    again.load_state_dict(state, 3)
    wanted, part = alone.next(), again.next()
    assert torch.equal(part.batch[0], wanted.batch[0])
    assert part.batch[2][:, 1].tolist() == wanted.batch[2][:, 1].tolist()
    ahead.close()
    again.close()


def test_a_training_with_workers_is_the_same_training_and_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, 'CHECKPOINT_SECONDS', -1.0)
    steps: list[int] = []

    def step(model: Any, batch: Any) -> Tensor:
        return blobs.step(model, batch[:2])

    def dying(model: Any, batch: Any) -> Tensor:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(model, batch)

    budget, task = TrainingBudget(steps=8), blobs.task(training=Drawn, step=step)
    whole = train(task.model, task, budget).network
    with pytest.raises(KeyboardInterrupt):
        train(
            task.model,
            blobs.task(training=Drawn, step=dying),
            budget,
            folder=tmp_path,
            compute=Compute(workers=2),
        )
    again = train(task.model, task, budget, folder=tmp_path).network
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_worker_that_dies_is_said() -> None:
    feed = _feed(1)
    feed.batches.make = lambda drawn: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(PruningError, match=r'a process that makes batches died.*--workers'):
        feed.next()


def test_what_cannot_be_made_elsewhere_is_made_here() -> None:
    feed = Feed(blobs.training(0), Recipe(), lambda steps: 0.0, ALONE, workers=2)
    images, labels = feed.next().batch
    assert feed.loader is None
    wanted = next(blobs.training(0))
    assert torch.equal(images, wanted[0])
    assert torch.equal(labels, wanted[1])


def test_batches_that_are_drawn_need_a_place_to_go_back_to() -> None:
    class Forgetful:
        def draw(self) -> list[int]:
            return [1]

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return None

    with pytest.raises(PruningError, match='make, state_dict and load_state_dict'):
        Feed(Forgetful(), Recipe(), lambda steps: 0.0, ALONE)
