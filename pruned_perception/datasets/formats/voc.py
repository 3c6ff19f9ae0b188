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

"""Pascal VOC: an XML file a picture.

Where it lies: XML files in `Annotations/` (or `annotations/`) with pictures in `JPEGImages/`,
`images/` or beside, and lists of splits in `ImageSets/Main/`; or XML files beside the pictures, in
the folder or in a sub-folder for each split. Whoever wrote them, elements are found by their names,
in any order; `folder` and `path`, which are of the machine of then, are not looked at.

The classes are all that the set's objects have, in alphabetical order, or those of a file of class
names (`labels.txt`, `classes.txt`, `*.names`) if there is one. VOC's own data count pixels from 1
and include the last one; those of other tools, who took over the form, do not. Objects that are
`difficult` are crowds: neither right nor wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pruned_perception.datasets.boxes import Corners, corners
from pruned_perception.datasets.dataset import Dataset, DatasetBuilder
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.labels import read_labels
from pruned_perception.datasets.problems import Problems
from pruned_perception.images.checks import IMAGE_SUFFIXES

LOOKS_FOR = 'Annotations'
_ANNOTATIONS = ('Annotations', 'annotations', 'xmls')
_PICTURES = ('JPEGImages', 'images', 'Images')
_LISTS = ('train', 'val', 'valid', 'validation', 'test')
_NAMES = ('labels.txt', 'classes.txt')
_LARGEST_FILE = 1 << 24
_DEEPEST = 64
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?', re.ASCII)


def splits(path: Path) -> tuple[str, ...]:
    """See `Format`."""
    return tuple(_files(path))


def read(path: Path, split: str, problems: Problems) -> Dataset:
    """See `Format`."""
    files = _files(path)
    within = path if path.is_dir() else path.parent
    folder = within / split if (within / split).is_dir() and not _annotations(within) else within
    elements: dict[Path, tuple[bytes, Element] | None] = {}
    for file in sorted({file for each in files.values() for file in each}):
        # Of other splits the classes matter, so that all splits have the same.
        elements[file] = None
        with problems.each() if file in files[split] else Problems(listing=True).each():
            elements[file] = _parse(file)
    labels, declared = _labels(within, elements)
    builder = DatasetBuilder(folder, within, labels, problems)
    digest = hashlib.sha256(repr(labels).encode())
    for file in files[split]:
        found = elements[file]
        if found is None:
            continue
        raw, root = found
        digest.update(f'{file.relative_to(within)} {len(raw)}'.encode() + raw)
        frame = None
        with problems.each():
            name, roots = _picture(file, root, folder)
            frame = builder.add_frame(
                name, roots, size=_size(root, file), group=None, where=str(file)
            )
        if frame is not None:
            _add_boxes(builder, frame, file, root)
    return builder.build(digest=digest.hexdigest(), split=split, declared=declared)


def _add_boxes(builder: DatasetBuilder, frame: int, file: Path, root: Element) -> None:
    # VOC2007 … VOC2012, not who only kept to the form.
    counted_from = 1 if _text(root, 'source/database').startswith('The VOC') else 0
    for number, element in enumerate(root.findall('object'), 1):
        where = f'{file}: object {number}'
        with builder.problems.each():
            name = _text(element, 'name')
            if name not in builder.labels:
                raise DataError(
                    f'{where}: name {name!r} is none of the {len(builder.labels)} classes',
                    'box-class',
                )
            where += f' ({name})'
            difficult = _text(element, 'difficult') or '0'
            if difficult not in ('0', '1'):
                raise DataError(
                    f'{where}: difficult is {difficult!r}; 0 or 1 is needed', 'box-numbers'
                )
            box = _box(element, where, counted_from)
            builder.add_box(frame, box, builder.labels.index(name), difficult == '1', where)


def _box(element: Element, where: str, counted_from: int) -> Corners:
    boxes = element.findall('bndbox')
    if len(boxes) != 1:
        raise DataError(f'{where}: has {len(boxes)} elements bndbox; one is needed', 'box-numbers')
    left, top, right, bottom = (_number(boxes[0], side, where) for side in _SIDES)
    return corners(
        [left - counted_from, top - counted_from, right, bottom], f'{where}: xmin, ymin, xmax, ymax'
    )


def _number(element: Element, name: str, where: str) -> float:
    found = element.findall(name)
    text = (found[0].text or '').strip() if len(found) == 1 else ''
    if not _NUMBER.fullmatch(text):
        said = repr(text[:60]) if found else 'missing'
        raise DataError(f'{where}: {name} is {said}, not a number', 'box-numbers')
    return float(text)


def _size(root: Element, file: Path) -> tuple[Any, Any] | None:
    """Return height and width; None where they are missing or 0 × 0, as some tools write."""
    texts = [_text(root, f'size/{side}') for side in ('height', 'width')]
    if texts in (['', ''], ['0', '0']):
        return None
    values = [float(text) if _NUMBER.fullmatch(text) else text for text in texts]
    return values[0], values[1]


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or '').strip()


def _labels(folder: Path, elements: dict[Path, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the classes, and whether a file declares them."""
    files = [folder / name for name in _NAMES] + sorted(folder.glob('*.names'))
    files = [file for file in files if file.is_file()]
    if len(files) > 1:
        raise DataError(
            f'{folder}: class names may be in {" or ".join(each.name for each in files)}; leave one'
        )
    if files:
        return read_labels(files[0]), True
    roots = [found[1] for found in elements.values() if found is not None]
    names = {_text(element, 'name') for root in roots for element in root.findall('object')}
    return tuple(sorted(names - {''})), False


def _picture(file: Path, root: Element, folder: Path) -> tuple[str, Sequence[Path]]:
    """Return the name of the picture of an XML file, and where to look for it."""
    given = _text(root, 'filename').replace('\\', '/').rpartition('/')[2]
    below = Path()  # sub-folders of the annotations are those of the pictures
    roots = [file.parent]
    if (annotations := _annotations(folder)) is not None and file.is_relative_to(annotations):
        below = file.relative_to(annotations).parent
        roots = [folder / name for name in _PICTURES if (folder / name).is_dir()] + [folder]
        roots = [root / below for root in roots] + [file.parent]
    roots = list({root.resolve(): root for root in roots if root.is_dir()}.values())
    by_stem = sorted(
        {
            each.name
            for root in roots
            for suffix in IMAGE_SUFFIXES
            for each in (root / (file.stem + suffix), root / (file.stem + suffix.upper()))
            if each.is_file()
        }
    )
    by_name = given if given and any((root / given).is_file() for root in roots) else None
    if by_name is not None and by_stem and by_name not in by_stem:
        raise DataError(
            f'{file}: filename is {given!r}, and {by_stem[0]} lies there too: of which are the '
            'boxes?',
            'picture-missing',
        )
    if by_name is None and len(by_stem) > 1:
        raise DataError(f'{file}: its picture may be {" or ".join(by_stem)}', 'picture-missing')
    name = by_name or (by_stem[0] if by_stem else given or f'{file.stem}.jpg')
    return name, roots


def _files(path: Path) -> dict[str, list[Path]]:
    """Return the XML files of each split; '' is the set itself."""
    if path.is_file():
        return {'': [path]} if path.suffix.lower() == '.xml' else {}
    if not path.is_dir():
        return {}
    annotations = _annotations(path)
    if annotations is not None:
        lists = path / 'ImageSets' / 'Main'
        found = {
            split: _listed(lists / f'{split}.txt', annotations)
            for split in _LISTS
            if (lists / f'{split}.txt').is_file()
        }
        return found or {'': sorted(annotations.rglob('*.xml'))}
    if files := _beside_pictures(path):
        return {'': files}
    return {
        child.name: files
        for child in sorted(path.iterdir())
        if child.is_dir() and not child.name.startswith('.') and (files := _beside_pictures(child))
    }


def _annotations(folder: Path) -> Path | None:
    """Return the folder of XML files."""
    places = (folder / name for name in _ANNOTATIONS)
    return next((each for each in places if each.is_dir() and any(each.rglob('*.xml'))), None)


def _beside_pictures(folder: Path) -> list[Path]:
    """Return the XML files of a folder if one of them, at least, has its picture beside it."""
    if not folder.is_dir():
        return []
    names = {each.name for each in folder.iterdir()}
    pictures = {Path(name).stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    files = sorted(folder / name for name in names if name.lower().endswith('.xml'))
    return files if any(file.stem in pictures for file in files) else []


def _listed(file: Path, annotations: Path) -> list[Path]:
    """Return the XML files that a list names, a line each; a mark of 1, 0, -1 may follow."""
    try:
        text = file.read_bytes().decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{file}: cannot be read: {error}') from error
    names = [re.sub(r'\s+-?[01]$', '', line.strip()) for line in text.splitlines()]
    wrong = next((name for name in names if '..' in name or name.startswith('/')), None)
    if wrong is not None:
        raise DataError(f'{file}: {wrong!r} leads out of {annotations}')
    return [annotations / f'{name}.xml' for name in names if name]


@dataclass
class _Depth:
    """How deep the element that is being read is."""

    value: int = 0


def _parse(file: Path) -> tuple[bytes, Element]:
    """Return a file's bytes, and the element `annotation`.

    A document type is refused, and with it whatever entities it may declare: nothing expands,
    nothing is fetched.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f'{file}: cannot be read: {error.strerror}', _UNREADABLE) from error
    if len(raw) > _LARGEST_FILE:
        raise DataError(f'{file}: {len(raw)} bytes are no annotation', _UNREADABLE)
    parser, builder, depth = expat.ParserCreate(), TreeBuilder(), _Depth()

    def start(name: str, attributes: dict[str, str]) -> None:
        depth.value += 1
        if depth.value > _DEEPEST:
            raise DataError(f'{file}: elements {_DEEPEST} deep are no annotation', _UNREADABLE)
        builder.start(name, attributes)

    def end(name: str) -> None:
        depth.value -= 1
        builder.end(name)

    def document_type(*_: object) -> None:
        raise DataError(
            f'{file}: has a document type, which may declare entities; remove it', _UNREADABLE
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f'{file}: cannot be read as XML: {error}', _UNREADABLE) from error
    root = builder.close()
    if root.tag != 'annotation':
        raise DataError(f'{file}: its root is {root.tag!r}, not annotation', _UNREADABLE)
    return raw, root


_UNREADABLE = 'labels-unreadable'
