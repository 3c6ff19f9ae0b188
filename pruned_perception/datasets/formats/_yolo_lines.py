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

"""A line of a YOLO label file: a class and a box, a polygon or key points, in shares of a picture.

Columns behind the class: 4 are a box (centre, width, height); 5 a box and a score; an even number
from 6 on are the corners of a polygon, of which the envelope is the box. Where a data set says
that it has key points, they follow the box and are not looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pruned_perception.datasets.boxes import Corners
from pruned_perception.datasets.errors import DataError

# Not all that Python takes for a number: 1_0, ٣, infinity.
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?', re.ASCII)
_NOT_FINITE = re.compile(r'[+-]?(nan|inf|infinity)', re.IGNORECASE)
_LARGEST_SHARE = 2.0
"""A share beyond is no box that reaches out of its picture: pixels were written."""


@dataclass(frozen=True)
class Line:
    """What a line says."""

    class_id: int
    shares: Corners
    """Left, top, right, bottom in shares of the picture's width and height."""
    scored: bool


def parse_line(line: str, where: str, keypoints: int = 0) -> Line:
    """Return what a line says; raise DataError beginning with `where`.

    Args:
        line: class and numbers, between white space.
        where: file and line.
        keypoints: how many numbers of key points stand behind the box.
    """
    first, *rest = words = line.split()
    for word in words:
        if _NOT_FINITE.fullmatch(word):
            raise DataError(f'{where}: {word} is not finite', 'box-numbers')
        if not _NUMBER.fullmatch(word):
            raise DataError(
                f'{where}: {word[:60]!r} is not a number; a line is a class and the shares of a '
                'box, between spaces',
                'box-numbers',
            )
    number, values = float(first), [float(word) for word in rest]
    if abs(number) > 1e9 or number != int(number):
        raise DataError(f'{where}: the class is {first}, no whole number', 'box-class')
    count = len(values)
    polygon = count >= 6 and count % 2 == 0
    if keypoints:
        if count != 4 + keypoints:
            raise DataError(
                f'{where}: {count + 1} columns; a class, a box and {keypoints} numbers of key '
                'points are needed',
                'box-numbers',
            )
        values, polygon = values[:4], False
    elif count not in (4, 5) and not polygon:
        raise DataError(
            f'{where}: {count + 1} columns; a class and a box have 5, with a score 6, and a class '
            'and a polygon 7, 9, 11, …',
            'box-numbers',
        )
    scored = count == 5
    values = values[:4] if scored else values
    if pixels := [value for value in values if abs(value) > _LARGEST_SHARE]:
        raise DataError(
            f"{where}: {pixels[0]:g} is no share of a picture's width or height; are these pixels?",
            'box-pixels',
        )
    if polygon:
        across, down = values[::2], values[1::2]
        return Line(int(number), (min(across), min(down), max(across), max(down)), False)
    x, y, width, height = values
    return Line(int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), scored)
