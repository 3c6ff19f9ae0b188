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

"""Evidence against a certificate: known answers, false alarms, what is kept across drives."""

from __future__ import annotations

import doctest
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pruned_perception.errors import UserError
from pruned_perception.inference import evidence as module
from pruned_perception.inference.evidence import (
    FRACTIONS,
    DriveEvidence,
    log_wealth,
    longest_sample,
)

START = DriveEvidence('3f2a', bound=0.1, longest=50)
DRIVE = st.integers(0, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def after(drives: list[tuple[int, int]], start: DriveEvidence = START) -> DriveEvidence:
    for events, counts in drives:
        start = start.after_drive(events, counts)
    return start


def test_examples_in_the_documentation_hold() -> None:
    found = doctest.testmod(module)
    assert found.attempted >= 5
    assert found.failed == 0


def test_the_robot_needs_neither_torch_nor_scipy_for_it() -> None:
    code = (
        'import sys, pruned_perception.inference.evidence, pruned_perception.inference.intervals\n'
        'sys.exit(any(name in sys.modules for name in ("torch", "scipy")))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_evidence_is_the_mean_over_twenty_stakes_below_one_over_b() -> None:
    # Drives of the declared length: factors 1 + λ (x − b).
    stakes = [c / 0.1 for c in FRACTIONS]
    assert len(stakes) == 20
    assert 0 < min(stakes) < max(stakes) < 1 / 0.1
    expected = np.mean([(1 + s * (0.3 - 0.1)) * (1 + s * (0.0 - 0.1)) for s in stakes])
    assert after([(15, 50), (0, 50)]).value == pytest.approx(expected)


def test_a_shorter_drive_counts_in_proportion() -> None:
    stakes = [c / 0.1 for c in FRACTIONS]
    expected = np.mean([1 + s * (0.3 - 0.1) * 20 / 50 for s in stakes])
    assert after([(6, 20)]).value == pytest.approx(expected)


def test_a_drive_longer_than_declared_counts_as_one_of_that_length() -> None:
    assert after([(30, 100)]).logs == pytest.approx(after([(15, 50)]).logs)


@given(st.lists(DRIVE, max_size=30), st.integers(0, 50))
def test_evidence_grows_with_events_and_not_with_drives_that_keep_the_bound(drives, n) -> None:
    before = after(drives)
    kept = before.after_drive(math.floor(0.1 * n), n)
    assert kept.log_value <= before.log_value + 1e-12
    for events in range(min(n, 5)):
        more = before.after_drive(events + 1, n)
        assert more.log_value > before.after_drive(events, n).log_value


@given(st.lists(DRIVE, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_drives_makes_no_difference_but_to_an_alarm(drives, random) -> None:
    shuffled = [*drives]
    random.shuffle(shuffled)
    assert after(shuffled).logs == pytest.approx(after(drives).logs)
    assert after(drives).counts == sum(n for _, n in drives)
    assert after(drives).drives == sum(n > 0 for _, n in drives)


def test_thousands_of_drives_neither_overflow_nor_underflow() -> None:
    bad = after([(50, 50)] * 3000)
    assert math.isfinite(bad.log_value)
    assert bad.value == pytest.approx(math.exp(700))
    good = after([(0, 50)] * 30_000)
    assert math.isfinite(good.log_value)
    assert 0 <= good.value < 1e-50
    assert good.to_text().startswith('evidence against the certificate: 0.00 of 100 needed')


def test_an_alarm_stays_when_later_drives_are_good() -> None:
    alarmed = after([(30, 50)] * 4)
    assert alarmed.alarmed
    later = after([(0, 50)] * 200, alarmed)
    assert later.value < 1
    assert later.alarmed
    assert 'ALARM' in later.to_text()


@given(st.lists(DRIVE, max_size=40))
def test_the_alarm_is_raised_exactly_when_the_evidence_reaches_what_is_needed(drives) -> None:
    largest, state = 1.0, START
    for events, counts in drives:
        state = state.after_drive(events, counts)
        largest = max(largest, state.value)
        assert state.alarmed == (largest >= 100 * (1 - 1e-12))


def alarms(icc: float, rate: float, bound: float, *, by_frame: bool) -> np.ndarray:
    """Return (1000,) whether an alarm is ever raised in 300 drives of 40 frames, at α = .05."""
    generator = np.random.default_rng(0)
    total = (1 - icc) / icc
    own = generator.beta(rate * total, (1 - rate) * total, (1000, 300))
    events = generator.binomial(40, own)
    paths = []
    for c in FRACTIONS:
        if by_frame:
            each = events * math.log1p(c * (1 / bound - 1)) + (40 - events) * math.log1p(-c)
        else:
            each = np.log1p(c * (events / 40 / bound - 1))
        paths.append(np.cumsum(each, 1) - math.log(len(FRACTIONS)))
    return (np.logaddexp.reduce(paths) >= math.log(20)).any(1)


def is_wrong_too_often(wrong: np.ndarray, alpha: float) -> bool:
    return bool(stats.binom.sf(wrong.sum() - 1, len(wrong), alpha) < 1e-3)


@pytest.mark.parametrize('icc', [0.01, 0.3, 0.7])
def test_false_alarms_are_as_rare_as_promised_at_any_look(icc: float) -> None:
    assert not is_wrong_too_often(alarms(icc, 0.1, 0.1, by_frame=False), 0.05)


def test_the_same_check_finds_bets_on_single_frames() -> None:
    assert is_wrong_too_often(alarms(0.1, 0.1, 0.1, by_frame=True), 0.05)


def test_a_rate_of_three_times_the_bound_is_found() -> None:
    assert alarms(0.3, 0.3, 0.1, by_frame=False).mean() > 0.99


def test_the_simulated_statistic_is_the_one_of_the_class() -> None:
    events = np.random.default_rng(1).integers(0, 12, 60)
    state = after([(int(e), 50) for e in events])
    terms = (events - 0.1 * 50) / (0.1 * 50)
    assert state.log_value == pytest.approx(float(log_wealth(terms, FRACTIONS)))


@given(st.lists(DRIVE, max_size=20), DRIVE)
def test_what_is_kept_goes_on_as_if_never_interrupted(drives, more) -> None:
    state = after(drives)
    again = START.restore(json.loads(json.dumps(state.to_dict())))
    assert again == state
    assert again.after_drive(*more) == state.after_drive(*more)


def kept() -> dict:
    return json.loads(json.dumps(after([(9, 50), (3, 30)]).to_dict()))


@pytest.mark.parametrize(
    'change',
    [
        {'events': 0},
        {'logs': [0.0] * 20},
        {'logs': [0.0]},
        {'highest': 0.0},
        {'sha256': ''},
        {'more': 1},
        {'certificate': None},
    ],
)
def test_edited_evidence_is_refused(change) -> None:
    with pytest.raises(UserError, match='edited or is damaged: move the file away'):
        START.restore({**kept(), **change})


@pytest.mark.parametrize('name', ['logs', 'sha256', 'drives'])
def test_incomplete_evidence_is_refused(name: str) -> None:
    data = kept()
    del data[name]
    with pytest.raises(UserError, match='damaged'):
        START.restore(data)


@pytest.mark.parametrize('data', [None, [], 'text', {}, {'version': 99}])
def test_other_data_is_refused(data) -> None:
    with pytest.raises(UserError, match='not evidence of version 1'):
        START.restore(data)


@pytest.mark.parametrize(
    'other',
    [
        DriveEvidence('other', bound=0.1, longest=50),
        DriveEvidence('3f2a', bound=0.2, longest=50),
        DriveEvidence('3f2a', bound=0.1, longest=60),
        DriveEvidence('3f2a', bound=0.1, longest=50, alpha=0.05),
    ],
)
def test_evidence_of_another_test_is_refused(other: DriveEvidence) -> None:
    with pytest.raises(UserError, match=r'of another test: .*move the file away'):
        other.restore(kept())


@pytest.mark.parametrize(
    ('events', 'counts'),
    [(3, 2), (-1, 2), (0.5, 2), (0, 1.5), (0, -1), (math.nan, 2), (1, math.inf)],
)
def test_impossible_drives_are_refused(events, counts) -> None:
    with pytest.raises(UserError, match='must be whole'):
        START.after_drive(events, counts)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'bound': 1.0, 'longest': 50}, 'can be contradicted'),
        ({'bound': 0.0, 'longest': 50}, 'can be contradicted'),
        ({'bound': math.nan, 'longest': 50}, 'can be contradicted'),
        ({'bound': 0.1, 'longest': 0}, 'longest drive'),
        ({'bound': 0.1, 'longest': 50, 'alpha': 0.0}, 'false alarm'),
    ],
)
def test_impossible_tests_are_refused(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        DriveEvidence('3f2a', **arguments)


def test_evidence_is_rounded_down_so_that_all_that_is_needed_means_an_alarm() -> None:
    state = START
    while not state.alarmed:
        assert ': 100 of 100' not in state.to_text()
        state = state.after_drive(7, 50)


def test_a_random_share_hardly_ever_holds_more_than_its_longest_sample() -> None:
    sizes = np.random.default_rng(0).binomial(18_000, 0.02, 200_000)
    assert sizes.max() <= longest_sample(18_000, 0.02) < 1.3 * 360
    assert longest_sample(50, 1.0) == 50
    with pytest.raises(UserError, match='sample'):
        longest_sample(0, 0.5)
    with pytest.raises(UserError, match='sample'):
        longest_sample(10, 0.0)
