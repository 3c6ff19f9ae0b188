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

import json

import networks
import pytest
import torch
from given_ranks import make_decomposition
from torch import Tensor, nn

from pruned_perception.pruning import (
    Macs,
    Params,
    PruningError,
    count,
    find_groups,
    make_plan,
    slice_channels,
)
from pruned_perception.pruning.lowrank import (
    Decomposition,
    get,
    names,
)

INPUT = networks.INPUT
CALIBRATION = [torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))]
KINDS = (networks.Residual, networks.Concatenation, networks.Flatten, networks.Grouped)
CHOICE = {'inner.0': (4, 3), 'outer.0': (1, 5)}


@pytest.fixture
def residual() -> nn.Module:
    return networks.build(networks.Residual)


@pytest.mark.parametrize('method', names())
@pytest.mark.parametrize('budget', [Params(0.8), Macs(0.8)], ids=str)
@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_every_method_meets_the_budget_by_the_real_cost(
    kind: type[nn.Module], budget: Macs | Params, method: str
) -> None:
    model = networks.build(kind)
    plan = get(method)(model, INPUT, budget, calibration=CALIBRATION)
    small = plan.apply(model)
    before, after = count(model, INPUT), count(small, INPUT)
    assert (after.parameters, after.macs) == (plan.parameters, plan.macs)
    assert (before.parameters, before.macs) == (plan.dense_parameters, plan.dense_macs)
    part, whole = (
        (after.macs, before.macs)
        if isinstance(budget, Macs)
        else (after.parameters, before.parameters)
    )
    assert part <= budget.share * whole
    assert plan.layers
    for each in plan.layers.values():
        assert each.parameters < each.dense_parameters
        assert each.macs < each.dense_macs
    assert small(*INPUT).shape == model(*INPUT).shape


def test_costs_of_a_known_layer() -> None:
    model = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(192, 9))
    plan = make_decomposition(model, (torch.rand(2, 8, 8, 8),), {'0': (2, 3), '2': (1, 4)})
    conv, linear = plan.layers['0'], plan.layers['2']
    # j (c κ + k f) = 3 (8·9 + 2·12) = 288 in the place of 864, at 4·4 positions; bias 12
    assert (conv.dense_parameters, conv.parameters) == (864 + 12, 288 + 12)
    assert (conv.dense_macs, conv.macs) == (864 * 16, 288 * 16)
    assert (linear.parameters, linear.macs) == (4 * (192 + 9) + 9, 4 * (192 + 9))


def test_original_is_untouched_and_the_copy_has_its_modes(residual: nn.Module) -> None:
    residual.train()
    residual.get_submodule('stem.1').eval()
    residual.get_submodule('inner.0').requires_grad_(False)
    before = {name: value.clone() for name, value in residual.state_dict().items()}
    modes = {name: each.training for name, each in residual.named_modules()}
    small = make_decomposition(residual, INPUT, CHOICE).apply(residual)
    after = residual.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert modes == {name: each.training for name, each in residual.named_modules()}
    assert modes.items() <= {name: each.training for name, each in small.named_modules()}.items()
    frozen = {name for name, each in small.named_parameters() if not each.requires_grad}
    assert frozen == {'inner.0.0.weight', 'inner.0.1.weight', 'inner.0.1.bias'}


def test_factors_stand_in_the_place_of_the_layer(residual: nn.Module) -> None:
    small = make_decomposition(residual, INPUT, CHOICE).apply(residual)
    first, second = small.get_submodule('inner.0.0'), small.get_submodule('inner.0.1')
    assert (first.groups, first.out_channels, first.padding, first.bias) == (4, 12, (1, 1), None)
    assert (second.in_channels, second.kernel_size) == (12, (1, 1))


class Odd(nn.Module):
    """Layers that must be left alone, one that is run twice, and one with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(16, 16)
        self.alias = self.twice
        self.first, self.tied = nn.Linear(16, 16), nn.Linear(16, 16)
        self.tied.weight = self.first.weight
        self.hooked, self.idle = nn.Linear(16, 16), nn.Linear(16, 16)
        self.hooked.register_forward_hook(lambda *_: None)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tied(self.first(self.alias(self.twice(x))))
        return self.attention(self.hooked(x), x, x)[0]


def test_layers_left_alone_are_named_with_the_reason() -> None:
    model, x = Odd().eval(), (torch.rand(2, 3, 16),)
    plan = get('svd')(model, x, Params(0.95))
    assert plan.left_alone == {
        'first': 'shares its weight with tied',
        'tied': 'shares its weight with first',
        'hooked': 'has forward hooks, which would be lost',
        'idle': 'is not run by the example inputs',
        'attention.out_proj': 'is of type NonDynamicallyQuantizableLinear, not Conv2d or Linear',
    }
    assert list(plan.layers) == ['twice']
    # run twice for each of 3 positions: 6 · j (c + f)
    assert plan.layers['twice'].macs == 6 * plan.layers['twice'].rank * 32
    small = plan.apply(model)
    assert small.alias is small.twice
    assert isinstance(small.twice, nn.Sequential)


@pytest.mark.parametrize(
    ('kind', 'layer', 'reason'),
    [
        (networks.Grouped, 'grouped.0', 'is a grouped convolution (4 groups)'),
        (networks.Depthwise, 'depthwise.0', 'is a grouped convolution (32 groups)'),
        (networks.Transposed, 'up', 'is of type ConvTranspose2d, not Conv2d or Linear'),
        (networks.Flatten, 'head', 'dense by choice'),
        (networks.Residual, 'inner.0', 'asked to keep it'),
    ],
)
def test_reasons_of_convolutions(kind: type[nn.Module], layer: str, reason: str) -> None:
    keep = ['inner.0'] if kind is networks.Residual else []
    plan = make_decomposition(networks.build(kind), INPUT, {'stem.0': (1, 2)}, ignored_layers=keep)
    assert plan.left_alone[layer] == reason


def test_layer_that_no_rank_makes_smaller_is_left_alone() -> None:
    plan = make_decomposition(nn.Sequential(nn.Linear(64, 1)), (torch.rand(1, 64),), {})
    assert plan.left_alone == {'0': 'no smaller even at rank 1'}


@pytest.mark.parametrize('method', ['alds', 'pca'])
def test_plan_survives_json(residual: nn.Module, method: str) -> None:
    plan = get(method)(residual, INPUT, Params(0.5), calibration=CALIBRATION)
    again = Decomposition.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    first, second = plan.apply(residual), again.apply(residual)
    assert torch.equal(first(*INPUT), second(*INPUT))
    assert bool(plan.projections) == (method == 'pca')


def test_table_names_layers_ranks_and_what_the_error_is_relative_to(residual: nn.Module) -> None:
    plan = make_decomposition(residual, INPUT, CHOICE, ignored_layers=['head'])
    text = plan.to_text()
    assert 'not comparable with channel pruning' in text
    for name, (groups, rank) in CHOICE.items():
        row = next(line for line in text.splitlines() if line.startswith(name))
        assert row.split()[1:3] == [str(groups), str(rank)]
        assert f'{plan.layers[name].error:.4f}' in row
    assert any(
        line.startswith('head ') and line.endswith(' left alone: asked to keep it')
        for line in text.splitlines()
    )


@pytest.mark.parametrize('data', [{}, {'layers': 3}, {'layers': {'x': {}}}, {'method': 'svd'}])
def test_data_that_is_no_plan_is_refused(data: dict) -> None:
    with pytest.raises(PruningError, match=r'field Decomposition\.(\w+ is missing|layers)'):
        Decomposition.from_dict(data)


def test_unknown_layer_to_keep_and_infinite_weights_are_named(residual: nn.Module) -> None:
    with pytest.raises(PruningError, match="'inner' is no convolution"):
        make_decomposition(residual, INPUT, {}, ignored_layers=['inner'])
    residual.get_submodule('inner.0').weight.data[0, 0, 0, 0] = float('inf')
    with pytest.raises(PruningError, match=r'inner\.0: the weight has values that are NaN'):
        make_decomposition(residual, INPUT, {})


def test_plan_for_another_network_is_refused(residual: nn.Module) -> None:
    plan = make_decomposition(residual, INPUT, CHOICE)
    with pytest.raises(PruningError, match=r"'inner\.0' is no layer"):
        plan.apply(networks.build(networks.Flatten))
    with pytest.raises(PruningError, match=r"'inner\.0' is a grouped convolution|is no layer"):
        plan.apply(plan.apply(residual))
    residual.inner[0] = nn.Conv2d(32, 32, 5, padding=2)
    with pytest.raises(PruningError, match=r"'inner\.0' has another shape"):
        plan.apply(residual)


class ReadsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.layer.weight.norm()


def test_network_whose_forward_reads_the_layer_is_refused() -> None:
    model, x = ReadsWeight(), (torch.rand(1, 16),)
    plan = make_decomposition(model, x, {'layer': (1, 2)})
    with pytest.raises(PruningError, match='`ignored_layers`'):
        plan.apply(model)


def test_channels_then_ranks_compose(residual: nn.Module) -> None:
    dense = count(residual, INPUT)
    small = make_plan(residual, INPUT, budget=Macs(0.5), round_to=8).apply(residual)
    pruned = count(small, INPUT)
    plan = get('alds')(small, INPUT, Macs(0.5))
    both = count(plan.apply(small), INPUT)
    assert plan.dense_macs == pruned.macs <= 0.5 * dense.macs
    assert both.macs == plan.macs <= 0.25 * dense.macs
    assert both.parameters == plan.parameters < pruned.parameters


def test_ranks_of_one_group_are_channels_for_later_pruning(residual: nn.Module) -> None:
    small = make_decomposition(residual, INPUT, {'inner.0': (1, 8)}).apply(residual)
    groups = find_groups(small, INPUT)
    ranks = groups['inner.0.0']
    assert ranks.channels == 8
    assert [each.layer for each in ranks.consumers] == ['inner.0.1']
    smaller = slice_channels(small, INPUT, {'inner.0.0': [0, 1, 2]})
    assert smaller.get_submodule('inner.0.1').in_channels == 3
