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

"""Stamps: ages, and what is wrong with them."""

from __future__ import annotations

import pytest

from pruned_perception.nodes.header_stamps import StampWatch, in_words

S = 1_000_000_000
NOW = 1_700_000_000 * S


def test_each_fault_is_counted_by_itself() -> None:
    watch = StampWatch()
    watch.observe(NOW, NOW + S)
    watch.observe(0, NOW + S)
    watch.observe(NOW + 60 * S, NOW + 2 * S)
    watch.observe(NOW - 100 * S, NOW + 3 * S)
    counts = watch.counts
    assert (counts.total, counts.zero, counts.future, counts.old) == (4, 1, 1, 1)
    assert (counts.backwards, counts.backwards_s) == (1, 160.0)
    assert (counts.future_s, counts.old_s) == (58.0, 103.0)
    assert counts.last_age_s == pytest.approx(103.0)
    watch.observe(NOW + 4 * S, NOW + 4 * S)  # a young one leaves that as it is
    assert (watch.counts.last_age_s, watch.counts.old_s, watch.counts.future_s) == (
        0.0,
        103.0,
        58.0,
    )


def test_small_differences_of_clocks_are_normal() -> None:
    watch = StampWatch()
    watch.observe(NOW + S // 20, NOW)
    assert watch.counts.future == 0


def test_without_a_clock_nothing_is_said_of_age() -> None:
    watch = StampWatch()
    watch.observe(NOW, 0)
    assert watch.counts.last_age_s is None
    assert watch.counts.future == watch.counts.old == 0


def test_counts_of_a_period() -> None:
    watch = StampWatch()
    watch.observe(0, NOW)
    before = watch.counts
    watch.observe(0, NOW)
    watch.observe(NOW, NOW)
    period = watch.counts.since(before)
    assert (period.total, period.zero) == (2, 1)


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (0.25, '0.2 s'),
        (90, '90.0 s'),
        (600, '10.0 min'),
        (7200, '2.0 h'),
        (3 * 31_557_600, '3.0 years'),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
