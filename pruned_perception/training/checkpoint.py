"""Work that may be interrupted at any moment: folders, signals, files that are whole or absent.

A checkpoint is plain data and tensors. All have `format` and `weights`, a state dict; beside it,

* of a training: `steps`, `cpu_seconds`; `identity` and, unless it is `finished`, `resume`;
* of a pruned network: `plans`, by which it was cut;
* of a detector: its `architecture`, `labels`, `experiment`, `data` and `ancestry`.
"""

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

FORMAT = 2


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
    """Return what `save_checkpoint` wrote; nothing but tensors and plain data is ever loaded.

    Of a file of the former format, the weights and what is said of them; a training cannot go on
    from one.
    """
    path = Path(path)
    try:
        content = load_tensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path}: no such checkpoint; train it first') from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: not a checkpoint, or damaged: only tensors and plain data are loaded, since '
            'other pickles can run code'
        ) from error
    except OSError as error:
        raise CheckpointError(f'{path}: not a checkpoint, or damaged: {error}') from error
    if not isinstance(content, dict) or content.get('format') not in (1, FORMAT):
        raise CheckpointError(f'{path}: not a checkpoint of format {FORMAT}')
    for former in ('state_dict', 'model'):
        if content['format'] == 1 and former in content:
            content.setdefault('weights', content.pop(former))
    if not isinstance(content.get('weights'), dict):
        raise CheckpointError(f'{path}: not a checkpoint: it has no weights')
    return content


def load_tensors(path: Path) -> Any:
    """Return what a file of PyTorch's holds, if that is tensors and plain data.

    Raises:
        pickle.UnpicklingError: it is something else, which could run code.
        OSError: no such file, or one that is damaged.
    """
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (RuntimeError, EOFError, ValueError) as error:
        raise OSError(next(iter(str(error).splitlines()), type(error).__name__)) from error


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
