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

"""Sample complexity against hand computations and simulations."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruned_perception.pruning import PruningError, bounds
from pruned_perception.pruning.bounds import (
    calibration_size,
    distinct_variance,
    draws_for_all,
    draws_for_distinct,
    expected_distinct,
    expected_exceedances,
    relative_error,
    sample_complexity,
)

EPSILONS = st.floats(0.01, 20)
SUMS = st.floats(0.1, 500)
EVENTS = st.integers(1, 10**9)
DELTAS = st.floats(1e-6, 0.9)
FACTORS = st.floats(0.5, 5)
WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1)), min_size=2, max_size=12).filter(
    lambda weights: sum(map(bool, weights)) > 1
)


def probabilities(weights: list[float]) -> Tensor:
    values = torch.tensor(weights, dtype=torch.float64)
    return values / values.sum()


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(bounds)
    assert found.attempted >= 5
    assert found.failed == 0


@pytest.mark.parametrize(
    ('K', 'signed', 'draws'),
    [
        # A = K log 8 = 2.0794 K at S = N = 1, δ = ½.
        (1, False, 6),  # 8 · 2.0794 / 3 = 5.5
        (2, False, 12),  # 8 · 4.1589 / 3 = 11.1
        (1, True, 7),  # (6 + 2 · 2) · 2.0794 / 3 = 6.9
        (2, True, 13),  # (12 + 2 · 3) · 2.0794 / 3 = 12.5
    ],
)
def test_draws_of_one_channel_at_full_error_as_by_hand(K: float, signed: bool, draws: int) -> None:
    assert sample_complexity(1, 1, 1, delta=0.5, K=K, signed=signed) == draws


def test_error_of_six_draws_as_by_hand() -> None:
    # (2.07944 + √(2.07944² + 18 · 2.07944 · 6)) / 18
    assert relative_error(6, 1, 1, delta=0.5) == pytest.approx(0.9560, abs=1e-4)
    # 3 m ε² − 2 (K S + 1) L ε − 6 K S L = 0 at m = 3, L = log 8: 9 ε² − 8.3178 ε − 12.4766 = 0
    assert relative_error(3, 1, 1, delta=0.5, signed=True) == pytest.approx(1.7270, abs=1e-4)


@given(EPSILONS, SUMS, EVENTS, DELTAS, FACTORS, st.booleans())
def test_draws_are_the_fewest_whose_error_is_small_enough(
    epsilon: float, total: float, events: int, delta: float, K: float, signed: bool
) -> None:
    m = sample_complexity(epsilon, total, events, delta=delta, K=K, signed=signed)
    assert relative_error(m, total, events, delta=delta, K=K, signed=signed) <= epsilon * (1 + 1e-9)
    if m > 1:
        fewer = relative_error(m - 1, total, events, delta=delta, K=K, signed=signed)
        assert fewer > epsilon * (1 - 1e-9)


@given(st.integers(1, 10**9), SUMS, EVENTS, DELTAS, FACTORS, st.booleans())
def test_the_error_of_m_draws_needs_m_draws(
    m: int, total: float, events: int, delta: float, K: float, signed: bool
) -> None:
    epsilon = relative_error(m, total, events, delta=delta, K=K, signed=signed)
    assert sample_complexity(epsilon, total, events, delta=delta, K=K, signed=signed) == m


@given(EPSILONS, SUMS, EVENTS, DELTAS, FACTORS, st.booleans(), st.floats(1, 10))
def test_harder_claims_need_no_fewer_draws(
    epsilon: float, total: float, events: int, delta: float, K: float, signed: bool, more: float
) -> None:
    m = sample_complexity(epsilon, total, events, delta=delta, K=K, signed=signed)

    def changed(**options: float) -> int:
        given = {'epsilon': epsilon, 'sensitivity_sum': total, 'events': events} | options
        return sample_complexity(**{'delta': delta, 'K': K, **given}, signed=signed)

    assert changed(epsilon=epsilon * more) <= m
    assert changed(sensitivity_sum=total * more) >= m
    assert changed(events=events * more) >= m
    assert changed(delta=delta / more) >= m
    assert changed(K=K * more) >= m
    # One currency: K and S count by their product alone.
    assert changed(K=K * more, sensitivity_sum=total / more) == pytest.approx(m, abs=1)


@pytest.mark.parametrize(
    ('options', 'value'),
    [
        ({'epsilon': 0}, 'got 0'),
        ({'epsilon': -0.25}, 'got -0.25'),
        ({'epsilon': math.inf}, 'got inf'),
        ({'epsilon': math.nan}, 'got nan'),
        ({'sensitivity_sum': -1}, 'got -1'),
        ({'sensitivity_sum': math.inf}, 'got inf'),
        ({'events': 0}, 'got 0'),
        ({'delta': 0}, 'got 0'),
        ({'delta': 1.5}, 'got 1.5'),
        ({'K': 0}, 'got 0'),
        ({'K': math.nan}, 'got nan'),
    ],
)
def test_arguments_out_of_their_domain_are_quoted(options: dict, value: str) -> None:
    arguments = {'epsilon': 0.5, 'sensitivity_sum': 4, 'events': 10, 'delta': 0.1} | options
    with pytest.raises(PruningError, match=f'{next(iter(options))}.*{value}'):
        sample_complexity(**arguments)


@pytest.mark.parametrize('m', [0, -3, math.inf])
def test_numbers_of_draws_out_of_their_domain_are_quoted(m: float) -> None:
    with pytest.raises(PruningError, match=f'draws, got {m}'):
        relative_error(m, 4, 10, delta=0.1)


def test_distinct_channels_as_by_hand() -> None:
    two, three = probabilities([1, 1]), probabilities([1, 1, 1])
    assert expected_distinct(two, 0) == 0
    assert expected_distinct(two, 1) == pytest.approx(1)
    assert expected_distinct(two, 2) == pytest.approx(1.5)  # the same or another, evenly
    assert distinct_variance(two, 1) == pytest.approx(0, abs=1e-12)
    assert distinct_variance(two, 2) == pytest.approx(0.25)
    # Of three, the second draw is another one in two of three cases.
    assert expected_distinct(three, 2) == pytest.approx(5 / 3)
    assert distinct_variance(three, 2) == pytest.approx(2 / 9)
    # A channel that is always drawn, and one that never is.
    assert expected_distinct(probabilities([1, 0]), 7) == 1
    assert distinct_variance(probabilities([1, 0]), 7) == 0
    assert expected_distinct(three, math.inf) == 3


@pytest.mark.parametrize('m', [1, 3, 10, 40])
def test_mean_and_variance_of_distinct_channels_in_simulated_draws(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    p = probabilities([0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02, 0.0])
    runs = 20_000
    drawn = torch.multinomial(p, runs * m, replacement=True, generator=generator).view(runs, m)
    counts = torch.zeros(runs, len(p)).scatter_(1, drawn, 1.0).sum(1).double()
    mean, variance = expected_distinct(p, m), distinct_variance(p, m)
    assert abs(float(counts.mean()) - mean) <= 4 * math.sqrt(variance / runs) + 1e-9
    # The fourth moment of a count near its mean is below 4 · variance² + variance.
    spread = math.sqrt((4 * variance**2 + variance) / runs)
    assert abs(float(counts.var(correction=0)) - variance) <= 4 * spread + 1e-9


@given(WEIGHTS, st.floats(0, 0.999))
def test_draws_for_distinct_inverts_the_expected_number(weights: list[float], share: float) -> None:
    p = probabilities(weights)
    wanted = share * int((p > 0).sum())
    assert expected_distinct(p, draws_for_distinct(p, wanted)) == pytest.approx(wanted, abs=1e-9)


@given(WEIGHTS)
def test_draws_for_all_widths_are_those_for_each(weights: list[float]) -> None:
    p = probabilities(weights)
    found = draws_for_all(p)
    assert len(found) == int((p > 0).sum()) + 1
    assert found[0] == 0
    assert found[-1] == math.inf
    assert found == sorted(found)
    for kept, m in enumerate(found):
        assert m == pytest.approx(draws_for_distinct(p, kept), rel=1e-9)


@pytest.mark.parametrize('wanted', [-1, 3])
def test_impossible_numbers_of_distinct_channels_are_refused(wanted: int) -> None:
    with pytest.raises(PruningError, match=f'{wanted} distinct channels of 2'):
        draws_for_distinct(probabilities([1, 2, 0]), wanted)


def test_channels_that_are_hardly_ever_drawn_take_for_ever() -> None:
    p = probabilities([1, 1, 1e-30])
    assert draws_for_distinct(p, 2.5) == pytest.approx(math.log(2) * 2e30, rel=1e-3)


@given(st.integers(1, 10**6), st.floats(1e-9, 0.5), st.floats(0.1, 20))
def test_calibration_size_is_the_least_that_bounds_the_chance_to_miss(
    channels: int, delta: float, K_prime: float
) -> None:
    images = calibration_size(channels, delta=delta, K_prime=K_prime)
    # Each of c channels stays below M_j / K on all images with a chance of exp(−|S| / K′).
    assert channels * math.exp(-images / K_prime) <= delta / 2 * (1 + 1e-9)
    assert channels * math.exp(-(images - 1) / K_prime) > delta / 2 * (1 - 1e-9)


@pytest.mark.parametrize(
    ('arguments', 'value'),
    [({'channels': 0}, '0'), ({'delta': 1.0}, '1.0'), ({'K_prime': 0}, '0')],
)
def test_calibration_sizes_out_of_their_domain_are_quoted(arguments: dict, value: str) -> None:
    with pytest.raises(PruningError, match=f'{next(iter(arguments))}.*got {value}'):
        calibration_size(**{'channels': 8, 'delta': 0.1} | arguments)


def test_next_image_exceeds_as_often_as_exchangeability_says() -> None:
    channels, images, runs = 20, 9, 4000
    values = torch.rand(runs, images + 1, channels, generator=torch.Generator().manual_seed(0))
    exceeding = (values[:, -1] > values[:, :-1].amax(1)).sum(1).double()
    assert expected_exceedances(channels, images) == 2
    assert abs(float(exceeding.mean()) - 2) <= 4 * float(exceeding.std()) / math.sqrt(runs)
