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

"""A pruned network's file gives the same network back, and nothing else."""

from __future__ import annotations

from pathlib import Path

import blobs
import networks
import pytest
import torch
from torch import nn

from pruned_perception._io import FolderError
from pruned_perception.pruning import (
    Macs,
    Params,
    PruningError,
    lowrank,
    make_plan,
    recalibrate,
    sparsity,
)
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import (
    CheckpointError,
    read_checkpoint,
    save_checkpoint,
)
from pruned_perception.training.loop import train
from pruned_perception.training.pipeline import load_pruned, read_plans, save_pruned
from pruned_perception.training.task import Task, load_weights


def parent(kind: type[nn.Module] = networks.Residual, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def task(model: nn.Module) -> Task:
    return Task(model, networks.INPUT, [torch.rand(8, 3, 16, 16)])


def test_the_network_comes_back_whatever_the_parents_weights_are(tmp_path: Path) -> None:
    model = parent()
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5))
    small = recalibrate(plan.apply(model), [torch.rand(8, 3, 16, 16)])
    save_pruned(tmp_path / 'small.pt', small, [plan])
    other = parent(seed=1)
    back = load_pruned(task(other), tmp_path / 'small.pt')
    assert torch.equal(back(*networks.INPUT), small(*networks.INPUT))
    assert read_plans(tmp_path / 'small.pt') == (plan,)
    assert other.inner[0].out_channels == 32  # type: ignore[attr-defined]


def test_scaled_channels_of_a_random_selection_come_back(tmp_path: Path) -> None:
    model = parent()
    plan = make_plan(
        model,
        networks.INPUT,
        budget=Macs(0.6),
        criterion='absolute',
        selection='random',
        round_to=1,
        calibration=[torch.rand(32, 3, 16, 16)],
    )
    assert plan.factors
    small = plan.apply(model)
    save_pruned(tmp_path / 'small.pt', small, [plan])
    back = load_pruned(task(parent(seed=1)), tmp_path / 'small.pt')
    assert torch.equal(back(*networks.INPUT), small(*networks.INPUT))


def test_several_kinds_in_order_come_back(tmp_path: Path) -> None:
    model = parent()
    plans: list = [make_plan(model, networks.INPUT, budget=Macs(0.6))]
    small = plans[0].apply(model)
    plans.append(lowrank.get('alds')(small, networks.INPUT, Params(0.7)))
    small = plans[1].apply(small)
    plans.append(
        sparsity.make_plan(small, criterion='magnitude', budget=Params(0.5), calibration=[], seed=0)
    )
    small = plans[2].apply(small)
    save_pruned(tmp_path / 'small.pt', small, plans)
    back = load_pruned(task(parent(seed=1)), tmp_path / 'small.pt')
    assert torch.equal(back(*networks.INPUT), small(*networks.INPUT))
    kinds = [type(each) for each in read_plans(tmp_path / 'small.pt')]
    assert kinds == [type(each) for each in plans]


def test_another_network_is_refused(tmp_path: Path) -> None:
    model = parent()
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5))
    save_pruned(tmp_path / 'small.pt', plan.apply(model), [plan])
    with pytest.raises(PruningError, match=r'small\.pt: does not fit Concatenation'):
        load_pruned(task(parent(networks.Concatenation)), tmp_path / 'small.pt')


def test_weights_of_other_widths_are_refused(tmp_path: Path) -> None:
    model = parent()
    plan, other = (make_plan(model, networks.INPUT, budget=Macs(x)) for x in (0.3, 0.9))
    assert plan.widths != other.widths
    save_pruned(tmp_path / 'small.pt', plan.apply(model), [other])
    with pytest.raises(PruningError, match=r'small\.pt: does not fit Residual.*size mismatch'):
        load_pruned(task(model), tmp_path / 'small.pt')


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({'format': 1, 'state_dict': parent(), 'plans': []}, tmp_path / 'pickled.pt')
    with pytest.raises(CheckpointError, match=r'pickled\.pt: not a checkpoint, or damaged'):
        load_pruned(task(parent()), tmp_path / 'pickled.pt')


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'other.pt', {'weights': {}})
    with pytest.raises(PruningError, match='it holds format, weights instead of'):
        read_plans(tmp_path / 'other.pt')
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        read_plans(tmp_path / 'absent.pt')


def test_files_of_the_former_format_are_read(tmp_path: Path) -> None:
    model = parent()
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5))
    small = plan.apply(model)
    content = {
        'format': 1,
        'state_dict': small.state_dict(),
        'plans': [{'kind': 'channels', 'plan': plan.to_dict()}],
    }
    torch.save(content, tmp_path / 'small.pt')
    back = load_pruned(task(parent(seed=1)), tmp_path / 'small.pt')
    assert torch.equal(back(*networks.INPUT), small(*networks.INPUT))


def test_a_training_of_the_former_format_does_not_go_on(tmp_path: Path) -> None:
    own = blobs.task()
    former = {
        'format': 1,
        'identity': {},
        'finished': False,
        'steps': 3,
        'model': own.model.state_dict(),
    }
    torch.save(former, tmp_path / 'training.pt')
    assert read_checkpoint(tmp_path / 'training.pt')['steps'] == 3
    with pytest.raises(FolderError, match='which cannot go on with it; choose another folder'):
        train(own.model, own, TrainingBudget(steps=5), folder=tmp_path)
    torch.save({'format': 3, 'weights': {}}, tmp_path / 'newer.pt')
    with pytest.raises(CheckpointError, match=r'newer\.pt: not a checkpoint of format 2'):
        read_checkpoint(tmp_path / 'newer.pt')


def test_weights_of_a_checkpoint_can_be_loaded_into_a_task(tmp_path: Path) -> None:
    own = blobs.task()
    train(own.model, own, TrainingBudget(steps=2), folder=tmp_path)
    other = blobs.network()
    load_weights(other, tmp_path / 'training.pt')
    weights = read_checkpoint(tmp_path / 'training.pt')['weights']
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())
