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

"""What is in a data set, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.datasets.dataset import Dataset

SIZE_BINS = (0, 16, 32, 48, 96, 192)
"""Where the longer side of a box, pixels of its picture, begins a bin; the last has no end."""

MOST_SIZES = 8
"""Of pictures that a table names."""


@dataclass(frozen=True)
class Statistics:
    """Numbers of one split; boxes are those to be found, crowds are counted apart."""

    frames: int
    empty: int
    """Frames without a box to be found."""
    groups: dict[str, int]
    """Frames of each group, largest first; none where each frame is its own."""
    boxes: int
    crowd: int
    labels: dict[str, tuple[int, int]]
    """Boxes, and frames with some, of each label in order."""
    sides: dict[str, int]
    """Boxes by the longer side, in SIZE_BINS."""
    sizes: dict[tuple[int, int], int]
    """Frames by (height, width), most frequent first."""
    most: int
    """Boxes of the fullest frame."""
    centres: NDArray[np.int64]
    """(48, 64): boxes whose centre is in that part of the picture."""


def statistics(notes: Dataset) -> Statistics:
    """Return what is in a data set; the pictures are not looked at."""
    counts = np.zeros(len(notes.labels), int)
    frames = np.zeros(len(notes.labels), int)
    per_frame, sides = [], [np.zeros(0)]
    centres = np.zeros((48, 64), np.int64)
    for size, boxes, ids, crowd in zip(
        notes.sizes, notes.boxes, notes.class_ids, notes.crowd, strict=True
    ):
        boxes, ids = boxes[~crowd], ids[~crowd]
        per_frame.append(len(boxes))
        here = np.bincount(ids, minlength=len(notes.labels))
        counts += here
        frames += here > 0
        sides.append((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0))
        middle = (boxes[:, 1::-1] + boxes[:, :1:-1]) / 2 / np.array(size)
        row, column = (np.clip(middle, 0, 1 - 1e-9) * centres.shape).astype(int).T
        np.add.at(centres, (row, column), 1)
    longer = np.concatenate(sides)
    edges = (*SIZE_BINS, np.inf)
    binned, _ = np.histogram(longer, edges)
    names = [f'{low} … {high}' if high < np.inf else f'from {low}' for low, high in pairwise(edges)]
    return Statistics(
        frames=len(notes),
        empty=per_frame.count(0),
        groups={} if notes.unit is None else dict(Counter(notes.groups).most_common()),
        boxes=int(counts.sum()),
        crowd=sum(int(each.sum()) for each in notes.crowd),
        labels={label: (int(counts[k]), int(frames[k])) for k, label in enumerate(notes.labels)},
        sides=dict(zip(names, binned.tolist(), strict=True)),
        sizes=dict(Counter(notes.sizes).most_common()),
        most=max(per_frame, default=0),
        centres=centres,
    )


def labels_table(found: Statistics) -> Table:
    """Return boxes and frames of each label."""
    rows = [(label, *numbers) for label, numbers in found.labels.items()]
    return Table.under('label | boxes:d | pictures:d', rows)


def sides_table(found: Statistics) -> Table:
    """Return boxes by their longer side."""
    rows = [(name, number, number / max(found.boxes, 1)) for name, number in found.sides.items()]
    return Table.under('longer side, px | boxes:d | share:.0%', rows)


def groups_table(found: Statistics, unit: str) -> Table:
    """Return the frames of each group."""
    return Table.under(f'{unit} | pictures:d', list(found.groups.items()))


def sizes_table(found: Statistics) -> Table:
    """Return the frames by their size."""
    rows = [(f'{width} × {height}', number) for (height, width), number in found.sizes.items()]
    if rest := rows[MOST_SIZES:]:
        rows = [*rows[:MOST_SIZES], (f'{len(rest)} others', sum(number for _, number in rest))]
    return Table.under('width × height | pictures:d', rows)
