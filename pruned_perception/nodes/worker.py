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

"""Threads that may get stuck: they are waited for so long and no longer, then left behind.

A thread cannot be ended from outside. Whoever waits for it without a limit is stuck with it; so
nobody does, and the node ends the process where such a thread does not end by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pruned_perception.nodes.latest_frame import PUBLISHED, FrameCounts, LatestFrame

T = TypeVar('T')


class Worker(Generic[T]):
    """Processes the newest frame, one after another, in a thread.

    `process(frame, worker)` returns the frame's outcome, one of OUTCOMES, and never raises;
    `dropped(outcome)` is told of those that were not published.
    """

    what = 'the frame in hand'

    def __init__(
        self, process: Callable[[T, Worker[T]], str], dropped: Callable[[str], None]
    ) -> None:
        self._process = process
        self._dropped = dropped
        self._slot: LatestFrame[T] = LatestFrame()
        self._since: float | None = None
        self.left_behind = False
        self._thread = threading.Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def put(self, frame: T) -> bool:
        """Leave a frame for the worker; tell whether an older one was replaced."""
        return self._slot.put(frame)

    def refuse(self) -> None:
        """Count what was received but is no frame, as an error."""
        self._slot.refuse()

    def counts(self) -> FrameCounts:
        """Return what became of the frames."""
        return self._slot.counts()

    @property
    def hurried(self) -> bool:
        """Whether the next frame waits already."""
        return self._slot.holds_one

    @property
    def since(self) -> float | None:
        """When the frame in hand was taken, monotonic seconds; None where there is none."""
        return self._since

    @property
    def seconds(self) -> float:
        """How long the frame in hand has taken so far; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    def end(self, patience_s: float) -> bool:
        """Take no further frame; tell whether the thread ended within as many seconds."""
        self._slot.close()
        self._thread.join(patience_s)
        return not self.alive

    def _run(self) -> None:
        while (frame := self._slot.take()) is not None:
            self._since = time.monotonic()
            outcome = self._process(frame, self)
            self._since = None
            self._slot.finish(outcome)
            if outcome != PUBLISHED and not self.left_behind:
                self._dropped(outcome)


class Background(Generic[T]):
    """One call in a thread of its own; `ended` is called there when it has ended."""

    what = 'loading the model'

    def __init__(self, call: Callable[[], T], ended: Callable[[], None] = lambda: None) -> None:
        self._call = call
        self._ended = ended
        self._done = threading.Event()
        self._result: T | None = None
        self._error: Exception | None = None
        self._since = time.monotonic()
        self.took = 0.0
        """Seconds that the call took, once it has ended."""
        self._thread = threading.Thread(target=self._run, name='background', daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """How long the call has taken so far."""
        return time.monotonic() - self._since

    @property
    def alive(self) -> bool:
        """Whether the call has not ended."""
        return not self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Tell whether the call ends within as many seconds."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """Return, or raise, what the call did; only once it has ended."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call()
        except Exception as error:
            self._error = error
        self.took = self.seconds
        self._done.set()
        self._ended()
