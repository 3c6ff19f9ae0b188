"""A data set as it is used, and the one place where what a format has parsed is validated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.datasets.boxes import Corners, check_inside
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.labels import is_placeholder
from pruned_perception.images import ImageError, read_image

Size = tuple[int, int]
"""Height and width of a picture, pixels."""

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

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a picture, uint8 (H, W, 3), bgr, as it is stored (EXIF turns nothing).

        Raises:
            DataError: missing, damaged, or not of the size that the annotations say.
        """
        path, size = self.paths[index], self.sizes[index]
        if not path.is_file():
            raise DataError(f'{path}: missing, though {self.source} names it')
        try:
            image = read_image(path)
        except ImageError as error:
            raise DataError(str(error)) from error
        if image.shape[:2] != size:
            raise DataError(
                f'{path}: is {_text(image.shape[:2])} pixels as stored, but {self.source} says '
                f'{_text(size)}: are the boxes of another picture, of one that was resized, or of '
                'one that its EXIF orientation turned (save it without that entry)?'
            )
        return image

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all pictures in order, see `image`; that all are there is checked before."""
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
            raise DataError(f'{missing[0]}: missing{more}, though {self.source} names it')
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
            DataError: a label is no category here, or a box has a class that is not in `labels`.
        """
        labels = tuple(labels)
        if labels == self.labels:
            return self
        used = {self.labels[k] for ids in self.class_ids for k in np.unique(ids)}
        missing = [x for x in labels if x not in self.labels and not is_placeholder(x)]
        foreign = [x for x in self.labels if x in used and x not in labels]
        if missing or foreign:
            raise DataError(
                f'{self.source}: its labels ({", ".join(self.labels)}) are not those of {owner} '
                f'({", ".join(labels)})'
            )
        index = np.array([labels.index(x) if x in labels else -1 for x in self.labels], np.int64)
        return replace(self, labels=labels, class_ids=tuple(index[ids] for ids in self.class_ids))


class DatasetBuilder:
    """Takes what a format parses, frame by frame and box by box, and refuses what is broken.

    In messages, `where` names file and annotation.
    """

    def __init__(self, folder: Path, source: Path, labels: Sequence[Any]) -> None:
        """Begin a set in `folder`; raise DataError where labels are no different names."""
        self.folder, self.source = folder, source
        self._root = folder.resolve()
        for position, label in enumerate(labels):
            if not isinstance(label, str) or not label.strip():
                raise DataError(f'{source}: categories: {label!r} is no name')
            if label in labels[:position]:
                raise DataError(f'{source}: categories: {label!r} is there more than once')
        if not labels:
            raise DataError(f'{source}: categories: there are none')
        self.labels = tuple(labels)
        self._frames: list[tuple[Path, Size, str | None]] = []
        self._by_file: dict[Path, str] = {}
        self._boxes: list[list[Corners]] = []
        self._class_ids: list[list[int]] = []
        self._crowd: list[list[bool]] = []

    def add_frame(
        self, name: Any, roots: Sequence[Path], *, size: Any, group: Any, where: str
    ) -> int:
        """Add the picture `name`, which lies in one of `roots`, and return its index.

        Args:
            name: its path relative to a root; in the first one where the file is in none.
            roots: folders, all within the set's.
            size: height and width.
            group: name or number of what the frame shares with others, or None.
            where: begins messages.

        Raises:
            DataError: the name leads out of the set's folder (also by a link), may be of several
                files, or was there before; size or group are of the wrong kind.
        """
        path, real = self._locate(name, roots, where)
        if real in self._by_file:
            raise DataError(f'{where}: {path} is the picture of {self._by_file[real]} already')
        for side in size:
            whole = isinstance(side, int | float) and not isinstance(side, bool)
            if not (whole and 0 < side < 1e6 and side == int(side)):
                raise DataError(f'{where}: height and width are {size}; whole numbers are needed')
        if isinstance(group, bool) or not isinstance(group, str | int | None):
            raise DataError(f'{where}: its group is {group!r}, not a name or number')
        self._by_file[real] = where
        height, width = size
        group = None if group is None else str(group)
        self._frames.append((path, (int(height), int(width)), group))
        self._boxes.append([])
        self._class_ids.append([])
        self._crowd.append([])
        return len(self._frames) - 1

    def _locate(self, name: Any, roots: Sequence[Path], where: str) -> tuple[Path, Path]:
        """Return the path of a picture, and the same without links."""
        if not isinstance(name, str) or not name.strip() or '\0' in name:
            raise DataError(f'{where}: {name!r} is no name of a file')
        relative = name.replace('\\', '/')
        if _LEADS_OUT.match(relative):
            raise DataError(
                f'{where}: {name!r} leads out of {self.folder}; put the pictures there and name '
                'them relative to it'
            )
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

    def add_box(self, frame: int, box: Corners, class_id: int, crowd: bool, where: str) -> None:
        """Add a box to a frame; raises DataError where it is outside the picture."""
        check_inside(box, self._frames[frame][1], where)
        self._boxes[frame].append(box)
        self._class_ids[frame].append(class_id)
        self._crowd[frame].append(crowd)

    def build(self, *, digest: str, split: str = '', unit: str | None = None) -> Dataset:
        """Return the set; raises DataError where it is empty or only some frames have a group."""
        if not self._frames:
            raise DataError(f'{self.source}: the data set has no images')
        groups = [group for _, _, group in self._frames]
        alone = [path for path, _, group in self._frames if group is None]
        if alone and len(alone) < len(groups):
            raise DataError(
                f'{self.source}: {alone[0].name} has no {unit or "group"}, though others have'
            )
        return Dataset(
            folder=self.folder,
            source=self.source,
            split=split,
            labels=self.labels,
            paths=tuple(path for path, _, _ in self._frames),
            sizes=tuple(size for _, size, _ in self._frames),
            boxes=tuple(np.array(each, np.float32).reshape(-1, 4) for each in self._boxes),
            class_ids=tuple(np.array(each, np.int64) for each in self._class_ids),
            crowd=tuple(np.array(each, bool) for each in self._crowd),
            groups=tuple(str(n) if x is None else x for n, x in enumerate(groups)),
            unit=None if alone else unit,
            digest=digest,
        )


def _text(size: Sequence[int]) -> str:
    return f'{size[1]} × {size[0]}'
