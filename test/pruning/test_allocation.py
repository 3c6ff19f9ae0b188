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

"""How a budget is divided: rules, engines, and what cannot be met."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import networks
import pytest
import torch
import trained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruned_perception.pruning import (
    BudgetError,
    ErrorBound,
    Macs,
    Params,
    Plan,
    PruningError,
    Scores,
    Sensitivity,
    Structure,
    allocate,
    allocation,
    make_plan,
    trace,
)
from pruned_perception.pruning.allocation import RULES, blocks_for, least_maximum, least_sum
from pruned_perception.pruning.bounds import draws_for_distinct
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.selection import error_of


@functools.cache
def structure_of(kind: type) -> Structure:
    return trace(networks.build(kind), networks.INPUT)


def scored(structure: Structure, *, errors: bool = False, seed: int = 0) -> Scores:
    """Return random scores, with errors that fall like their tail sums if asked."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.rand(count, generator=generator, dtype=torch.float64)
        for name, count in structure.channels.items()
    }
    tails = {name: torch.tensor(tail(each)).double() for name, each in values.items()}
    return Scores('mine', structure, values, tails if errors else None)


def measured(structure: Structure, values: dict[str, Tensor]) -> Sensitivity:
    """Return the trained network's sensitivity with other values."""
    consumers = tuple(
        dataclasses.replace(each, values=tuple(values[each.group].tolist()))
        for each in trained.sensitivity('absolute').consumers
    )
    return dataclasses.replace(
        trained.sensitivity('absolute'), structure=structure, consumers=consumers
    )


def tail(values: Tensor) -> list[float]:
    return [
        float(values.sort().values[: len(values) - kept].sum()) for kept in range(len(values) + 1)
    ]


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('budget', [Macs(0.9), Macs(0.3), Params(0.5)], ids=str)
def test_budgets_are_met_in_blocks_with_no_room_left(rule: str, budget: Budget) -> None:
    evidence = (
        trained.sensitivity('absolute')
        if RULES[rule].needs == 'sensitivities'
        else scored(trained.structure(), errors=True)
    )
    plan = allocate(evidence, budget, rule=rule, round_to=4)
    structure = trained.structure()
    cost = 0 if isinstance(budget, Macs) else 1
    allowed = budget.share * (structure.macs, structure.parameters)[cost]  # type: ignore[union-attr]
    assert (plan.macs, plan.parameters)[cost] <= allowed
    for name, width in plan.widths.items():
        assert width >= 4
        assert width % 4 == 0
        if width < plan.channels[name]:
            bigger = structure.exact_size({**plan.widths, name: width + 4})
            assert bigger[cost] > allowed, f'{name} had room for another block'


@pytest.mark.parametrize('kind', [networks.GroupNorm, networks.ChannelShuffle])
def test_channels_that_go_together_are_kept_in_whole_runs(kind: type) -> None:
    structure = structure_of(kind)
    for rule in ('uniform', 'retained_share', 'global_ranking', 'least_error'):
        plan = allocate(scored(structure, errors=True), Macs(0.6), rule=rule, round_to=3)
        for group in structure.groups.prunable:
            kept = plan.kept[group.name]
            runs = {index // group.unit for index in kept}
            assert len(kept) == len(runs) * group.unit
            assert len(kept) % math.lcm(3, group.unit) == 0 or len(kept) == group.channels


def test_runs_are_ranked_and_bounded_by_their_sums() -> None:
    structure = structure_of(networks.GroupNorm)
    # Of stem's runs of 4 channels, the third has the greatest sum, the first the greatest channel.
    stem = torch.full((32,), 0.01).double()
    stem[0], stem[8:12] = 0.3, 0.1
    values = {'stem': stem, 'second': torch.ones(24).double()}
    plan = allocate(Scores('mine', structure, values), widths={'stem': 4, 'second': 24})
    assert plan.kept['stem'] == (8, 9, 10, 11)
    with pytest.raises(PruningError, match='go in runs of 4, 6 cannot be kept'):
        allocate(Scores('mine', structure, values), widths={'stem': 6})


def test_uniform_keeps_the_same_share_of_every_group() -> None:
    plan = allocate(scored(trained.structure()), Macs(0.5), rule='uniform')
    shares = {name: width / plan.channels[name] for name, width in plan.widths.items()}
    assert max(shares.values()) - min(shares.values()) <= 1 / 16 + 1e-9


def test_proportional_keeps_in_proportion_to_the_sums() -> None:
    values = {'first': torch.full((16,), 0.1), 'second': torch.full((32,), 0.1)}
    values['third'] = torch.full((32,), 0.05)  # sums 1.6, 3.2, 1.6
    plan = allocate(measured(trained.structure(), values), Macs(0.3), rule='proportional')
    first, second, third = plan.widths.values()
    assert abs(first - third) <= 1
    assert abs(second - 2 * first) <= 2


def draws_per_sum(values: Tensor) -> list[float]:
    """Return S / m at each width, where U(m) is that width."""
    total = float(values.sum())
    draws = [draws_for_distinct(values / total, kept) for kept in range(1, len(values) + 1)]
    return [math.inf, *(total / m for m in draws)]


@pytest.mark.parametrize(
    ('rule', 'definition', 'curve'),
    [('equal_error', 'quadrants', draws_per_sum), ('equal_sum', 'summed', tail)],
)
def test_rules_of_bounds_make_the_largest_as_small_as_the_budget_allows(
    rule: str, definition: str, curve: Callable[[Tensor], list[float]]
) -> None:
    values = trained.sensitivity(definition).values
    plan = allocate(trained.sensitivity(definition), Macs(0.5), rule=rule)
    curves = {name: curve(each) for name, each in values.items()}
    errors = {name: curves[name][width] for name, width in plan.widths.items()}
    largest = max(errors.values())
    # The least widths of which all have a smaller one.
    better = {
        name: next(kept for kept, error in enumerate(each) if error < largest)
        for name, each in curves.items()
    }
    assert trained.structure().exact_size(better)[0] > 0.5 * plan.dense_macs
    assert max(errors.values()) <= 2 * sorted(errors.values())[1], 'hardly the same'
    if rule == 'equal_sum':
        assert plan.errors == pytest.approx(errors)


def test_global_ranking_is_one_threshold() -> None:
    evidence = scored(trained.structure())
    plan = allocate(evidence, Macs(0.5), rule='global_ranking')
    kept = [evidence.values[name][list(each)] for name, each in plan.kept.items()]
    threshold = min(float(each.min()) for each in kept)
    # What is above it is kept, as far as the budget goes: one group fills what is left.
    lost = {
        name: [
            float(score)
            for index, score in enumerate(evidence.values[name])
            if index not in plan.kept[name] and score > threshold
        ]
        for name in plan.kept
    }
    assert sum(map(bool, lost.values())) <= len(lost) - 1
    assert sum(map(len, lost.values())) <= 4


def test_least_error_prunes_where_nothing_is_lost() -> None:
    structure = trained.structure()
    errors = {name: torch.linspace(1, 0, count + 1) for name, count in structure.channels.items()}
    errors['second'] = torch.zeros(33)
    evidence = dataclasses.replace(scored(structure), errors=errors)
    plan = allocate(evidence, Macs(0.5), rule='least_error')
    assert plan.widths['first'] == 16
    assert plan.widths['third'] == 32
    assert plan.widths['second'] < 32


class Coarse(torch.nn.Sequential):
    """Grouped convolutions, whose channels go in runs of a sixth of the network or so."""

    def __init__(self) -> None:
        first, second = torch.nn.Conv2d(3, 24, 1), torch.nn.Conv2d(40, 30, 1)
        layers = [torch.nn.Conv2d(24, 24, 3, groups=4), torch.nn.Conv2d(24, 40, 1)]
        layers += [
            torch.nn.Conv2d(40, 40, 3, groups=5),
            second,
            torch.nn.Conv2d(30, 30, 3, groups=3),
        ]
        super().__init__(first, *layers, torch.nn.Conv2d(30, 7, 1))


def macs_of(structure: Structure) -> Callable[..., float]:
    return lambda widths: structure.size(widths).macs


def test_where_blocks_are_coarse_some_are_exchanged() -> None:
    structure = trace(Coarse(), (torch.zeros(1, 3, 12, 12),))
    blocks = blocks_for(structure, 1)
    assert sorted(blocks.values()) == [6, 8, 10]
    exchanged = 0
    for seed, share in itertools.product(range(6), (0.55, 0.7, 0.85)):
        evidence = scored(structure, errors=True, seed=seed)
        curves = {name: errors.tolist() for name, errors in (evidence.errors or {}).items()}
        budget = share * structure.macs
        found = least_sum(curves, macs_of(structure), budget, blocks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(allocation, '_UNSPENT', 1.0)  # without
            plain = least_sum(curves, macs_of(structure), budget, blocks)
        sizes = [macs_of(structure)(each) for each in (plain, found)]
        errors = [sum(curves[name][kept] for name, kept in each.items()) for each in (plain, found)]
        assert sizes[0] <= sizes[1] <= budget
        assert errors[1] <= errors[0] * (1 + allocation._WORSE) + 1e-9
        exchanged += found != plain
    assert exchanged >= 3


def test_a_plan_says_how_much_of_the_budget_no_block_can_spend() -> None:
    model, example = Coarse(), (torch.zeros(1, 3, 12, 12),)
    coarse = make_plan(model, example, budget=Macs(0.5), criterion='filter_l2', round_to=1)
    left = 0.5 - coarse.macs / coarse.dense_macs
    assert left > 0.005
    assert f'{left:.1%} less than the budget of 0.5 of the MACs: no block' in coarse.to_text()
    assert Plan.from_dict(coarse.to_dict()).unspent == pytest.approx(left)
    fine = make_plan(
        networks.build(networks.MobileNetV2), networks.INPUT, budget=Macs(0.5), round_to=1
    )
    assert 'less than the budget' not in fine.to_text()


@pytest.mark.parametrize('calibration', [None, [torch.rand(4, 3, 8, 8)]])
def test_a_network_of_which_nothing_can_be_cut_is_refused_with_the_reasons(
    calibration: list[Tensor] | None,
) -> None:
    class Normalised(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.second(x / x.square().mean(1, keepdim=True).sqrt())

    with pytest.raises(PruningError, match=r'nothing in it can be pruned .first: .*mean'):
        make_plan(
            Normalised(), (torch.rand(1, 3, 8, 8),), budget=Macs(0.5), calibration=calibration
        )


@pytest.mark.parametrize('definition', ['absolute', 'quadrants'])
def test_confidence_and_assumption_only_scale_the_bound(definition: str) -> None:
    sensitivity = trained.sensitivity(definition)
    plans = [
        allocate(sensitivity, Macs(0.5), rule='equal_error', selection='random', delta=delta, K=K)
        for delta, K in ((0.1, 1.0), (1e-3, 1.0), (0.1, 3.0), (1e-3, 0.5))
    ]
    assert all(plan.kept == plans[0].kept for plan in plans)
    assert all(plan.factors == plans[0].factors for plan in plans)
    errors = [plan.errors['second'] for plan in plans]
    assert len(set(errors)) == 4
    assert errors[0] < errors[2]


@pytest.mark.parametrize('rule', RULES)
def test_any_score_goes_under_any_allocation(rule: str) -> None:
    evidence: Scores | Sensitivity = trained.sensitivity('summed')
    if RULES[rule].needs == 'errors':
        evidence = scored(trained.structure(), errors=True)
    own = allocate(evidence, Macs(0.5), rule=rule)
    other = scored(trained.structure(), seed=7)
    mixed = allocate(evidence, Macs(0.5), rule=rule, scores=other)
    assert mixed.widths == own.widths
    assert mixed.criterion == 'mine'
    for name, width in mixed.widths.items():
        best = other.values[name].topk(width).indices.tolist()
        assert mixed.kept[name] == tuple(sorted(best))


def test_what_other_scores_prune_is_bounded_by_the_sensitivities_that_divided_the_budget() -> None:
    evidence = trained.sensitivity('summed')
    plan = allocate(evidence, Macs(0.5), scores=scored(trained.structure(), seed=7))
    own = allocate(evidence, Macs(0.5))
    for name, values in evidence.values.items():
        gone = [each for each in range(len(values)) if each not in plan.kept[name]]
        assert plan.errors[name] == pytest.approx(float(values[gone].sum()))
        assert plan.errors[name] >= own.errors[name], 'the highest sensitivities bound it best'
    assert plan.sums == own.sums
    assert plan.calibration == evidence.calibration


def test_scores_of_another_network_are_refused() -> None:
    with pytest.raises(PruningError, match='another network'):
        allocate(
            scored(trained.structure()), Macs(0.5), scores=scored(structure_of(networks.Residual))
        )


def test_errors_that_do_not_matter_leave_the_budget_to_others() -> None:
    values = {name: torch.zeros(c) for name, c in trained.structure().channels.items()}
    values['third'] = torch.full((32,), 0.2)
    plan = allocate(measured(trained.structure(), values), Macs(0.9), rule='equal_error')
    assert plan.widths['third'] == 32


@pytest.mark.parametrize('selection', ['deterministic', 'random', 'mixed'])
@pytest.mark.parametrize('epsilon', [0.5, 2.0, 8.0])
def test_error_budgets_give_the_smallest_widths_that_meet_them(
    selection: str, epsilon: float
) -> None:
    sensitivity = trained.sensitivity('absolute')
    plan = allocate(sensitivity, ErrorBound(epsilon), selection=selection, delta=0.1)
    assert plan.budget == f'a relative error of {epsilon:g}'
    assert all(error <= epsilon for error in plan.errors.values())
    error = error_of(selection, sensitivity.claim(0.1, 1.0))
    curve = [error(sensitivity.values['first'], kept) for kept in range(1, 17)]
    assert plan.errors['first'] == next(each for each in curve if each <= epsilon)
    if selection == 'deterministic':
        assert plan.widths['first'] == 1 + sum(each > epsilon for each in curve)


def test_errors_side_by_side_add_up_to_the_budget() -> None:
    model = networks.build(networks.Concatenation)
    images = [torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))]
    plan = make_plan(
        model,
        networks.INPUT,
        budget=ErrorBound(0.4),
        criterion='summed',
        round_to=1,
        calibration=images,
    )
    assert plan.errors['left.0'] + plan.errors['right.0'] <= 0.4
    assert max(plan.errors['left.0'], plan.errors['right.0']) <= 0.2
    assert 0.2 < plan.errors['stem.0'] <= 0.4


def test_an_error_leaves_nothing_to_divide() -> None:
    with pytest.raises(PruningError, match="allocation 'uniform': an error as budget takes none"):
        allocate(trained.sensitivity('summed'), ErrorBound(0.5), rule='uniform')
    with pytest.raises(PruningError, match='an error as budget needs sensitivities'):
        allocate(scored(trained.structure()), ErrorBound(0.5))


def test_budget_of_everything_keeps_everything() -> None:
    plan = allocate(scored(trained.structure()), Macs(1.0))
    assert plan.widths == plan.channels


@pytest.mark.parametrize('kind', [Macs, Params])
@pytest.mark.parametrize('block', [1, 5, 16])
def test_budget_below_one_block_each_says_the_nearest(kind: type, block: int) -> None:
    evidence = scored(trained.structure())
    with pytest.raises(BudgetError, match='the nearest is') as caught:
        allocate(evidence, kind(1e-3), round_to=block)
    nearest = float(str(caught.value).split('the nearest is ')[1].split()[0])
    plan = allocate(evidence, kind(nearest), round_to=block)
    assert set(plan.widths.values()) == {block}
    with pytest.raises(BudgetError):
        allocate(evidence, kind(nearest - 2e-4), round_to=block)


def test_blocks_as_wide_as_the_network_allow_only_all_of_it() -> None:
    with pytest.raises(BudgetError, match='the nearest is 1 '):
        allocate(scored(trained.structure()), Macs(0.9), round_to=64)


def test_layers_to_keep_are_kept_with_all_that_is_added_to_them() -> None:
    structure = structure_of(networks.Residual)
    plan = allocate(scored(structure), Macs(0.7), ignored_layers=['outer'])
    assert list(plan.kept) == ['inner.0'], 'stem is added to outer'
    assert plan.not_pruned['stem.0'] == 'asked to keep outer'
    small = plan.apply(networks.build(networks.Residual))
    assert small.get_submodule('outer.0').out_channels == 32
    with pytest.raises(PruningError, match="ignored_layers: 'nowhere' is no convolution"):
        allocate(scored(structure), Macs(0.7), ignored_layers=['nowhere'])


def test_a_prefix_keeps_whole_layers_names_only() -> None:
    with pytest.raises(PruningError, match="'oute'"):
        allocate(scored(structure_of(networks.Residual)), Macs(0.7), ignored_layers=['oute'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'budget': Macs(0.5), 'round_to': 0}, 'round_to: must be at least 1'),
        ({'budget': Macs(0.5), 'rule': 'magic'}, "unknown allocation 'magic'; there are uniform"),
        ({'budget': Macs(0.5), 'rule': 'equal_error'}, "'mine' scores have none"),
        ({'budget': Macs(0.5), 'rule': 'least_error'}, 'scores that come with errors'),
        ({'budget': Macs(0.5), 'selection': 'magic'}, "unknown selection 'magic'"),
        ({'budget': Macs(0.5), 'selection': 'random'}, 'draws from sensitivities'),
        ({'widths': {'nowhere': 3}}, "'nowhere' is no group"),
        ({'widths': {'first': 17}}, '17 cannot be kept'),
        ({'widths': {'first': 0}}, '0 cannot be kept'),
        ({}, 'either a budget or widths'),
        ({'budget': Macs(0.5), 'widths': {'first': 3}}, 'either a budget or widths'),
    ],
)
def test_bad_wishes_are_named(options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        allocate(scored(trained.structure()), **options)


@pytest.mark.parametrize('wrong', [0, -1, 1.01, math.nan])
def test_impossible_budgets_are_refused(wrong: float) -> None:
    for kind in (Macs, Params):
        with pytest.raises(BudgetError, match=f'got {wrong}'):
            kind(wrong)


@pytest.mark.parametrize('wrong', [0, -1, math.inf, math.nan])
def test_impossible_errors_are_refused(wrong: float) -> None:
    with pytest.raises(BudgetError, match=f'got {wrong}'):
        ErrorBound(wrong)


def test_draws_cannot_be_rounded() -> None:
    with pytest.raises(PruningError, match='cannot be rounded to 8'):
        allocate(trained.sensitivity('absolute'), Macs(0.5), selection='random', round_to=8)


def test_random_scores_on_the_same_allocation_differ_only_in_the_channels() -> None:
    model = networks.build(networks.Residual)
    norm = make_plan(model, networks.INPUT, budget=Macs(0.4), criterion='filter_l2')
    random = make_plan(model, networks.INPUT, widths=norm.widths, criterion='random', seed=3)
    again = make_plan(model, networks.INPUT, widths=norm.widths, criterion='random', seed=3)
    assert random.widths == norm.widths
    assert random.macs == norm.macs
    assert random.kept != norm.kept
    assert random.kept == again.kept


def test_rules_that_need_sensitivities_measure_the_absolute_one_by_default() -> None:
    model = trained.network()
    options = {'budget': Macs(0.5), 'round_to': 1, 'calibration': trained.batches(24, 3)}
    norms: Plan = make_plan(
        model, trained.EXAMPLE, criterion='filter_l2', allocation='equal_error', **options
    )
    wanted = make_plan(
        model, trained.EXAMPLE, criterion='absolute', allocation='equal_error', **options
    )
    assert norms.widths == wanted.widths
    assert norms.criterion == 'filter_l2'
    assert norms.kept != wanted.kept


# Curves of errors that fall, and prices of one more channel, of two or three groups.
GROUPS = st.lists(
    st.tuples(
        st.lists(st.floats(0, 10), min_size=2, max_size=6).map(lambda e: sorted(e, reverse=True)),
        st.integers(1, 5),
    ),
    min_size=2,
    max_size=3,
)


def _options(groups: list, budget: float) -> tuple[dict, dict, list[dict[str, int]]]:
    """Return curves, prices and all widths within the budget."""
    curves = {str(index): [*errors, 0.0] for index, (errors, _) in enumerate(groups)}
    prices = {str(index): price for index, (_, price) in enumerate(groups)}
    widths = [
        dict(zip(curves, each, strict=True))
        for each in itertools.product(*(range(1, len(curve)) for curve in curves.values()))
    ]
    within = [each for each in widths if sum(prices[n] * k for n, k in each.items()) <= budget]
    return curves, prices, within


@settings(max_examples=100)
@given(GROUPS, st.integers(3, 40))
def test_least_maximum_is_the_least_of_all_widths_within_the_budget(
    groups: list, budget: int
) -> None:
    curves, prices, within = _options(groups, budget)
    if not within:
        return
    blocks = dict.fromkeys(curves, 1)
    found = least_maximum(
        curves, lambda widths: sum(prices[n] * k for n, k in widths.items()), budget, blocks
    )
    assert found in within
    worst = max(curves[name][width] for name, width in found.items())
    assert worst == min(max(curves[n][k] for n, k in each.items()) for each in within)


@settings(max_examples=100)
@given(GROUPS, st.integers(3, 15))
def test_least_sum_is_the_least_of_all_for_convex_curves_and_equal_prices(
    groups: list, budget: int
) -> None:
    convex = [(list(itertools.accumulate(sorted(errors)))[::-1], 1) for errors, _ in groups]
    curves, _, within = _options(convex, budget)
    if not within:
        return
    blocks = dict.fromkeys(curves, 1)
    found = least_sum(curves, lambda widths: sum(widths.values()), budget, blocks)
    assert found in within
    total = sum(curves[name][width] for name, width in found.items())
    least = min(sum(curves[n][k] for n, k in each.items()) for each in within)
    assert total == pytest.approx(least)


def test_least_sum_sees_a_flat_place_behind_a_steep_one() -> None:
    # Losing one channel of a costs 5, the other two nothing more; b loses 2 with each.
    curves = {'a': [5.0, 5.0, 5.0, 5.0, 0.0], 'b': [8.0, 6.0, 4.0, 2.0, 0.0]}
    blocks = {'a': 1, 'b': 1}
    found = least_sum(curves, lambda widths: sum(widths.values()), 5, blocks)
    assert found == {'a': 1, 'b': 4}


def test_blocks_fit_their_group_where_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, '_LARGEST_BLOCK', 1.0)  # whatever they cost
    structure = structure_of(networks.Residual)
    wide = dataclasses.replace(
        structure,
        groups=dataclasses.replace(
            structure.groups,
            prunable=tuple(
                dataclasses.replace(group, channels=channels, unit=unit)
                for group, channels, unit in zip(
                    structure.groups.prunable, (48, 300, 4096), (1, 1, 3), strict=False
                )
            ),
        ),
    )
    assert list(blocks_for(wide, None).values()) == [1, 4, 48][: len(wide.groups.prunable)]
    assert set(blocks_for(structure, 8).values()) == {8}
    with pytest.raises(PruningError, match='at least 1 channel, got 0'):
        blocks_for(structure, 0)


def test_blocks_of_a_network_of_few_groups_are_a_small_part_of_it() -> None:
    layers = [torch.nn.Conv2d(3, 256, 3), torch.nn.Conv2d(256, 8, 3)]
    structure = trace(torch.nn.Sequential(*layers), (torch.zeros(1, 3, 8, 8),))
    assert blocks_for(structure, None) == {'0': 1}  # 4 would be 1.6 % of all
    assert blocks_for(structure, 16) == {'0': 16}
