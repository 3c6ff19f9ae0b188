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

"""Cyclic garbage: collected when the node says so, and never before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pruned_perception.nodes.garbage import OLD, YOUNG, BetweenFrames


class Cycle:
    """An object that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def garbage() -> Iterator[BetweenFrames]:
    found = BetweenFrames()
    found.take_over()
    yield found
    found.give_back()
    assert gc.isenabled()
    assert not gc.get_freeze_count()


def test_nothing_is_collected_but_when_asked(garbage: BetweenFrames) -> None:
    gone = weakref.ref(Cycle())
    kept = [Cycle() for _ in range(5000)]  # the automatic collection would have run
    assert gone() is not None
    garbage.collect()
    assert gone() is None
    assert len(kept) == 5000


def test_what_has_grown_old_is_collected_in_the_end(garbage: BetweenFrames) -> None:
    cycle = Cycle()
    gone = weakref.ref(cycle)
    for _ in range(3 * YOUNG):  # it is in the oldest generation by now
        garbage.collect()
    del cycle
    for _ in range(OLD):
        garbage.collect()
    assert gone() is None


def test_a_process_with_other_uses_is_left_alone() -> None:
    BetweenFrames().collect()
    assert gc.isenabled()
