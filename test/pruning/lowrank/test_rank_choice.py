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

"""What each method optimises, against known answers and exhaustive search."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import networks
import pytest
import torch
from given_ranks import make_decomposition
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pruned_perception.pruning import BudgetError, ErrorBound, Macs, Params, PruningError
from pruned_perception.pruning.lowrank import get, names

CALIBRATION = [torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in (5, 6)]
CHAIN_INPUT = (torch.zeros(1, 4, 4, 4),)


def _chain(seed: int) -> nn.Sequential:
    """Return three layers, of different shapes and spectra, that all can shrink."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, bias=False), nn.Conv2d(6, 8, 1), nn.Flatten(), nn.Linear(32, 5)
    )
    for layer in (model[0], model[1], model[3]):
        weight = torch.randn(layer.weight.shape, generator=generator).flatten(1)
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        decay = (0.2 + 0.8 * torch.rand(1, generator=generator)) ** torch.arange(len(values))
        layer.weight.data = ((left * values * decay) @ right).reshape(layer.weight.shape)
    return model


@dataclass(frozen=True)
class Possible:
    parameters: int
    macs: int
    spectral: float
    frobenius: float


def _possible(model: nn.Sequential, name: str, groupings: tuple[int, ...]) -> list[Possible]:
    """Return all that one layer of a chain can become, and by how much it saves and errs."""
    layer = model.get_submodule(name).requires_grad_(False)
    found = [Possible(0, 0, 0.0, 0.0)]
    for groups in groupings:
        for rank in itertools.count(1):
            try:
                plan = make_decomposition(model, CHAIN_INPUT, {name: (groups, rank)})
            except PruningError:
                break
            each = plan.layers[name]
            frobenius = math.nan
            if groups == 1:
                first, second = plan.apply(model).get_submodule(name)
                product = second.weight.flatten(1) @ first.weight.flatten(1)
                frobenius = float((layer.weight.flatten(1) - product).square().sum())
            found.append(
                Possible(
                    each.dense_parameters - each.parameters,
                    each.dense_macs - each.macs,
                    each.error,
                    frobenius,
                )
            )
    return found


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.45, 1), st.sampled_from([Params, Macs]))
def test_alds_finds_the_smallest_largest_error_that_an_exhaustive_search_finds(
    seed: int, share: float, unit: type[Params | Macs]
) -> None:
    model = _chain(seed)
    plan = get('alds')(model, CHAIN_INPUT, unit(share))
    every = [
        _possible(model, name, groups)
        for name, groups in (('0', (1, 2, 4)), ('1', (1, 2, 3, 6)), ('3', (1,)))
    ]
    within = [
        max(each.spectral for each in choice)
        for choice in itertools.product(*every)
        if (
            plan.dense_macs - sum(each.macs for each in choice) <= share * plan.dense_macs
            if unit is Macs
            else plan.dense_parameters - sum(each.parameters for each in choice)
            <= share * plan.dense_parameters
        )
    ]
    largest = max((each.error for each in plan.layers.values()), default=0.0)
    assert largest == pytest.approx(min(within), abs=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(-4, 0))
def test_l_rank_minimises_error_plus_lambda_times_cost(seed: int, exponent: float) -> None:
    model, price = _chain(seed), 10**exponent
    every = [_possible(model, name, (1,)) for name in ('0', '1', '3')]

    def objective(choice: tuple[Possible, ...]) -> float:
        return sum(each.frobenius - price * each.parameters for each in choice)

    best = min(itertools.product(*every), key=objective)
    dense = make_decomposition(model, CHAIN_INPUT, {}).dense_parameters
    cost = dense - sum(each.parameters for each in best)
    plan = get('l_rank')(model, CHAIN_INPUT, Params(min(1, (cost + 0.5) / dense)))
    found = tuple(
        possible[plan.layers[name].rank if name in plan.layers else 0]
        for name, possible in zip(('0', '1', '3'), every, strict=True)
    )
    assert objective(found) == pytest.approx(objective(best), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ('method', 'ranks'),
    # Half of 128 weights is four ranks of 16 weights each; a layer of rank 4 would be dense.
    [
        ('svd', (2, 2)),  # a quarter of the rank
        ('svd_energy', (1, 3)),  # lost: 1/2 of the energy and 5/8; (2, 2) would lose 3/4
        ('l_rank', (2, 1)),  # after 8 → 4 of the steep one, 4 → 0 and 7 → 0 are too dear
        ('alds', (3, 1)),  # more ranks of the flat one lower its largest error no more
    ],
)
def test_ranks_of_a_steep_and_a_flat_spectrum(method: str, ranks: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[0].weight.data = torch.tensor([8, 4, 2, 1, 0.5, 0.25, 0.125, 0.125]).sqrt().diag()
    model[1].weight.data = torch.eye(8)
    plan = get(method)(model, (torch.zeros(1, 8),), Params(0.5))
    assert plan.choice == {'0': (1, ranks[0]), '1': (1, ranks[1])}


@pytest.mark.parametrize('method', ['pca', 'svd', 'svd_energy'])
@pytest.mark.parametrize('share', [0.3, 0.6])
def test_no_layer_has_room_for_another_rank(method: str, share: float) -> None:
    model = networks.build(networks.Concatenation)
    plan = get(method)(
        model, networks.INPUT, Params(share), ignored_layers=['head'], calibration=CALIBRATION
    )
    limit = share * plan.dense_parameters
    assert plan.parameters <= limit
    for name, each in plan.layers.items():
        shape = model.get_submodule(name).weight.shape
        step = shape[0] + math.prod(shape[1:])
        price = min(step, each.dense_parameters - each.parameters)
        assert plan.parameters + price > limit, f'{name} had room for another rank'


@pytest.mark.parametrize('method', names())
def test_budget_of_everything_decomposes_nothing(method: str) -> None:
    model = networks.build(networks.Residual)
    plan = get(method)(model, networks.INPUT, Params(1.0), calibration=CALIBRATION)
    assert plan.layers == {}
    assert plan.parameters == plan.dense_parameters


@pytest.mark.parametrize('method', names())
@pytest.mark.parametrize('unit', [Params, Macs])
def test_budget_that_cannot_be_met_says_the_nearest(method: str, unit: type[Params | Macs]) -> None:
    model = networks.build(networks.Residual)

    def plan(share: float) -> object:
        return get(method)(model, networks.INPUT, unit(share), calibration=CALIBRATION)

    with pytest.raises(BudgetError, match='the nearest is') as caught:
        plan(0.02)
    nearest = float(str(caught.value).split('the nearest is ')[1].split()[0])
    assert {each.rank for each in plan(nearest).layers.values()} == {1}
    with pytest.raises(BudgetError, match='the nearest is'):
        plan(nearest - 1e-3)


def test_budget_of_an_error_is_refused() -> None:
    with pytest.raises(BudgetError, match='Macs, Params or Latency'):
        get('svd')(networks.build(networks.Residual), networks.INPUT, ErrorBound(0.1))


def test_layers_to_keep_are_left_alone_by_every_method() -> None:
    model = networks.build(networks.Residual)
    for method in names():
        plan = get(method)(
            model, networks.INPUT, Params(0.6), ignored_layers=['inner.0'], calibration=CALIBRATION
        )
        assert plan.left_alone['inner.0'] == 'asked to keep it'


def test_many_ranks_are_tried_at_even_distances_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300))
    plan = get('alds')(model, (torch.zeros(1, 300),), Params(0.5))
    assert plan.layers['0'].rank % 3 == 1  # ranks below 150 shrink it, at most 64 are tried
    assert 0.48 < plan.parameters / plan.dense_parameters <= 0.5


def _images_of_rank_two() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    basis, mean = torch.randn(2, 8, generator=generator), torch.randn(8, generator=generator)
    return torch.randn(200, 2, generator=generator) @ basis + 3 * mean


def test_pca_reproduces_what_the_data_needs_and_the_weight_would_not_allow() -> None:
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), _images_of_rank_two()
    options = {'ignored_layers': ['2'], 'calibration': x.split(50)}
    budget = Params((2 * (8 + 12) + 12 + 52.5) / (108 + 52))
    by_data = get('pca')(model, (x[:1],), budget, **options)
    by_weight = get('svd')(model, (x[:1],), budget, **options)
    assert by_data.choice == by_weight.choice == {'0': (1, 2)}
    dense = model(x)
    assert (by_data.apply(model)(x) - dense).abs().max() <= 1e-5 * dense.abs().max()
    assert (by_weight.apply(model)(x) - dense).abs().max() > 1e-2 * dense.abs().max()
    assert by_data.calibration is not None
    assert by_data.calibration.images == 200


@pytest.mark.parametrize('bias', [True, False])
@torch.no_grad()
def test_pca_keeps_the_mean_and_loses_the_variance_of_the_smallest_components(bias: bool) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 10, 3, stride=2, padding=1, bias=bias))
    plan = get('pca')(model, networks.INPUT, Params(0.6), calibration=CALIBRATION)
    rank = plan.layers['0'].rank
    x = torch.cat(CALIBRATION)
    dense, small = (
        each(x).double().transpose(0, 1).flatten(1) for each in (model, plan.apply(model))
    )
    assert (dense.mean(1) - small.mean(1)).abs().max() <= 1e-6
    components = torch.linalg.svdvals(dense - dense.mean(1, keepdim=True)).square()
    lost = float((dense - small).square().sum())
    assert 1 <= rank <= 4
    assert lost == pytest.approx(float(components[rank:].sum()), rel=1e-4)
    assert plan.parameters == rank * (27 + 10) + 10  # a bias is added where there was none


def test_pca_counts_the_bias_that_it_adds_to_the_budget() -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 3, bias=False))  # 270 weights, 37 per rank
    plan = get('pca')(model, networks.INPUT, Params(79.5 / 270), calibration=CALIBRATION)
    assert plan.choice == {'0': (1, 1)}  # the weights of rank 2 would fit, but not with 10 biases
    assert plan.parameters == 37 + 10


def test_pca_does_not_depend_on_how_the_calibration_set_is_batched() -> None:
    model = networks.build(networks.Residual)
    one, two = (
        get('pca')(model, networks.INPUT, Params(0.5), calibration=batches)
        for batches in ([torch.cat(CALIBRATION)], iter(CALIBRATION))
    )
    assert one.choice == two.choice
    assert one.calibration == two.calibration
    difference = one.apply(model)(*networks.INPUT) - two.apply(model)(*networks.INPUT)
    assert difference.abs().max() <= 1e-4


def test_pca_asks_for_a_calibration_set_that_fits() -> None:
    model = networks.build(networks.Residual)
    with pytest.raises(PruningError, match='pca: needs a calibration set'):
        get('pca')(model, networks.INPUT, Params(0.5))
    with pytest.raises(PruningError, match='all but the first dimension'):
        get('pca')(model, networks.INPUT, Params(0.5), calibration=[torch.rand(1, 3, 8, 8)])


def test_unknown_method_is_named() -> None:
    with pytest.raises(PruningError, match="unknown low-rank method 'magic'; there are alds, "):
        get('magic')
