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

from pruned_perception.datasets.boxes import corners_from_size
from pruned_perception.datasets.dataset import Dataset, DatasetBuilder
from pruned_perception.datasets.errors import DataError

LOOKS_FOR = 'annotations.json'
GROUPS = ('layout', 'venue', 'drive', 'group')
_NAMES = (LOOKS_FOR, '_annotations.coco.json')
_PREFIX = 'instances_'


def splits(path: Path) -> tuple[str, ...]:
    """See `Format`."""
    return tuple(_files(path))


def read(path: Path, split: str) -> Dataset:
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
    categories = _by_id(data, 'categories', file)
    order = sorted(categories, key=lambda each: (isinstance(each, str), each))
    names = [_get(categories[each], 'name', f'{file}: category {each}') for each in order]
    builder = DatasetBuilder(folder, file, names)
    class_ids = {each: position for position, each in enumerate(order)}

    images = _by_id(data, 'images', file)
    unit = next((key for key in GROUPS if any(key in image for image in images.values())), None)
    frames = {}
    for identifier, image in images.items():
        where = f'{file}: image {identifier}'
        name = _get(image, 'file_name', where)
        size = tuple(_get(image, side, where) for side in ('height', 'width'))
        frames[identifier] = builder.add_frame(
            name,
            # With a folder in it, a name is one within the set; without, one of a picture.
            roots[::-1] if '/' in str(name) else roots,
            size=size,
            group=None if unit is None else image.get(unit),
            where=where,
        )

    for identifier, annotation in _by_id(data, 'annotations', file, optional=True).items():
        where = f'{file}: annotation {identifier}'
        frame = _among(frames, annotation, 'image_id', where)
        class_id = _among(class_ids, annotation, 'category_id', where)
        crowd = annotation.get('iscrowd', 0)
        if crowd not in (0, 1):
            raise DataError(f'{where}: iscrowd is {crowd!r}; 0 or 1 is needed')
        where += f' (image {annotation["image_id"]}): bbox'
        box = corners_from_size(_get(annotation, 'bbox', where.removesuffix(': bbox')), where)
        builder.add_box(frame, box, class_id, bool(crowd), where)
    return builder.build(digest=hashlib.sha256(raw).hexdigest(), split=split, unit=unit)


def load(file: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a COCO file and what they say: lists of objects under COCO's names.

    Raises DataError that names file and field.
    """
    try:
        raw = file.read_bytes()
        data = json.loads(raw)
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
    data: Mapping[str, Any], key: str, file: Path, *, optional: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return the rows of a list by their ids; by their place where an `optional` one is missing."""
    singular = {'images': 'image', 'annotations': 'annotation', 'categories': 'category'}[key]
    found: dict[int | str, dict[str, Any]] = {}
    for place, row in enumerate(data[key]):
        where = f'{file}: {key}: number {place + 1} of the list'
        if optional and 'id' not in row:
            found[f'number {place + 1} of the list'] = row
            continue
        identifier = _get(row, 'id', where)
        if isinstance(identifier, bool) or not isinstance(identifier, int | str):
            raise DataError(f'{where}: id is {identifier!r}; a whole number or a name is needed')
        if identifier in found:
            raise DataError(f'{file}: {singular} {identifier} is there more than once')
        found[identifier] = row
    return found


def _get(row: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise DataError(f'{where}: {key!r} is missing')
    return row[key]


def _among(known: Mapping[int | str, int], row: Mapping[str, Any], key: str, where: str) -> int:
    value = _get(row, key, where)
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in known:
        kind = 'images' if key == 'image_id' else 'categories'
        raise DataError(f'{where}: {key} {value!r} is none of the {len(known)} {kind}')
    return known[value]
