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

import copy
import functools
import re

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning import PruningError, count
from pruned_perception.pruning.graph.channels import ChannelGroups
from pruned_perception.pruning.surgery import (
    check_deterministic,
    find_groups,
    mask_channels,
    slice_channels,
)

ANY_CHOICE = (networks.ChannelShuffle, networks.ResidualOfConcatenation, networks.ShuffledGroups)
KINDS = pytest.mark.parametrize('kind', networks.ALL, ids=lambda kind: kind.__name__)

# Prunable groups: channels, and the unit where it is not 1.
GROUPS = {
    networks.Residual: {'stem.0': (32, 1), 'inner.0': (32, 1)},
    networks.Concatenation: {
        'stem.0': (16, 1), 'left.0': (32, 1), 'right.0': (48, 1), 'merge.0': (32, 1),
    },
    networks.Flatten: {'stem.0': (32, 1), 'down.0': (32, 1), 'hidden': (48, 1)},
    networks.Depthwise: {'stem.0': (32, 1), 'point': (48, 1)},
    networks.Transposed: {'stem.0': (32, 1), 'up': (48, 1)},
    networks.Grouped: {'stem.0': (32, 8), 'last.0': (32, 1)},
    networks.InPlace: {'stem.0': (16, 1), 'focus': (24, 1)},
    networks.SharedHead: {'stem.0': (24, 1), 'lateral': (16, 1), 'tower.0': (32, 1)},
    networks.GroupNorm: {'stem': (32, 4), 'second': (24, 1)},
    networks.DepthwiseMultiplier: {'stem.0': (16, 2)},
    networks.ResidualOfConcatenation: {'stem.0': (16, 1), 'left': (16, 1), 'right.0': (24, 1)},
    networks.ChannelParameters: {'stem': (24, 1), 'inner.0': (32, 1)},
    networks.SqueezeExcitation: {'stem.0': (16, 1), 'wide.0': (32, 1), 'squeeze': (8, 1)},
    networks.PixelShuffle: {
        'stem.0': (16, 1), 'wide.0': (48, 4), 'after.0': (16, 1), 'merge': (24, 1),
    },
    networks.ChannelShuffle: {'stem.0': (32, 2), 'point.0': (16, 1)},
    networks.ShuffledGroups: {'stem.0:0': (18, 9), 'compress.0:0': (18, 9), 'up': (48, 3)},
    networks.PaddedShortcut: {'stem.0': (16, 1), 'inner.0': (24, 1)},
    networks.LayerNorm: {'first': (48, 1)},
    networks.GlobalResponse: {'wide': (48, 1), 'first.0': (32, 1)},
    networks.Attention: {'patch.0': (16, 1), 'after': (24, 1)},
    networks.FixedSplit: {'merge': (24, 1)},
    networks.Rigid: {'stem.0': (16, 1), 'last.0': (24, 1)},
}  # fmt: skip


@functools.cache
def _prepared(kind: type[nn.Module]) -> tuple[nn.Module, ChannelGroups]:
    model = networks.build(kind)
    return model, find_groups(model, networks.INPUT)


def _choice(groups: ChannelGroups, seed: int) -> dict[str, list[int]]:
    """Draw how many and which runs of channels each group keeps."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for group in groups.prunable:
        runs = group.channels // group.unit
        wanted = int(torch.randint(1, runs, (), generator=generator))
        chosen = sorted(torch.randperm(runs, generator=generator)[:wanted].tolist())
        kept[group.name] = [run * group.unit + i for run in chosen for i in range(group.unit)]
    return kept


@functools.cache
def _sliced(kind: type[nn.Module], seed: int) -> nn.Module:
    model, groups = _prepared(kind)
    return slice_channels(model, networks.INPUT, _choice(groups, seed))


def _distance(one: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of any output, relative to the largest output."""
    pairs = list(zip(networks.outputs(one), networks.outputs(other), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@KINDS
@pytest.mark.parametrize('seed', range(2))
def test_sliced_network_computes_what_the_masked_one_does(kind: type[nn.Module], seed: int) -> None:
    model, groups = _prepared(kind)
    kept = _choice(groups, seed)
    assert kept, 'nothing to prune in this network'
    sliced = _sliced(kind, seed)
    masked = mask_channels(model, groups, kept)
    assert _distance(masked, sliced) <= 1e-5
    assert _distance(model, masked) > 1e-3, 'the mask changed nothing: this would prove nothing'


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_choice_of_channels_can_be_sliced(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(ANY_CHOICE))
    model, groups = _prepared(kind)
    kept = {}
    for group in groups.prunable:
        runs = st.integers(0, group.channels // group.unit - 1)
        chosen = data.draw(st.sets(runs, min_size=1), label=group.name)
        kept[group.name] = [run * group.unit + i for run in chosen for i in range(group.unit)]
    sliced = slice_channels(model, networks.INPUT, kept)
    assert _distance(mask_channels(model, groups, kept), sliced) <= 1e-5


@KINDS
def test_original_is_untouched(kind: type[nn.Module]) -> None:
    _, groups = _prepared(kind)
    model = networks.build(kind).train()
    first = next(model.children())
    first.eval()
    before = copy.deepcopy(model.state_dict())
    find_groups(model, networks.INPUT, verify=False)
    small = slice_channels(model, networks.INPUT, _choice(groups, 0))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [each.training for each in model.modules()] == [
        each.training for each in small.modules()
    ]
    assert model.training
    assert not first.training


@pytest.mark.parametrize('kind', GROUPS, ids=lambda kind: kind.__name__)
def test_groups_are_those_that_can_be_told_by_hand(kind: type[nn.Module]) -> None:
    _, groups = _prepared(kind)
    found = {group.name: (group.channels, group.unit) for group in groups.prunable}
    assert found == GROUPS[kind]


@KINDS
def test_every_layer_is_prunable_or_named_with_a_reason(kind: type[nn.Module]) -> None:
    model, groups = _prepared(kind)
    layers = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }
    produced = {each.layer for group in groups.prunable for each in group.producers}
    assert produced.isdisjoint(groups.not_pruned)
    assert layers == produced | {name for name in groups.not_pruned if ':' not in name}
    assert all(groups.not_pruned.values())


@KINDS
def test_cost_falls_by_the_shares_of_channels(kind: type[nn.Module]) -> None:
    model, groups = _prepared(kind)
    kept = _choice(groups, 1)
    small = _sliced(kind, 1)
    modules = dict(model.named_modules())
    lost_outputs: dict[str, float] = {}
    lost_inputs: dict[str, float] = {}
    dense = count(model, networks.INPUT)
    parameters = 0.0
    for group in groups.prunable:
        gone = set(range(group.channels)) - set(kept[group.name])
        parameters -= group.channel_parameters * len(gone)
        for each in group.producers:
            weight = modules[each.layer].weight
            axis = 1 if isinstance(modules[each.layer], nn.ConvTranspose2d) else 0
            full = weight.shape[axis] * (getattr(modules[each.layer], 'groups', 1) if axis else 1)
            lost_outputs[each.layer] = lost_outputs.get(each.layer, 0) + len(each.of(gone)) / full
            if modules[each.layer].bias is not None:
                parameters -= len(each.of(gone))
        for each in group.consumers:
            layer = modules[each.layer]
            if each.layer in {cost.name for cost in dense.layers} and (
                getattr(layer, 'groups', 1) == 1 or each.layer in groups.even
            ):
                read = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
                share = len(each.of(gone)) / read
                lost_inputs[each.layer] = lost_inputs.get(each.layer, 0) + share
    shares = {
        layer.name: (1 - lost_outputs.get(layer.name, 0)) * (1 - lost_inputs.get(layer.name, 0))
        for layer in dense.layers
    }
    for name in set(shares) & (set(lost_outputs) | set(lost_inputs)):
        parameters += modules[name].weight.numel() * (shares[name] - 1)
    found = count(small, networks.INPUT)
    assert found.macs == pytest.approx(
        sum(layer.macs * shares[layer.name] for layer in dense.layers), abs=0.5
    )
    assert found.parameters == pytest.approx(dense.parameters + parameters, abs=0.5)
    assert found.macs < dense.macs


@pytest.mark.parametrize('kind', [networks.Residual, networks.ChannelParameters])
def test_frozen_parameters_are_pruned_too_and_stay_frozen(kind: type[nn.Module]) -> None:
    _, groups = _prepared(kind)
    model = networks.build(kind).requires_grad_(False)
    first = next(model.parameters()).requires_grad_(True)
    small = slice_channels(model, networks.INPUT, _choice(groups, 1))
    thawed, *frozen = small.parameters()
    assert thawed.requires_grad is first.requires_grad is True
    assert not any(parameter.requires_grad for parameter in frozen)
    assert sum(each.numel() for each in small.parameters()) < sum(
        each.numel() for each in model.parameters()
    )


def test_outputs_are_never_offered() -> None:
    _, groups = _prepared(networks.Residual)
    assert groups.not_pruned == {'head': 'reaches the output of the network'}
    with pytest.raises(PruningError, match='reaches the output'):
        slice_channels(networks.build(networks.Residual), networks.INPUT, {'head': [0, 1]})


def test_group_norm_loses_whole_groups_of_channels() -> None:
    model, groups = _prepared(networks.GroupNorm)
    small = slice_channels(model, networks.INPUT, {'stem': [*range(4, 8), *range(24, 28)]})
    assert (small.norm.num_groups, small.norm.num_channels) == (2, 8)
    kept = model.norm.weight[[4, 5, 6, 7, 24, 25, 26, 27]]
    assert torch.equal(small.norm.weight, kept)
    with pytest.raises(PruningError, match='whole runs of 4'):
        slice_channels(model, networks.INPUT, {'stem': [0, 1, 2, 3, 4]})
    assert groups['stem'].unit == 4


def test_grouped_convolution_loses_whole_groups() -> None:
    model, groups = _prepared(networks.Grouped)
    small = slice_channels(model, networks.INPUT, {'stem.0': range(8, 24)})
    layer = small.get_submodule('grouped.0')
    assert (layer.groups, layer.in_channels, layer.out_channels) == (2, 16, 32)
    assert torch.equal(layer.weight, model.get_submodule('grouped.0').weight[16:48])
    assert groups.not_pruned == {'head': 'reaches the output of the network'}


@pytest.mark.parametrize('memory', [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_images_in_memory_makes_no_difference(memory: torch.memory_format) -> None:
    """Pooling to one pixel writes strides of its own where channels are last."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=memory)
    assert [group.name for group in find_groups(model, (images,)).prunable] == ['0']


def test_strides_that_move_elements_keep_channels_whole() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.second(x.as_strided(x.shape, x.transpose(1, 2).stride()))

    groups = find_groups(Strided(), (torch.rand(1, 3, 8, 8),))
    assert not groups.prunable
    assert 'as_strided' in groups.not_pruned['first']


def test_halves_of_a_split_go_in_pairs() -> None:
    _, groups = _prepared(networks.CspDetector)
    group = groups['shallow.split.0']
    assert (group.channels, group.unit) == (24, 2)
    split, *blocks = group.producers
    assert split.of({0, 1}) == [0, 12]
    assert [each.of({0, 1}) for each in blocks] == [[0], [0]]
    assert group.consumers[-1].of({2, 3}) == [1, 13, 25, 37]


def test_layer_that_meets_two_groups_is_in_both() -> None:
    _, groups = _prepared(networks.ResidualOfConcatenation)
    left, right = groups['left'], groups['right.0']
    assert [each.layer for each in left.producers] == ['whole.0', 'left']
    assert left.producers[0].indices == tuple(range(16))
    assert right.producers[0].indices == tuple(range(16, 40))


def test_layer_called_twice_is_coupled_with_both_of_its_inputs() -> None:
    _, groups = _prepared(networks.SharedHead)
    assert [each.layer for each in groups['stem.0'].producers] == ['stem.0', 'down.0']
    assert [each.layer for each in groups['tower.0'].consumers] == ['head']


@pytest.mark.parametrize(
    ('kind', 'reasons'),
    [
        (
            networks.FixedSplit,
            {
                'uneven': 'split into unequal parts',
                'indexed': 'split into unequal parts',
                'even': 'cannot be sliced',
                'viewed': 'cannot be sliced',
                'ones': 'cannot be sliced',
                'head': 'reaches the output',
            },
        ),
        (
            networks.Rigid,
            {
                'scaled.0': 'cannot be sliced: standardised computes something else',
                'standardised': 'is read by computed',
                'computed': 'computed from other tensors',
                'tied': 'shares parameters with same',
                'same': 'shares parameters with tied',
                'borrowed': 'mixed by convolution',
                'head': 'reaches the output',
            },
        ),
        (
            networks.LayerNorm,
            {
                'patch': r'mixed by native_layer_norm in norm \(LayerNorm\)',
                'second': 'native_layer_norm',
                'head': 'reaches the output',
            },
        ),
        (
            networks.Attention,
            {
                'query': 'mixed by bmm',
                'value': 'mixed by bmm',
                'attention.out_proj': r'attention \(MultiheadAttention\) reads',
                'head': 'reaches the output',
            },
        ),
        (
            networks.SqueezeExcitation,
            {'spatial': 'spread over channels', 'head': 'reaches the output'},
        ),
        (
            networks.PaddedShortcut,
            {'outer.0:0': 'meets what stays', 'head': 'reaches the output'},
        ),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_what_cannot_be_pruned_is_kept_with_its_reason(
    kind: type[nn.Module], reasons: dict[str, str]
) -> None:
    _, groups = _prepared(kind)
    assert groups.not_pruned.keys() == reasons.keys()
    for name, why in reasons.items():
        assert re.search(why, groups.not_pruned[name]), groups.not_pruned[name]


class _Dead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8)
        self.unread, self.depthwise = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 3, groups=6)
        self.unused, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        self.depthwise(self.unread(x))
        return self.head(x)


def test_dead_layers_and_channels_that_cannot_part_are_kept_with_their_reasons() -> None:
    groups = find_groups(networks.build(_Dead), networks.INPUT)
    assert groups.prunable == ()
    assert groups.not_pruned == {
        'stem': 'has channels that go all together, by norm, which normalises them together',
        'unread': 'is read by no layer',
        'depthwise': 'is read by no layer',
        'unused': 'is not reached with the example inputs',
        'head': 'reaches the output of the network',
    }


def test_layers_to_keep_are_kept() -> None:
    model = networks.build(networks.Residual)
    groups = find_groups(model, networks.INPUT, ignored_layers=['inner.0'])
    assert groups.not_pruned['inner.0'] == 'asked to keep inner.0'
    assert [group.name for group in groups.prunable] == ['stem.0']
    groups = find_groups(model, networks.INPUT, ignored_layers=['outer.0'])
    assert groups.not_pruned['stem.0'] == groups.not_pruned['outer.0'] == 'asked to keep outer.0'
    with pytest.raises(PruningError, match="'inner' is no convolution"):
        find_groups(model, networks.INPUT, ignored_layers=['inner'])


@pytest.mark.parametrize('kept', [[], [0, 99]])
def test_impossible_channels_are_refused(kept: list[int]) -> None:
    model, _ = _prepared(networks.Residual)
    with pytest.raises(PruningError, match=r"'inner\.0' has the channels 0 to 31"):
        slice_channels(model, networks.INPUT, {'inner.0': kept})


def test_unknown_group_is_refused_with_the_names_of_the_groups() -> None:
    model, _ = _prepared(networks.Residual)
    with pytest.raises(PruningError, match=r"'outer\.0' is no group.*inner\.0, stem\.0"):
        slice_channels(model, networks.INPUT, {'outer.0': [0]})


class _ScaledByWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3)
        self.second = nn.Conv2d(16, 8, 3, bias=False)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.second(x / x.shape[1]))


def test_deviation_of_a_wrong_surgery_is_its_size() -> None:
    model = networks.build(_ScaledByWidth)
    unverified = find_groups(model, networks.INPUT, verify=False)
    assert {group.name for group in unverified.prunable} == {'first', 'second'}
    # Half of the channels: twice what the masked network's second layer gives, so off by 100 %.
    with pytest.raises(PruningError, match='second computes something else then, by 1 of'):
        slice_channels(model, networks.INPUT, {'first': range(8)})
    groups = find_groups(model, networks.INPUT)
    assert [group.name for group in groups.prunable] == ['second']
    assert 'computes something else' in groups.not_pruned['first']


def test_sliced_network_that_cannot_run_is_refused() -> None:
    model, _ = _prepared(networks.FixedSplit)
    with pytest.raises(PruningError, match=r'size of tensor a \(9\) must match'):
        slice_channels(model, networks.INPUT, {'ones': range(9)})


def test_constant_example_inputs_hide_no_error() -> None:
    model, groups = _prepared(networks.Rigid)
    assert find_groups(model, (torch.zeros_like(networks.INPUT[0]),)) == groups


class _Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (nn.Conv2d(n, 3, 1) for n in (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.dropout(self.first(x), training=True)
        return self.head(self.second(x))


def test_random_networks_are_refused_and_the_layer_is_named() -> None:
    model = networks.build(_Random)
    with pytest.raises(PruningError, match=r'two runs .* differ, first in second .* dropout'):
        check_deterministic(model, networks.INPUT)
    with pytest.raises(PruningError, match='two runs'):
        find_groups(model, networks.INPUT)
    with pytest.raises(PruningError, match='two runs'):
        slice_channels(model, networks.INPUT, {'first': [0, 1]})


def test_networks_in_training_mode_are_looked_at_in_evaluation_mode() -> None:
    model = networks.build(networks.MobileNetV2).train()
    state = torch.random.get_rng_state()
    check_deterministic(model, networks.INPUT)
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.training


class _Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_network_that_cannot_run_is_refused_and_the_module_is_named() -> None:
    with pytest.raises(PruningError, match=r'_Broken: .* in second \(Conv2d\): .*channels'):
        find_groups(_Broken(), networks.INPUT)
    with pytest.raises(PruningError, match=r'Residual: .* in Residual: .*missing 1'):
        find_groups(networks.build(networks.Residual), ())


def test_vectors_with_two_names_are_cut_once_and_stay_one() -> None:
    model = networks.build(networks.ChannelParameters)
    model.alias = model.scale
    small = slice_channels(model, networks.INPUT, {'stem': range(7)})
    assert small.alias is small.scale
    assert small.scale.shape == (1, 7, 1, 1)
    assert small.mean.shape == (7,)
    assert torch.equal(small.activation.weight, model.activation.weight[:7])
