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

"""Several processes on one terminal: their output by lines, respawn, an orderly end."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from pruned_perception._processes import start, stop
from pruned_perception._tables import printable

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 5.0
"""Seconds that a process has to end after each of SIGINT and SIGTERM, before the next signal."""

_POLL_S = 0.1


@dataclass
class Child:
    """One process of the set; `starts_at` is when it starts (again), None for never."""

    name: str
    command: Sequence[str]
    starts_at: float | None = 0.0
    process: subprocess.Popen[bytes] | None = None
    status: int | None = None
    partial_line: bytes = b''


@dataclass
class Supervisor:
    """Runs the processes of `commands` (name → command line) until all have ended or a signal.

    Each line that a process prints appears as `[name] line`. With `respawn_delay` (seconds) a
    process that ended, however it did, is started again.
    """

    commands: Mapping[str, Sequence[str]]
    environment: Mapping[str, str]
    respawn_delay: float | None = None
    out: IO[str] = field(default_factory=lambda: sys.stdout)

    def run(self) -> int:
        """Return 0 after SIGINT or SIGTERM, or if all processes ended with 0; else 1."""
        self._stopping = False
        self._children = [Child(name, command) for name, command in self.commands.items()]
        self._selector = selectors.DefaultSelector()
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            while not self._stopping and any(
                child.process or child.starts_at is not None for child in self._children
            ):
                self._start_due()
                self._read(_POLL_S)
                self._reap()
            clean = self._stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for child in self._children:
                if child.process:
                    child.process.kill()
            self._selector.close()
        if self._stopping:
            return 0 if clean else 1
        return 0 if all(child.status == 0 for child in self._children) else 1

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start_due(self) -> None:
        for child in self._children:
            if child.starts_at is None or child.starts_at > time.monotonic():
                continue
            child.starts_at = None
            child.process = start(
                child.command, environment=self.environment, stdout=subprocess.PIPE
            )
            assert child.process.stdout is not None
            os.set_blocking(child.process.stdout.fileno(), False)
            self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
            self._print(child, f'started, process {child.process.pid}')

    def _read(self, timeout: float) -> None:
        if not self._selector.get_map():
            time.sleep(timeout)
            return
        for key, _ in self._selector.select(timeout):
            child: Child = key.data
            try:
                chunk = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if not chunk:
                self._selector.unregister(key.fileobj)
            *lines, child.partial_line = (child.partial_line + chunk).split(b'\n')
            for line in lines:
                self._print(child, line.decode(errors='replace'))

    def _reap(self) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            self._drain(child)
            child.status = child.process.returncode
            child.process = None
            text = describe_status(child.status)
            if self.respawn_delay is not None and not self._stopping:
                child.starts_at = time.monotonic() + self.respawn_delay
                text += f'; it starts again in {self.respawn_delay:g} s'
            self._print(child, text)

    def _drain(self, child: Child) -> None:
        """Print what is left in the pipe; a grandchild may hold it open, so do not wait for EOF."""
        assert child.process is not None and child.process.stdout is not None
        pipe = child.process.stdout
        while True:
            try:
                chunk = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                break
            if not chunk:
                break
            child.partial_line += chunk
        for line in child.partial_line.splitlines():
            self._print(child, line.decode(errors='replace'))
        child.partial_line = b''
        if pipe in {key.fileobj for key in self._selector.get_map().values()}:
            self._selector.unregister(pipe)
        pipe.close()

    def _stop(self) -> bool:
        """End what still runs; False where a process had to be killed."""
        running = {child.process: child for child in self._children if child.process}

        def impatient(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
            text = f'has not ended within {PATIENCE_S:g} s: {number.name}'
            self._print(running[process], text)

        def meanwhile() -> None:
            self._read(_POLL_S)
            self._reap()

        clean = stop(list(running), patience=PATIENCE_S, meanwhile=meanwhile, impatient=impatient)
        self._reap()
        return clean

    def _print(self, child: Child, text: str) -> None:
        # Into a pipe nothing of ours writes colours: what steers a terminal is somebody else's.
        print(f'[{child.name}] {printable(text.expandtabs())}', file=self.out, flush=True)


def describe_status(status: int) -> str:
    """Return the end of a process in words: `ended with exit code 3`, `was ended by SIGKILL`."""
    if status < 0:
        return f'was ended by {signal.Signals(-status).name}'
    return f'ended with exit code {status}'
