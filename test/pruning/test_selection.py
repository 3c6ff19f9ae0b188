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

"""Which channels are kept, and which bound that gives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruned_perception.pruning.bounds import draws_for_distinct, expected_distinct, relative_error
from pruned_perception.pruning.selection import (
    SELECTIONS,
    Claim,
    Selected,
    deterministic,
    deterministic_error,
    draw,
    error_of,
    mixed,
    mixed_error,
    random,
    random_error,
)

SENSITIVITIES = torch.tensor([0.9, 0.05, 0.5, 0.3, 0.0, 0.8, 0.1, 0.02]).double()
CLAIM = Claim(events=100, delta=0.1)
Select = Callable[[Tensor, float, torch.Generator], Selected]
VALUES = st.lists(st.floats(0.01, 1), min_size=2, max_size=10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_deterministic_keeps_the_highest_unscaled() -> None:
    assert deterministic(SENSITIVITIES, 3) == Selected((0, 2, 5))
    assert deterministic(SENSITIVITIES, 8).channels == tuple(range(8))


def test_deterministic_error_is_the_sum_of_what_is_pruned() -> None:
    assert deterministic_error(SENSITIVITIES, 3) == pytest.approx(0.3 + 0.1 + 0.05 + 0.02)
    assert deterministic_error(SENSITIVITIES, 7) == 0
    assert deterministic_error(SENSITIVITIES, 0) == pytest.approx(2.67)


def test_runs_of_channels_are_kept_whole_with_their_factor() -> None:
    assert Selected((0, 2), (1.5, 2.0)).in_channels(3) == Selected(
        (0, 1, 2, 6, 7, 8), (1.5, 1.5, 1.5, 2.0, 2.0, 2.0)
    )
    assert Selected((1,)).in_channels(2) == Selected((2, 3))
    assert Selected((1, 4), (1.5, 2.0)).in_channels(1) == Selected((1, 4), (1.5, 2.0))


@pytest.mark.parametrize('m', [1, 4, 50])
def test_factors_of_draws_are_one_on_average(m: int) -> None:
    p = SENSITIVITIES / SENSITIVITIES.sum()
    common, runs = generator(m), 3000
    factors = torch.stack([draw(p, m, common) for _ in range(runs)])
    read = p > 0
    assert (factors[:, ~read] == 0).all()
    spread = ((1 - p[read]) / (m * p[read]) / runs).sqrt()
    assert ((factors[:, read].mean(0) - 1).abs() <= 4 * spread).all()
    # Each factor counts whole draws, and all of them.
    assert torch.allclose((factors * p).sum(1), torch.ones(runs).double())


@pytest.mark.parametrize('wanted', [2, 4.5])
def test_random_keeps_as_many_as_wanted_on_average(wanted: float) -> None:
    common, runs = generator(), 300
    found = [random(SENSITIVITIES, wanted, common) for _ in range(runs)]
    widths = torch.tensor([len(each.channels) for each in found]).double()
    p = SENSITIVITIES / SENSITIVITIES.sum()
    m = round(draws_for_distinct(p, wanted))  # whole draws
    expected = expected_distinct(p, m)
    assert abs(expected - wanted) <= 0.5
    assert abs(float(widths.mean()) - expected) <= 4 * float(widths.std()) / math.sqrt(runs)
    assert not any(4 in each.channels for each in found), 'nobody reads channel 4'
    assert all(each.channels == tuple(sorted(each.channels)) for each in found)


def test_draws_depend_on_the_generator_alone() -> None:
    first, again, other = (random(SENSITIVITIES, 4, generator(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize('select', [random, lambda s, k, g: mixed(s, k, CLAIM, g)])
def test_all_that_anybody_reads_is_kept_as_it_is(select: Select) -> None:
    kept = (0, 1, 2, 3, 5, 6, 7)
    assert select(SENSITIVITIES, 7, generator()) == Selected(kept, (1.0,) * 7)


@pytest.mark.parametrize('select', [random, lambda s, k, g: mixed(s, k, CLAIM, g)])
def test_a_group_that_nobody_reads_keeps_one_channel(select: Select) -> None:
    assert select(torch.zeros(5), 2, generator()) == Selected((0,), (1.0,))


def test_mixed_keeps_the_indispensable_for_certain_and_scales_the_rest() -> None:
    values = torch.tensor([1.0, 1.0, 1.0, *[0.02] * 30])
    common = generator()
    for _ in range(5):
        found = mixed(values, 10, CLAIM, common)
        factors = dict(zip(found.channels, found.factors, strict=True))
        assert [factors[channel] for channel in range(3)] == [1.0, 1.0, 1.0]
        assert all(factors[channel] > 1 for channel in found.channels[3:])


def test_mixed_bound_is_that_of_the_rest_as_by_hand() -> None:
    values = torch.tensor([1.0, 1.0, 1.0, *[0.02] * 30])
    rest = values[3:].double()
    m = round(draws_for_distinct(rest / rest.sum(), 7))
    wanted = relative_error(m, float(rest.sum()), 100, delta=0.1)
    assert mixed_error(values, 10, CLAIM) == pytest.approx(wanted)


def test_random_bound_is_that_of_the_whole_draws_made() -> None:
    total = float(SENSITIVITIES.sum())
    for wanted in (1, 2, 3, 5, 6):
        m = round(draws_for_distinct(SENSITIVITIES / total, wanted))
        assert random_error(SENSITIVITIES, wanted, CLAIM) == pytest.approx(
            relative_error(m, total, 100, delta=0.1)
        )


@settings(max_examples=20)
@given(VALUES, st.data())
def test_mixed_bound_is_never_above_the_random_one(
    values: list[float], data: st.DataObject
) -> None:
    sensitivities = torch.tensor(values)
    wanted = data.draw(st.integers(1, len(values)))
    assert mixed_error(sensitivities, wanted, CLAIM) <= random_error(sensitivities, wanted, CLAIM)


@settings(max_examples=10)
@given(VALUES)
def test_bounds_fall_with_every_channel_kept(values: list[float]) -> None:
    for selection in SELECTIONS:
        error = error_of(selection, CLAIM)
        curve = [error(torch.tensor(values), kept) for kept in range(1, len(values) + 1)]
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(curve))
        assert curve[-1] == 0


def test_claims_scale_the_bound_as_they_should() -> None:
    base = random_error(SENSITIVITIES, 4, CLAIM)
    assert random_error(SENSITIVITIES, 4, Claim(100, 0.1, K=2)) > base
    assert random_error(SENSITIVITIES, 4, Claim(10**4, 0.1)) > base
    assert random_error(SENSITIVITIES, 4, Claim(100, 1e-3)) > base
    assert random_error(SENSITIVITIES, 4, Claim(100, 0.1, signed=True)) > base


@pytest.mark.parametrize('tiny', [1e-9, 1e-30, 1e-320])
def test_channels_that_hardly_count_take_no_time_and_no_memory(tiny: float) -> None:
    values: Tensor = torch.tensor([0.5, 0.4, 0.3, tiny, tiny], dtype=torch.float64)
    found = random(values, 4, generator())
    assert found.channels[:3] == (0, 1, 2)
    factors = torch.tensor(found.factors[:3])
    assert torch.allclose(factors, torch.ones(3), atol=1e-2)
    assert random_error(values, 4, CLAIM) < 0.01
