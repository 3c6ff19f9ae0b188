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

"""Small pictures for the report: rows of coloured cells, and where curves lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pruned_perception._pages import data_uri

KEPT = ((214, 228, 243), (23, 74, 138))
"""Colours (r, g, b) of a kept channel whose sensitivity is 0, and 1."""
CUT = ((251, 224, 203), (178, 66, 14))
SIZE = {'WIDTH': 520, 'HEIGHT': 300, 'LEFT': 46, 'RIGHT': 22, 'TOP': 14, 'BOTTOM': 44}
"""Of chart.html, and its margins."""


@dataclass(frozen=True)
class Line:
    """A curve y(x), x > 0 and y in 0 … 1."""

    name: str
    points: tuple[tuple[float, float], ...]
    color: str


def strip(cells: Sequence[tuple[float, bool]]) -> str:
    """Return a PNG of one row, a pixel per channel: the most sensitive first, kept or cut.

    The darker, the more sensitive: the square root of the sensitivity, since most are small.
    """
    row = np.empty((1, len(cells), 3), np.uint8)
    for index, (value, kept) in enumerate(sorted(cells, key=lambda cell: -cell[0])):
        light, dark = (np.array(each, float) for each in (KEPT if kept else CUT))
        strength = math.sqrt(min(max(value, 0.0), 1.0))
        row[0, index] = (light + strength * (dark - light)).round()
    done, data = cv2.imencode('.png', row[..., ::-1])
    assert done
    return data_uri(data.tobytes(), 'png')


def error_chart(lines: Sequence[Line], *, real: float, mark: float | None) -> dict[str, Any]:
    """Return what chart.html draws: size (share of the dense network's) against error, logarithmic.

    Args:
        lines: the predictions.
        real: the size that a plan really has, drawn across.
        mark: the plan's own a-priori error, a dot on that line, where it is known.
    """
    errors = [x for line in lines for x, _ in line.points]
    low = math.floor(math.log10(max(min(errors), 1e-3)))
    high = math.ceil(math.log10(max(*errors, 2.0)))
    width = SIZE['WIDTH'] - SIZE['LEFT'] - SIZE['RIGHT']
    height = SIZE['HEIGHT'] - SIZE['TOP'] - SIZE['BOTTOM']

    def x_of(error: float) -> float:
        share = (math.log10(max(error, 10.0**low)) - low) / (high - low)
        return round(SIZE['LEFT'] + min(share, 1.0) * width, 1)

    def y_of(share: float) -> float:
        return round(SIZE['TOP'] + (1 - share) * height, 1)

    def path_of(line: Line) -> str:
        inside = [(x, y) for x, y in line.points if x >= 10.0**low]
        return ' '.join(f'{x_of(x)},{y_of(y)}' for x, y in inside)

    return {
        'shares': [(f'{share:.0%}', y_of(share)) for share in (0, 0.25, 0.5, 0.75, 1)],
        'errors': [(f'{10.0**power:g}', x_of(10.0**power)) for power in range(low, high + 1)],
        'vacuous': x_of(1.0),
        'lines': [{'path': path_of(line), **vars(line)} for line in lines],
        'real': y_of(real),
        'real_label': f'this plan: {real:.1%}',
        'mark': None if mark is None else x_of(mark),
    }
