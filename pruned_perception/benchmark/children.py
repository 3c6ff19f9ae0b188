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

"""Processes that a benchmark starts, each with a log file, and never leaves behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pruned_perception._processes import ignored, start, stop
from pruned_perception.errors import UserError

_LAST_LINES = 8


@dataclass
class Child:
    """One process; its standard output and error go to `log` (output to `out`, where given)."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def require_alive(self) -> None:
        """Raise UserError with the end of the log if the process has ended."""
        if not self.alive:
            raise UserError(
                f'{self.name} ended with status {self.process.returncode}:\n{self.last_lines()}\n'
                f'(all of it: {self.log})'
            )

    def last_lines(self) -> str:
        """Return the end of the log."""
        text = self.log.read_text(errors='replace') if self.log.exists() else ''
        return '\n'.join(f'  {line}' for line in text.splitlines()[-_LAST_LINES:])


class Children:
    """Processes that end with the `with` block, however it is left.

    On Linux they also end with this process if it is killed.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str | Path], out: Path | None = None) -> Child:
        """Start `command`; the log is `<logs>/<name>.log`."""
        log = self._logs / f'{name}.log'
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(log.open('wb'))
            output = errors if out is None else stack.enter_context(out.open('wb'))
            process = start(
                [str(word) for word in command],
                environment=self._environment,
                stdout=output,
                stderr=errors,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def stop(self, *children: Child, patience: float = 8.0) -> None:
        """End `children` (all by default): SIGINT, then SIGTERM, then SIGKILL."""
        chosen = list(children) or self._children
        stop([child.process for child in chosen], patience=patience)
        self._children = [child for child in self._children if child.alive]

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C, from somebody impatient, must not leave processes behind.
        with ignored(signal.SIGINT, signal.SIGTERM):
            self.stop(patience=4.0)
