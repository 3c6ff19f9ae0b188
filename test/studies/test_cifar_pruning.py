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

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pruned_perception.training.task import Task
from studies import cifar, cifar_data, cifar_pruning, cifar_resnet

GRID: dict[str, Any] = {
    'images': 40,
    'budgets': [0.5, 0.001],
    'seeds': [0, 1],
    'scores': {
        'random': {'criterion': 'random'},
        'taylor': {'criterion': 'taylor', 'labels': True},
    },
    'allocations': {
        'uniform': {'allocation': 'uniform'},
        'least_joint': {'allocation': 'least_error', 'allocation_by': 'joint_error'},
    },
    'methods': {'svd': {'kind': 'low_rank', 'criterion': 'svd'}},
    'torch_pruning': {'importances': ['l1'], 'scopes': ['global'], 'cuts': [1, 2]},
}


def _batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        inputs = torch.randn(16, 3, 32, 32, generator=generator)
        yield inputs, torch.randint(10, (16,), generator=generator)


def _task() -> Task:
    torch.manual_seed(0)
    return Task(
        model=cifar_resnet.ResNet(8).eval(),
        example_inputs=(torch.zeros(1, 3, 32, 32),),
        calibration=[next(_batches(0))[0]],
        training=_batches,
        step=cifar.cross_entropy,
    )


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the grid's results. Do not change them."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    images = cifar_data.Images(pixels, np.arange(50) % 10)
    path = tmp_path_factory.mktemp('cifar') / 'results.csv'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar_pruning, 'load_training', lambda: (images, images))
        patch.setattr(cifar, 'calibration_batches', lambda: [next(_batches(0))])
        patch.setitem(cifar_pruning.TASKS, 'resnet20', _task)
        cifar_pruning.make_missing('resnet20', GRID, path)
        yield path


def test_every_score_is_made_under_every_allocation_at_the_budget(made: Path) -> None:
    cells = {cell.key: cell for cell in cifar_pruning.read(made)}
    for allocation in GRID['allocations']:
        for name, seed in (('random', 0), ('random', 1), ('taylor', 0)):
            cell = cells[name, allocation, 0.5, seed]
            assert cell.accuracy is not None
            assert 0.45 < cell.macs <= 0.5
    assert cells['tp_l1_global_2', '', 0.5, 0].macs == pytest.approx(0.5, abs=0.05)
    assert cells['parent', '', 1.0, 0].macs == 1


def test_a_budget_that_cannot_be_met_is_recorded_and_ends_nothing(made: Path) -> None:
    cells = {cell.key: cell for cell in cifar_pruning.read(made)}
    cell = cells['taylor', 'uniform', 0.001, 0]
    assert cell.accuracy is None
    assert 'cannot be met' in (cell.failed or '')


def test_what_is_there_is_not_made_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *rest, missing = cifar_pruning.read(made)
    path = tmp_path / 'results.csv'
    cifar_pruning.write(path, rest)
    asked = []
    real = cifar_pruning.OneShot.make

    def make(self: cifar_pruning.OneShot, key: Any, network: Any) -> cifar_pruning.Cell:
        asked.append(key)
        return real(self, key, network)

    monkeypatch.setattr(cifar_pruning.OneShot, 'make', make)
    cifar_pruning.make_missing('resnet20', GRID, path)
    assert [key[0] for key in asked] == [missing.score]


def test_table_has_scores_by_allocations_and_the_other_methods(made: Path) -> None:
    text = cifar_pruning.to_text(cifar_pruning.read(made), GRID)
    assert '| score | uniform | least_joint |' in text
    taylor = next(line for line in text.splitlines() if line.startswith('| taylor |'))
    assert len(taylor.split('|')) == 5
    assert '| taylor | cannot | cannot |' in text
    assert '| tp_l1_global |' in text


def test_what_can_no_longer_be_chosen_is_judged_on_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    test = cifar_data.Images(pixels, np.arange(10))
    monkeypatch.setattr(cifar_pruning, 'load_test', lambda: test)
    monkeypatch.setattr(cifar_pruning, 'load_training', lambda: pytest.fail('training images'))
    monkeypatch.setitem(cifar_pruning.TASKS, 'resnet20', _task)
    grid = {
        'images': 'test',
        'budgets': [0.5],
        'seeds': [0],
        'scores': {},
        'allocations': {},
        'methods': {'default': {'criterion': 'filter_l2', 'allocation': 'uniform', 'round_to': 1}},
    }
    path = tmp_path / 'results.csv'
    cifar_pruning.make_missing('resnet20', grid, path)
    cells = {cell.score: cell for cell in cifar_pruning.read(path)}
    assert cells['parent'].accuracy == cifar.accuracy(_task().model, test)
    accuracy = cells['default'].accuracy
    assert f'without options: {accuracy:.2f} %' in cifar_pruning.to_text([*cells.values()], grid)
