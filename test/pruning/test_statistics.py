"""Paired differences against known answers, and their coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from pruned_perception.pruning import PruningError
from pruned_perception.pruning.records import from_dict, to_dict
from pruned_perception.pruning.statistics import PairedDifference, paired_difference


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
