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

"""Running the cells of a comparison: a process each, some at a time, failures recorded."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pruned_perception._io import locked
from pruned_perception._processes import Interrupted, start, stop, termination
from pruned_perception.compare.result import find_failure, find_result, record_failure, result_path
from pruned_perception.compare.study import Cell, Study

POLL_SECONDS = 0.2
THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


@dataclass
class _Job:
    cell: Cell
    process: subprocess.Popen[bytes]


def log_path(results: Path, cell: Cell) -> Path:
    """Return where the cell's process writes to."""
    return result_path(results, cell).with_suffix('.log')


def is_done(results: Path, cell: Cell, *, test: bool) -> bool:
    """Return whether a cell has its result, or also its figures on test data."""
    result = find_result(results, cell)
    return result is not None and (not test or result.test is not None)


def run_cells(
    study: Study,
    results: Path,
    command: Sequence[str],
    *,
    jobs: int = 1,
    test: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, str]:
    """Make what is missing of a comparison; return which cells failed, and why.

    Interrupted (SIGTERM, Ctrl-C), the cells save what they have, and the next call goes on.

    Args:
        study: the comparison.
        results: folder of its results; two runs in one folder are refused.
        command: starts a cell's process when the cell's name is appended.
        jobs: processes at a time, one thread each.
        test: the processes compute figures on test data, of the results that are there.
        progress: told of the share of the cells that is done, and which are being made.

    Raises:
        FolderError: the folder is in use.
        Interrupted: all cells' processes have ended.
    """
    wanted = [cell for cell in study.cells if not test or is_done(results, cell, test=False)]
    waiting = [cell for cell in wanted if not is_done(results, cell, test=test)]
    running: list[_Job] = []
    failures: dict[str, str] = {}
    with locked(results), termination() as signals:
        try:
            while (waiting or running) and not signals:
                for job in [each for each in running if each.process.poll() is not None]:
                    running.remove(job)
                    if not is_done(results, job.cell, test=test):
                        failures[job.cell.name] = _reason(results, job)
                busy = {job.cell.name for job in running}
                for cell in _startable(waiting, busy, jobs - len(running)):
                    waiting.remove(cell)
                    running.append(_Job(cell, _start(command, results, cell)))
                if progress is not None:
                    share = 1 - (len(waiting) + len(running)) / max(1, len(wanted))
                    progress(share, _remark(results, running))
                time.sleep(POLL_SECONDS)
        finally:
            # Saving may take its time: nothing follows SIGTERM.
            processes = [job.process for job in running]
            stop(processes, patience=math.inf, signals=[signal.SIGTERM])
    if signals:
        raise Interrupted
    return failures


def _startable(waiting: Sequence[Cell], busy: set[str], places: int) -> list[Cell]:
    """Return the next cells, none whose source has yet to be made."""
    unfinished = busy | {cell.name for cell in waiting}
    ready = [each for each in waiting if each.source is None or each.source.name not in unfinished]
    return ready[:places]


def _start(command: Sequence[str], results: Path, cell: Cell) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **dict.fromkeys(THREADS, '1')}
    with log_path(results, cell).open('wb') as log:
        return start([*command, cell.name], environment=environment, stdout=log)


def _reason(results: Path, job: _Job) -> str:
    """Return why a cell's process failed; record it where the process could not."""
    if (reason := find_failure(results, job.cell)) is not None:
        return reason
    status = job.process.returncode
    ending = f'signal {-status}' if status < 0 else f'exit status {status}'
    reason = f'{ending}: {_last_line(log_path(results, job.cell))}'
    record_failure(results, job.cell, reason)
    return reason


def _remark(results: Path, running: Sequence[_Job]) -> str:
    """Return what the processes said last."""
    said = {job.cell.name: _last_line(log_path(results, job.cell)) for job in running}
    return '; '.join(text if text.startswith(name) else name for name, text in said.items())


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding='utf-8', errors='replace').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def command_for(study: Study, results: Path, *, test: bool) -> list[str]:
    """Return the command line of this package that makes one cell, up to the cell's name."""
    own = [sys.executable, '-m', 'pruned_perception.cli.main', 'compare', str(study.path)]
    return [*own, '--results', str(results), *(['--test'] if test else []), '--cell']
