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

"""A data set as it is used, and the one place where what a format has parsed is validated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.datasets.boxes import Corners, as_stored, check_inside, clipped
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.labels import is_placeholder
from pruned_perception.datasets.problems import Problems
from pruned_perception.images import Header, ImageError, decode_image, read_header

Size = tuple[int, int]
"""Height and width of a picture, pixels."""

PER_FRAME = ('paths', 'sizes', 'boxes', 'class_ids', 'crowd', 'groups')
"""The fields of a data set that have an entry for each frame."""

_LEADS_OUT = re.compile(r'/|[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]*://|(.*/)?\.\.(/|$)')
"""Absolute paths (also of Windows), addresses of storage, and ways up."""


@dataclass(frozen=True)
class Dataset:
    """Frames of one split with their boxes; the annotations are valid, pictures are read lazily."""

    folder: Path
    """To which it belongs; nothing outside is read."""
    source: Path
    """The file that annotates it, or the folder of such files: for messages."""
    split: str
    """Its name within a data set of several; '' where it stands alone."""
    labels: tuple[str, ...]
    paths: tuple[Path, ...]
    """Of the pictures."""
    sizes: tuple[Size, ...]
    """(height, width) of the pictures, upright, as the annotations say."""
    boxes: tuple[NDArray[np.float32], ...]
    """Per frame (K, 4): left, top, right, bottom in pixels of its picture."""
    class_ids: tuple[NDArray[np.int64], ...]
    """Per frame (K,): indices of `labels`."""
    crowd: tuple[NDArray[np.bool_], ...]
    """Per frame (K,): regions in which a detection is neither right nor wrong."""
    groups: tuple[str, ...]
    """Per frame what it shares with others; frames of one group are not independent."""
    unit: str | None
    """What a group is: layout, drive, venue, …; None where each frame is its own."""
    digest: str
    """SHA-256 of the annotations, to name the data by."""
    declared: bool = True
    """Whether the labels are a list of the data set's own, not just those that occur in it."""
    settled: frozenset[int] = frozenset()
    """Frames of which is known that the boxes are of the picture as stored, whatever EXIF says."""

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a picture, uint8 (H, W, 3), bgr, as it is stored (EXIF turns nothing).

        Raises:
            DataError: missing, damaged, not of the size that the annotations say, or turned by
                EXIF such that nobody can tell of which of the two pictures the boxes are.
        """
        image, header = read_picture(self.paths[index], self.source)
        self.check_size(index, header)
        return image

    def subset(self, indices: Sequence[int]) -> Dataset:
        """Return the set with some of its frames, in that order."""
        chosen: dict[str, Any] = {
            name: tuple(getattr(self, name)[k] for k in indices) for name in PER_FRAME
        }
        return replace(
            self,
            settled=frozenset(new for new, old in enumerate(indices) if old in self.settled),
            **chosen,
        )

    def check_size(self, index: int, found: Header) -> None:
        """Raise DataError where a picture is not the one that is annotated, as it is stored."""
        stored, size = (found.height, found.width), self.sizes[index]
        if index in self.settled or (found.orientation == 1 and stored == size):
            return
        fits = found.upright == size
        if stored != size:
            raise DataError(
                f'{self.paths[index]}: is {_text(stored)} pixels as stored, but {self.source} says '
                f'{_text(size)}: are the boxes of another picture, of one that was resized, or of '
                'one that its EXIF orientation turned (save it without that entry)?',
                'picture-turned' if fits else 'picture-size',
            )
        if fits:
            raise turned(f'{self.paths[index]}', found.orientation)

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all pictures in order, see `image`; that all are there is checked before."""
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
            raise DataError(
                f'{missing[0]}: missing{more}, though {self.source} names it', 'picture-missing'
            )
        for index in range(len(self)):
            yield self.image(index)

    def check_labelled(self) -> None:
        """Raise DataError where there is no box to be found: accuracy is then of nothing."""
        if not any((~crowd).any() for crowd in self.crowd):
            raise DataError(
                f'{self.source}: no box to be found in its {len(self)} images '
                f'({sum(map(len, self.crowd))} crowd boxes); nothing can be learnt or measured'
            )

    def with_labels(self, labels: Sequence[str], owner: str) -> Dataset:
        """Return the set with class ids that are indices of `labels`: classes meet by name.

        A category that no box has may be unknown to `labels`; `owner`, whose labels they are, may
        have placeholders.

        Raises:
            DataError: a label is no category here, where those are declared, or a box has a
                class that is not in `labels`.
        """
        labels = tuple(labels)
        if labels == self.labels:
            return self
        used = {self.labels[k] for ids in self.class_ids for k in np.unique(ids)}
        missing = [x for x in labels if x not in self.labels and not is_placeholder(x)]
        missing = missing if self.declared else []
        foreign = [x for x in self.labels if x in used and x not in labels]
        if missing or foreign:
            raise DataError(
                f'{self.source}: its labels ({", ".join(self.labels)}) are not those of {owner} '
                f'({", ".join(labels)})'
            )
        index = np.array([labels.index(x) if x in labels else -1 for x in self.labels], np.int64)
        return replace(self, labels=labels, class_ids=tuple(index[ids] for ids in self.class_ids))


def read_picture(path: Path, source: Path) -> tuple[NDArray[np.uint8], Header]:
    """Return a picture, uint8 (H, W, 3), bgr, as it is stored, and its header.

    Raises DataError where it is missing or damaged; `source` annotates it.
    """
    if not path.is_file():
        raise DataError(f'{path}: missing, though {source} names it', 'picture-missing')
    try:
        data = path.read_bytes()
        return decode_image(data), read_header(data)
    except ImageError as error:
        raise DataError(f'{path}: {error}', 'picture-unreadable') from error
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}', 'picture-unreadable') from error


class DatasetBuilder:
    """Takes what a format parses, frame by frame and box by box, and refuses what is broken.

    In messages, `where` names file and annotation. With `problems` that are listed or mended, a
    frame that is left out has no index, and its boxes are left out with it.
    """

    def __init__(
        self, folder: Path, source: Path, labels: Sequence[Any], problems: Problems | None = None
    ) -> None:
        """Begin a set in `folder`; raise DataError where labels are no different names."""
        self.folder, self.source = folder, source
        self.problems = Problems() if problems is None else problems
        self._root = folder.resolve()
        for position, label in enumerate(labels):
            if not isinstance(label, str) or not label.strip():
                raise DataError(f'{source}: categories: {label!r} is no name')
            if label in labels[:position]:
                raise DataError(f'{source}: categories: {label!r} is there more than once')
        if not labels:
            raise DataError(f'{source}: categories: there are none')
        self.labels = tuple(labels)
        self._frames: list[_Frame] = []
        self._by_file: dict[Path, str] = {}

    def add_frame(
        self, name: Any, roots: Sequence[Path], *, size: Any, group: Any, where: str
    ) -> int | None:
        """Add the picture `name`, which lies in one of `roots`, and return its index.

        Args:
            name: its path relative to a root; in the first one where the file is in none.
            roots: folders, all within the set's.
            size: height and width; None where the annotations do not say: the picture's own.
            group: name or number of what the frame shares with others, or None.
            where: begins messages.

        Raises:
            DataError: the name leads out of the set's folder (also by a link), may be of several
                files, or was there before; size or group are of the wrong kind; the picture of
                which the size is needed cannot be read, or is turned by EXIF.
        """
        with self.problems.each():
            path, real = self._locate(name, roots, where)
            if real in self._by_file:
                raise DataError(
                    f'{where}: {path} is the picture of {self._by_file[real]} already',
                    'picture-twice',
                )
            if isinstance(group, bool) or not isinstance(group, str | int | None):
                raise DataError(f'{where}: its group is {group!r}, not a name or number')
            frame = self._frame(path, size, None if group is None else str(group), where)
            if frame is not None:
                self._by_file[real] = where
                self._frames.append(frame)
                return len(self._frames) - 1
        return None

    def _frame(self, path: Path, size: Any, group: str | None, where: str) -> _Frame | None:
        """Return the frame, or None where it is left out."""
        if size is not None:
            for side in size:
                whole = isinstance(side, int | float) and not isinstance(side, bool)
                if not (whole and 0 < side < 1e6 and side == int(side)):
                    wrong = DataError(
                        f'{where}: height and width are {size}; whole numbers are needed',
                        'picture-size',
                    )
                    if self.problems.mend(wrong) is None:
                        return None
                    size = None
                    break
        if size is not None:
            height, width = size
            return _Frame(path, (int(height), int(width)), group)
        if not path.is_file():
            raise DataError(f'{where}: {path} is missing', 'picture-missing')
        try:
            header = read_header(path)
        except ImageError as error:
            raise DataError(str(error), 'picture-unreadable') from error
        stored = header.height, header.width
        if header.orientation == 1:
            return _Frame(path, stored, group)
        repair = self.problems.mend(turned(str(path), header.orientation))
        if repair is None:
            return None
        if repair == 'exif-stored':
            return _Frame(path, stored, group, settled=True)
        return _Frame(path, header.upright, group, settled=True, turned=header)

    def _locate(self, name: Any, roots: Sequence[Path], where: str) -> tuple[Path, Path]:
        """Return the path of a picture, and the same without links."""
        if not isinstance(name, str) or not name.strip() or '\0' in name:
            raise DataError(f'{where}: {name!r} is no name of a file')
        relative = name.replace('\\', '/')
        if _LEADS_OUT.match(relative):
            outside = DataError(
                f'{where}: {name!r} leads out of {self.folder}; put the pictures there and name '
                'them relative to it',
                'picture-place',
            )
            if 'by-name' not in self.problems.repairs:
                raise outside
            self.problems.mend(outside)
            relative = relative.rpartition('/')[2]
            if relative in ('', '.', '..'):
                raise DataError(f'{where}: {name!r} is no name of a file')
        places = [root / relative for root in roots]
        found = {place.resolve(): place for place in places if place.is_file()}
        if len(found) > 1:
            first, second, *_ = found.values()
            raise DataError(
                f'{where}: {name!r} may be {first} or {second}; name it with its folder'
            )
        real, path = next(iter(found.items()), (places[0].resolve(), places[0]))
        if not real.is_relative_to(self._root):
            raise DataError(
                f'{where}: {path} is a link out of {self.folder}; put the pictures there'
            )
        return path, real

    def size_of(self, frame: int) -> Size:
        """Return height and width of the picture that a frame's boxes are of."""
        return self._frames[frame].size

    def add_box(
        self, frame: int | None, box: Corners, class_id: int, crowd: bool, where: str
    ) -> None:
        """Add a box to a frame; raise DataError where it is outside the picture, or again."""
        if frame is None:
            return
        target = self._frames[frame]
        try:
            check_inside(box, target.size, where)
        except DataError as error:
            if self.problems.mend(error) is None:
                return
            inside = clipped(box, target.size)
            if inside is None:
                return
            box = inside
        entry = (box, class_id, crowd)
        if not crowd and entry in target.known:
            twice = DataError(
                f'{where}: the same box of {self.labels[class_id]!r} is there already', 'box-twice'
            )
            self.problems.mend(twice)
            return
        target.known.add(entry)
        target.boxes.append(entry)

    def leave_out(self, frame: int) -> None:
        """Leave out a frame whose labels cannot be read: it is not known to be empty."""
        self._frames[frame].left_out = True

    def build(
        self, *, digest: str, split: str = '', unit: str | None = None, declared: bool = True
    ) -> Dataset:
        """Return the set; raises DataError where it is empty or only some frames have a group.

        Boxes of which none reaches beyond a pixel are no boxes in pixels.
        """
        frames = [frame for frame in self._frames if not frame.left_out]
        if not frames:
            raise DataError(f'{self.source}: the data set has no images', 'split-empty')
        edges = [max(box[2:]) for frame in frames for box, _, _ in frame.boxes]
        if edges and max(edges) <= 1:
            self.problems.mend(
                DataError(
                    f'{self.source}: all boxes lie within the first pixel of their pictures: are '
                    'these shares of width and height? Pixels are needed',
                    'box-shares',
                )
            )
        groups = [frame.group for frame in frames]
        alone = [frame.path for frame in frames if frame.group is None]
        if alone and len(alone) < len(groups):
            raise DataError(
                f'{self.source}: {alone[0].name} has no {unit or "group"}, though others have'
            )
        return Dataset(
            folder=self.folder,
            source=self.source,
            split=split,
            labels=self.labels,
            paths=tuple(frame.path for frame in frames),
            sizes=tuple(frame.stored for frame in frames),
            boxes=tuple(frame.corners() for frame in frames),
            class_ids=tuple(np.array([k for _, k, _ in frame.boxes], np.int64) for frame in frames),
            crowd=tuple(np.array([c for _, _, c in frame.boxes], bool) for frame in frames),
            groups=tuple(str(n) if x is None else x for n, x in enumerate(groups)),
            unit=None if alone else unit,
            digest=digest,
            declared=declared,
            settled=frozenset(n for n, frame in enumerate(frames) if frame.settled),
        )


@dataclass
class _Frame:
    """A frame in the making."""

    path: Path
    size: Size
    """Of the picture that the boxes are of."""
    group: str | None
    settled: bool = False
    left_out: bool = False
    turned: Header | None = None
    """Of the file, where the boxes are of the picture shown upright."""
    boxes: list[tuple[Corners, int, bool]] = field(default_factory=list)
    known: set[tuple[Corners, int, bool]] = field(default_factory=set)

    @property
    def stored(self) -> Size:
        return self.size if self.turned is None else (self.turned.height, self.turned.width)

    def corners(self) -> NDArray[np.float32]:
        found = np.array([box for box, _, _ in self.boxes], np.float32).reshape(-1, 4)
        return (
            found if self.turned is None else as_stored(found, self.turned.orientation, self.stored)
        )


def turned(path: str, orientation: int) -> DataError:
    """Return the error about a picture of which EXIF says that it is to be turned."""
    return DataError(
        f'{path}: its EXIF orientation ({orientation}) turns it, and nothing says whether its '
        'boxes are of the picture as stored or as viewers show it',
        'picture-turned',
    )


def _text(size: Sequence[int]) -> str:
    return f'{size[1]} × {size[0]}'
