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

"""Parts of an annotated data set, by its groups: what a recipe trains and judges on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pruned_perception.datasets import DataError, Dataset, read_dataset
from pruned_perception.datasets.conversion import RECORD, with_groups, write_coco
from pruned_perception.datasets.division import BY_FOLDER


def excerpt(
    source: str | os.PathLike[str],
    groups: Collection[str],
    out: Path,
    *,
    sha256: str | None = None,
    pictures_sha256: str | None = None,
    group_by: str = BY_FOLDER,
    unit: str = 'venue',
) -> Dataset:
    """Return a data set's frames of some groups, copied to `out`; one that is there stays.

    Args:
        source: the data set, see `datasets.read_dataset`.
        groups: which of its groups, all by name.
        out: folder; one that holds something must be the same excerpt.
        sha256: of the source's annotations; another version is refused.
        pictures_sha256: of the excerpt's pictures, see `files_sha256`; likewise.
        group_by: what tells its groups, see `division.grouped`.
        unit: what a group is.

    Raises:
        DataError: broken data, another version, a group that is not there, or another excerpt, or
            anything else, in `out`.
    """
    notes = read_dataset(source)
    if sha256 is not None and notes.digest != sha256:
        raise DataError(
            f'{source}: annotations of SHA-256 {notes.digest[:12]}…, but {sha256[:12]}… is asked '
            'for: another version of the data, or a part of it; figures would not be comparable'
        )
    notes = with_groups(notes, group_by, unit)
    there = set(notes.groups)
    if unknown := sorted(set(groups) - there):
        raise DataError(
            f'{source}: has no {unit} {unknown[0]!r}; there are {", ".join(sorted(there))}'
        )
    chosen = [index for index, group in enumerate(notes.groups) if group in groups]
    part = replace(notes.subset(chosen), split='')
    found = files_sha256(part)
    if pictures_sha256 is not None and found != pictures_sha256:
        raise DataError(
            f'{source}: pictures of SHA-256 {found[:12]}… of {unit} {", ".join(sorted(groups))}, '
            f'but {pictures_sha256[:12]}… is asked for: other pictures than those of that version'
        )
    record: dict[str, object] = {
        'source_sha256': notes.digest,
        'pictures_sha256': found,
        'groups': sorted(groups),
        'group_by': group_by,
        'unit': unit,
    }
    if out.is_dir() and any(out.iterdir()):
        _check_same(out, record)
    else:
        write_coco([part], out, record)
    return read_dataset(out)


def files_sha256(notes: Dataset) -> str:
    """Return the SHA-256 of those of all pictures' files, sorted: no names, no order.

    Raises:
        DataError: one cannot be read.
    """
    hashes = []
    for path in notes.paths:
        try:
            hashes.append(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f'{path}: cannot be read: {error.strerror}') from error
    return hashlib.sha256(b''.join(sorted(hashes))).hexdigest()


def _check_same(out: Path, record: dict[str, object]) -> None:
    try:
        there = json.loads((out / RECORD).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        there = None
    # One that was made before pictures were hashed lacks that.
    same = isinstance(there, dict) and 'groups' in there and {**record, **there} == record
    if not same:
        raise DataError(f'{out}: holds something else than this excerpt; remove that folder')
