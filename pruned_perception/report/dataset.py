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

"""The page about a data set: numbers, where boxes lie, and annotated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pruned_perception import _pages as pages
from pruned_perception._io import write_text
from pruned_perception._tables import Table
from pruned_perception.datasets.dataset import Dataset
from pruned_perception.datasets.errors import KINDS
from pruned_perception.datasets.inspection import Inspected
from pruned_perception.datasets.problems import Problem, counts
from pruned_perception.datasets.statistics import (
    Statistics,
    groups_table,
    labels_table,
    sides_table,
    sizes_table,
    statistics,
)
from pruned_perception.inference.drawing import draw_boxes

_WIDTH = 480  # pixels of a picture on the page
_EXAMPLES = 3  # problems of a kind that the page quotes


def write_dataset_page(
    found: Sequence[Inspected], out: Path, *, title: str, pictures: int = 12
) -> None:
    """Write the page about the splits of a data set; raise UserError where that fails.

    Args:
        found: the splits as `datasets.inspection.inspect` found them.
        out: the file.
        title: of the page.
        pictures: how many annotated ones of each split it shows.
    """
    usable = [(each, each.notes) for each in found if each.notes is not None]
    frames = sum(len(notes) for _, notes in usable)
    page = pages.render(
        'report/dataset.html',
        title=title,
        about=f'{frames} pictures, {_count(len(found), "split")}',
        problems=_problems([each for split in found for each in split.problems.found]),
        splits=[_section(each, notes, pictures) for each, notes in usable],
    )
    write_text(out, page)


def problems_table(problems: Sequence[Problem]) -> Table:
    """Return the kinds of problems with their numbers, and what was or can be done."""
    rows = []
    for kind, number, repair in counts(problems):
        what, repairs = KINDS[kind]
        done = f'repaired: {repair}' if repair else ' or '.join(repairs) or 'by hand'
        rows.append((what, number, done))
    return Table.under('problem | number:d | repair', rows)


def _problems(problems: Sequence[Problem]) -> Table | None:
    if not problems:
        return None
    rows: list[tuple[object, ...]] = []
    for row, (kind, _, repair) in zip(problems_table(problems).rows, counts(problems), strict=True):
        rows.append(tuple(row))
        same = [each.text for each in problems if (each.kind, each.repair) == (kind, repair)]
        rows += [(text,) for text in same[:_EXAMPLES]]
    return Table.under('problem | number:d | repair', rows)


def _section(each: Inspected, notes: Dataset, pictures: int) -> dict[str, Any]:
    found = statistics(notes)
    tables = [labels_table(found), sides_table(found), sizes_table(found)]
    if notes.unit is not None:
        tables.append(groups_table(found, notes.unit))
    return {
        'name': notes.split or 'the whole set',
        'cards': _cards(found, notes),
        'tables': tables,
        'centres': _centres(found),
        'pictures': [_picture(notes, index) for index in chosen(notes, pictures)],
        'notes': each.problems.notes,
    }


def _cards(found: Statistics, notes: Dataset) -> list[tuple[str, str]]:
    groups = [(str(len(found.groups)), f'groups ({notes.unit})')] if found.groups else []
    return [
        (f'{found.frames:,}', 'pictures'),
        (f'{found.boxes:,}', f'boxes to be found, and {found.crowd:,} that are crowds'),
        (f'{found.boxes / max(found.frames, 1):.1f}', f'boxes a picture; {found.most} at most'),
        (f'{found.empty:,}', 'pictures without a box'),
        *groups,
    ]


def _centres(found: Statistics) -> str:
    most = max(int(found.centres.max()), 1)
    grey = (255 - 230 * np.sqrt(found.centres / most)).astype(np.uint8)
    large = cv2.resize(grey, None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)
    return pages.data_uri(cv2.imencode('.png', large)[1].tobytes(), 'png')


def chosen(notes: Dataset, count: int) -> list[int]:
    """Return the frames to show, in order: some of each label, then spread over the set."""
    count = min(count, len(notes))
    indices: list[int] = []
    having: dict[int, list[int]] = {}
    for index, ids in enumerate(notes.class_ids):
        for class_id in np.unique(ids).tolist():
            having.setdefault(class_id, []).append(index)
    for frames in having.values():
        indices.append(frames[len(frames) // 2])
    indices += np.linspace(0, len(notes) - 1, count).round().astype(int).tolist()
    indices += range(len(notes))
    return sorted(list(dict.fromkeys(indices))[:count])


def _picture(notes: Dataset, index: int) -> tuple[str, str]:
    image, boxes = notes.image(index), notes.boxes[index]
    scale = _WIDTH / image.shape[1]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=method), np.uint8)
    texts = [
        notes.labels[k] + (' (crowd)' if crowd else '')
        for k, crowd in zip(notes.class_ids[index], notes.crowd[index], strict=True)
    ]
    drawn = draw_boxes(small, boxes * scale, notes.class_ids[index], texts)
    data = cv2.imencode('.jpg', drawn, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    group = '' if notes.unit is None else f', {notes.unit} {notes.groups[index]}'
    name = f'{notes.paths[index].name}: {_count(len(boxes), "box", "boxes")}{group}'
    return pages.data_uri(data, 'jpeg'), name


def _count(number: int, one: str, several: str | None = None) -> str:
    return f'{number} {one if number == 1 else several or one + "s"}'
