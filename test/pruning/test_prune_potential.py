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

"""Certified prune potential: known answers, closed testing by brute force, wrong certifications."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pruned_perception.pruning import PruningError, prune_potential
from pruned_perception.pruning.eprocess import FRACTIONS, WEIGHTS
from pruned_perception.pruning.prune_potential import (
    adjust_evidence,
    certify_potential,
    layouts_needed,
    loss_evidence,
)

LOGS = st.lists(st.lists(st.floats(-8, 8), min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda each: dict(enumerate(each))
)


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(prune_potential)
    assert found.attempted >= 5
    assert found.failed == 0


def test_evidence_of_two_layouts_as_by_hand() -> None:
    # margin .2: terms (.2 − 0) / .8 = .25 and (.2 − 1) / .8 = −1
    expected = sum(w * (1 + c / 4) * (1 - c) for w, c in zip(WEIGHTS, FRACTIONS, strict=True))
    assert math.exp(loss_evidence([0.0, 1.0], margin=0.2)) == pytest.approx(expected)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.data())
def test_a_larger_loss_anywhere_is_less_evidence(differences, data) -> None:
    index = data.draw(st.integers(0, len(differences) - 1))
    worse = [*differences]
    worse[index] = data.draw(st.floats(differences[index], 1))
    assert loss_evidence(worse, margin=0.1) <= loss_evidence(differences, margin=0.1) + 1e-12


@given(LOGS)
def test_adjusted_evidence_is_closed_testing_over_all_sets_of_hypotheses(logs) -> None:
    # Each set is tested by the mean, over its corruptions, of its largest member's e-value.
    hypotheses = [(name, j) for name, members in logs.items() for j in range(len(members))]
    hardest = dict.fromkeys(hypotheses, math.inf)
    for chosen in itertools.product([False, True], repeat=len(hypotheses)):
        members = list(itertools.compress(hypotheses, chosen))
        first = dict(reversed(members))
        if not members:
            continue
        value = np.mean([math.exp(logs[name][j]) for name, j in first.items()])
        for each in members:
            hardest[each] = min(hardest[each], value)
    for name, adjusted in adjust_evidence(logs).items():
        expected = [hardest[name, j] for j in range(len(adjusted))]
        assert np.exp(adjusted) == pytest.approx(expected)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=6))
def test_one_corruption_stops_at_the_first_member_without_evidence(logs) -> None:
    assert adjust_evidence({'clean': logs})['clean'] == pytest.approx(np.minimum.accumulate(logs))


@given(LOGS)
def test_adjusting_never_adds_evidence(logs) -> None:
    for name, adjusted in adjust_evidence(logs).items():
        assert all(a <= e + 1e-9 for a, e in zip(adjusted, logs[name], strict=True))


def test_corruptions_that_are_certified_to_their_end_cost_the_others_nothing() -> None:
    sound, half = [0.0] * 200, [0.0] * 80
    alone = certify_potential({'noise': [half]}, margin=0.05)
    beside = certify_potential({'clean': [sound], 'noise': [half]}, margin=0.05)
    failing = certify_potential({'clean': [[1.0] * 80], 'noise': [half]}, margin=0.05)
    assert alone['noise'].certified == beside['noise'].certified == 1
    assert failing['noise'].certified == 0
    assert failing['clean'].certified == 0


def test_a_small_member_is_not_certified_past_a_larger_one_that_is_not() -> None:
    found = certify_potential({'clean': [[0.0] * 200, [0.3] * 200, [0.0] * 200]}, margin=0.05)
    assert found['clean'].certified == 1
    assert found['clean'].evidence[2] == found['clean'].evidence[1]


def losing(generator: np.random.Generator, loss: float, layouts: int) -> np.ndarray:
    """Return differences of mean `loss`: layouts differ, and a few lose everything."""
    collapse = generator.random(layouts) < loss / 2
    usual = generator.binomial(20, loss / 2 / (1 - loss / 2), layouts) / 20
    return np.where(collapse, 1.0, usual)


def wrong_certifications(worlds: int, certify) -> np.ndarray:
    """Return whether anything is certified where all members lose the margin itself."""
    generator = np.random.default_rng(0)
    wrong = np.zeros(worlds, bool)
    for world in range(worlds):
        members = {
            name: [losing(generator, 0.1, 60) for _ in range(3)] for name in ('clean', 'noise')
        }
        wrong[world] = certify(members)
    return wrong


def test_hardly_ever_is_anything_certified_that_loses_the_margin() -> None:
    wrong = wrong_certifications(
        600,
        lambda members: any(
            each.certified for each in certify_potential(members, margin=0.1).values()
        ),
    )
    assert stats.binom.sf(wrong.sum() - 1, len(wrong), 0.05) > 1e-3


def test_the_same_check_finds_a_comparison_of_means_with_the_margin() -> None:
    wrong = wrong_certifications(
        600,
        lambda members: any(
            # Student's upper bound of the smallest mean, each member at the whole α
            min(
                D.mean() + stats.t.ppf(0.95, 59) * D.std(ddof=1) / math.sqrt(60)
                for each in members.values()
                for D in each
            )
            < 0.1
            for _ in (0,)
        ),
    )
    assert stats.binom.sf(wrong.sum() - 1, len(wrong), 0.05) < 1e-3


def test_members_that_lose_nothing_are_certified_with_enough_layouts() -> None:
    layouts = layouts_needed(0.05, tests=1)
    members = [np.zeros(layouts)] * 3
    assert certify_potential({'clean': members}, margin=0.05)['clean'].certified == 3
    fewer = [np.zeros(layouts - 1)] * 3
    assert certify_potential({'clean': fewer}, margin=0.05)['clean'].certified == 0


@pytest.mark.parametrize(
    ('differences', 'margin', 'message'),
    [
        ([], 0.1, 'no layout'),
        ([0.1, 1.2], 0.1, r'in \[−1, 1\]'),
        ([math.nan], 0.1, r'in \[−1, 1\]'),
        ([0.1], 0.0, 'margin'),
        ([0.1], 1.0, 'margin'),
    ],
)
def test_impossible_differences_and_margins_are_refused(differences, margin, message) -> None:
    with pytest.raises(PruningError, match=message):
        certify_potential({'clean': [differences]}, margin=margin)


def test_families_without_members_and_hopeless_losses_are_refused() -> None:
    for nothing in ({}, {'clean': []}):
        with pytest.raises(PruningError, match='some member'):
            certify_potential(nothing, margin=0.1)
    with pytest.raises(PruningError, match='confidence'):
        certify_potential({'clean': [[0.0]]}, margin=0.1, confidence=1)
    with pytest.raises(PruningError, match='cannot be certified to be below'):
        layouts_needed(0.05, 0.05)
    with pytest.raises(PruningError, match='tests'):
        layouts_needed(0.05, tests=0)
