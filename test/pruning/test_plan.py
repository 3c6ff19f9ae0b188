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

"""A network costs what its plan says, and what is drawn stays right on average."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import networks
import pytest
import torch
import trained
from torch import Tensor, nn

from pruned_perception.pruning import (
    ErrorBound,
    Macs,
    Plan,
    PruningError,
    Sensitivity,
    allocate,
    count,
    estimate_sensitivity,
    make_plan,
    predict,
)
from pruned_perception.pruning import selection as select
from pruned_perception.pruning.bounds import relative_error
from pruned_perception.pruning.measurement import measure_errors
from pruned_perception.pruning.plan import bound_text, composed, scale_inputs
from pruned_perception.pruning.presets import PRESETS
from pruned_perception.pruning.selection import SELECTIONS

IMAGES = [torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))]


@functools.cache
def measured(kind: type[nn.Module]) -> tuple[nn.Module, Sensitivity]:
    model = networks.build(kind)
    return model, estimate_sensitivity(model, IMAGES, example_inputs=networks.INPUT)


@pytest.mark.parametrize('kind', networks.ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize('selection', SELECTIONS)
def test_plans_cost_what_they_say(kind: type[nn.Module], selection: str) -> None:
    model, sensitivity = measured(kind)
    # Most of what attention multiplies belongs to no channel that can go.
    share = 0.8 if kind is networks.Attention else 0.6
    plan = allocate(sensitivity, Macs(share), selection=selection, seed=3, delta=0.1)
    small = plan.apply(model)
    real = count(small, networks.INPUT)
    assert (real.macs, real.parameters) == (plan.macs, plan.parameters)
    if selection == 'deterministic':
        assert plan.macs <= share * plan.dense_macs
    assert plan.macs < plan.dense_macs
    lost = {name: plan.channels[name] - width for name, width in plan.widths.items()}
    assert any(lost.values())
    before, after = (_outputs(each) for each in (model, small))
    for group in sensitivity.structure.groups.prunable:
        for producer in group.producers:
            whole = len(producer.indices) == before[producer.layer]
            gone = lost[group.name] * len(producer.indices) / group.channels
            fewer = before[producer.layer] - after[producer.layer]
            assert fewer == gone if whole else fewer >= gone
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    for name, kept in plan.kept.items():
        assert f'\n{name}' in plan.to_text()
        assert len(plan.factors.get(name, kept)) == len(kept)


def _outputs(model: nn.Module) -> dict[str, int]:
    return {
        name: getattr(each, 'out_channels', None) or getattr(each, 'out_features', 0)
        for name, each in model.named_modules()
    }


class Linear(nn.Module):
    """A network without activations: what is right on average in it is so at its output."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.reader = nn.Conv2d(3, 12, 3), nn.ConvTranspose2d(12, 4, 2)
        self.head = nn.Linear(4 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reader(self.source(x)).flatten(1))


@pytest.mark.parametrize('selection', ['random', 'mixed'])
def test_drawn_networks_are_right_on_average(selection: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Linear().eval().requires_grad_(False)
    x = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    sensitivity = estimate_sensitivity(model, [x], example_inputs=(x,), positions=None)
    widths = {'source': 6, 'reader': 2}
    wanted, scaled, bare = model(x[:3]), [], []
    for seed in range(70):
        plan = allocate(sensitivity, widths=widths, selection=selection, seed=seed, delta=0.5)
        factors = {
            name: dict.fromkeys(range(count), 0.0)
            | dict(zip(plan.kept[name], plan.factors[name], strict=True))
            for name, count in plan.channels.items()
        }
        ones = {
            name: {channel: float(factor > 0) for channel, factor in each.items()}
            for name, each in factors.items()
        }
        groups = sensitivity.structure.groups
        scaled.append(scale_inputs(model, groups, factors)(x[:3]))
        bare.append(scale_inputs(model, groups, ones)(x[:3]))
        if seed < 5:  # zeros read what slicing leaves out
            assert torch.allclose(plan.apply(model)(x[:3]), scaled[-1], atol=1e-5)
    assert largest_deviation(scaled, wanted) <= 4.5
    assert largest_deviation(bare, wanted) > 5, 'without the factors they are not'


def largest_deviation(found: list[Tensor], wanted: Tensor) -> float:
    """Return by how many standard errors a mean deviates, at most."""
    values = torch.stack(found).double()
    spread = values.std(0) / math.sqrt(len(values))
    return float(((values.mean(0) - wanted).abs() / spread).max())


def test_drawn_channels_may_go_together_in_runs() -> None:
    model, sensitivity = measured(networks.GroupNorm)
    plan = allocate(sensitivity, Macs(0.5), selection='random', delta=0.1)
    for run in range(0, len(plan.kept['stem']), 4):
        channels, factors = plan.kept['stem'][run : run + 4], plan.factors['stem'][run : run + 4]
        assert channels == tuple(range(channels[0], channels[0] + 4))
        assert channels[0] % 4 == 0
        assert len(set(factors)) == 1
    plan.apply(model)


def test_bounds_of_runs_are_those_of_their_sums() -> None:
    _, sensitivity = measured(networks.GroupNorm)
    values = sensitivity.values['stem']
    plan = allocate(sensitivity, widths={'stem': 12}, delta=0.1)
    lost = [value for index, value in enumerate(values.tolist()) if index not in plan.kept['stem']]
    assert plan.errors['stem'] == pytest.approx(sum(lost))
    assert plan.sums['stem'] == pytest.approx(float(values.sum()))


def test_seeds_change_draws_alone() -> None:
    _, sensitivity = measured(networks.Residual)
    for selection in SELECTIONS:
        first, again, other = (
            allocate(sensitivity, Macs(0.5), selection=selection, seed=seed, delta=0.1).kept
            for seed in (1, 1, 2)
        )
        assert first == again
        assert (first == other) == (selection == 'deterministic')


def test_too_few_images_are_refused_with_the_exceedance_they_support() -> None:
    few = estimate_sensitivity(
        trained.network(), trained.batches(4, 0), example_inputs=trained.EXAMPLE
    )
    # log(2 · (16 + 32 + 32) / 0.001) = 11.98; 80 channels / (4 + 1) images.
    message = r'4 images are too few for δ = 0.001: 12 are needed for 80 channels.*of 16 of them'
    with pytest.raises(PruningError, match=message):
        allocate(few, Macs(0.5))
    with pytest.raises(PruningError, match=r'δ = 0\.9: 6 are needed'):
        allocate(few, Macs(0.5), delta=0.9)


def test_as_many_images_as_needed_are_enough() -> None:
    for images in (11, 12):
        found = estimate_sensitivity(
            trained.network(), trained.batches(images, 0), example_inputs=trained.EXAMPLE
        )
        if images == 12:
            assert allocate(found, Macs(0.5)).calibration == found.calibration
        else:
            with pytest.raises(PruningError, match='11 images are too few'):
                allocate(found, Macs(0.5))


@pytest.mark.parametrize('selection', SELECTIONS)
def test_bounds_at_the_full_width_are_zero(selection: str) -> None:
    sensitivity = trained.sensitivity('absolute')
    plan = allocate(sensitivity, Macs(1.0), selection=selection)
    assert set(plan.errors.values()) == {0.0}
    assert plan.factors == {}
    assert plan.macs == plan.dense_macs


def test_table_calls_bounds_of_one_and_more_vacuous() -> None:
    assert bound_text(0.25) == '0.25'
    assert bound_text(1.0) == '1 (vacuous)'
    assert bound_text(None) == '–'
    plan = allocate(trained.sensitivity('quadrants'), Macs(0.3), selection='random')
    assert '(vacuous)' in plan.to_text()
    plan = allocate(trained.sensitivity('summed'), ErrorBound(0.5))
    assert '(vacuous)' not in plan.to_text()
    assert 'head    kept whole: reaches the output of the network' in plan.to_text()


@pytest.mark.parametrize('selection', ['random', 'mixed'])
def test_draws_from_summed_sensitivities_are_refused(selection: str) -> None:
    with pytest.raises(PruningError, match=r"'summed' with random or mixed.* cancel in its bound"):
        allocate(trained.sensitivity('summed'), Macs(0.5), selection=selection)
    with pytest.raises(PruningError, match='cancel in its bound'):
        predict(trained.sensitivity('summed'), selection='random')


def test_what_the_draws_of_summed_sensitivities_would_bound_cancels() -> None:
    """A thousand channels, each active at one position: the signed sum is small, errors are not."""
    channels, kept = 1024, 512
    generator = torch.Generator().manual_seed(0)
    p = torch.full((channels,), 1 / channels, dtype=torch.float64)
    factors = select.draw(p, kept, generator)
    lost = 1 - factors  # of each position's output, which one channel makes
    bound = relative_error(kept, 1.0, 1, delta=0.1, signed=True)
    assert abs(float(lost.sum())) / channels <= bound
    assert float(lost.abs().sum()) / channels > 3 * bound
    assert float(lost.abs().max()) > 1


def test_bounds_are_certain_at_all_positions_and_estimates_at_sampled_ones() -> None:
    model, batches = trained.network(), trained.batches(32, 0)
    broken = 0
    for positions in (None, 1):
        plan = make_plan(
            model, trained.EXAMPLE, budget=Macs(0.9), criterion='absolute',
            allocation='equal_sum', round_to=1, calibration=batches, positions=positions,
        )  # fmt: skip
        found = measure_errors(model, plan, batches, positions=None)
        reads = {'second': 'first', 'third': 'second', 'head': 'third'}
        over = [e.largest > plan.errors[reads[e.layer]] * (1 + 1e-5) for e in found.consumers]
        first = plan.to_text().splitlines()[0]
        if positions is None:
            assert not any(over)
            assert 'certain on the calibration set' in first
        else:
            broken = sum(over)
            assert 'estimates (sensitivities of 1 positions an image are too low)' in first
        assert 'vacuous in ' in first
        assert Plan.from_dict(plan.to_dict()) == plan
    assert broken > 0
    old = {k: v for k, v in plan.to_dict().items() if k not in ('positions', 'K_images')}
    assert 'estimates' in Plan.from_dict(old).bounds_text()


def test_errors_are_measured_at_other_positions_than_sensitivities() -> None:
    """At the very positions of the sensitivities no bound would ever seem broken."""
    model, batches = trained.network(), trained.batches(16, 0)
    reads = {'second': 'first', 'third': 'second', 'head': 'third'}
    broken = 0
    for seed in range(12):
        plan = make_plan(
            model, trained.EXAMPLE, budget=Macs(0.95), criterion='absolute', seed=seed,
            allocation='equal_sum', round_to=1, calibration=batches, positions=1,
        )  # fmt: skip
        found = measure_errors(model, plan, batches, positions=1, seed=seed)
        broken += any(e.largest > plan.errors[reads[e.layer]] for e in found.consumers)
    assert broken > 0


def test_bounds_are_rounded_up() -> None:
    assert bound_text(0.12341) == '0.124'
    assert bound_text(12.001) == '12.1 (vacuous)'
    assert bound_text(0.5) == '0.5'
    assert bound_text(0.0) == '0'


def test_training_mode_changes_no_plan() -> None:
    model = networks.build(networks.Residual)
    options = {'budget': Macs(0.5), 'criterion': 'absolute', 'calibration': IMAGES, 'round_to': 4}
    wanted = make_plan(model, networks.INPUT, **options)
    model.train()
    assert make_plan(model, networks.INPUT, **options) == wanted
    assert all(module.training for module in model.modules())


def test_a_published_method_is_what_its_preset_says() -> None:
    model = networks.build(networks.Residual)
    images = [torch.rand(100, 3, 16, 16, generator=torch.Generator().manual_seed(2))]
    options = {'budget': Macs(0.5), 'calibration': images}
    published = make_plan(model, networks.INPUT, method='pfp', **options)
    assert published == make_plan(model, networks.INPUT, **PRESETS['pfp'].fields, **options)
    assert (published.criterion, published.selection) == ('quadrants', 'mixed')
    own = make_plan(
        model, networks.INPUT, method='pfp', selection='deterministic', round_to=8, **options
    )
    assert (own.criterion, own.selection, own.round_to) == ('quadrants', 'deterministic', 8)
    for method, message in (('alds', "'alds' is of kind 'low_rank'"), ('x', "unknown 'x'")):
        with pytest.raises(PruningError, match=message):
            make_plan(model, networks.INPUT, method=method, **options)


@pytest.mark.parametrize(
    ('calibration', 'message'),
    [
        (None, "criterion 'absolute' needs a calibration set: images, no labels"),
        ([], 'empty'),
        ([torch.zeros(4, 3, 8, 16)], r'\(4, 3, 8, 16\)'),
        ([torch.full((4, 3, 16, 16), torch.nan)], 'NaN'),
        ([(IMAGES[0], torch.zeros(24))], 'has 2 inputs, the network takes 1'),
    ],
)
def test_unusable_calibration_sets_are_named(calibration: list | None, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        make_plan(
            networks.build(networks.Residual),
            networks.INPUT,
            budget=Macs(0.5),
            criterion='absolute',
            calibration=calibration,
        )


def test_calibration_sets_may_be_streams() -> None:
    model = networks.build(networks.Residual)
    options = {'budget': Macs(0.5), 'criterion': 'filter_l2', 'round_to': 4}
    for allocation in ('equal_error', 'equal_sum'):
        plans = [
            make_plan(
                model, networks.INPUT, allocation=allocation, calibration=calibration, **options
            )
            for calibration in (IMAGES, iter(IMAGES), (each for each in IMAGES))
        ]
        assert plans[0] == plans[1] == plans[2]


def test_plans_of_another_network_are_refused() -> None:
    plan = allocate(trained.sensitivity('summed'), Macs(0.5))
    with pytest.raises(PruningError, match="'first' is no group"):
        plan.apply(networks.build(networks.Residual))
    wider = dataclasses.replace(plan, macs=plan.macs + 1)
    with pytest.raises(RuntimeError, match='planned'):
        wider.apply(trained.network())


def test_other_data_is_no_plan() -> None:
    plan = allocate(trained.sensitivity('summed'), Macs(0.5)).to_dict()
    for wrong, message in (
        ({}, 'field Plan.criterion is missing'),
        ({**plan, 'kept': 3}, 'field Plan.kept: must be a mapping, got 3'),
        ({**plan, 'more': 1}, 'unknown field Plan.more'),
    ):
        with pytest.raises(PruningError, match=message):
            Plan.from_dict(wrong)


def test_the_original_is_untouched() -> None:
    model, sensitivity = measured(networks.Residual)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    allocate(sensitivity, Macs(0.5), selection='random', delta=0.1).apply(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_plans_one_after_the_other_are_one_plan_of_the_first_network() -> None:
    model, images = trained.network(), trained.batches(16, seed=1)
    plans, current = [], model
    for share in (0.7, 0.6):
        plan = make_plan(
            current, trained.EXAMPLE, budget=Macs(share), criterion='joint_error', round_to=1,
            calibration=images,
        )  # fmt: skip
        current = plan.apply(current)
        plans.append(plan)
    once = composed(plans)
    assert once.macs == plans[-1].macs < plans[0].macs
    assert once.dense_macs == plans[0].dense_macs
    again = once.apply(model)
    with torch.no_grad():
        torch.testing.assert_close(again(images[0]), current(images[0]))
    assert composed(plans[:1]) == plans[0]
    with pytest.raises(PruningError, match='channels after the earlier ones'):
        composed([plans[0], plans[0]])
