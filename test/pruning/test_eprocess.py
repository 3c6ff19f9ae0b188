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

"""The bound over drives: its mathematics, known answers, and its coverage in simulated drives."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pruned_perception.pruning import PruningError, eprocess
from pruned_perception.pruning.eprocess import (
    FRACTIONS,
    WEIGHTS,
    drives_needed,
    log_evidence,
    rate_bound,
    rate_bounds,
    upper_bounds,
)

LONGEST = 30
DRIVE = st.integers(1, LONGEST).flatmap(
    lambda count: st.tuples(st.integers(0, count), st.just(count))
)
SEVERAL = st.lists(DRIVE, min_size=2, max_size=40)
LEVELS = st.sampled_from([0.5, 0.9, 0.95, 0.999])


def bound_of(drives: list[tuple[int, int]], **options: float) -> float:
    events, counts = zip(*drives, strict=True)
    return rate_bound(events, counts, **{'longest': LONGEST, **options})


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(eprocess)
    assert found.attempted >= 8
    assert found.failed == 0


def test_weights_are_a_distribution_and_no_stake_can_lose_everything() -> None:
    assert sum(WEIGHTS) == pytest.approx(1)
    assert max(FRACTIONS) <= 0.9


@pytest.mark.parametrize('drives', [2, 20, 100])
def test_drives_without_an_event_have_the_bound_of_the_closed_form(drives: int) -> None:
    # Every factor is 1 + c m / (1 − m).
    bound = rate_bound([0] * drives, [60] * drives, longest=60)
    odds = bound / (1 - bound)
    worth = sum(w * (1 + c * odds) ** drives for w, c in zip(WEIGHTS, FRACTIONS, strict=True))
    assert worth == pytest.approx(20, rel=1e-6)
    # Nobody can prove less than the exact bound of as many independent yes and no.
    assert bound > 1 - 0.05 ** (1 / drives)


def test_two_drives_as_by_hand() -> None:
    # X / (1 − m) at m = ½, L = 10: (½ · 10 − 2) / 10 / ½ = .6 and (½ · 5 − 1) / 10 / ½ = .3
    expected = sum(
        w * (1 + 0.6 * c) * (1 + 0.3 * c) for w, c in zip(WEIGHTS, FRACTIONS, strict=True)
    )
    assert log_evidence([2, 1], [10, 5], 0.5, longest=10) == pytest.approx(math.log(expected))


@given(SEVERAL, LEVELS)
def test_the_bound_is_never_below_the_share_of_events(drives, confidence) -> None:
    share = sum(e for e, _ in drives) / sum(n for _, n in drives)
    assert share <= bound_of(drives, confidence=confidence) <= 1


@given(SEVERAL, st.floats(0, 0.99), st.floats(0, 0.99))
def test_evidence_grows_with_the_rate_so_that_all_rates_from_the_bound_on_are_rejected(
    drives, first, second
) -> None:
    events, counts = zip(*drives, strict=True)
    low, high = (
        float(log_evidence(events, counts, m, longest=LONGEST)) for m in sorted([first, second])
    )
    assert low <= high + 1e-9


@given(SEVERAL, st.data(), LEVELS)
def test_one_event_more_never_lowers_the_bound(drives, data, confidence) -> None:
    index = data.draw(st.integers(0, len(drives) - 1))
    events, count = drives[index]
    worse = [*drives]
    worse[index] = (min(events + 1, count), count)
    assert bound_of(worse, confidence=confidence) >= bound_of(drives, confidence=confidence)


@given(SEVERAL, st.integers(1, LONGEST))
def test_one_more_drive_without_events_never_raises_the_bound(drives, count) -> None:
    assert bound_of([*drives, (0, count)]) <= bound_of(drives) + 1e-12


@given(SEVERAL, st.randoms(use_true_random=False), LEVELS)
def test_the_order_of_the_drives_and_empty_ones_make_no_difference(
    drives, random, confidence
) -> None:
    shuffled = [*drives, (0, 0)]
    random.shuffle(shuffled)
    again = bound_of(shuffled, confidence=confidence)
    assert again == pytest.approx(bound_of(drives, confidence=confidence), abs=1e-9)


@given(SEVERAL, st.integers(2, 50))
def test_only_proportions_count(drives, factor) -> None:
    scaled = [(factor * e, factor * n) for e, n in drives]
    expected = pytest.approx(bound_of(drives), abs=1e-9)
    assert bound_of(scaled, longest=factor * LONGEST) == expected


@given(SEVERAL)
def test_more_confidence_costs_a_higher_bound(drives) -> None:
    bounds = [bound_of(drives, confidence=level) for level in (0.5, 0.9, 0.95, 0.999)]
    assert bounds == sorted(bounds)


@given(SEVERAL, LEVELS)
def test_the_lower_bound_is_of_what_is_no_event(drives, confidence) -> None:
    events, counts = map(np.array, zip(*drives, strict=True))
    low = rate_bound(events, counts, longest=LONGEST, confidence=confidence, side='lower')
    assert 0 <= low <= events.sum() / counts.sum()
    other = rate_bound(counts - events, counts, longest=LONGEST, confidence=confidence)
    assert low == pytest.approx(1 - other)


def test_drives_that_fail_wholly_prove_nothing() -> None:
    assert rate_bound([30] * 50, [30] * 50, longest=30) == 1


def test_samples_have_the_bounds_that_each_has_alone() -> None:
    events, counts = np.array([[0, 3, 1], [2, 2, 9]]), np.array([[5, 9, 4], [3, 2, 9]])
    both = upper_bounds(events, counts, longest=9)
    alone = [rate_bound(events[world], counts[world], longest=9) for world in (0, 1)]
    assert both == pytest.approx(alone)


def draw(
    worlds: int, drives: int, rate: float, icc: float, longest: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return events and counts of drives of all lengths up to `longest`."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, longest + 1, (worlds, drives))
    total = (1 - icc) / icc
    own = generator.beta(rate * total, (1 - rate) * total, (worlds, drives))
    return generator.binomial(counts, own), counts


def is_wrong_too_often(wrong: np.ndarray, alpha: float) -> bool:
    """Say whether chance makes so many wrong statements in fewer than one of 1,000 studies."""
    return bool(stats.binom.sf(wrong.sum() - 1, len(wrong), alpha) < 1e-3)


@pytest.mark.parametrize('icc', [0.05, 0.7])
@pytest.mark.parametrize('drives', [3, 20, 60])
def test_bounds_hold_for_drives_of_unequal_lengths(drives: int, icc: float) -> None:
    events, counts = draw(1500, drives, 0.1, icc, longest=40)
    assert not is_wrong_too_often(upper_bounds(events, counts, longest=40) < 0.1, 0.05)


def rare_long_failures(worlds: int, drives: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return drives of which one in fifty is ten times as long, and fails on every frame."""
    generator = np.random.default_rng(1)
    long = generator.random((worlds, drives)) < 0.02
    counts = np.where(long, 200, 20)
    events = np.where(long, 200, generator.binomial(20, 0.05, long.shape))
    return events, counts, (0.02 * 200 + 0.98 * 20 * 0.05) / (0.02 * 200 + 0.98 * 20)


def test_bounds_hold_where_few_long_drives_fail_that_hardly_any_holdout_shows() -> None:
    events, counts, truth = rare_long_failures(1500, 20)
    assert not is_wrong_too_often(upper_bounds(events, counts, longest=200) < truth, 0.05)


def test_the_same_check_finds_a_bound_that_believes_the_longest_drive_seen() -> None:
    events, counts, truth = rare_long_failures(1500, 20)
    calm = counts.max(1) == 20
    seen = np.where(
        calm,
        upper_bounds(np.minimum(events, 20), np.minimum(counts, 20), longest=20),
        upper_bounds(events, counts, longest=200),
    )
    assert is_wrong_too_often(seen < truth, 0.05)


def test_the_same_check_finds_a_bound_that_counts_frames_as_independent() -> None:
    events, counts = draw(1500, 20, 0.1, 0.3, longest=40)
    total, n = events.sum(1), counts.sum(1)
    bounds = stats.beta.ppf(0.95, total + 1, n - total)
    assert is_wrong_too_often(bounds < 0.1, 0.05)


def test_bounds_hold_after_every_drive_at_once() -> None:
    # Drives that fail wholly or not at all: where there is least to spare.
    events = 20 * (np.random.default_rng(1).random((1500, 60)) < 0.3)
    wrong = np.zeros(1500, bool)
    for seen in range(1, 61):
        early = events[:, :seen]
        evidence = log_evidence(early, np.full(early.shape, 20), [0.3] * 1500, longest=20)
        wrong |= evidence >= math.log(20)
    assert not is_wrong_too_often(wrong, 0.05)
    assert wrong.mean() > 0.01  # it is tried hard


@pytest.mark.parametrize('shared', [True, False])
def test_bounds_of_several_statements_hold_at_once_only_where_they_share_alpha(shared) -> None:
    # The rate is just above the bound after 16 drives without an event: wrong with 2.8 %, each.
    rate, statements = 0.2, 10
    events = 10 * (np.random.default_rng(3).random((1000, statements, 16)) < rate)
    confidence = 1 - 0.05 / statements if shared else 0.95
    bounds = upper_bounds(events, np.full(events.shape, 10), longest=10, confidence=confidence)
    assert is_wrong_too_often((bounds < rate).any(1), 0.05) == (not shared)


def test_shared_bounds_are_single_ones_at_their_part_of_alpha() -> None:
    day, night = ([1, 0, 2], [9, 9, 9]), ([1, 0, 2], [3, 3, 3])
    bounds = rate_bounds({'day': day, 'night': night}, longest={'day': 9, 'night': 3})
    assert bounds['day'] == rate_bound(*day, longest=9, confidence=0.975)
    assert bounds['night'] == rate_bound(*night, longest=3, confidence=0.975)


@given(st.lists(st.integers(0, 3), min_size=5, max_size=40), st.floats(0.05, 0.95))
def test_so_many_drives_more_like_these_reach_the_target_and_one_fewer_do_not(events, part) -> None:
    counts, k = [20] * len(events), len(events)
    now, share = rate_bound(events, counts, longest=20), sum(events) / sum(counts)
    target = share + part * (now - share)
    more = drives_needed(events, counts, target, longest=20)
    logs = np.array(
        [
            np.log1p(c * (np.subtract(target * 20, events) / 20 / (1 - target))).sum()
            for c in FRACTIONS
        ]
    )
    worth = [WEIGHTS @ np.exp(logs * (k + x) / k) for x in (more - 1, more)]
    assert more > 0
    assert worth[0] < 20 * (1 + 1e-9)
    assert worth[1] >= 20 * (1 - 1e-9)


def test_whole_copies_of_the_holdout_do_what_is_forecast() -> None:
    events, counts = [3, 0, 1, 5], [20] * 4
    target = rate_bound(events * 3, counts * 3, longest=20)
    assert drives_needed(events, counts, target + 1e-9, longest=20) == 8


def test_no_drive_is_needed_for_what_is_proven_already() -> None:
    assert drives_needed([0] * 20, [9] * 20, 0.2, longest=9) == 0


def test_a_target_below_what_was_seen_is_out_of_reach() -> None:
    with pytest.raises(PruningError, match=r'out of reach.* 10\.0% are events'):
        drives_needed([1] * 20, [10] * 20, 0.1, longest=10)


@pytest.mark.parametrize(
    ('events', 'counts', 'longest', 'message'),
    [
        ([1, 0], [5, 21], 20, r'a drive of 21, declared are at most 20: declare'),
        ([1, 0], [5, 5], 0, 'declared are at most 0'),
        ([1, 0], [5, 5], math.nan, 'declared are at most nan'),
        ([1], [5], 20, 'only 1 drive to judge by'),
        ([], [], 20, 'only 0 drive'),
        ([1, 0, 0], [5, 0, 0], 20, 'only 1 of 3 drives to judge by'),
        ([0, 0, 0], [0, 0, 0], 20, 'only 0 of 3 drives to judge by.*leave it out'),
        ([6, 0], [5, 5], 20, 'a drive with 6 events of 5'),
        ([-1, 0], [5, 5], 20, 'a drive with -1 events of 5'),
        ([0.5, 0], [5, 5], 20, r'events: must be whole numbers, got 0\.5'),
        ([0, 0], [5, math.inf], 20, 'counts: must be whole numbers, got inf'),
        ([math.nan, 0], [5, 5], 20, 'events: must be whole numbers, got nan'),
        ([1, 0, 0], [5, 5], 20, 'give both for each drive'),
    ],
)
def test_counts_that_cannot_be_are_refused(events, counts, longest, message) -> None:
    with pytest.raises(PruningError, match=message):
        rate_bound(events, counts, longest=longest)
    with pytest.raises(PruningError, match=f'night: .*{message}'):
        rate_bounds({'night': (events, counts)}, longest=longest)
    with pytest.raises(PruningError, match=message):
        drives_needed(events, counts, 0.5, longest=longest)


@pytest.mark.parametrize('confidence', [0, 1, -0.1, 1.5, math.nan])
def test_confidence_outside_0_1_is_refused(confidence: float) -> None:
    drives = ([1, 0], [5, 5])
    with pytest.raises(PruningError, match='confidence'):
        rate_bound(*drives, longest=5, confidence=confidence)
    with pytest.raises(PruningError, match='confidence'):
        rate_bounds({'all': drives}, longest=5, confidence=confidence)
    with pytest.raises(PruningError, match='confidence'):
        drives_needed(*drives, 0.5, longest=5, confidence=confidence)


@pytest.mark.parametrize('target', [0, 1, math.nan])
def test_targets_outside_0_1_are_refused(target: float) -> None:
    with pytest.raises(PruningError, match=r'must be in \(0, 1\)'):
        drives_needed([1, 0], [5, 5], target, longest=5)


def test_statements_must_be_there() -> None:
    with pytest.raises(PruningError, match='no statement'):
        rate_bounds({}, longest=5)
