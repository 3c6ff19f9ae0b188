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

"""Files of labels, one a line: the position is the class id, so no line may vanish."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pruned_perception.datasets.errors import DataError

PLACEHOLDERS = ('???', 'N/A')
"""What lists with gaps, such as COCO's of 91 ids, write for an id without a class."""
_PLACEHOLDER = re.compile(r'(\?\?\?|N/A)( \d+)?', re.IGNORECASE)


def is_placeholder(label: str) -> bool:
    """Tell whether a label stands for an id that no class has."""
    return _PLACEHOLDER.fullmatch(label) is not None


def read_labels(file: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the labels of a text file in UTF-8, whose line n (from 0) names the class with id n.

    A byte-order mark, space around a label and empty lines at the end mean nothing. Placeholders
    are kept and numbered by their id ('N/A 12'), as each label must be unique.

    Raises:
        DataError: unreadable, empty, an empty line between labels, or a label that is there twice.
    """
    file = Path(file).expanduser()
    try:
        text = file.read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise DataError(f'{file}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise DataError(f'{file}: not a text file in UTF-8: {error}') from error
    # Not splitlines(): it also breaks lines at characters that editors do not.
    lines = [line.strip() for line in re.split(r'\r\n|\r|\n', text.rstrip())]
    if lines == ['']:
        raise DataError(f'{file}: no labels in it; write one a line, in the order of their ids')
    places: dict[str, int] = {}
    for index, line in enumerate(lines):
        if not line:
            raise DataError(
                f'{file}: line {index + 1} is empty, but the position of a label is its class id; '
                f'remove the line, or write {PLACEHOLDERS[1]} for an id that has no class'
            )
        label = f'{line} {index}' if line.upper() in PLACEHOLDERS else line
        if label in places:
            raise DataError(
                f'{file}: {label!r} is there twice: lines {places[label] + 1}, {index + 1}'
            )
        places[label] = index
    return tuple(places)
