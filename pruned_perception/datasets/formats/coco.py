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

"""COCO: one JSON file of images, annotations and categories a split.

Where it lies: `annotations.json` in the folder (the simulator's data, with pictures in `images/`);
`_annotations.coco.json` beside the pictures; either of them in a sub-folder for each split; or
`annotations/instances_SPLIT.json`, with pictures in `SPLIT/`, `images/SPLIT/` or `images/`. Or any
JSON file that is given itself.

Beyond COCO, an image may say which group it belongs to, in one of GROUPS.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruned_perception._io import keys_once
from pruned_perception.datasets.boxes import corners_from_size
from pruned_perception.datasets.dataset import Dataset, DatasetBuilder
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.problems import Problems

LOOKS_FOR = 'annotations.json'
GROUPS = ('layout', 'venue', 'drive', 'group')
_NAMES = (LOOKS_FOR, '_annotations.coco.json')
_PREFIX = 'instances_'


def splits(path: Path) -> tuple[str, ...]:
    """See `Format`."""
    return tuple(_files(path))


def read(path: Path, split: str, problems: Problems) -> Dataset:
    """See `Format`. Category ids may start anywhere and have gaps; their order is the labels'."""
    file = _files(path)[split]
    raw, data = load(file)
    if file.name.startswith(_PREFIX) and file.parent.name == 'annotations':
        folder = file.parent.parent
        named = file.stem.removeprefix(_PREFIX)
        roots = [folder / 'images', folder / named, folder / 'images' / named, folder]
    else:
        folder = file.parent
        roots = [folder / 'images', folder]
    categories = _categories(data, file)
    order = sorted(categories, key=lambda each: (isinstance(each, str), each))
    names = [_get(categories[each], 'name', f'{file}: category {each}') for each in order]
    builder = DatasetBuilder(folder, file, names, problems)
    class_ids = {each: position for position, each in enumerate(order)}

    images = _by_id(data, 'images', file)
    unit = next((key for key in GROUPS if any(key in image for image in images.values())), None)
    frames = {}
    for identifier, image in images.items():
        where = f'{file}: image {identifier}'
        frames[identifier] = _add_frame(builder, image, roots, unit, where)

    rows = _by_id(data, 'annotations', file, optional=True, problems=problems)
    for identifier, annotation in rows.items():
        with problems.each():
            _add_box(builder, annotation, frames, class_ids, f'{file}: annotation {identifier}')
    return builder.build(digest=hashlib.sha256(raw).hexdigest(), split=split, unit=unit)


def _add_frame(
    builder: DatasetBuilder,
    image: dict[str, Any],
    roots: list[Path],
    unit: str | None,
    where: str,
) -> int | None:
    name = _get(image, 'file_name', where)
    size = None
    try:
        size = tuple(_get(image, side, where) for side in ('height', 'width'))
    except DataError as error:
        if builder.problems.mend(DataError(str(error), 'picture-size')) is None:
            return None
    return builder.add_frame(
        name,
        # With a folder in it, a name is one within the set; without, one of a picture.
        roots[::-1] if '/' in str(name) else roots,
        size=size,
        group=None if unit is None else image.get(unit),
        where=where,
    )


def _add_box(
    builder: DatasetBuilder,
    annotation: dict[str, Any],
    frames: Mapping[int | str, int | None],
    class_ids: Mapping[int | str, int],
    where: str,
) -> None:
    frame = _among(frames, annotation, 'image_id', where)
    class_id = _among(class_ids, annotation, 'category_id', where)
    crowd = annotation.get('iscrowd', 0)
    if crowd not in (0, 1):
        raise DataError(f'{where}: iscrowd is {crowd!r}; 0 or 1 is needed', 'box-numbers')
    if 'score' in annotation:
        scored = DataError(
            f'{where}: has a score, {annotation["score"]!r}: what a detector found is no ground '
            'truth',
            'box-score',
        )
        if builder.problems.mend(scored) is None:
            return
    where += f' (image {annotation["image_id"]}): bbox'
    box = corners_from_size(_get(annotation, 'bbox', where.removesuffix(': bbox')), where)
    assert class_id is not None
    builder.add_box(frame, box, class_id, bool(crowd), where)


def _categories(data: Mapping[str, Any], file: Path) -> dict[int | str, dict[str, Any]]:
    """Return the categories by id, but for the project's name that one service puts among them.

    It is the category of which all others say that it is above them, and no box has it.
    """
    found = _by_id(data, 'categories', file)
    used = {
        each['category_id']
        for each in data['annotations']
        if isinstance(each.get('category_id'), int | str)
    }
    for identifier, category in found.items():
        others = [each for key, each in found.items() if key != identifier]
        above = [each.get('supercategory') == category.get('name') for each in others]
        if others and all(above) and identifier not in used:
            return {key: each for key, each in found.items() if key != identifier}
    return found


def load(file: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a COCO file and what they say: lists of objects under COCO's names.

    Raises DataError that names file and field.
    """
    try:
        raw = file.read_bytes()
        data = json.loads(raw, object_pairs_hook=keys_once)
    except OSError as error:
        raise DataError(f'{file}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise DataError(f'{file}: cannot be read as JSON: {error}') from error
    if not isinstance(data, dict):
        raise DataError(f'{file}: not a COCO data set: an object is needed, not a list or value')
    for key in ('images', 'annotations', 'categories'):
        rows = _get(data, key, f'{file}: not a COCO data set')
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f'{file}: not a COCO data set: {key} is not a list of objects')
    return raw, data


def _files(path: Path) -> dict[str, Path]:
    """Return the JSON file of each split; '' is the set itself."""
    if path.is_file():
        return {'': path} if path.suffix.lower() == '.json' else {}
    if not path.is_dir():
        return {}
    for name in _NAMES:
        if (path / name).is_file():
            return {'': path / name}
    found = {
        child.name: child / name
        for child in sorted(path.iterdir())
        for name in _NAMES
        if (child / name).is_file()
    }
    for file in sorted((path / 'annotations').glob(f'{_PREFIX}*.json')):
        found.setdefault(file.stem.removeprefix(_PREFIX), file)
    return found


def _by_id(
    data: Mapping[str, Any],
    key: str,
    file: Path,
    *,
    optional: bool = False,
    problems: Problems | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Return the rows of a list by their ids; by their place where an `optional` one is missing.

    With `problems`, a wrong id is one that may be mended: by the row's place.
    """
    singular = {'images': 'image', 'annotations': 'annotation', 'categories': 'category'}[key]
    found: dict[int | str, dict[str, Any]] = {}
    for place, row in enumerate(data[key]):
        where = f'{file}: {key}: number {place + 1} of the list'
        if optional and 'id' not in row:
            found[f'number {place + 1} of the list'] = row
            continue
        identifier = _get(row, 'id', where)
        wrong = None
        if isinstance(identifier, bool) or not isinstance(identifier, int | str):
            wrong = f'{where}: id is {identifier!r}; a whole number or a name is needed'
        elif identifier in found:
            wrong = f'{file}: {singular} {identifier} is there more than once'
        if wrong is not None:
            if problems is None:
                raise DataError(wrong)
            if problems.mend(DataError(wrong, 'box-id')) is None:
                continue
            identifier = f'number {place + 1} of the list'
        found[identifier] = row
    return found


def _get(row: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in row:
        kind = 'box-numbers' if key == 'bbox' else 'other'
        raise DataError(f'{where}: {key!r} is missing', kind)
    return row[key]


def _among(
    known: Mapping[int | str, int | None], row: Mapping[str, Any], key: str, where: str
) -> int | None:
    value = _get(row, key, where)
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in known:
        things, kind = (
            ('images', 'box-picture') if key == 'image_id' else ('categories', 'box-class')
        )
        raise DataError(f'{where}: {key} {value!r} is none of the {len(known)} {things}', kind)
    return known[value]
