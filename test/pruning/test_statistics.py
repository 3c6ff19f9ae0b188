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

"""Paired differences against known answers, and their coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from pruned_perception.pruning import PruningError
from pruned_perception.pruning.records import from_dict, to_dict
from pruned_perception.pruning.statistics import (
    PairedDifference,
    crossed_difference,
    paired_difference,
)


def test_paired_difference_is_students() -> None:
    a, b = np.array([51.4, 50.6, 47.6, 50.1]), np.array([50.9, 50.7, 46.1, 48.9])
    found = paired_difference(a, b, confidence=0.9)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(0.775)
    assert found.pairs == 4
    assert from_dict(PairedDifference, json.loads(json.dumps(to_dict(found)))) == found
    assert '+0.775' in found.to_text()
    with pytest.raises(PruningError, match=r'PairedDifference\.pairs is missing'):
        from_dict(PairedDifference, {'mean': 1.0})


def test_a_tie_is_an_interval_that_holds_0() -> None:
    a, zeros = np.array([1.0, 1.2, 0.9]), np.zeros(3)
    assert not paired_difference(a, zeros).is_tie
    assert not paired_difference(zeros, a).is_tie
    unclear = paired_difference(a - 1, zeros)
    assert unclear.is_tie
    assert 'a tie' in unclear.to_text()


def test_paired_difference_over_clusters_counts_clusters() -> None:
    a = np.array([1.0, 1.0, 1.0, 1.0, 4.0, 0.0])
    clusters = [0, 0, 0, 0, 1, 2]
    assert paired_difference(a, np.zeros(6), clusters=clusters) == paired_difference(
        [1.0, 4.0, 0.0], np.zeros(3)
    )


def test_paired_interval_covers_the_true_difference() -> None:
    generator = np.random.default_rng(4)
    draws = generator.normal(0.5, 2.0, (2000, 5))
    found = [paired_difference(row, np.zeros(5)) for row in draws]
    assert np.mean([each.low <= 0.5 <= each.high for each in found]) == pytest.approx(
        0.95, abs=0.02
    )


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(PruningError, match='at least 2 pairs'):
        paired_difference([1.0], [2.0])
    with pytest.raises(PruningError, match='at least 2 pairs'):
        paired_difference([1.0, 2.0], [2.0, 2.0], clusters=[0, 0])
    with pytest.raises(PruningError, match='shapes'):
        paired_difference([1.0, 2.0], [2.0])
    with pytest.raises(PruningError, match='finite'):
        paired_difference([1.0, float('nan')], [2.0, 1.0])


def networks(
    draw: np.random.Generator, seeds: int, images: int, *, seed: float, taste: float, noise: float
) -> np.ndarray:
    """Return (seeds, images) differences of two methods that are equally good over all of both."""
    image = draw.normal(2, 2, images)
    sides = []
    for _ in range(2):
        level = image + taste * draw.standard_normal(images)
        level = level + seed * draw.standard_normal((seeds, 1))
        sides.append(level + noise * draw.standard_normal((seeds, images)) > 0)
    return sides[0].astype(float) - sides[1]


SPREADS = (
    {'seed': 0.0, 'taste': 1.0, 'noise': 0.3},
    {'seed': 0.03, 'taste': 0.5, 'noise': 0.5},
    {'seed': 0.2, 'taste': 0.0, 'noise': 1.0},
)


@pytest.mark.parametrize('spreads', SPREADS)
@pytest.mark.parametrize('seeds', [2, 5])
def test_equal_methods_seem_different_no_more_often_than_said(seeds: int, spreads: dict) -> None:
    draw, worlds = np.random.default_rng(5), 400
    wrong = 0
    for _ in range(worlds):
        differences = networks(draw, seeds, 400, **spreads)
        found = crossed_difference(differences, np.zeros_like(differences))
        wrong += not found.is_tie
    assert stats.binom.sf(wrong - 1, worlds, 0.05) > 1e-3


def test_the_same_check_finds_intervals_over_seeds_alone_and_resampled_seeds() -> None:
    draw, worlds = np.random.default_rng(5), 400
    alone = resampled = 0
    for _ in range(worlds):
        means = networks(draw, 5, 400, **SPREADS[0]).mean(1)
        alone += not paired_difference(means, np.zeros(5)).is_tie
        means = networks(draw, 3, 400, **SPREADS[2]).mean(1)
        low, high = np.percentile(means[draw.integers(0, 3, (200, 3))].mean(1), [2.5, 97.5])
        resampled += not low <= 0 <= high
    for wrong in (alone, resampled):
        assert stats.binom.sf(wrong - 1, worlds, 0.05) < 1e-3


def test_crossed_difference_as_by_hand_and_its_p_is_where_the_interval_reaches_zero() -> None:
    differences = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    found = crossed_difference(differences, np.zeros((2, 4)))
    of_seeds = stats.t.ppf(0.975, 1) ** 2 * differences.mean(1).var(ddof=1) / 2
    of_images = stats.t.ppf(0.975, 3) ** 2 * differences.mean(0).var(ddof=1) / 4
    assert found.mean == 0.625
    assert found.high - found.mean == pytest.approx((of_seeds + of_images) ** 0.5)
    assert (found.pairs, found.images) == (2, 4)
    at_p = crossed_difference(differences, np.zeros((2, 4)), confidence=1 - found.p_value)
    assert at_p.low == pytest.approx(0, abs=1e-9)
    assert '2 pairs × 4 images' in found.to_text()
    assert from_dict(PairedDifference, json.loads(json.dumps(to_dict(found)))) == found


def test_one_seed_has_an_interval_over_images_alone() -> None:
    differences = np.array([[1.0, 0.0, 1.0, 0.0, 0.0]])
    found = crossed_difference(differences, np.zeros((1, 5)))
    low, high = stats.ttest_1samp(differences[0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue)


def test_networks_that_never_differ_are_a_tie() -> None:
    same = np.ones((3, 7))
    found = crossed_difference(same, same)
    assert (found.low, found.high, found.p_value) == (0.0, 0.0, 1.0)
    assert found.is_tie


@pytest.mark.parametrize(
    ('a', 'b', 'message'),
    [
        (np.zeros(3), np.zeros(3), 'must be'),
        (np.zeros((2, 3)), np.zeros((2, 4)), 'must be'),
        (np.zeros((2, 1)), np.zeros((2, 1)), 'at least 2 images'),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), 'finite'),
    ],
)
def test_outcomes_that_cannot_be_compared_are_refused(a, b, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        crossed_difference(a, b)
