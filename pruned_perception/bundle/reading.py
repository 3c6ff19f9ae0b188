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

"""Files from elsewhere: regular ones only, of a bounded size, and JSON without surprises."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from pruned_perception._io import keys_once
from pruned_perception.bundle.manifest import BundleError

MOST_JSON_BYTES = 8 << 20
_LARGEST_INTEGER = 2**63 - 1
_DEEPEST = 64


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Opened once, and never waited for: what is checked is what is read. Raises BundleError for
    what is missing, unreadable, larger, or a pipe, a device or a folder.
    """
    try:
        # Without waiting: to open a named pipe that nobody writes to would take for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, 'rb') as file:  # noqa: PTH123
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f'{path}: not a regular file; fetch the bundle again')
            data = file.read(most + 1) if status.st_size <= most else b''
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise BundleError(f'{shortened(path)}: cannot be read: {_reason(error)}') from error
    if status.st_size > most or len(data) > most:
        raise BundleError(
            f'{path}: {max(status.st_size, len(data)):,} bytes, but at most {most:,} are read; '
            'is this the right file?'
        )
    return data


def parse_json(data: bytes, path: Path) -> object:
    """Return the content of a JSON file, whose bytes are `data`.

    Stricter than Python's own reader: no key twice, only finite numbers that fit 64 bits, text
    that can be written again, and no more than 64 levels. Raises BundleError.
    """
    try:
        content = json.loads(
            data.decode('utf-8'),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=keys_once,
        )
        _check(content, _DEEPEST)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, JSONDecodeError
        raise BundleError(f'{path}: not JSON: {error}') from error
    return content


def exists(path: Path) -> bool:
    """Tell whether there is something at `path`; raise BundleError where that cannot be told."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise BundleError(f'{shortened(path)}: cannot be read: {_reason(error)}') from error
    return True


def shortened(path: Path) -> str:
    """Return the path for a message; of an absurd one the two ends."""
    text = str(path)
    return text if len(text) <= 400 else f'{text[:200]}…{text[-100:]}'


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no JSON value')


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f'the number {text[:20]} is too large')
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > _LARGEST_INTEGER:
        raise ValueError(f'the integer {text[:20]}… does not fit 64 bits')
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError(f'more than {_DEEPEST} levels deep')
    if isinstance(value, str):
        value.encode('utf-8')  # fails on half of a surrogate pair
    elif isinstance(value, dict):
        for name, each in value.items():
            name.encode('utf-8')
            _check(each, depth - 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth - 1)
