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

"""Files that are whole or absent, folders that one process holds, JSON with clear errors."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruned_perception.errors import UserError


class FolderError(UserError):
    """A folder is in use, cannot be written, or holds something else."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block has ended well.

    A reader finds the former file or the new one, whatever interrupts the block. The folder is
    made. What is no file, like a terminal, is written to as it is. Raises OSError.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def errors_of_writing(path: Path, error: type[UserError] = UserError) -> Iterator[None]:
    """Raise `error`, naming the path, where the block cannot write."""
    try:
        yield
    except OSError as failure:
        raise error(f'{path}: cannot be written: {failure.strerror or failure}') from failure


def write_text(path: Path, text: str, *, error: type[UserError] = UserError) -> None:
    """Write text in UTF-8, whole or not at all; raise `error` where that fails."""
    with errors_of_writing(path, error), replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all; raise UserError where that fails."""
    with errors_of_writing(path), replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, whole or not at all; raise UserError where that fails."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + '\n')


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise UserError where it cannot be read or is none."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: not JSON: {error}') from error


def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; of a key that is there twice Python would take the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key {twice!r} is there twice in one object')
    return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; raise FolderError where another process does.

    The system frees the lock even if the process is killed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / '.lock').open('w')
    except OSError as error:
        raise FolderError(f'{folder}: cannot be written: {error.strerror}') from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderError(
                f'{folder}: in use by another process; wait for it, or choose another folder'
            ) from error
        yield
