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

"""Header stamps and the node's clock: what is wrong with them, counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

NS_PER_S = 1_000_000_000
FUTURE_S = 0.1
"""Stamps ahead of the clock by less are normal: two machines' clocks, or /clock's step."""
OLD_S = 10.0
"""Stamps older than this are reported."""


def stamp_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


@dataclass(frozen=True)
class StampCounts:
    """How many stamps since activation were …; the times are those of the last such frame."""

    total: int = 0
    zero: int = 0
    future: int = 0
    old: int = 0
    backwards: int = 0
    last_age_s: float | None = None
    """Age of the last frame; None without a stamp or a clock."""
    backwards_s: float = 0.0
    """How far the stamps went back the last time."""
    old_s: float = 0.0
    """Age of the last frame that was old; frames after it may be young."""
    future_s: float = 0.0
    """How far the last stamp in the future was ahead."""

    def since(self, before: StampCounts) -> StampCounts:
        """Return what was counted after `before`."""
        return replace(
            self,
            total=self.total - before.total,
            zero=self.zero - before.zero,
            future=self.future - before.future,
            old=self.old - before.old,
            backwards=self.backwards - before.backwards,
        )


class StampWatch:
    """Looks at the stamp of every frame received; for one thread."""

    def __init__(self) -> None:
        self.counts = StampCounts()
        self._last = 0

    def observe(self, stamp: int, clock: int) -> None:
        """Take the header stamp and the node's clock at receipt, nanoseconds; clock 0: none."""
        counts = replace(self.counts, total=self.counts.total + 1, last_age_s=None)
        if stamp == 0:
            self.counts = replace(counts, zero=counts.zero + 1)
            return
        if stamp < self._last:
            back = (self._last - stamp) / NS_PER_S
            counts = replace(counts, backwards=counts.backwards + 1, backwards_s=back)
        self._last = stamp
        if clock > 0:
            age = (clock - stamp) / NS_PER_S
            counts = replace(counts, last_age_s=age)
            if age < -FUTURE_S:
                counts = replace(counts, future=counts.future + 1, future_s=-age)
            if age > OLD_S:
                counts = replace(counts, old=counts.old + 1, old_s=age)
        self.counts = counts


def in_words(seconds: float) -> str:
    """Return a duration as a person would say it."""
    for length, unit in ((31_557_600, 'years'), (86_400, 'days'), (3_600, 'h'), (60, 'min')):
        if seconds >= 2 * length:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds:.1f} s'
