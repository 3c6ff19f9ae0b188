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

"""One line of progress on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from pruned_perception._tables import printable
from pruned_perception.cli.output import say

_LINE_EVERY_S = 10.0


class Progress:
    """Progress of one job, for a `with` block; standard output stays free for results."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._title = title
        self._console = Console(stderr=True)
        self._last_line = time.monotonic()
        self._bar = Bar(
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            TextColumn('{task.fields[note]}', markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        # Nothing done stands for what is not known: a total of None needs rich 12.3, and Ubuntu
        # 22.04 has 11.2.
        self._task = self._bar.add_task(printable(title), total=1.0, note='')

    def phase(self, title: str, done: float | None, note: str) -> None:
        """Show what goes on, the share of it that is done (None: not known) and a remark."""
        self._bar.update(
            self._task, description=printable(title), completed=done or 0.0, note=printable(note)
        )
        if title != self._title:
            self._title, self._last_line = title, float('-inf')
        self._line(note or 'begins')

    def counted(self, done: int, total: int) -> None:
        """Show that so many of all are done."""
        self.share(done / total)

    def share(self, done: float) -> None:
        """Show the share done, 0 … 1."""
        self._bar.update(self._task, completed=done)
        self._line(f'{100 * done:.0f} %')

    def text(self, note: str) -> None:
        """Show a remark, where the whole is not known."""
        self._bar.update(self._task, note=printable(note))
        self._line(note)

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            say(f'{self._title}: {text}', file=sys.stderr)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
