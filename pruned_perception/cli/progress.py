"""One line of progress on standard error: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

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
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.fields[note]}'),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        # Nothing done stands for what is not known: a total of None needs rich 12.3, and Ubuntu
        # 22.04 has 11.2.
        self._task = self._bar.add_task(title, total=1.0, note='')

    def phase(self, title: str, done: float | None, note: str) -> None:
        """Show what goes on, the share of it that is done (None: not known) and a remark."""
        self._bar.update(self._task, description=title, completed=done or 0.0, note=note)
        if title != self._title:
            self._title, self._last_line = title, float('-inf')
        self._line(note or 'begins')

    def share(self, done: float) -> None:
        """Show the share done, 0 … 1."""
        self._bar.update(self._task, completed=done)
        self._line(f'{100 * done:.0f} %')

    def text(self, note: str) -> None:
        """Show a remark, where the whole is not known."""
        self._bar.update(self._task, note=note)
        self._line(note)

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            print(f'{self._title}: {text}', file=sys.stderr, flush=True)

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
