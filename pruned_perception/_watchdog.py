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

"""The end of a process that no longer ends, or answers, by itself; the kernel sees to it.

Nothing in Python is needed at that moment: the interpreter may be the very thing that is stuck, a
thread in native code with its lock held. So the timer is the kernel's, and so is what it does:
SIGALRM, whose default action is the end. (faulthandler's timer would do without the interpreter
too, but ends the process with the status of any other error; a thread or handler of ours would
not do without it.)
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

STATUS = -signal.SIGALRM
"""How such a process has ended, as `subprocess` says it; a shell says 142."""


_LEAST_S = 0.1


class Watchdog:
    """Ends the process by SIGALRM unless it is fed again in time.

    It bites at the second expiry of the timer in a row. A process that was stopped (Ctrl-Z, a
    paused container) for longer than that meets a single one when it goes on, for the kernel keeps
    one signal, not a number of them, and then has half of the time to feed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._least = 0.0
        self._end = math.inf
        self._final = False
        libc = ctypes.CDLL(None)
        # A handler for one time, which does nothing: no interpreter is asked. After it, the
        # default action is back. The first process of a container has no default actions.
        harmless = libc._exit if os.getpid() == 1 else libc.abs
        self._handler = ctypes.cast(harmless, ctypes.c_void_p)
        self._set_handler = _one_time_handlers(libc)

    def feed(self, seconds: float) -> None:
        """Let the process live for as long, and no longer unless it is fed again."""
        with self._lock:
            if not self._final:
                self._arm(max(seconds, self._least - time.monotonic()))

    def allow(self, seconds: float) -> None:
        """Feed, and let none of the next calls of `feed` shorten it."""
        with self._lock:
            self._least = max(self._least, time.monotonic() + seconds)
        self.feed(seconds)

    def last(self, seconds: float) -> None:
        """Feed for the last time: the end has begun, and may take so long.

        It does not come later than without: where it was long ago that the process was fed, so
        may the signal be that asked for the end.
        """
        with self._lock:
            if not self._final:
                self._final = True
                left = self._end - time.monotonic()
                self._arm(min(seconds, max(left, _LEAST_S)))

    def _arm(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        if self._set_handler is not None:
            self._set_handler(signal.SIGALRM, self._handler)
            signal.setitimer(signal.ITIMER_REAL, seconds / 2, seconds / 2)
        else:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        """Let the process live."""
        with self._lock:
            self._least, self._end = 0.0, math.inf
            signal.setitimer(signal.ITIMER_REAL, 0)


def end_now() -> NoReturn:
    """End the process as the watchdog would."""
    _flush()
    set_handler = _one_time_handlers(ctypes.CDLL(None))
    if set_handler is not None:
        set_handler(signal.SIGALRM, None)
    os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(1.0)
    os._exit(128 - STATUS)  # the first process of a container


def leave(status: int) -> NoReturn:
    """End the process now, without the interpreter's finalisation."""
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _one_time_handlers(libc: ctypes.CDLL) -> Any:
    """Return glibc's `sysv_signal`, which takes the handler away when it is called; or None."""
    try:
        function = libc.sysv_signal
    except AttributeError:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_void_p
    return function
