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

"""A whole data set looked at: every split, every annotation, every picture, and what they share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pruned_perception.datasets.boxes import as_stored, check_inside, clipped
from pruned_perception.datasets.dataset import Dataset, read_picture
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.fingerprints import picture_hash
from pruned_perception.datasets.formats import dataset_splits, read_dataset
from pruned_perception.datasets.problems import Problems
from pruned_perception.images import Header
from pruned_perception.images.checks import IMAGE_SUFFIXES

OnProgress = Callable[[str, int, int], None]
"""Called with a split, and its pictures done and in all."""

LEARNT_FROM_FIRST = ('train', 'training', 'val', 'valid', 'validation', 'test')


@dataclass(frozen=True)
class Inspected:
    """One split: what of it is sound or mended, and what was wrong."""

    split: str
    notes: Dataset | None
    """None where nothing of it could be read."""
    problems: Problems
    hashes: tuple[bytes, ...] = ()
    """Of the pictures' pixels."""
    left_out: tuple[Path, ...] = ()
    """Pictures that are annotated, but cannot be used."""


def inspect(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    format_name: str | None = None,
    repairs: Iterable[str] = (),
    progress: OnProgress | None = None,
) -> list[Inspected]:
    """Read a data set with all its splits, or one of them, and decode every picture.

    Args:
        path: its folder or file; or FOLDER/SPLIT.
        split: only this one.
        format_name: see `read_dataset`.
        repairs: of `REPAIRS`, what shall be mended.
        progress: called for each picture.

    Raises:
        DataError: there is no data set, or no such split or repair. What is wrong with the set is
            in the result.
    """
    names: Sequence[str | None] = [split]
    if split is None:
        names = dataset_splits(path, format_name) or [None]
    wanted = frozenset(repairs)
    found = [_inspect(path, name, format_name, wanted, progress) for name in names]
    found = _without_shared(found)
    for each in found:
        _note_repeated(each)
    _note_unused(found)
    return found


def _inspect(
    path: str | os.PathLike[str],
    split: str | None,
    format_name: str | None,
    repairs: frozenset[str],
    progress: OnProgress | None,
) -> Inspected:
    problems = Problems(repairs, listing=True)
    try:
        notes = read_dataset(path, split, format_name=format_name, problems=problems)
    except DataError as error:
        if split is None:
            raise
        problems.mend(error)
        return Inspected(split, None, problems)
    if not any((~crowd).any() for crowd in notes.crowd):
        problems.notes.append(f'{notes.source}: no box to be found in its {len(notes)} pictures')
    annotated = notes.paths
    notes, hashes = look_at_pictures(notes, problems, progress)
    if not len(notes):
        empty = DataError(f'{notes.source}: no picture of it can be used', 'split-empty')
        problems.mend(empty)
    left_out = tuple(sorted(set(annotated) - set(notes.paths)))
    return Inspected(notes.split, notes, problems, hashes, left_out)


def look_at_pictures(
    notes: Dataset, problems: Problems, progress: OnProgress | None = None
) -> tuple[Dataset, tuple[bytes, ...]]:
    """Decode every picture; return the set as it can be used, and the hashes of the pixels."""
    sizes, boxes = list(notes.sizes), list(notes.boxes)
    ids, crowds = list(notes.class_ids), list(notes.crowd)
    settled, kept, hashes = set(notes.settled), [], []
    for index, path in enumerate(notes.paths):
        if progress is not None:
            progress(notes.split, index, len(notes))
        with problems.each():
            image, header = read_picture(path, notes.source)
            repair = None
            try:
                notes.check_size(index, header)
            except DataError as error:
                repair = problems.mend(error)
                if repair is None:
                    continue
                stored = header.height, header.width
                if repair == 'exif-upright':
                    boxes[index] = as_stored(boxes[index], header.orientation, stored)
                sizes[index] = stored
                settled.add(index)
                inside = _inside(boxes[index], header, f'{path}: box', problems)
                boxes[index] = inside[0]
                ids[index], crowds[index] = ids[index][inside[1]], crowds[index][inside[1]]
            kept.append(index)
            hashes.append(picture_hash(image))
    whole = replace(
        notes,
        sizes=tuple(sizes),
        boxes=tuple(boxes),
        class_ids=tuple(ids),
        crowd=tuple(crowds),
        settled=frozenset(settled),
    )
    return whole.subset(kept), tuple(hashes)


def _inside(
    boxes: np.ndarray, header: Header, where: str, problems: Problems
) -> tuple[np.ndarray, list[int]]:
    """Return the boxes that are in a picture after all, or were cut, and their indices."""
    size, found, kept = (header.height, header.width), [], []
    for number, box in enumerate(boxes.tolist()):
        try:
            check_inside(box, size, f'{where} {number + 1}')
        except DataError as error:
            box = clipped(box, size) if problems.mend(error) else None
        if box is not None:
            found.append(box)
            kept.append(number)
    return np.array(found, np.float32).reshape(-1, 4), kept


def _rank(split: str) -> int:
    return LEARNT_FROM_FIRST.index(split) if split in LEARNT_FROM_FIRST else -1


def _without_shared(found: Sequence[Inspected]) -> list[Inspected]:
    """Report each picture that a split shares with a later one; leave it out if that is asked for.

    It stays where it does least harm: what is measured on test may not have been learnt.
    """
    ordered = sorted(found, key=lambda each: _rank(each.split))
    last = {
        digest: (place, path)
        for place, each in enumerate(ordered)
        for digest, path in zip(each.hashes, _paths(each), strict=True)
    }
    sound = {}
    for place, each in enumerate(ordered):
        kept = []
        for index, path in enumerate(_paths(each)):
            where, other = last[each.hashes[index]]
            shared = DataError(
                f'{path}: the same picture is in {ordered[where].split}: {other}', 'picture-shared'
            )
            if where == place or each.problems.mend(shared) is None:
                kept.append(index)
        sound[each.split] = each
        if each.notes is not None:
            hashes = tuple(each.hashes[k] for k in kept)
            sound[each.split] = replace(each, notes=each.notes.subset(kept), hashes=hashes)
    return [sound[each.split] for each in found]


def _paths(each: Inspected) -> tuple[Path, ...]:
    return () if each.notes is None else each.notes.paths


def _note_repeated(each: Inspected) -> None:
    """Note the pictures that one split has several times, as a camera that stands still makes."""
    first: dict[bytes, Path] = {}
    again = []
    for digest, path in zip(each.hashes, _paths(each), strict=True):
        if first.setdefault(digest, path) != path:
            again.append((path, first[digest]))
    if again:
        path, other = again[0]
        each.problems.notes.append(
            f'{len(again)} pictures are the same as another one of the split: {path} is {other}, …'
        )


def _note_unused(found: Sequence[Inspected]) -> None:
    """Note the pictures that lie where those of the set do, but of which it says nothing."""
    known = {path.resolve() for each in found for path in _paths(each)}
    known |= {path.resolve() for each in found for path in each.left_out}
    folders = sorted({path.parent for path in known})
    unused = [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith('.')
        and file.resolve() not in known
    ]
    if unused:
        kinds = Counter(file.suffix.lower() for file in unused)
        found[0].problems.notes.append(
            f'{len(unused)} pictures beside those of the set are in no annotation and not used '
            f'({", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))}): '
            f'{unused[0]}, …'
        )
