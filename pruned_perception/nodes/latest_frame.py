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

"""The latest-frame slot between the subscription's callback and the worker, and its accounts."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from pruned_perception.inference.latency import DROP_REASONS

PUBLISHED = 'published'
OUTCOMES = (PUBLISHED, *DROP_REASONS)
COUNTERS = ('received', *OUTCOMES)

T = TypeVar('T')


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames received since the slot was opened.

    At every moment `received` = published + superseded + stale + error + waiting.
    """

    received: int = 0
    published: int = 0
    superseded: int = 0
    stale: int = 0
    error: int = 0
    waiting: int = 0

    @property
    def dropped(self) -> int:
        """Frames received and never to be published."""
        return self.superseded + self.stale + self.error


class LatestFrame(Generic[T]):
    """Holds at most one waiting frame: a newer one replaces it, which counts as superseded.

    One thread puts, one takes, and reports by `finish` what became of the frame it took; `waiting`
    counts the frame in the slot and the one that was taken.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: T | None = None
        self._taken = False
        self._closed = False
        self._received = 0
        self._outcomes: Counter[str] = Counter()

    def put(self, frame: T) -> bool:
        """Leave `frame` for the worker; tell whether an older one was replaced."""
        with self._changed:
            self._received += 1
            replaced = self._frame is not None
            if replaced or self._closed:
                self._outcomes['superseded'] += 1
            if not self._closed:
                self._frame = frame
                self._changed.notify()
            return replaced

    def refuse(self) -> None:
        """Count what was received but is no frame, as an error."""
        with self._changed:
            self._received += 1
            self._outcomes['error'] += 1

    def take(self) -> T | None:
        """Wait for a frame and return it; None once the slot is closed."""
        with self._changed:
            while self._frame is None and not self._closed:
                self._changed.wait()
            frame, self._frame = self._frame, None
            self._taken = frame is not None
            return frame

    @property
    def holds_one(self) -> bool:
        """Whether a frame waits."""
        return self._frame is not None

    def finish(self, outcome: str) -> None:
        """Report what became of the frame that was taken; `outcome` is one of OUTCOMES."""
        if outcome not in OUTCOMES:
            raise ValueError(f'outcome {outcome!r} is none of {", ".join(OUTCOMES)}')
        with self._changed:
            self._taken = False
            self._outcomes[outcome] += 1

    def close(self) -> None:
        """Let `take` return None; a frame that still waits counts as superseded."""
        with self._changed:
            if self._frame is not None:
                self._frame = None
                self._outcomes['superseded'] += 1
            self._closed = True
            self._changed.notify_all()

    def counts(self) -> FrameCounts:
        """Return the accounts of this moment."""
        with self._changed:
            waiting = int(self._frame is not None) + int(self._taken)
            outcomes = {outcome: self._outcomes[outcome] for outcome in OUTCOMES}
            return FrameCounts(self._received, waiting=waiting, **outcomes)
