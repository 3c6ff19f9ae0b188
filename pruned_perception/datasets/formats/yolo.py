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

"""YOLO: a text file of labels a picture, a line a box.

Where it lies: as `data.yaml` says (Ultralytics' and annotation services'), or a folder of pictures
with a file of class names (`*.names`, `classes.txt`). Labels lie beside the pictures, or in
`labels/` where those are in `images/`. A picture without a file of labels has nothing in it.

A `path` in data.yaml may be missing, relative to it, or absolute; one of another machine is passed
over. `../train/images` is `train/images` where that lies beside data.yaml. The sub-folders of a
split's pictures, where all lie in some, are its groups: venues or drives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pruned_perception.datasets.boxes import corners
from pruned_perception.datasets.dataset import Dataset, DatasetBuilder
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.formats._yolo_lines import parse_line
from pruned_perception.datasets.labels import read_labels
from pruned_perception.datasets.problems import Problems
from pruned_perception.images.checks import IMAGE_SUFFIXES

LOOKS_FOR = 'data.yaml, or *.names or classes.txt beside pictures'
_YAML = ('data.yaml', 'data.yml', 'dataset.yaml', 'dataset.yml')
_NAMES = ('classes.txt', 'labels.txt')
_SPLITS = ('train', 'val', 'valid', 'validation', 'test')
_NO_LABELS = (*_NAMES, 'train.txt', 'val.txt', 'valid.txt', 'test.txt')
_LARGEST_FILE = 1 << 24


@dataclass(frozen=True)
class _Set:
    """How a data set lies."""

    file: Path
    """Its data.yaml, or its file of names."""
    classes: Mapping[int, str]
    splits: Mapping[str, tuple[Path, ...]]
    """Of each split the folders of its pictures, or files that list them."""
    root: Path
    keypoints: int = 0


def splits(path: Path) -> tuple[str, ...]:
    """See `Format`."""
    found = _find(path)
    return () if found is None else tuple(found.splits)


def read(path: Path, split: str, problems: Problems) -> Dataset:
    """See `Format`."""
    found = _find(path)
    assert found is not None
    order = sorted(found.classes)
    class_ids = {number: position for position, number in enumerate(order)}
    places = found.splits[split]
    for place in places:
        if not place.exists():
            raise DataError(
                f'{found.file}: {split}: {place} is missing; remove the entry, or put the pictures '
                'there',
                'split-empty',
            )
    root = _root_of(places, found.root)
    builder = DatasetBuilder(root, found.file, [found.classes[each] for each in order], problems)
    names = [name for place in places for name in _pictures(place, root, found.root)]
    groups = _groups(names, places, root)
    digest = hashlib.sha256(repr(sorted(found.classes.items())).encode())
    label_files, without = set(), 0
    for name in names:
        where = f'{found.file}: {name}'
        frame = builder.add_frame(name, [root], size=None, group=groups.get(name), where=where)
        labels = _label_file(root, name)
        label_files.add(labels)
        text = None
        with problems.each():
            text = _read_text(labels)
        without += text == b''
        digest.update(repr((name, text, frame and builder.size_of(frame))).encode())
        if frame is not None and text is None:
            builder.leave_out(frame)
        elif text:
            _add_boxes(builder, frame, labels, text, class_ids, found.keypoints)
    _look_for_orphans(label_files, places, root, problems)
    if without:
        problems.notes.append(
            f'{root}: {without} of {len(names)} pictures have no labels: nothing is in them'
        )
    unit = 'group' if groups else None
    return builder.build(digest=digest.hexdigest(), split=split, unit=unit)


def _add_boxes(
    builder: DatasetBuilder,
    frame: int | None,
    file: Path,
    text: bytes,
    class_ids: Mapping[int, int],
    keypoints: int,
) -> None:
    if frame is None:
        return
    problems = builder.problems
    height, width = builder.size_of(frame)
    for number, line in enumerate(text.decode().split('\n'), 1):
        if not line.strip():
            continue
        where = f'{file}: line {number}'
        with problems.each():
            found = parse_line(line, where, keypoints)
            if found.class_id not in class_ids:
                raise DataError(
                    f'{where}: class {found.class_id} is none of the {len(class_ids)} classes',
                    'box-class',
                )
            if found.scored:
                scored = DataError(
                    f'{where}: six columns: a box and a score. What a detector found is no ground '
                    'truth',
                    'box-score',
                )
                if problems.mend(scored) is None:
                    continue
            left, top, right, bottom = found.shares
            box = [left * width, top * height, right * width, bottom * height]
            crowd = False
            builder.add_box(
                frame, corners(box, f'{where}: the box'), class_ids[found.class_id], crowd, where
            )


def _read_text(file: Path) -> bytes | None:
    """Return a file's text in UTF-8 with plain line ends; empty where there is no file."""
    try:
        if not file.is_file():
            return b''
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(f'{file}: {file.stat().st_size} bytes are no labels', _UNREADABLE)
        text = file.read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise DataError(f'{file}: cannot be read: {error.strerror}', _UNREADABLE) from error
    except UnicodeDecodeError as error:
        raise DataError(f'{file}: not a text file in UTF-8: {error}', _UNREADABLE) from error
    return text.replace('\r\n', '\n').replace('\r', '\n').encode()


_UNREADABLE = 'labels-unreadable'


def _find(path: Path) -> _Set | None:
    """Return how the data set in a folder or described by a file lies; None where there is none."""
    if path.is_file():
        return _from_yaml(path) if path.suffix.lower() in ('.yaml', '.yml') else None
    if not path.is_dir():
        return None
    for name in _YAML:
        if (path / name).is_file() and (found := _from_yaml(path / name)) is not None:
            return found
    return _from_folder(path)


def _from_yaml(file: Path) -> _Set | None:
    """Return what a data.yaml describes; None where a YAML file is of another kind."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            return None
        data = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise DataError(f'{file}: cannot be read: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f'{file}: not YAML: {" ".join(str(error).split())}') from error
    if not isinstance(data, dict) or not any(data.get(split) for split in _SPLITS):
        return None
    classes = _classes(data, file)
    root = file.parent
    given = data.get('path')
    if given is not None:
        if not isinstance(given, str):
            raise DataError(f'{file}: path is {given!r}, no path')
        root = root / given if (root / given).is_dir() else root
    places = {
        split: tuple(_place(root, each, f'{file}: {split}') for each in _list(data[split]))
        for split in _SPLITS
        if data.get(split)
    }
    return _Set(file, classes, places, root, _keypoints(data, file))


def _classes(data: Mapping[str, Any], file: Path) -> dict[int, str]:
    names = data.get('names')
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(
            f'{file}: names: a list of the class names, or a mapping from id to name, is needed'
        )
    classes = {}
    for key, name in names.items():
        whole = isinstance(key, int) and not isinstance(key, bool)
        if not (whole or (isinstance(key, str) and key.isascii() and key.isdigit())):
            raise DataError(f'{file}: names: {key!r} is no class id')
        if not isinstance(name, str):
            raise DataError(
                f'{file}: names: class {key} is {name!r}, no text; write it in quotes, as YAML '
                'reads no, on or 1 as something else'
            )
        classes[int(key)] = name
    if len(classes) < len(names):
        raise DataError(f'{file}: names: a class id is there more than once')
    count = data.get('nc')
    if count is not None and count != len(classes):
        raise DataError(f'{file}: nc is {count!r}, but names has {len(classes)} classes')
    return classes


def _keypoints(data: Mapping[str, Any], file: Path) -> int:
    """Return how many numbers of key points follow each box."""
    shape = data.get('kpt_shape')
    if shape is None:
        return 0
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(n, int) and 0 < n < 1000 for n in shape)
    ):
        raise DataError(f'{file}: kpt_shape is {shape!r}; number of points and 2 or 3 are needed')
    return shape[0] * shape[1]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _place(root: Path, value: Any, where: str) -> Path:
    """Return the folder of pictures, or the file that lists them, that a split names."""
    if not isinstance(value, str) or '\0' in value:
        raise DataError(f'{where}: {value!r} is no path')
    value = value.replace('\\', '/')
    beside = value
    while beside.startswith(('../', './')):
        beside = beside.partition('/')[2]
    first = root / beside
    return first if first.exists() or not (root / value).exists() else root / value


def _from_folder(path: Path) -> _Set | None:
    """Return a folder with a file of class names and pictures below."""
    names = [path / name for name in _NAMES if (path / name).is_file()]
    names += sorted(file for file in path.glob('*.names') if file.is_file())
    if not names:
        return None
    place = path / 'images' if (path / 'images').is_dir() else path
    pictures = [file for file in place.rglob('*') if _is_picture(file)]
    labelled = (path / 'labels').is_dir() or any(
        file.with_suffix('.txt').is_file() for file in pictures
    )
    if not pictures or not labelled:
        return None
    if len(names) > 1:
        raise DataError(
            f'{path}: class names may be in {" or ".join(file.name for file in names)}; leave one'
        )
    classes = dict(enumerate(read_labels(names[0])))
    folders = {file.relative_to(place).parts[0] for file in pictures}
    if folders <= set(_SPLITS):
        ordered = [split for split in _SPLITS if split in folders]
        return _Set(names[0], classes, {each: (place / each,) for each in ordered}, path)
    return _Set(names[0], classes, {'': (place,)}, path)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith('.')


def _root_of(places: tuple[Path, ...], root: Path) -> Path:
    """Return the folder out of which nothing is read: the set's, or a split's that lies outside."""
    if all(place.resolve().is_relative_to(root.resolve()) for place in places):
        return root
    first = places[0] if places[0].is_dir() else places[0].parent
    parts = first.parts
    if 'images' not in parts:
        return first
    last = len(parts) - 1 - parts[::-1].index('images')
    return Path(*parts[:last])


def _pictures(place: Path, root: Path, listed_from: Path) -> list[str]:
    """Return the names of a split's pictures, relative to `root`."""
    if place.is_dir():
        return [_relative(file, root) for file in sorted(place.rglob('*')) if _is_picture(file)]
    text = _read_text(place) or b''
    names = []
    for line in text.decode().split('\n'):
        name = line.strip().replace('\\', '/')
        if name:
            here = [each / name for each in (place.parent, listed_from, root)]
            file = next((each for each in here if each.is_file()), None)
            names.append(name if file is None else _relative(file, root))
    return names


def _relative(file: Path, root: Path) -> str:
    """Return a path relative to `root`; the whole one, which is refused, where it is outside."""
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        real, within = file.resolve(), root.resolve()
        return (real.relative_to(within) if real.is_relative_to(within) else real).as_posix()


def _groups(names: list[str], places: tuple[Path, ...], root: Path) -> dict[str, str]:
    """Return the sub-folder of each picture, where all lie in one and there are several."""
    found = {}
    for place in places:
        if not place.is_dir():
            return {}
        for name in names:
            file = root / name
            if file.is_relative_to(place):
                parts = file.relative_to(place).parts
                if len(parts) < 2:
                    return {}
                found[name] = parts[0]
    return found if len(set(found.values())) > 1 else {}


def _label_file(root: Path, name: str) -> Path:
    """Return where the labels of a picture are, or would be."""
    path = PurePosixPath(name)
    beside = root / path.with_suffix('.txt')
    parts = path.parts
    if 'images' not in parts[:-1]:
        return beside
    last = len(parts) - 2 - parts[-2::-1].index('images')
    apart = root.joinpath(*parts[:last], 'labels', *parts[last + 1 :]).with_suffix('.txt')
    return beside if beside.is_file() and not apart.is_file() else apart


def _look_for_orphans(
    known: set[Path], places: tuple[Path, ...], root: Path, problems: Problems
) -> None:
    """Report files of labels without a picture; other text beside pictures is nobody's labels."""
    if not all(place.is_dir() for place in places):
        return
    for folder in sorted({file.parent for file in known}):
        if not folder.is_dir():
            continue
        for file in sorted(folder.glob('*.txt')):
            if file in known or file.name in _NO_LABELS or file.name.startswith('.'):
                continue
            if _is_labels(file):
                wrong = DataError(
                    f'{file}: labels of a picture that is missing below {root}', 'picture-missing'
                )
                problems.mend(wrong)


def _is_labels(file: Path) -> bool:
    """Tell whether the first line of a file is one of labels."""
    try:
        text = _read_text(file) or b''
        parse_line(text.decode().strip().partition('\n')[0], '')
    except (DataError, ValueError):
        return False
    return True
