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

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pruned_perception.pruning import count, trace
from studies import cifar, cifar_data, cifar_resnet

EXAMPLE = (torch.zeros(1, 3, 32, 32),)


@pytest.mark.parametrize('inputs', [16, 32])
def test_shortcut_is_option_a_to_the_bit(inputs: int) -> None:
    shortcut = cifar_resnet.Shortcut(inputs, 2 * inputs)
    x = torch.randn(3, inputs, 8, 8, generator=torch.Generator().manual_seed(0))
    half = inputs // 2
    wanted = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
    assert torch.equal(shortcut(x), wanted)


def test_published_state_dict_without_shortcuts_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = cifar_resnet.ResNet(20)
    state = {
        f'module.{name}': value
        for name, value in source.state_dict().items()
        if 'shortcut' not in name
    }
    torch.save({'state_dict': state}, tmp_path / cifar_resnet.WEIGHTS[20])
    loaded = cifar_resnet.pretrained(20, tmp_path)
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize(('depth', 'layers'), [(20, 19), (56, 55)])
def test_costs_are_those_of_the_paper_and_the_shortcuts(depth: int, layers: int) -> None:
    cost = count(cifar_resnet.ResNet(depth), EXAMPLE)
    blocks = (depth - 2) // 6
    stem, classifier, shortcuts = 32 * 32 * 27 * 16, 640, 2 * 16 * 16 * 16 * 32
    # Every 3×3 convolution of the three stages costs the same, but for the first of a stage.
    stages = (6 * blocks - 1) * 32 * 32 * 9 * 16 * 16
    assert cost.macs == stem + stages + classifier + shortcuts
    convolutions = [each.name for each in cost.layers if 'conv' in each.name]
    assert len(convolutions) == layers


def test_each_stage_is_one_group_and_each_block_another() -> None:
    structure = trace(cifar_resnet.ResNet(20), EXAMPLE)
    assert sorted(structure.channels.values()) == [16] * 4 + [32] * 4 + [64] * 4
    producers = {each.layer for group in structure.groups.prunable for each in group.producers}
    assert 'layer2.0.shortcut' in producers


@pytest.mark.shared_data
def test_published_network_reproduces_its_accuracy_on_part_of_the_test_images() -> None:
    if not cifar_data.data_folder().is_dir() or not cifar_resnet.weights_folder().is_dir():
        pytest.skip(
            f'no CIFAR-10 at {cifar_data.data_folder()}, or no weights at '
            f'{cifar_resnet.weights_folder()} (see studies/README.md)'
        )
    network = cifar_resnet.pretrained(20)
    assert cifar.accuracy(network, cifar_data.load_test()[:500]) == pytest.approx(91.0, abs=0.2)
