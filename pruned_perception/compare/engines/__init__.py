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

"""What runs the cells' processes: this machine, or a cluster that somebody started.

The runner decides what is to be made, in which order and how often; an engine starts a process a
cell, anywhere, and says how it ended. Results are files in a folder that all of them see, whichever
engine made them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pruned_perception.compare.lease import Lease
from pruned_perception.compare.study import Study
from pruned_perception.errors import UserError

THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
ONE_THREAD = dict.fromkeys(THREADS, '1')


class EngineError(UserError):
    """An engine cannot be reached, cannot run a cell, or was lost."""


@dataclass(frozen=True)
class Run:
    """What is to be run: a comparison, in a folder of results."""

    study: Study
    results: Path
    lease: Lease
    """Whoever makes a cell for these results goes on as long as it lives."""
    command: Sequence[str]
    """Starts a cell's process when the cell's name is appended; the first word is Python."""


@dataclass(frozen=True)
class Ending:
    """How the process of a cell ended: exit status, minus the signal; or that it was lost."""

    status: int | None
    """None where its worker died, or the machine: the cell may be tried again."""
    reason: str = ''


class Engine(Protocol):
    """Runs processes of cells; a context manager while it does."""

    @property
    def places(self) -> float:
        """How many cells it takes at a time; infinite where it queues them itself."""

    def run(self, run: Run) -> contextlib.AbstractContextManager[None]:
        """Take up work on a comparison; in the end all processes have ended, results saved.

        Raises EngineError.
        """

    def start(self, cell: str, log: Path) -> None:
        """Start a cell's process, which writes to the log, or queue it."""

    def ended(self) -> dict[str, Ending]:
        """Return the cells whose processes ended since the last call.

        Raises EngineError where the engine was lost, and everything that it ran with it.
        """

    def remarks(self) -> list[str]:
        """Return what there is to say since the last call, a line each."""
