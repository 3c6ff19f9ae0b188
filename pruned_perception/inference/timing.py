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

"""Durations of several calls, by turns: what a machine does besides falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.latency import NS_PER_MS


def by_turns(
    calls: Sequence[Callable[[], object]],
    *,
    rounds: int,
    runs: int,
    rng: np.random.Generator,
    on_progress: Callable[[float], None] = lambda share: None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> NDArray[np.float64]:
    """Return how long the calls take, ms, (calls, rounds, runs).

    In each round every call is made `runs` times in a row, in an order drawn anew; an unmeasured
    one before them loads what it needs into the caches. A whole unmeasured round comes first.
    `clock` returns nanoseconds.
    """
    times = np.empty((len(calls), rounds, runs), np.float64)
    for number in range(-1, rounds):
        for which in rng.permutation(len(calls)):
            block = _block(calls[which], runs, clock)
            if number >= 0:
                times[which, number] = block
        on_progress((number + 1) / rounds)
    return times


def _block(call: Callable[[], object], runs: int, clock: Callable[[], int]) -> NDArray[np.float64]:
    call()
    marks = np.empty(runs + 1, np.int64)
    marks[0] = clock()
    for run in range(runs):
        call()
        marks[run + 1] = clock()
    return np.diff(marks) / NS_PER_MS
