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

"""Which member of a family keeps a latency budget: a choice from what frames and trials show.

Nothing here knows a clock, a network or ROS: frames and trials are told to a `LatencyContract`, and
it says which member the next frame is for.

*Down.* Whether the budget is missed is a sequential test of a share of misses of `BAD` against
`GOOD` (Page's CUSUM, 1954, of the log-likelihood ratio): some three misses in a row raise the alarm
at once, and single ones never do. The next member is the most accurate one that should fit, as its
cost at calibration and the slowdown of the present one since then say. If that was not enough, the
fastest comes next, so that a change of load costs two switches at most.

*Up.* That a small network keeps its time says little of a large one on a busy processor. So a more
accurate member is tried first: on the last frame's tensor, after its detections were published. It
takes over after `TRIALS` trials in a row that would have fitted; if it is then found wanting, twice
as many are asked for the next time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

GOOD, BAD = 0.02, 0.2
"""Shares of misses that the test tells apart."""
ALARM = 6.0
"""Of the test: under `GOOD`, at least e^ALARM = 403 frames between two false alarms, on average."""
ROOM = 0.9
"""Share of the budget, and of the period, that a member's 90th percentile may take."""
WINDOW = 20
"""Latest frames of the member that percentiles go over."""
TRIALS, MOST_TRIALS = 20, 320
"""That a member must pass in a row, at first and after many failures."""
REST = 45
"""Frames between two rounds of trials; twice as many for members that do not seem to fit."""
SETTLED = 150
"""Frames after which a member that took over has proved its worth."""

_MISS = math.log(BAD / GOOD)
_HIT = math.log((1 - BAD) / (1 - GOOD))


@dataclass(frozen=True)
class Spent:
    """What a published frame took, milliseconds."""

    age: float
    """From the stamp to its receipt."""
    work: float
    """The worker's time for it, but for the network's run."""
    run: float
    """The network's run."""
    period: float
    """Since the receipt of the frame before; nan where there is none."""


class LatencyContract:
    """The member that runs, and what is known of the others.

    Args:
        costs_ms: 90th percentile of each member's run at calibration, most accurate member first.
        budget_ms: from the stamp of a frame to its detections.
    """

    def __init__(self, costs_ms: Sequence[float], budget_ms: float) -> None:
        if not costs_ms or min(costs_ms) <= 0 or budget_ms <= 0:
            raise ValueError(f'costs {costs_ms} and the budget {budget_ms} must be above 0')
        self.costs_ms = tuple(costs_ms)
        self.budget_ms = budget_ms
        self.excluded: set[int] = set()
        self.switches = 0
        self._needed = [TRIALS] * len(costs_ms)
        self._from: int | None = None
        self._rest = self._age = self._fitted = 0
        self._evidence = 0.0
        self._start(0)
        self.member = self._best(0.0, 0.0, 1.0)
        self.kept = costs_ms[self.member] <= budget_ms
        """Whether a member is believed to keep the budget: False at the fastest, when it fails."""

    def finished(self, spent: Spent | None, missed: bool) -> None:
        """Take notice of a frame received, in the order in which they were done with.

        `spent` is None for one that was dropped, which is missed, too.
        """
        self._age += 1
        self._rest -= 1
        if self._age == SETTLED:
            self._needed[self.member] = TRIALS
        if spent is not None:
            self._spent.append(spent)
        self._evidence = max(0.0, self._evidence + (_MISS if missed else _HIT))
        if not self._evidence:
            self.kept = True
        if self._evidence >= ALARM:
            self._evidence = ALARM
            self._descend()

    def candidate(self) -> int | None:
        """Return the member to try now; None where there is none, or not yet."""
        if len(self._spent) < WINDOW or self._rest > 0 or self._evidence:
            return None
        age, work, _ = self._quantiles()
        for member in self._better():
            # That the slowdown of a small network is that of a large one is a guess, not more.
            hopeful = self._fits(age + work, work, self.expected_run_ms(member))
            if hopeful or self._rest <= -REST:
                return member
        return None

    def tried(self, member: int, run_ms: float | None) -> None:
        """Take notice of a trial of `candidate()`: its run, None where it was broken off."""
        age, work, _ = self._quantiles()
        if run_ms is not None and self._fits(age + work, work, run_ms):
            self._fitted += 1
            if self._fitted >= self._needed[member]:
                self._switch(member)
            return
        self._fitted = 0
        self._too_slow = self.costs_ms[member]
        if not self._better():
            self._too_slow, self._rest = math.inf, REST

    def exclude(self, member: int) -> None:
        """Never choose `member` again: it fails. If it ran, the one before comes back."""
        self.excluded.add(member)
        if member == self.member and len(self.excluded) < len(self.costs_ms):
            known = self._from is not None and self._from not in self.excluded
            self._switch(self._from if known and self._from is not None else self._fastest())

    @property
    def slack_ms(self) -> float:
        """How long a frame may wait for a trial to end: it and the next one stay in time."""
        age, work, run = self._quantiles()
        return ROOM * min(self.budget_ms - age / ROOM, self._period()) - work - run

    def expected_ms(self, member: int) -> float:
        """Return the latency that `member` should have now, at the 90th percentile."""
        age, work, _ = self._quantiles()
        return age + work + self.expected_run_ms(member)

    def expected_run_ms(self, member: int) -> float:
        """Return the 90th percentile that the run of `member` should have now."""
        return self.costs_ms[member] * self._slowdown()

    def _descend(self) -> None:
        present = self.costs_ms[self.member]
        faster = [i for i in self._usable() if self.costs_ms[i] < present]
        if not faster:
            self.kept = False
            return
        rose = self._from is not None and self._from in faster
        if self._age < SETTLED and rose:
            self._needed[self.member] = min(2 * self._needed[self.member], MOST_TRIALS)
            assert self._from is not None
            self._switch(self._from)
        elif self._age < SETTLED and self._from is not None:
            self._switch(self._fastest())
        else:
            age, work, _ = self._quantiles()
            best = self._best(age + work, work, self._slowdown())
            self._switch(best if best in faster else self._fastest())

    def _switch(self, member: int) -> None:
        self.switches += 1
        self._from = self.member
        self._start(member)

    def _start(self, member: int) -> None:
        self.member = member
        self._age = self._fitted = 0
        self._evidence, self._too_slow = 0.0, math.inf
        self._spent: deque[Spent] = deque(maxlen=WINDOW)

    def _best(self, rest_ms: float, work_ms: float, slowdown: float) -> int:
        """Return the most accurate member that should fit; the fastest where none does."""
        for i in self._usable():
            if self._fits(rest_ms, work_ms, self.costs_ms[i] * slowdown):
                return i
        return self._fastest()

    def _fits(self, rest_ms: float, work_ms: float, run_ms: float) -> bool:
        """Whether a run of that length fits into the budget, and into the period of the frames."""
        in_time = rest_ms + run_ms <= ROOM * self.budget_ms
        return in_time and work_ms + run_ms <= ROOM * self._period()

    def _period(self) -> float:
        """Return the median of the frames' periods; infinite where none is known."""
        periods = sorted(each.period for each in self._spent if not math.isnan(each.period))
        return periods[len(periods) // 2] if periods else math.inf

    def _better(self) -> list[int]:
        """Return the more accurate members that this round of trials has not ruled out."""
        return [i for i in self._usable() if i < self.member and self.costs_ms[i] < self._too_slow]

    def _usable(self) -> list[int]:
        return [i for i in range(len(self.costs_ms)) if i not in self.excluded]

    def _fastest(self) -> int:
        return min(self._usable(), key=lambda i: self.costs_ms[i])

    def _quantiles(self) -> tuple[float, float, float]:
        """Return the 90th percentiles of age, work and run; zeros before the first frame."""
        if not self._spent:
            return 0.0, 0.0, 0.0
        at = math.ceil(0.9 * len(self._spent)) - 1
        columns = zip(*((each.age, each.work, each.run) for each in self._spent), strict=True)
        age, work, run = (sorted(column)[at] for column in columns)
        return age, work, run

    def _slowdown(self) -> float:
        return (self._quantiles()[2] or self.costs_ms[self.member]) / self.costs_ms[self.member]
