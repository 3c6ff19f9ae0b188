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

"""Running the cells of a comparison by an engine: in order, each once, failures recorded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import Interrupted, termination
from pruned_perception.compare.engines import Ending, Engine, Run
from pruned_perception.compare.lease import held
from pruned_perception.compare.result import find_failure, find_result, record_failure, result_path
from pruned_perception.compare.study import Cell, Study

POLL_SECONDS = 0.2
TRIES = 3
HELD_SECONDS = 120.0

Progress = Callable[[float, str], None]


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
    engine: Engine,
    *,
    test: bool = False,
    device: str = 'cpu',
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda remark: None,
) -> dict[str, str]:
    """Make what is missing of a comparison; return which cells failed, and why.

    Interrupted (SIGTERM, Ctrl-C), the cells save what they have, and the next call goes on, by
    whatever engine. A cell whose worker died is tried again, three times in all.

    Args:
        study: the comparison.
        results: folder of its results; two runs in one folder are refused.
        engine: what runs the cells' processes.
        test: the processes compute figures on test data, of the results that are there.
        device: on which the processes train and judge, see `training.compute.find_device`.
        progress: told of the share of the cells that is done, and which are being made.
        say: told, a line each, what the user should know of the engine.

    Raises:
        FolderError: the folder is in use.
        EngineError: the engine cannot be reached, or was lost; what was made is kept.
        Interrupted: all cells' processes have ended.
    """
    with held(results) as lease, termination() as signals:
        todo = _Todo(study, results, test, say)
        if todo.waiting:
            command = command_for(study, results, test=test, device=device)
            with engine.run(Run(study, results, lease, command)):
                while todo.unfinished and not signals:
                    lease.tick()
                    todo.take(engine.ended())
                    for cell in todo.startable(engine.places):
                        engine.start(cell.name, log_path(results, cell))
                    for remark in engine.remarks():
                        say(remark)
                    if progress is not None:
                        progress(todo.share, todo.remark())
                    time.sleep(POLL_SECONDS)
    if signals:
        raise Interrupted
    return todo.failures


class _Todo:
    """Which cells wait, run, or have failed."""

    def __init__(self, study: Study, results: Path, test: bool, say: Callable[[str], None]) -> None:
        self.results, self.test, self.say = results, test, say
        wanted = [cell for cell in study.cells if not test or is_done(results, cell, test=False)]
        self.cells = len(wanted)
        self.waiting = [cell for cell in wanted if not is_done(results, cell, test=test)]
        self.running: dict[str, Cell] = {}
        self.failures: dict[str, str] = {}
        self.lost: dict[str, int] = {}
        self.held_since: dict[str, float] = {}

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def share(self) -> float:
        return 1 - (len(self.waiting) + len(self.running)) / max(1, self.cells)

    def take(self, ended: dict[str, Ending]) -> None:
        """Note how processes ended; whoever was lost without a result waits again."""
        if ended:
            # A network's file system may have cached that the results were not there yet.
            list(self.results.iterdir())
        for name, ending in ended.items():
            cell = self.running.pop(name)
            if is_done(self.results, cell, test=self.test):
                continue
            if ending.status is None:
                self.lost[name] = self.lost.get(name, 0) + 1
                if self.lost[name] < TRIES:
                    self.say(f'{name}: {ending.reason}; again')
                    self.waiting.insert(0, cell)
                    continue
            self.failures[name] = _reason(self.results, cell, ending)

    def startable(self, places: float) -> list[Cell]:
        """Return the next cells for so many places, none whose source has yet to be made."""
        unfinished = {*self.running, *(cell.name for cell in self.waiting)}
        found: list[Cell] = []
        for cell in self.waiting:
            if len(self.running) + len(found) >= places:
                break
            if (cell.source is None or cell.source.name not in unfinished) and self.free(cell):
                found.append(cell)
        for cell in found:
            self.waiting.remove(cell)
            self.running[cell.name] = cell
        return found

    def free(self, cell: Cell) -> bool:
        """Return whether nobody works at a cell, such as a process of an engine that was lost.

        It is given time to end; after that, the cell's own process says what is the matter.
        """
        try:
            with locked(self.results / cell.name):
                return True
        except FolderError as error:
            if cell.name not in self.held_since:
                self.held_since[cell.name] = time.monotonic()
                self.say(str(error))
            return time.monotonic() - self.held_since[cell.name] > HELD_SECONDS

    def remark(self) -> str:
        """Return what the processes said last."""
        said = {
            name: _last_line(log_path(self.results, cell)) for name, cell in self.running.items()
        }
        shown = (text if text.startswith(name) else name for name, text in said.items())
        return _some(shown)


def _some(texts: Iterable[str], most: int = 4) -> str:
    """Return some texts in a line, and how many more there are."""
    every = list(texts)
    more = [f'{len(every) - most} more'] if len(every) > most else []
    return '; '.join(every[:most] + more)


def _reason(results: Path, cell: Cell, ending: Ending) -> str:
    """Return why a cell's process failed; record it where the process could not."""
    if ending.status is not None and (reason := find_failure(results, cell)) is not None:
        return reason
    if ending.status is None:
        reason = f'lost {TRIES} times: {ending.reason}'
    else:
        status = ending.status
        how = f'signal {-status}' if status < 0 else f'exit status {status}'
        reason = f'{how}: {_last_line(log_path(results, cell))}'
    record_failure(results, cell, reason)
    return reason


def _last_line(log: Path) -> str:
    if not log.is_file():
        return ''
    lines = log.read_text(encoding='utf-8', errors='replace').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def command_for(study: Study, results: Path, *, test: bool, device: str) -> Sequence[str]:
    """Return the command line of this package that makes one cell, up to the cell's name."""
    own = [sys.executable, '-m', 'pruned_perception.cli.main', 'compare', str(study.path)]
    options = ['--results', str(results), '--device', device, *(['--test'] if test else [])]
    return [*own, *options, '--cell']
