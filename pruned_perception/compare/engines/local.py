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

"""Processes of this machine."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pruned_perception._processes import start, stop
from pruned_perception.compare.engines import ONE_THREAD, Ending, Run


class LocalEngine:
    """So many processes at a time, one thread each."""

    def __init__(self, jobs: int = 1) -> None:
        self.places: float = jobs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @contextlib.contextmanager
    def run(self, run: Run) -> Iterator[None]:
        """Take up work on a comparison."""
        self._command = run.command
        try:
            yield
        finally:
            # Saving may take its time: nothing follows SIGTERM.
            stop(list(self._processes.values()), patience=math.inf, signals=[signal.SIGTERM])
            self._processes.clear()

    def start(self, cell: str, log: Path) -> None:
        """Start a cell's process."""
        with log.open('wb') as file:
            self._processes[cell] = start(
                [*self._command, cell], environment={**os.environ, **ONE_THREAD}, stdout=file
            )

    def ended(self) -> dict[str, Ending]:
        """Return the cells whose processes ended since the last call."""
        found = {
            cell: Ending(status)
            for cell, process in self._processes.items()
            if (status := process.poll()) is not None
        }
        for cell in found:
            del self._processes[cell]
        return found

    def remarks(self) -> list[str]:
        """Return nothing: there is nothing to say."""
        return []
