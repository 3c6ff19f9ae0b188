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

"""Data sets written as COCO, the layout of the project's own: one folder a split."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception._io import errors_of_writing
from pruned_perception.datasets.dataset import PER_FRAME, Dataset
from pruned_perception.datasets.division import BY_PICTURE, divide, grouped, tied
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.formats.coco import GROUPS
from pruned_perception.images import read_header
from pruned_perception.images.checks import checked

RECORD = 'conversion.json'


def names_of(notes: Dataset) -> list[str]:
    """Return the paths of the pictures relative to the innermost folder that all lie in."""
    base = Path(os.path.commonpath([path.parent for path in notes.paths]))
    return [path.relative_to(base).as_posix() for path in notes.paths]


def with_groups(notes: Dataset, by: str, unit: str | None = None) -> Dataset:
    """Return the set with other groups, see `division.grouped`; `unit` is what they are."""
    if by == BY_PICTURE:
        return replace(notes, groups=tuple(map(str, range(len(notes)))), unit=None)
    return replace(notes, groups=tuple(grouped(names_of(notes), by)), unit=unit or 'group')


def joined(sets: Sequence[Dataset]) -> Dataset:
    """Return one set of all frames; raise DataError where labels or kinds of groups differ."""
    first = sets[0]
    rest = [each.with_labels(first.labels, str(first.source)) for each in sets[1:]]
    units = {each.unit for each in sets}
    if len(units) > 1:
        raise DataError(f'{first.source}: groups in some of the splits, and in others none')
    offset, settled = 0, set()
    for each in (first, *rest):
        settled |= {offset + k for k in each.settled}
        offset += len(each)
    every: dict[str, Any] = {
        name: sum((getattr(each, name) for each in (first, *rest)), ()) for name in PER_FRAME
    }
    return replace(
        first,
        split='',
        settled=frozenset(settled),
        **every,
    )


def divided(
    notes: Dataset, hashes: Sequence[bytes], shares: Mapping[str, float], seed: int = 0
) -> list[Dataset]:
    """Return the splits of a set, by its groups; those with a same picture (`hashes`) stay one."""
    groups = tied(notes.groups, hashes)
    return [
        replace(notes.subset(indices), split=name)
        for name, indices in divide(groups, shares, seed).items()
    ]


def write_coco(sets: Sequence[Dataset], out: Path, record: Mapping[str, Any]) -> None:
    """Write data sets into a new folder, each split into one of its own; whole or not at all.

    Pictures are copied as they are, but for those that EXIF turns: they lose that entry.

    Args:
        sets: valid, with pictures that are there.
        out: folder; there may be none of that name, or an empty one.
        record: what `conversion.json` says of where they come from.

    Raises:
        UserError: the folder cannot be written, or holds something.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f'{out}: is there already; choose another folder, or remove it')
    partial = out.absolute().with_name(f'.{out.name}.{os.getpid()}')
    try:
        with errors_of_writing(out, DataError):
            for notes in sets:
                _write_split(notes, partial / notes.split)
            text = json.dumps(record, indent=2, ensure_ascii=False) + '\n'
            (partial / RECORD).write_text(text, encoding='utf-8')
            if out.exists():
                out.rmdir()
            partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_split(notes: Dataset, folder: Path) -> None:
    names = names_of(notes)
    key = notes.unit if notes.unit in GROUPS else 'group'
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (name, path) in enumerate(zip(names, notes.paths, strict=True)):
        target = folder / 'images' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(path, target)
        height, width = notes.sizes[index]
        image = {'id': index, 'file_name': f'images/{name}', 'height': height, 'width': width}
        images.append(image if notes.unit is None else {**image, key: notes.groups[index]})
        for box, class_id, crowd in zip(
            notes.boxes[index].astype(np.float64),
            notes.class_ids[index],
            notes.crowd[index],
            strict=True,
        ):
            left, top, right, bottom = (round(float(value), 4) for value in box)
            annotations.append(
                {
                    'id': len(annotations) + 1,  # from 1: pycocotools takes 0 for "no match"
                    'image_id': index,
                    'category_id': int(class_id),
                    'bbox': [left, top, round(right - left, 4), round(bottom - top, 4)],
                    'area': round((right - left) * (bottom - top), 4),
                    'iscrowd': int(crowd),
                }
            )
    categories = [{'id': k, 'name': label} for k, label in enumerate(notes.labels)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(
        json.dumps(content, ensure_ascii=False), encoding='utf-8'
    )


def _copy(path: Path, target: Path) -> None:
    if read_header(path).orientation == 1:
        shutil.copyfile(path, target)
    else:  # the stream without metadata: nobody turns it again
        target.write_bytes(b''.join(checked(path.read_bytes()).parts))
