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

"""Contributions are the parts of what the framework's own layers compute."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pruned_perception.pruning import PruningError, contributions
from pruned_perception.pruning.contributions import fields, kernel, sampled

C, F = 6, 4  # inputs, outputs

LAYERS: dict[str, Callable[[], nn.Module]] = {
    'point': lambda: nn.Conv2d(C, F, 1),
    'plain': lambda: nn.Conv2d(C, F, 3, bias=False),
    'strided': lambda: nn.Conv2d(C, F, (3, 2), stride=(2, 3), padding=(1, 0)),
    'dilated': lambda: nn.Conv2d(C, F, (2, 3), dilation=(2, 1), padding=2, stride=2),
    'same': lambda: nn.Conv2d(C, F, (4, 3), padding='same', dilation=(1, 2)),
    'reflect': lambda: nn.Conv2d(C, F, 3, padding=(2, 1), padding_mode='reflect'),
    'circular': lambda: nn.Conv2d(C, F, 3, padding=1, padding_mode='circular', stride=2),
    'replicate': lambda: nn.Conv2d(C, F, 5, padding='same', padding_mode='replicate'),
    'grouped': lambda: nn.Conv2d(C, F, 3, padding=1, groups=2),
    'depthwise': lambda: nn.Conv2d(C, 2 * C, 3, padding=1, groups=C),
    'transposed': lambda: nn.ConvTranspose2d(C, F, 2, stride=2),
    'transposed, padded': lambda: nn.ConvTranspose2d(
        C, F, (3, 4), stride=(2, 3), padding=(1, 2), output_padding=(1, 2)
    ),
    'transposed, cropped': lambda: nn.ConvTranspose2d(C, F, 2, stride=2, padding=(2, 3)),
    'transposed, dilated': lambda: nn.ConvTranspose2d(C, F, 3, dilation=(2, 1), bias=False),
    'transposed, grouped': lambda: nn.ConvTranspose2d(C, F, 3, stride=2, padding=1, groups=2),
    'linear': lambda: nn.Linear(C, F),
    'linear of tokens': lambda: nn.Linear(C, F),
}
# An even kernel that keeps the size needs a copy of its input, of which PyTorch warns.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
NAMES = pytest.mark.parametrize('name', LAYERS)


def layer_and_input(name: str) -> tuple[nn.Module, Tensor]:
    """Return a layer and inputs for it, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        shape = (2, C, 7, 8)
        if 'linear' in name:
            shape = (3, C) if name == 'linear' else (2, 5, C)
        return LAYERS[name]().double().requires_grad_(False), torch.randn(shape).double()


def as_positions(layer: nn.Module, output: Tensor) -> Tensor:
    """Return an output as (images · positions, f)."""
    last = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    return last.reshape(-1, last.shape[-1])


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted)


def all_contributions(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return u (c/groups, images · positions, f/groups), conv group by conv group."""
    found = [
        list(contributions.contributions(field, kernel(layer)))
        for field in sampled(fields(layer, x), kernel(layer), None, None)
    ]
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)]


@NAMES
def test_contributions_add_up_to_the_output(name: str) -> None:
    layer, x = layer_and_input(name)
    total = torch.cat([each.sum(0) for each in all_contributions(layer, x)], 1)
    if layer.bias is not None:
        total += layer.bias
    assert_equal(total, as_positions(layer, layer(x)))


@NAMES
def test_a_channel_contributes_what_the_layer_makes_of_it_alone(name: str) -> None:
    layer, x = layer_and_input(name)
    parts = all_contributions(layer, x)
    bare = copy.deepcopy(layer)
    bare.bias = None
    axis = -1 if isinstance(layer, nn.Linear) else 1
    outputs = 0
    for group, part in enumerate(parts):
        for channel, own in enumerate(part):
            alone = torch.zeros_like(x)
            index = group * len(part) + channel
            alone.select(axis, index).copy_(x.select(axis, index))
            wanted = as_positions(layer, bare(alone))[:, outputs : outputs + own.shape[1]]
            assert_equal(own, wanted)
        outputs += part.shape[2]


@pytest.mark.parametrize('name', ['strided', 'same', 'reflect', 'transposed, padded'])
def test_contributions_are_a_convolution_with_a_group_for_each_channel(name: str) -> None:
    layer, x = layer_and_input(name)
    apart = copy.deepcopy(layer)
    apart.groups, apart.out_channels, apart.bias = C, C * F, None
    if isinstance(layer, nn.Conv2d):  # a transposed layer's weight (c, f, h, w) is as it must be
        apart.weight = nn.Parameter(
            layer.weight.transpose(0, 1).reshape(C * F, 1, *layer.kernel_size)
        )
    (found,) = all_contributions(layer, x)
    wanted = as_positions(layer, apart(x)).unflatten(1, (C, F)).transpose(0, 1)
    assert_equal(found, wanted)


@NAMES
def test_absolute_sums_are_over_all_positions(name: str) -> None:
    layer, x = layer_and_input(name)
    found = fields(layer, x)
    whole = torch.cat(list(sampled(found, kernel(layer), None, None)), 1).abs()
    wanted = whole.unflatten(1, (len(x), found.positions)).sum(2)
    assert_equal(found.absolute_sums(), wanted)


def test_contributions_of_two_channels_as_by_hand() -> None:
    layer = nn.Conv2d(2, 1, (1, 2), bias=False)
    layer.weight.data = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.5]]]])
    x = torch.tensor([[[[1.0, 2.0, 4.0]], [[-1.0, 2.0, 0.0]]]])
    (found,) = all_contributions(layer, x)
    # Channel 0: 1 − 4, 2 − 8; channel 1: −3 + 1, 6 + 0.
    assert found[:, :, 0].tolist() == [[-3.0, -6.0], [-2.0, 6.0]]


@NAMES
def test_few_at_a_time_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_and_input(name)
    at_once = torch.cat(list(sampled(fields(layer, x), kernel(layer), None, None)), 1)
    monkeypatch.setattr(contributions, '_VALUES_AT_ONCE', 3 * C * F)
    pieces = list(sampled(fields(layer, x), kernel(layer), None, None))
    assert len(pieces) > 1 or at_once.shape[1] <= 3 * C
    assert torch.equal(torch.cat(pieces, 1), at_once)


def test_sampled_positions_are_some_of_all_and_as_many_of_every_image() -> None:
    layer, x = layer_and_input('plain')
    found = fields(layer, x)
    everywhere = torch.cat(list(sampled(found, kernel(layer), None, None)), 1).transpose(0, 1)
    generator = torch.Generator().manual_seed(0)
    some = torch.cat(list(sampled(found, kernel(layer), 5, generator)), 1).transpose(0, 1)
    assert len(some) == 5 * len(x)
    for image, of_image in enumerate(some.split(5)):
        own = everywhere[image * found.positions : (image + 1) * found.positions]
        assert all((own == each).flatten(1).all(1).any() for each in of_image)


def test_other_modules_are_refused() -> None:
    with pytest.raises(PruningError, match='ReLU is no convolution or linear layer'):
        fields(nn.ReLU(), torch.zeros(1, 2, 3, 3))
