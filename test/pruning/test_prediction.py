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

"""Curves of size against error, and networks that are drawn and cost what the curves expect."""

from __future__ import annotations

import functools
import itertools
import json
import math

import networks
import pytest
import torch
import trained
from torch import Tensor, nn

from pruned_perception.pruning import (
    Curve,
    ErrorBound,
    PruningError,
    Sensitivity,
    allocate,
    estimate_sensitivity,
    predict,
)
from pruned_perception.pruning.bounds import sample_complexity

IMAGES = [torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))]
FORMS = pytest.mark.parametrize('selection', ['random', 'deterministic'])
BOUNDED = pytest.mark.parametrize(
    ('definition', 'selection'),
    [
        *itertools.product(['quadrants', 'absolute'], ['random', 'deterministic']),
        ('summed', 'deterministic'),
    ],
)


@functools.cache
def measured(kind: type[nn.Module]) -> Sensitivity:
    return estimate_sensitivity(networks.build(kind), IMAGES, example_inputs=networks.INPUT)


@BOUNDED
def test_sizes_fall_as_errors_rise(selection: str, definition: str) -> None:
    curve = predict(trained.sensitivity(definition), selection=selection)
    assert len(curve.points) == 25
    for less, more in itertools.pairwise(curve.points):
        assert less.epsilon < more.epsilon
        assert less.macs >= more.macs
        assert less.parameters >= more.parameters
        assert all(less.channels[name] >= more.channels[name] for name in less.channels)
        assert less.vacuous <= more.vacuous


@BOUNDED
def test_default_range_is_from_everything_to_one_channel_per_group(
    selection: str, definition: str
) -> None:
    curve = predict(trained.sensitivity(definition), selection=selection)
    assert curve.points[0].macs >= 0.95 * curve.dense_macs
    assert curve.points[-1].channels == pytest.approx({'first': 1, 'second': 1, 'third': 1})


@pytest.mark.parametrize('kind', [networks.InPlace, networks.Concatenation, networks.GroupNorm])
@pytest.mark.parametrize('share', [0.3, 0.7])
def test_drawn_networks_cost_what_is_expected(kind: type[nn.Module], share: float) -> None:
    """The draws m(ε) themselves, group by group, against the curve at ε."""
    sensitivity = measured(kind)
    structure = sensitivity.structure
    curve = predict(sensitivity, delta=0.1)
    # Channels that nobody needs are gone from the beginning.
    point = next(each for each in curve.points if each.macs <= share * curve.points[0].macs)
    beside = structure.side_by_side()
    generator = torch.Generator().manual_seed(0)
    runs = 300
    widths: dict[str, Tensor] = {}
    for group in structure.groups.prunable:
        unit = group.unit
        values = sensitivity.values[group.name].unflatten(0, (-1, unit)).sum(1)
        total = float(values.sum())
        own = point.epsilon / beside[group.name]
        m = sample_complexity(own, total, sensitivity.events, delta=0.1, signed=True)
        drawn = torch.multinomial(
            values / total, runs * m, replacement=True, generator=generator
        ).view(runs, m)
        seen = torch.zeros(runs, len(values)).scatter_(1, drawn, 1.0)
        widths[group.name] = unit * seen.sum(1).double()
    sizes = torch.tensor(
        [
            structure.exact_size({name: int(each[run]) for name, each in widths.items()})
            for run in range(runs)
        ]
    ).double()
    for found, wanted in zip(sizes.T, (point.macs, point.parameters), strict=True):
        assert found.std() > 0, 'nothing is random here'
        assert abs(float(found.mean()) - wanted) <= 4 * float(found.std()) / math.sqrt(runs)
    for name, each in widths.items():
        error = 4 * float(each.std()) / math.sqrt(runs) + 1e-9
        assert abs(float(each.mean()) - point.channels[name]) <= error


def test_expectations_count_the_variance_of_a_layer_between_channels_of_one_group() -> None:
    """A layer whose output is added to its input: E[k²] exceeds E[k]²."""
    sensitivity = measured(networks.InPlace)
    structure = sensitivity.structure
    (loop,) = (
        term
        for term in structure.terms
        if {name for name, _ in term.inputs} & {name for name, _ in term.outputs}
    )
    assert loop.layer == 'inner.0'
    curve = predict(sensitivity, delta=0.1)
    point = next(each for each in curve.points if each.macs <= 0.5 * curve.points[0].macs)
    assert point.macs > 1.001 * structure.size(point.channels).macs


def test_plans_of_draws_meet_the_curve_on_average() -> None:
    """From the curve's expected widths to plans, by the same draws."""
    sensitivity = trained.sensitivity('absolute')
    curve = predict(sensitivity, delta=0.1)
    point = next(p for p in curve.points if p.macs < 0.5 * curve.dense_macs)
    plans = [
        allocate(sensitivity, widths=point.channels, selection='random', delta=0.1, seed=seed)
        for seed in range(150)
    ]
    for attribute in ('macs', 'parameters'):
        found = torch.tensor([getattr(plan, attribute) for plan in plans]).double()
        spread = float(found.std()) / math.sqrt(len(plans))
        assert abs(float(found.mean()) - getattr(point, attribute)) <= 4 * spread
    # Their bound is the curve's error, up to the rounding of m.
    assert plans[0].errors == pytest.approx(dict.fromkeys(point.channels, point.epsilon), rel=0.05)


@pytest.mark.parametrize(
    'kind', [networks.Residual, networks.Concatenation, networks.GroupNorm, networks.PixelShuffle]
)
def test_deterministic_curve_is_the_size_of_deterministic_plans(kind: type[nn.Module]) -> None:
    sensitivity = measured(kind)
    curve = predict(sensitivity, selection='deterministic', delta=0.1)
    for point in curve.points[::3]:
        plan = allocate(sensitivity, ErrorBound(point.epsilon), delta=0.1)
        assert plan.widths == point.channels
        assert (plan.macs, plan.parameters) == pytest.approx((point.macs, point.parameters))


def test_harder_claims_cost_more() -> None:
    sensitivity = trained.sensitivity('absolute')
    base, surer, wider = (
        predict(sensitivity, delta=delta, K=K, epsilons=[2.0]).points[0].macs
        for delta, K in ((0.1, 1), (1e-3, 1), (0.1, 2))
    )
    assert base < surer
    assert base < wider


def test_dead_groups_are_predicted_to_keep_one_channel() -> None:
    sensitivity = measured(networks.Residual)
    zero = Sensitivity.from_dict(
        {
            **sensitivity.to_dict(),
            'consumers': [
                {**each, 'values': [0.0] * len(each['values'])}
                for each in sensitivity.to_dict()['consumers']
            ],
        }
    )
    for selection in ('random', 'deterministic'):
        for point in predict(zero, selection=selection, delta=0.1).points:
            assert set(point.channels.values()) == {1.0}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'selection': 'mixed'}, "not 'mixed'"),
        ({'epsilons': []}, r'got \[\]'),
        ({'epsilons': [0.5, 0.0]}, r'got \[0.5, 0.0\]'),
        ({'epsilons': [math.inf]}, r'got \[inf\]'),
        ({'epsilons': [math.nan]}, r'got \[nan\]'),
        ({'delta': 1e-30}, 'too few for δ = 1e-30'),
        ({'delta': 2.0}, 'delta must be in'),
        ({'K': 0.0}, 'K must be'),
    ],
)
def test_bad_wishes_are_named(options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        predict(trained.sensitivity('absolute'), **options)


@FORMS
def test_curves_survive_json(selection: str) -> None:
    curve = predict(trained.sensitivity('absolute'), selection=selection)
    assert Curve.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve
    with pytest.raises(PruningError, match=r'field Curve\.\w+ is missing'):
        Curve.from_dict({'points': []})


def test_table_is_in_shares_of_the_dense_network() -> None:
    curve = predict(trained.sensitivity('absolute'), epsilons=[0.05, 8.0])
    head, _, first, last = curve.to_text().splitlines()
    assert head == ('absolute sensitivity, random selection, δ = 0.001, K = 1; expected sizes')
    small, large = curve.points
    assert first.split()[0] == '0.05'
    assert first.split()[1] == f'{small.macs / curve.dense_macs:.1%}'
    assert last.split()[2:] == [
        f'{large.parameters / curve.dense_parameters:.1%}',
        f'{sum(large.channels.values()) / 80:.1%}',
        'vacuous',
    ]
