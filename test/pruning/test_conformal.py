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

"""K as a conformal quantile: ranks, refusals, and how many new images exceed it."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pruned_perception.pruning import PruningError, conformal
from pruned_perception.pruning.conformal import (
    conformal_factor,
    conformal_rank,
    exceedance_bound,
    images_needed,
    largest_ratios,
)

DELTAS = st.floats(1e-4, 0.9)


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(conformal)
    assert found.attempted >= 4
    assert found.failed == 0


@given(DELTAS)
def test_the_images_needed_are_the_fewest_that_are_accepted(delta: float) -> None:
    needed = images_needed(delta)
    assert conformal_rank(needed, delta) == needed
    with pytest.raises(PruningError, match=f'needs {needed}'):
        conformal_rank(needed - 1, delta)


@given(st.integers(1, 5000), DELTAS)
def test_the_rank_is_the_smallest_that_half_of_delta_allows(images: int, delta: float) -> None:
    if images >= images_needed(delta):
        rank = conformal_rank(images, delta)
        assert 1 - rank / (images + 1) <= delta / 2 * (1 + 1e-12)
        assert 1 - (rank - 1) / (images + 1) > delta / 2 * (1 - 1e-12)


@pytest.mark.parametrize('images', [19, 199, 1999])
def test_round_numbers_are_not_moved_by_rounding(images: int) -> None:
    assert conformal_rank(images, 2 / (images + 1)) == images


def test_the_refusal_says_what_these_images_could_carry() -> None:
    with pytest.raises(PruningError, match=r'δ = 0\.001 on 15 .* needs 1999, or δ ≥ 0\.125'):
        conformal_factor([1.0] * 15, 0.001)
    with pytest.raises(PruningError, match=r'needs 19$'):
        conformal_factor([], 0.1)


def test_ratios_are_the_largest_over_channels() -> None:
    g = [[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.5]]
    assert largest_ratios(g, [2.0, 4.0, 0.0]).tolist() == [0.5, 1.5, math.inf]


def test_channels_that_the_first_half_never_used_are_named() -> None:
    with pytest.raises(PruningError, match='3 of 19 images use channels that no image'):
        conformal_factor([1.0] * 16 + [math.inf] * 3, 0.1)


def test_few_unused_channels_are_among_the_images_that_may_exceed() -> None:
    assert conformal_factor([1.0] * 38 + [math.inf], 0.1) == 1.0


@pytest.mark.parametrize('images', [19, 60, 160])
def test_new_images_exceed_k_as_rarely_as_promised_and_the_rank_below_does_not(images) -> None:
    generator = np.random.default_rng(0)
    channels, worlds, delta = 30, 4000, 0.1
    exceeded, naive = np.zeros(worlds, bool), np.zeros(worlds, bool)
    for world in range(worlds):
        first = generator.gamma(1.5, size=(20, channels))
        ratios = largest_ratios(generator.gamma(1.5, size=(images + 1, channels)), first.max(0))
        exceeded[world] = ratios[-1] > conformal_factor(ratios[:-1], delta)
        naive[world] = ratios[-1] > 1
    assert stats.binom.sf(exceeded.sum() - 1, worlds, delta / 2) > 1e-3
    assert exceeded.mean() > 0.6 * delta / 2  # no more is given away than ranks allow
    assert naive.mean() > 0.5


def test_the_share_of_a_single_second_half_is_beta_distributed() -> None:
    ratios = np.sort(np.random.default_rng(0).random((20_000, 59)), axis=1)
    shares = 1 - ratios[:, conformal_rank(59, 0.1) - 1]  # uniform ratios: the share is 1 − K
    assert np.mean(shares <= exceedance_bound(59, 0.1)) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize('delta', [0, 1, -0.1, math.nan])
def test_delta_outside_0_1_is_refused(delta: float) -> None:
    for function in (images_needed, lambda d: conformal_rank(100, d)):
        with pytest.raises(PruningError, match='delta'):
            function(delta)


def test_what_is_no_sensitivity_is_refused() -> None:
    for g, s in (([[-1.0]], [1.0]), ([[math.nan]], [1.0]), ([[1.0]], [math.inf])):
        with pytest.raises(PruningError, match='finite'):
            largest_ratios(g, s)
    with pytest.raises(PruningError, match='shape'):
        largest_ratios([[1.0, 2.0]], [1.0])
    with pytest.raises(PruningError, match='NaN'):
        conformal_factor([math.nan] * 20, 0.1)
    with pytest.raises(PruningError, match='confidence'):
        exceedance_bound(100, 0.1, confidence=1)
