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

"""Runs and loads of networks in this process: none takes for ever, and each can be broken off."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TIME_LIMIT_S = 60.0
"""Longest run, or load, of a network, where its user sets no other limit."""
GRACE_S = 5.0
"""What is left after the time limit before the last resort."""

_POLL_S = 0.1

last_resort: Callable[[str], None] | None = None
"""What a command does about a run that cannot be broken off: called, in a thread, with a message.

None, as for programs that use the package: nothing.
"""


@dataclass
class _Run:
    what: str
    break_off: Callable[[], None]
    limit_s: float
    end: float

    def look(self, now: float) -> None:
        if now > self.end:
            self.break_off()
        if now > self.end + GRACE_S and last_resort is not None:
            last_resort(
                f'{self.what}: it has not ended within {self.limit_s:g} s and cannot be broken off'
            )


_lock = threading.Lock()
_running: dict[int, _Run] = {}
_watching = False


@contextlib.contextmanager
def limited(what: str, break_off: Callable[[], None], limit_s: float) -> Iterator[None]:
    """Call `break_off`, from another thread, once the block takes longer than `limit_s` seconds.

    It is called again and again until the block ends, and whenever `break_off_all` is called.
    """
    global _watching
    run = _Run(what, break_off, limit_s, time.monotonic() + limit_s)
    key = id(run)
    with _lock:
        _running[key] = run
        if not _watching and limit_s < float('inf'):
            _watching = True
            threading.Thread(target=_watch, name='time_limits', daemon=True).start()
    try:
        yield
    finally:
        with _lock:
            del _running[key]


def break_off_all() -> None:
    """Ask all runs and loads of networks in this process to end.

    ONNX Runtime looks at that between two nodes of the graph, those in the body of a loop too:
    what a single node does is not broken off. A run that is gives an InferenceError.
    """
    with _lock:
        for run in _running.values():
            run.break_off()


def _watch() -> None:
    while True:
        time.sleep(_POLL_S)
        with _lock:
            runs = tuple(_running.values())
        for run in runs:
            run.look(time.monotonic())
