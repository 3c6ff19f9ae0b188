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

import copy
import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pruned_perception.pruning import Macs, PruningError, count
from pruned_perception.training.task import Task
from studies import cifar, cifar_resnet
from studies import torch_pruning_peers as peers

EXAMPLE = (torch.zeros(1, 3, 32, 32),)


def _batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        inputs = torch.randn(8, 3, 32, 32, generator=generator)
        yield inputs, torch.randint(10, (8,), generator=generator)


@pytest.fixture(scope='module')
def task() -> Task:
    torch.manual_seed(0)
    model = cifar_resnet.ResNet(8).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # all the same otherwise
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return Task(
        model=model,
        example_inputs=EXAMPLE,
        calibration=[next(_batches(0))[0]],
        training=_batches,
        step=cifar.cross_entropy,
    )


def _macs(network: nn.Module) -> int:
    return count(network, EXAMPLE).macs


@pytest.mark.parametrize(
    ('importance', 'scope'),
    [
        *((importance, 'global') for importance in peers.IMPORTANCES),
        ('group_l2', 'local'),
        ('group_l2', 'isomorphic'),
    ],
)
def test_network_costs_what_was_asked_and_runs(task: Task, importance: str, scope: str) -> None:
    small = peers.prune(task, Macs(0.4), 0, importance=importance, scope=scope)
    share = _macs(small) / _macs(task.model)
    # Never cheaper than the tolerance; above it by one step of the library's at most.
    assert 0.4 * 0.99 <= share <= 0.4 * 1.1
    assert small.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_parent_is_untouched_and_frozen_layers_stay_frozen(task: Task) -> None:
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    small = peers.prune(task, Macs(0.4), 0, importance='group_taylor', scope='global', cuts=2)
    assert all(torch.equal(value, before[k]) for k, value in task.model.state_dict().items())
    assert all(each.grad is None for each in task.model.parameters())
    frozen = {name for name, each in small.named_parameters() if not each.requires_grad}
    assert frozen == {'layer2.0.shortcut.weight', 'layer3.0.shortcut.weight'}


def test_local_l1_keeps_the_filters_of_largest_norm(task: Task) -> None:
    model = copy.deepcopy(task.model)
    filters, biases = model.layer1[0].conv1.weight, model.layer1[0].bn1.bias
    biases.data = torch.arange(16, dtype=torch.float32)  # by which we know them again
    own = dataclasses.replace(task, model=model)
    small = peers.prune(own, Macs(0.5), 0, importance='l1', scope='local')
    left = small.layer1[0].bn1.bias
    assert 8 <= len(left) < 16
    wanted = filters.abs().sum((1, 2, 3)).topk(len(left)).indices
    assert left.tolist() == sorted(wanted.tolist())


def test_frozen_shortcuts_do_not_count_as_importance(task: Task) -> None:
    small = peers.prune(task, Macs(0.5), 0, importance='group_l2', scope='global')
    model = copy.deepcopy(task.model)
    model.layer2[0].shortcut.weight.data.mul_(100)
    own = dataclasses.replace(task, model=model)
    again = peers.prune(own, Macs(0.5), 0, importance='group_l2', scope='global')
    assert torch.equal(small.conv1.weight, again.conv1.weight)
    assert torch.equal(small.layer2[0].conv2.weight, again.layer2[0].conv2.weight)


def test_taylor_follows_the_labels_of_its_seed(task: Task) -> None:
    first, same, other = (
        peers.prune(task, Macs(0.5), seed, importance='group_taylor', scope='global')
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.linear.weight, same.linear.weight)
    assert first.linear.weight.shape != other.linear.weight.shape or not torch.equal(
        first.linear.weight, other.linear.weight
    )


def test_unknown_names_and_unreachable_budgets_are_refused(task: Task) -> None:
    with pytest.raises(PruningError, match=r"importance 'l3'.*group_taylor"):
        peers.prune(task, Macs(0.5), 0, importance='l3')
    with pytest.raises(PruningError, match='no ratio of channels costs'):
        peers.prune(task, Macs(0.001), 0, importance='l1', scope='local')
