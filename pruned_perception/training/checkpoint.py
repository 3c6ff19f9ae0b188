"""Work that may be interrupted at any moment: folders, signals, files that are whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pruned_perception.errors import UserError

FORMAT = 1


class FolderError(UserError):
    """A folder is in use, cannot be written, or holds something else."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another format."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C came; everything is saved, and the same call goes on from there."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; raise FolderError where another process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / 'lock').open('w')
    except OSError as error:
        raise FolderError(f'{folder}: cannot be written: {error.strerror}') from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderError(f'{folder}: in use by another process') from error
        yield


@contextlib.contextmanager
def termination() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying of them.

    A second signal acts as usual, so that nothing can hang.
    """
    received: list[int] = []
    former: dict[int, Any] = {}

    def receive(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, former[number])

    try:
        for each in (signal.SIGTERM, signal.SIGINT):
            former[each] = signal.signal(each, receive)
    except ValueError:  # not in the main thread: then the caller's handlers stay
        pass
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data; an interruption leaves the former file or the new one."""
    _replace(path, lambda temporary: torch.save({'format': FORMAT, **content}, temporary))


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote; nothing but tensors and plain data is ever loaded."""
    path = Path(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path}: no such checkpoint; train it first') from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: not a checkpoint, or damaged: only tensors and plain data are loaded, since '
            'other pickles can run code'
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f'{path}: not a checkpoint, or damaged: {first}') from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise CheckpointError(f'{path}: not a checkpoint of format {FORMAT}')
    return content


def save_json(path: Path, data: Any) -> None:
    """Write JSON so that a reader finds the former file or the new one."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    _replace(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be written: {error.strerror}') from error
    finally:
        temporary.unlink(missing_ok=True)
