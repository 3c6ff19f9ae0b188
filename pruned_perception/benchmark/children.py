"""Processes that a benchmark starts, each with a log file, and never leaves behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pruned_perception.errors import UserError
from pruned_perception.nodes.supervisor import die_with_parent

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
            process = subprocess.Popen(
                [str(word) for word in command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                # A session of its own: Ctrl-C reaches us alone, and we end them in order.
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def stop(self, *children: Child, patience: float = 8.0) -> None:
        """End `children` (all by default): SIGINT, then SIGTERM, then SIGKILL."""
        chosen = list(children) or self._children
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for child in chosen:
                if child.alive:
                    child.process.send_signal(number)
            end = time.monotonic() + patience
            while any(child.alive for child in chosen) and time.monotonic() < end:
                time.sleep(0.02)
        self._children = [child for child in self._children if child.alive]

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C, from somebody impatient, must not leave processes behind.
        with ignored(signal.SIGINT, signal.SIGTERM):
            self.stop(patience=4.0)


@contextmanager
def ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals for the length of a `with` block."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, so that both take the same way out."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
