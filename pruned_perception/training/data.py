"""COCO data sets on disk, held as one memory-mapped array of frames at the network's size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.errors import UserError
from pruned_perception.images import read_image
from pruned_perception.images.errors import ImageError


class DataError(UserError):
    """A data set is missing, incomplete or contradicts itself."""


@dataclass(frozen=True)
class FrameSet:
    """Frames with their boxes.

    images: (N, H, W, 3) uint8, RGB, at the network's input size.
    boxes: per frame (K, 4) float32, left, top, right, bottom in pixels of those images.
    class_ids: per frame (K,) int64, indices of `labels`.
    crowd: per frame (K,) bool, COCO's `iscrowd`: objects too small or too hidden to ask for; a
        detection there is neither right nor wrong.
    groups: per frame the scene it comes from; frames of one group are not independent.
    digest: SHA-256 of the annotations, to name the data by.
    """

    images: np.ndarray
    boxes: Sequence[np.ndarray]
    class_ids: Sequence[np.ndarray]
    crowd: Sequence[np.ndarray]
    groups: Sequence[str]
    labels: tuple[str, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Annotations:
    """What a COCO file says: paths of the frames, boxes in pixels of the source images."""

    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]  # (height, width) of each source image
    boxes: tuple[np.ndarray, ...]
    class_ids: tuple[np.ndarray, ...]
    crowd: tuple[np.ndarray, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    digest: str


def read_annotations(folder: str | os.PathLike[str]) -> Annotations:
    """Read `<folder>/annotations.json` (COCO: bbox = [left, top, width, height] in pixels).

    Category ids must be 0 … C − 1. An image's `layout`, where given, is its group; else every
    image is its own. Raises DataError naming file and field.
    """
    folder = Path(folder).expanduser()
    file = folder / 'annotations.json'
    try:
        raw = file.read_bytes()
        data = json.loads(raw)
    except FileNotFoundError as error:
        raise DataError(
            f'{file}: no such file; make the data set with '
            f'`pruned-perception simulate --split train|validation|test --out {folder}`'
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f'{file}: cannot be read as JSON: {error}') from error
    try:
        labels = _labels(data['categories'], file)
        index = {image['id']: position for position, image in enumerate(data['images'])}
        rows: list[list[list[float]]] = [[] for _ in index]
        classes: list[list[int]] = [[] for _ in index]
        crowd: list[list[bool]] = [[] for _ in index]
        for annotation in data['annotations']:
            position = index[annotation['image_id']]
            left, top, width, height = annotation['bbox']
            rows[position].append([left, top, left + width, top + height])
            classes[position].append(annotation['category_id'])
            crowd[position].append(bool(annotation.get('iscrowd', 0)))
        return Annotations(
            paths=tuple(_image_path(folder, image['file_name']) for image in data['images']),
            sizes=tuple((int(image['height']), int(image['width'])) for image in data['images']),
            boxes=tuple(np.array(row, np.float32).reshape(-1, 4) for row in rows),
            class_ids=tuple(_class_ids(row, len(labels), file) for row in classes),
            crowd=tuple(np.array(row, bool) for row in crowd),
            groups=tuple(str(image.get('layout', image['id'])) for image in data['images']),
            labels=labels,
            digest=hashlib.sha256(raw).hexdigest(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{file}: not a COCO data set: field {error} is missing or bad') from error


def load_frames(
    folder: str | os.PathLike[str],
    size: tuple[int, int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> FrameSet:
    """Return the data set in `folder` at `size` (height, width), through a cache in the folder.

    The cache is a plain array that is mapped, not read: several processes share one copy, and
    a training step pays no decoding. It is named by the annotations' hash, so that a set that
    was made again or has grown is not mistaken for the old one.

    Args:
        folder: COCO data set as `pruned-perception simulate` writes it.
        size: height and width of the network's input.
        progress: called with (done, total) while the cache is built.

    Raises:
        DataError: annotations or images missing or unreadable, or the cache cannot be written.
    """
    notes = read_annotations(folder)
    if not notes.paths:
        raise DataError(f'{folder}: the data set has no images')
    height, width = size
    cache = Path(folder).expanduser() / f'frames-{height}x{width}-{notes.digest[:12]}.npy'
    shape = (len(notes.paths), height, width, 3)
    if not cache.is_file():
        _build_cache(cache, notes, shape, progress)
    images = np.load(cache, mmap_mode='r', allow_pickle=False)
    if images.shape != shape or images.dtype != np.uint8:
        raise DataError(f'{cache}: not the cache of {folder}; delete this file')
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
    )


def frame_image(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a frame, bgr; DataError where it is missing, damaged or no image."""
    try:
        return read_image(path)
    except ImageError as error:
        raise DataError(
            f'{path}: missing or not an image; make the data set again ({error})'
        ) from error


def stretch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to `size` (height, width) as the robot's preprocessing does: bilinear."""
    height, width = size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _build_cache(
    cache: Path,
    notes: Annotations,
    shape: tuple[int, int, int, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    temporary = cache.with_name(f'.{cache.name}.{os.getpid()}')
    try:
        frames = np.lib.format.open_memmap(temporary, 'w+', np.uint8, shape)
        for index, (path, size) in enumerate(zip(notes.paths, notes.sizes, strict=True)):
            image = frame_image(path)
            if image.shape[:2] != size:
                raise DataError(f'{path}: is {image.shape[:2]}, but annotations.json says {size}')
            frames[index] = cv2.cvtColor(stretch(image, shape[1:3]), cv2.COLOR_BGR2RGB)
            if progress is not None:
                progress(index + 1, len(notes.paths))
        frames.flush()
        temporary.replace(cache)
    except OSError as error:
        raise DataError(f'{cache}: cannot be written: {error.strerror}') from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _image_path(folder: Path, name: str) -> Path:
    direct = folder / name
    return direct if '/' in name or direct.is_file() else folder / 'images' / name


def _labels(categories: list[dict[str, Any]], file: Path) -> tuple[str, ...]:
    names = {category['id']: str(category['name']) for category in categories}
    if sorted(names) != list(range(len(names))):
        raise DataError(f'{file}: categories: ids must be 0 to {len(names) - 1}: {sorted(names)}')
    return tuple(names[k] for k in range(len(names)))


def _class_ids(values: list[int], count: int, file: Path) -> np.ndarray:
    ids = np.array(values, np.int64).reshape(-1)
    if ids.size and not 0 <= ids.min() <= ids.max() < count:
        raise DataError(f'{file}: annotations: category_id {ids.max()} is none of the {count}')
    return ids
