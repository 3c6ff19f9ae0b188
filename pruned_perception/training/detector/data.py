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

"""Data sets held as one memory-mapped array of frames at the network's size."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pruned_perception.datasets import DataError, Dataset, read_dataset
from pruned_perception.environment import place_for

LIMIT = 'PRUNED_PERCEPTION_FRAMES_GIB'


class Frames:
    """Frames (N, H, W, 3) uint8 of a data set, of which only the first ones are kept decoded.

    The others are decoded whenever they are asked for, like those of an array: by an index, a slice
    or an array of indices.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, kept: np.ndarray, notes: Dataset) -> None:
        self.kept, self.notes = kept, notes
        self.shape = (len(notes.paths), *kept.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        if isinstance(which, int | np.integer):
            index = range(len(self))[which]
            if index < len(self.kept):
                return np.asarray(self.kept[index])
            return _decoded(self.notes.image(index), self.shape[1:3])
        found = np.empty((len(chosen := np.arange(len(self))[which]), *self.shape[1:]), np.uint8)
        for row, index in enumerate(chosen):
            found[row] = self[index]
        return found


@dataclass(frozen=True)
class FrameSet:
    """Frames with their boxes.

    images: (N, H, W, 3) uint8, RGB, at the network's input size: an array, or `Frames`.
    boxes: per frame (K, 4) float32, left, top, right, bottom in pixels of those images.
    class_ids: per frame (K,) int64, indices of `labels`.
    crowd: per frame (K,) bool, COCO's `iscrowd`: objects too small or too hidden to ask for; a
        detection there is neither right nor wrong.
    groups: per frame the scene it comes from; frames of one group are not independent.
    digest: SHA-256 of the annotations, to name the data by.
    notes: the data set that they are of.
    """

    images: np.ndarray | Frames
    boxes: Sequence[np.ndarray]
    class_ids: Sequence[np.ndarray]
    crowd: Sequence[np.ndarray]
    groups: Sequence[str]
    labels: tuple[str, ...]
    digest: str
    notes: Dataset

    def __len__(self) -> int:
        return len(self.images)


def load_frames(
    folder: str | os.PathLike[str],
    size: tuple[int, int],
    *,
    labelled: bool = True,
    labels: Sequence[str] | None = None,
    owner: str = 'the network',
    progress: Callable[[int, int], None] | None = None,
) -> FrameSet:
    """Return the data set in `folder` at `size` (height, width), through a cache in the folder.

    Where the folder cannot be written, the cache is in the user's; see `environment.place_for`.

    The cache is a plain array that is mapped, not read: several processes share one copy, and
    a training step pays no decoding. It is named by the annotations' hash, so that a set that
    was made again or has grown is not mistaken for the old one. Where $PRUNED_PERCEPTION_FRAMES_GIB
    says how large it may be, only the first frames that fit are in it, and others are decoded each
    time, best by worker processes.

    Args:
        folder: of a data set, or of a split of one; see `datasets.read_dataset`.
        size: height and width of the network's input.
        labelled: refuse a set without boxes; frames that are only shown need none.
        labels: what class ids shall be indices of, by name; by default the set's own labels.
        owner: whose labels they are, for messages.
        progress: called with (done, total) while the cache is built.

    Raises:
        DataError: annotations or images missing or broken, other labels, or a cache that cannot
            be written.
    """
    notes = read_dataset(folder)
    if labels is not None:
        notes = notes.with_labels(labels, owner)
    if labelled:
        notes.check_labelled()
    height, width = size
    count = _kept(len(notes.paths), 3 * height * width)
    part = '' if count == len(notes.paths) else f'-first-{count}'
    cache = place_for(f'frames-{height}x{width}-{notes.digest[:12]}{part}.npy', notes.folder)
    shape = (count, height, width, 3)
    if not cache.is_file():
        _build_cache(cache, notes, shape, progress)
    images = np.load(cache, mmap_mode='r', allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise DataError(f'{cache}: not the cache of {folder}; delete this file')
    return frame_set(notes, Frames(images, notes) if part else images)


def frame_set(notes: Dataset, images: np.ndarray | Frames) -> FrameSet:
    """Return a data set's frames, of the size that `images` (N, H, W, 3) have, and its boxes."""
    height, width = images.shape[1:3]
    factors = [
        np.array([width / w, height / h, width / w, height / h], np.float32) for h, w in notes.sizes
    ]
    return FrameSet(
        images=images,
        boxes=[boxes * factor for boxes, factor in zip(notes.boxes, factors, strict=True)],
        class_ids=notes.class_ids,
        crowd=notes.crowd,
        groups=notes.groups,
        labels=notes.labels,
        digest=notes.digest,
        notes=notes,
    )


def stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to `size` (height, width) as the robot's preprocessing does: bilinear."""
    height, width = size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _decoded(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (BGR) as the network takes it."""
    return cv2.cvtColor(stretch(image, size), cv2.COLOR_BGR2RGB)


def _kept(count: int, size: int) -> int:
    """Return how many of so many frames of `size` bytes the cache may hold, at least one."""
    given = os.environ.get(LIMIT, '')
    if not given:
        return count
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise DataError(f'{LIMIT}={given}: must be a size in GiB, > 0; unset, there is no limit')
    return max(1, min(count, int(min(limit * 2**30 / size, count))))


def _build_cache(
    cache: Path,
    notes: Dataset,
    shape: tuple[int, int, int, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    temporary = cache.with_name(f'.{cache.name}.{os.getpid()}')
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        frames = np.lib.format.open_memmap(temporary, 'w+', np.uint8, shape)
        for index, image in enumerate(itertools.islice(notes.images(), len(frames))):
            frames[index] = _decoded(image, shape[1:3])
            if progress is not None:
                progress(index + 1, len(frames))
        frames.flush()
        temporary.replace(cache)
    except OSError as error:
        raise DataError(f'{cache}: cannot be written: {error.strerror}') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
