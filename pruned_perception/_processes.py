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

"""Processes: children that never outlive us, an orderly end for them and for ourselves."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C came; everything is saved, and the same call goes on from there."""


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int | None = subprocess.STDOUT,
    stdin: int = subprocess.DEVNULL,
    folder: str | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that, on Linux, gets SIGTERM when this one ends.

    It has a session of its own: Ctrl-C on the terminal reaches us alone, and we end the
    processes in order, see `stop`.
    """
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=folder,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )


def stop(
    processes: Sequence[subprocess.Popen[bytes]],
    *,
    patience: float,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL),
    meanwhile: Callable[[], None] = lambda: time.sleep(_POLL_S),
    impatient: Callable[[subprocess.Popen[bytes], signal.Signals], None] | None = None,
) -> bool:
    """End processes; return False where the last signal was needed, or was not enough.

    Args:
        processes: those that have ended already are left alone.
        patience: seconds that they have after each signal, before the next one.
        signals: to send, in order.
        meanwhile: called again and again while waiting; it should take a moment.
        impatient: told of each process that gets the second signal or a later one.
    """
    for place, number in enumerate(signals):
        for process in _alive(processes):
            if place and impatient is not None:
                impatient(process, number)
            process.send_signal(number)
        end = time.monotonic() + patience
        while _alive(processes) and time.monotonic() < end:
            meanwhile()
        if not _alive(processes):
            return number != signal.SIGKILL
    return False


def _alive(processes: Sequence[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    return [each for each in processes if each.poll() is None]


def die_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` with which a child gets SIGTERM when this process ends; Linux only."""
    if sys.platform != 'linux':
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up here: little is safe between fork and exec

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return arrange


@contextlib.contextmanager
def termination() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them.

    A second signal acts as usual, so that nothing can hang.
    """
    received: list[int] = []
    former: dict[int, Any] = {}

    def receive(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, former[number])

    try:
        for each in (signal.SIGTERM, signal.SIGINT):
            former[each] = signal.signal(each, receive)
    except ValueError:  # not in the main thread: then the caller's handlers stay
        pass
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals for the length of a `with` block."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, so that both take the same way out."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
