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

"""Who works in a folder of results: one engine at a time, whatever machine it is on.

A lock of the system tells it on one machine, and on a network's file systems that pass locks on.
For the others there is a file that changes every second; that it does is what counts, and no clock
is compared with another machine's.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from pruned_perception._io import FolderError, locked, write_text

FILE = '.engine'
TICK_S = 1.0
WATCH_S = 3.0


STOP = 'stop'


class Lease:
    """The file that says that an engine works here, and whether cells are to end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = secrets.token_hex(8)
        self._ticks, self._last, self._stopping = 0, -TICK_S, False

    def stop(self) -> None:
        """Let all cells save and end."""
        self._stopping, self._last = True, -TICK_S
        self.tick()

    def tick(self) -> None:
        """Change the file, unless that was done a moment ago."""
        if time.monotonic() - self._last < TICK_S:
            return
        self._last = time.monotonic()
        self._ticks += 1
        words = [self.token, platform.node(), str(os.getpid()), str(self._ticks)]
        write_text(self.path, ' '.join(words + [STOP] * self._stopping) + '\n')


@contextlib.contextmanager
def held(results: Path) -> Iterator[Lease]:
    """Hold a folder of results, which is made.

    Raises:
        FolderError: another process does, here or on another machine.
    """
    with locked(results):
        path = results / FILE
        _refuse_living(path)
        lease = Lease(path)
        lease.tick()
        try:
            yield lease
        finally:
            path.unlink(missing_ok=True)


def _refuse_living(path: Path) -> None:
    """Raise FolderError where the file of another engine goes on changing."""
    before = _read(path)
    if before is None:
        return
    host, process = (before.split() + ['?'] * 3)[1:3]
    if host == platform.node():  # where the lock has told already
        return
    time.sleep(WATCH_S)
    if _read(path) not in (None, before):
        raise FolderError(
            f'{path.parent}: in use by process {process} on {host}; wait for it, or choose another '
            'folder'
        )


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding='utf-8')
    return None
