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

"""The latest-frame slot: the newest wins, and no frame is missing from the accounts."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.nodes.latest_frame import OUTCOMES, FrameCounts, LatestFrame


def total(counts: FrameCounts) -> int:
    return counts.published + counts.superseded + counts.stale + counts.error + counts.waiting


def test_a_newer_frame_replaces_the_waiting_one() -> None:
    slot: LatestFrame[str] = LatestFrame()
    assert [slot.put(name) for name in 'abc'] == [False, True, True]
    assert slot.take() == 'c'
    assert slot.counts() == FrameCounts(received=3, superseded=2, waiting=1)
    slot.finish('published')
    assert slot.counts() == FrameCounts(received=3, published=1, superseded=2)


def test_a_closed_slot_gives_none_and_counts_what_waited() -> None:
    slot: LatestFrame[str] = LatestFrame()
    slot.put('a')
    slot.close()
    slot.put('b')
    assert slot.take() is None
    assert slot.counts() == FrameCounts(received=2, superseded=2)


def test_closing_wakes_the_worker() -> None:
    slot: LatestFrame[str] = LatestFrame()
    taken: list[str | None] = []
    worker = threading.Thread(target=lambda: taken.append(slot.take()))
    worker.start()
    slot.close()
    worker.join(10)
    assert taken == [None]


def test_an_unknown_outcome_is_a_defect() -> None:
    slot: LatestFrame[str] = LatestFrame()
    slot.put('a')
    slot.take()
    with pytest.raises(ValueError, match='published, superseded, stale, error'):
        slot.finish('lost')


@given(st.lists(st.sampled_from(['put', 'take', *OUTCOMES, 'close']), max_size=60))
def test_the_accounts_balance_after_every_step(steps: list[str]) -> None:
    slot: LatestFrame[int] = LatestFrame()
    in_hand = False
    closed = False
    for step in steps:
        if step == 'put':
            slot.put(0)
        elif step == 'close':
            slot.close()
            closed = True
        elif step == 'take':
            waiting = slot.counts().waiting
            if not in_hand and (closed or waiting):
                in_hand = slot.take() is not None
        elif in_hand:
            slot.finish(step)
            in_hand = False
        counts = slot.counts()
        assert counts.received == total(counts)
        assert counts.dropped == counts.superseded + counts.stale + counts.error


def test_two_threads_lose_no_frame_and_end_with_the_newest() -> None:
    slot: LatestFrame[int] = LatestFrame()
    frames = 20_000
    taken: list[int] = []
    balanced: list[bool] = []
    choose = random.Random(0)

    def work() -> None:
        while (frame := slot.take()) is not None:
            taken.append(frame)
            slot.finish(choose.choice(['published', 'stale', 'error']))

    worker = threading.Thread(target=work)
    worker.start()
    for frame in range(frames):
        slot.put(frame)
        if frame % 100 == 0:
            counts = slot.counts()
            balanced.append(counts.received == total(counts))
    while slot.counts().waiting:
        pass
    slot.close()
    worker.join(10)
    counts = slot.counts()
    assert all(balanced)
    assert counts.received == frames == total(counts)
    assert counts.waiting == 0
    assert counts.published + counts.stale + counts.error == len(taken)
    assert taken == sorted(taken)
    assert taken[-1] == frames - 1
