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

"""Boxes of ground truth: four finite numbers that span an area inside their picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.datasets.errors import DataError

OVERHANG = 1.0
"""Pixels by which a box may stand out of its picture: other tools round."""

LARGEST = 1e15

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def finite_numbers(values: Any, count: int, where: str) -> list[float]:
    """Return `values` as floats if they are a list of `count` finite numbers.

    Text that looks like a number is none. Raises DataError; `where` begins its message.
    """
    if not isinstance(values, list | tuple) or len(values) != count:
        raise DataError(
            f'{where} is {_quote(values)}, not a list of {count} numbers', 'box-numbers'
        )
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise DataError(
                f'{where} is {_quote(values)}: {_quote(value)} is not a number', 'box-numbers'
            )
        # Whole numbers may be too large to become floats: compared first.
        if abs(value) > LARGEST or not math.isfinite(value):
            raise DataError(
                f'{where} is {_quote(values)}: {_quote(value)} is not finite', 'box-numbers'
            )
    return [float(value) for value in values]


def corners_from_size(values: Any, where: str) -> Corners:
    """Return the corners of `[left, top, width, height]`; raises DataError beginning `where`."""
    left, top, width, height = finite_numbers(values, 4, where)
    _check_area(*_sides(left, top, left + width, top + height), values, where)
    return left, top, left + width, top + height


def corners(values: Any, where: str) -> Corners:
    """Return `[left, top, right, bottom]` checked; raises DataError beginning with `where`."""
    left, top, right, bottom = finite_numbers(values, 4, where)
    _check_area(*_sides(left, top, right, bottom), values, where)
    return left, top, right, bottom


def check_inside(box: Corners, size: tuple[int, int], where: str) -> None:
    """Raise DataError where `box` leaves a picture of `size` (height, width) by over OVERHANG."""
    height, width = size
    left, top, right, bottom = box
    beyond = max(-left, -top, right - width, bottom - height)
    if beyond > OVERHANG:
        raise DataError(
            f'{where} reaches {beyond:.6g} pixels out of its picture of {width} × {height} pixels: '
            f'left {left:g}, top {top:g}, right {right:g}, bottom {bottom:g}',
            'box-outside',
        )


def clipped(box: Corners, size: tuple[int, int]) -> Corners | None:
    """Return what of a box is in a picture of `size` (height, width); None where nothing is."""
    height, width = size
    left, right = (min(max(x, 0.0), float(width)) for x in box[::2])
    top, bottom = (min(max(y, 0.0), float(height)) for y in box[1::2])
    return (left, top, right, bottom) if min(_sides(left, top, right, bottom)) > 0 else None


def _sides(left: float, top: float, right: float, bottom: float) -> tuple[float, float]:
    """Return width and height in the precision that boxes are kept in, where a sliver has none."""
    return float(np.float32(right) - np.float32(left)), float(np.float32(bottom) - np.float32(top))


def as_stored(
    boxes: NDArray[np.float32], orientation: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return boxes (K, 4), xyxy, of a picture shown upright as those of the picture as stored.

    Args:
        boxes: in pixels of the upright picture.
        orientation: EXIF's, 1 … 8.
        size: height and width as stored.
    """
    height, width = size
    left, top, right, bottom = boxes.T
    if orientation in (5, 6, 7, 8):  # its rows are the stored picture's columns
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return np.stack([left, top, right, bottom], 1).astype(np.float32)


def check_corners(boxes: NDArray[Any], where: str) -> None:
    """Raise DataError for the first of `boxes` (K, 4), xyxy, that is not finite or has no area."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    sound = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not sound.all():
        index = int(np.argmin(sound))
        raise DataError(
            f'{where}: box {index} is {boxes[index].tolist()}; left, top, right, bottom must be '
            'finite and span an area'
        )


def _check_area(width: float, height: float, values: Any, where: str) -> None:
    if not (width > 0 and height > 0):
        raise DataError(
            f'{where} is {_quote(values)}: width {width:g}, height {height:g}; both must be above '
            '0',
            'box-area',
        )


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}…'
