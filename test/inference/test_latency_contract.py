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

"""The latency contract on simulated machines: what it keeps, and how often it switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference.frame_times import FrameTimes
from pruned_perception.inference.latency_contract import (
    REST,
    ROOM,
    SETTLED,
    TRIALS,
    WINDOW,
    LatencyContract,
    Spent,
)

PERIOD = 1000 / 30
AGE, WORK = 1.0, 1.0
COSTS = (20.0, 10.0, 5.0, 2.5)
RETURN = WINDOW + REST + TRIALS + WINDOW + TRIALS
"""Frames for two ways up, a rest between: about four seconds at 30 Hz, most often under three."""


@dataclass
class Machine:
    """A camera and a worker on a processor whose slowdown the test sets.

    `small_too`: whether the slowdown concerns every run, or, as on a busy processor whose scheduler
    favours what is short, only those of more than 4 ms.
    """

    contract: LatencyContract
    seed: int = 0
    noise: float = 0.03
    slowdown: float = 1.0
    small_too: bool = True
    missed: list[bool] = field(default_factory=list)
    members: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._free = 0.0
        self._now = 0.0

    def run_ms(self, member: int) -> float:
        cost = COSTS[member] * float(np.exp(self._rng.normal(0, self.noise)))
        return cost * (self.slowdown if self.small_too or cost > 4.0 else 1.0)

    def frames(self, count: int) -> None:
        """Let `count` frames come, one every PERIOD; the newest waits, an older one is lost."""
        for _ in range(count):
            arrived = self._now
            self._now += PERIOD
            if self._free > arrived + PERIOD:  # still busy when the next one comes
                self.members.append(self.contract.member)
                self.missed.append(True)
                self.contract.finished(None, True)
                continue
            member = self.contract.member
            run = self.run_ms(member)
            done = max(arrived, self._free) + WORK + run
            latency = AGE + done - arrived
            self.members.append(member)
            self.missed.append(latency > self.contract.budget_ms)
            self.contract.finished(Spent(AGE, WORK, run, PERIOD), self.missed[-1])
            self._free = done
            candidate = self.contract.candidate() if done < self._now else None
            if candidate is not None:
                trial = self.run_ms(candidate)
                if done + trial > self._now + max(0.0, self.contract.slack_ms):
                    self.contract.tried(candidate, None)
                    self._free = self._now
                else:
                    self.contract.tried(candidate, trial)
                    self._free = done + trial


def fits(member: int, budget: float, slowdown: float = 1.0) -> bool:
    """Whether the machine's p90 of a member is well within the budget and the period."""
    run = COSTS[member] * slowdown * 1.05
    return AGE + WORK + run <= ROOM * budget and WORK + run <= ROOM * PERIOD


def best(budget: float, slowdown: float = 1.0) -> int:
    return next((i for i in range(len(COSTS)) if fits(i, budget, slowdown)), len(COSTS) - 1)


def test_the_most_accurate_member_that_fits_runs_first() -> None:
    assert LatencyContract(COSTS, 30.0).member == 0
    assert LatencyContract(COSTS, 15.0).member == 1
    assert LatencyContract(COSTS, 3.0).member == 3
    # Accuracy comes first: the second is slower than the first, and never runs.
    assert LatencyContract((10.0, 20.0, 5.0), 30.0).member == 0


def test_a_budget_that_no_member_keeps_runs_the_fastest_and_is_said() -> None:
    contract = LatencyContract(COSTS, 1.0)
    assert contract.member == 3
    assert not contract.kept
    machine = Machine(contract)
    machine.frames(200)
    assert set(machine.members) == {3}
    assert not contract.kept
    assert contract.switches == 0


@pytest.mark.parametrize('small_too', [True, False])
def test_load_comes_and_goes(small_too: bool) -> None:
    machine = Machine(LatencyContract(COSTS, 30.0), small_too=small_too)
    machine.frames(300)
    assert (machine.contract.member, machine.contract.switches) == (0, 0)
    machine.slowdown = 2.2  # the dense one takes 44 ms, more than budget and period
    start = len(machine.missed)
    machine.frames(300)
    assert sum(machine.missed[start + 60 :]) == 0  # after two seconds
    assert machine.contract.switches <= 2
    before = machine.contract.switches
    machine.slowdown = 1.0
    machine.frames(RETURN)
    assert machine.contract.member == 0
    assert machine.contract.switches - before <= 2


def test_a_miss_now_and_then_changes_nothing() -> None:
    contract = LatencyContract(COSTS, 30.0)
    for k in range(3000):
        late = k % 100 == 0
        contract.finished(Spent(AGE, WORK, 60.0 if late else 20.0, PERIOD), late)
    assert (contract.member, contract.switches) == (0, 0)


@pytest.mark.parametrize('step_s', [-3600.0, -5.0, 5.0, 3600.0])
def test_a_clock_that_is_set_costs_no_member(step_s: float) -> None:
    """The frames that are on their way then have an age that is none, or too large by the step."""
    contract = LatencyContract(COSTS, 30.0)
    for k in range(500):
        stamp = 10**18 + round(k * PERIOD * 1e6)
        clock = stamp + round(AGE * 1e6) + (round(step_s * 1e9) if k == 300 else 0)
        start = k * 10**9
        times = FrameTimes(t_rx=start, t_pub=start + 21_000_000, stamp=stamp)
        times.clock_pub = clock + 21_000_000
        late = times.latency / 1e6 > contract.budget_ms
        assert not late or (k == 300 and step_s == 5.0)
        contract.finished(Spent(times.latency / 1e6 - 21.0, WORK, 20.0, PERIOD), late)
    assert (contract.member, contract.switches) == (0, 0)


def test_the_first_frames_over_the_budget_are_enough() -> None:
    contract = LatencyContract(COSTS, 30.0)
    for _ in range(3):
        contract.finished(Spent(AGE, WORK, 45.0, PERIOD), True)
    assert contract.member == 1  # 10 ms × 45 / 20 still fits


def test_frames_that_gave_way_count_like_late_ones() -> None:
    contract = LatencyContract(COSTS, 30.0)
    for _ in range(3):
        contract.finished(None, True)
    assert contract.member > 0


def test_a_second_descent_goes_to_the_fastest() -> None:
    contract = LatencyContract(COSTS, 30.0)
    for _ in range(3):
        contract.finished(Spent(AGE, WORK, 45.0, PERIOD), True)
    for _ in range(3):
        contract.finished(Spent(AGE, WORK, 45.0, PERIOD), True)
    assert contract.member == 3
    assert contract.switches == 2


def test_a_member_that_was_found_wanting_needs_more_trials() -> None:
    contract = LatencyContract(COSTS, 30.0)

    def calm(frames: int) -> None:
        for _ in range(frames):
            contract.finished(Spent(AGE, WORK, COSTS[contract.member], PERIOD), False)

    def trials() -> int:
        for count in range(1, 1000):
            assert contract.candidate() == 0
            contract.tried(0, COSTS[0])
            if contract.member == 0:
                return count
        raise AssertionError

    def overload() -> None:
        while contract.member == 0:
            contract.finished(Spent(AGE, WORK, 200.0, PERIOD), True)

    calm(SETTLED)
    overload()
    needed = []
    for _ in range(3):
        calm(WINDOW)
        needed.append(trials())
        overload()
    assert needed == [TRIALS, 2 * TRIALS, 4 * TRIALS]
    calm(WINDOW)
    trials()
    calm(SETTLED)
    overload()
    calm(WINDOW)
    assert trials() == TRIALS


def test_a_trial_that_fails_lets_the_next_member_try_and_then_rests() -> None:
    contract = LatencyContract(COSTS, 4.0)
    contract.budget_ms = 30.0
    for _ in range(WINDOW):
        assert contract.candidate() is None
        contract.finished(Spent(AGE, WORK, COSTS[3], PERIOD), False)
    tried = []
    while (member := contract.candidate()) is not None:
        tried.append(member)
        contract.tried(member, None)
    assert tried == [0, 1, 2]
    for _ in range(REST - 1):
        contract.finished(Spent(AGE, WORK, COSTS[3], PERIOD), False)
        assert contract.candidate() is None
    contract.finished(Spent(AGE, WORK, COSTS[3], PERIOD), False)
    assert contract.candidate() == 0


def test_a_run_that_fits_the_budget_but_not_the_period_is_no_candidate() -> None:
    contract = LatencyContract((40.0, 5.0), 100.0)
    machine_period = 20.0
    for _ in range(3):
        contract.finished(None, True)
    for _ in range(WINDOW):
        contract.finished(Spent(AGE, WORK, 5.0, machine_period), False)
    for _ in range(5 * TRIALS):
        if contract.candidate() == 0:
            contract.tried(0, 40.0)
        contract.finished(Spent(AGE, WORK, 5.0, machine_period), False)
    assert contract.member == 1


def test_a_member_that_fails_is_never_chosen_again() -> None:
    contract = LatencyContract(COSTS, 30.0)
    contract.exclude(0)
    assert contract.member == 3  # nothing has run before: the fastest is safest
    for _ in range(WINDOW):
        contract.finished(Spent(AGE, WORK, 2.5, PERIOD), False)
    assert contract.candidate() == 1
    for _ in range(TRIALS):
        contract.tried(1, 10.0)
    assert contract.member == 1
    contract.exclude(1)
    assert contract.member == 3  # the one before
    for member in (2, 3):
        contract.exclude(member)
    assert contract.member in range(4)  # all fail: whichever it was goes on


@pytest.mark.parametrize(('costs', 'budget'), [((), 30.0), ((0.0,), 30.0), ((1.0,), 0.0)])
def test_bad_input(costs: Sequence[float], budget: float) -> None:
    with pytest.raises(ValueError, match='above 0'):
        LatencyContract(costs, budget)


phases = st.lists(
    st.tuples(st.sampled_from([1.0, 1.3, 2.0, 3.0, 6.0]), st.integers(450, 700)),
    min_size=1,
    max_size=5,
)


@given(
    budget=st.floats(6.0, 120.0),
    phases=phases,
    noise=st.floats(0.0, 0.05),
    small_too=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_sequence_of_loads(
    budget: float, phases: list[tuple[float, int]], noise: float, small_too: bool, seed: int
) -> None:
    """In every phase: two switches at most, and in time wherever some member is well in time."""
    machine = Machine(LatencyContract(COSTS, budget), seed=seed, noise=noise, small_too=small_too)
    for slowdown, frames in phases:
        machine.slowdown = slowdown
        switches, start = machine.contract.switches, len(machine.missed)
        machine.frames(frames)
        late = machine.missed[start + 60 :]
        if fits(len(COSTS) - 1, budget, slowdown):
            assert np.mean(late) <= 0.05
        borderline = any(
            0.8 < (AGE + WORK + COSTS[i] * slowdown) / (ROOM * budget) < 1.25
            or 0.8 < (WORK + COSTS[i] * slowdown) / (ROOM * PERIOD) < 1.25
            for i in range(len(COSTS))
        )
        if not borderline:
            assert machine.contract.switches - switches <= 2
            assert machine.members[-1] == best(budget, slowdown)
