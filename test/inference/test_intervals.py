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

"""Intervals of medians and means of few runs: known answers and coverage."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pruned_perception.errors import UserError
from pruned_perception.inference import intervals
from pruned_perception.inference.intervals import (
    mean_interval,
    median_interval,
    student_quantile,
    values_needed,
)
from pruned_perception.inference.latency import bootstrap_percentiles


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(intervals)
    assert found.attempted >= 4
    assert found.failed == 0


@given(st.integers(1, 200), st.floats(0.5, 0.9999))
def test_student_quantiles_are_scipys(freedom: int, probability: float) -> None:
    expected = stats.t.ppf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.integers(2, 60), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_order_statistics_are_the_innermost_whose_binomial_coverage_suffices(n, level) -> None:
    values = np.arange(1, n + 1)
    if n < values_needed(level):
        with pytest.raises(UserError, match='measure at least'):
            median_interval(values, confidence=level)
        return
    low, high = median_interval(values, confidence=level)
    rank = int(low)
    assert high == n + 1 - rank
    assert 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5) >= level - 1e-12
    assert 1 - 2 * stats.binom.cdf(rank, n, 0.5) < level


def test_five_values_do_not_carry_95_percent() -> None:
    with pytest.raises(UserError, match=r'5 values carry .* of 93\.75%, .* at least 6'):
        median_interval([1, 2, 3, 4, 5])


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=30))
def test_both_intervals_hold_the_middle_of_the_sample(values) -> None:
    low, high = median_interval(values)
    assert low <= np.median(values) <= high
    low, high = mean_interval(values)
    assert low <= np.mean(values) + 1e-9
    assert high >= np.mean(values) - 1e-9


def misses(draw, interval, truth: float, worlds: int = 1500) -> int:
    generator = np.random.default_rng(0)
    found = (interval(draw(generator)) for _ in range(worlds))
    return sum(not low <= truth <= high for low, high in found)


def is_too_often(misses: int, worlds: int = 1500) -> bool:
    return bool(stats.binom.sf(misses - 1, worlds, 0.05) < 1e-3)


@pytest.mark.parametrize('runs', [6, 10, 25])
def test_order_statistics_cover_the_median_of_skewed_runs(runs: int) -> None:
    assert not is_too_often(misses(lambda g: g.lognormal(0, 1.5, runs), median_interval, 1.0))


@pytest.mark.parametrize('blocks', [2, 5, 10])
def test_student_covers_the_mean_of_few_averages(blocks: int) -> None:
    def averages(generator: np.random.Generator) -> np.ndarray:
        return generator.standard_normal((blocks, 8)).mean(1)

    assert not is_too_often(misses(averages, mean_interval, 0.0))


def resampled(values: np.ndarray) -> tuple[float, float]:
    return bootstrap_percentiles(values.ravel(), (50,), resamples=300)[0]


def resampled_mean(values: np.ndarray) -> tuple[float, float]:
    drawn = np.random.default_rng(0).integers(0, len(values), (300, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def test_the_same_check_finds_resampling_of_five_averages() -> None:
    assert is_too_often(misses(lambda g: g.standard_normal(5), resampled_mean, 0.0))


def rounds(generator: np.random.Generator) -> np.ndarray:
    """Return (8, 15) runs of which those of a round share what the machine did then."""
    return generator.standard_normal((8, 1)) + generator.standard_normal((8, 15))


def test_rounds_are_the_unit_of_runs_that_resemble_each_other() -> None:
    assert not is_too_often(misses(rounds, median_interval, 0.0))
    assert not is_too_often(misses(rounds, mean_interval, 0.0))


def test_the_same_check_finds_resampling_of_such_runs() -> None:
    assert is_too_often(misses(rounds, resampled, 0.0, 500), 500)


@pytest.mark.parametrize('interval', [median_interval, mean_interval])
def test_values_that_are_none_are_refused(interval) -> None:
    for values in ([1.0, math.nan] * 5, [1.0, math.inf] * 5, np.zeros((2, 2, 2)), 3.0):
        with pytest.raises(UserError, match='finite'):
            interval(values)
    for confidence in (0, 1, math.nan):
        with pytest.raises(UserError, match='confidence'):
            interval([1.0] * 10, confidence=confidence)


def test_a_single_value_has_no_interval() -> None:
    with pytest.raises(UserError, match='at least 2'):
        mean_interval([1.0])
    with pytest.raises(UserError, match='degrees of freedom'):
        student_quantile(0.9, 0)
