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

"""Random crops, scales, mirror images, colours and corruptions, beside a training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pruned_perception.datasets.corruptions import SEVERITIES, corrupt
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.recipe import Phase

KEEP_FRACTION = 0.3  # a box of which a crop shows less is no longer a fair example
KEEP_PIXELS = 3.0
FILL = 114


@dataclass(frozen=True)
class Batch:
    """Training examples.

    images: (B, 3, H, W) uint8, channels last in memory; a quarter of what the network is given, to
    pass between processes and to devices.
    boxes: (B, M, 4) left, top, right, bottom in pixels; class_ids: (B, M) int64;
    valid: (B, M) bool: boxes to be found; ignored: (B, M) bool: boxes in which detections are
    neither right nor wrong; rows that are neither are padding (M ≥ 1).
    """

    images: Tensor
    boxes: Tensor
    class_ids: Tensor
    valid: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class Colours:
    """Another light: what each value (256, 3) uint8 becomes, and what is done to the image then.

    effect: '', 'blur', 'grey' or 'noise', which is then to be added, (H, W, 3) int8.
    """

    table: np.ndarray
    effect: str = ''
    noise: np.ndarray | None = None


@dataclass(frozen=True)
class Part:
    """A frame in a view: `matrix` maps its pixels to those of a window, top, left and size."""

    index: int
    corner: tuple[int, int]
    size: tuple[int, int]
    matrix: np.ndarray


@dataclass(frozen=True)
class Corrupted:
    """A corruption of `datasets.corruptions` and the seed of what is random about it."""

    name: str
    severity: int
    seed: int


@dataclass(frozen=True)
class View:
    """All that is random about a view of `size` (height, width): its frames, light, corruption."""

    size: tuple[int, int]
    parts: tuple[Part, ...]
    colours: Colours
    corrupted: Corrupted | None = None


def draw_views(
    frames: FrameSet, indices: Sequence[int], phase: Phase, generator: np.random.Generator
) -> list[View]:
    """Return what one random view of each frame is to be.

    Two in three are centred on some object, so that small crops still hold examples. A mosaic has
    four parts, of that frame and of three others (Bochkovskiy et al., YOLOv4, 2020).

    Args:
        frames: all there are.
        indices: of the frames.
        phase: size and magnification, relative to the stored frames, of the views, and how many of
            them are mosaics or corrupted.
        generator: of the random numbers.
    """
    height, width = size = phase.size
    views = []
    for index in indices:
        windows = [(index, (0, 0), size)]
        if phase.mosaic and generator.random() < phase.mosaic:
            y, x = (int(length * generator.uniform(0.3, 0.7)) for length in size)
            others = generator.integers(len(frames), size=3).tolist()
            windows = [
                (index, (0, 0), (y, x)),
                (others[0], (0, x), (y, width - x)),
                (others[1], (y, 0), (height - y, x)),
                (others[2], (y, x), (height - y, width - x)),
            ]
        source = frames.images.shape[1:3]
        parts = tuple(
            Part(
                each,
                corner,
                window,
                random_view(source, frames.boxes[each], window, phase.scale, generator),
            )
            for each, corner, window in windows
        )
        colours = random_colours(size, generator, phase.colours)
        corrupted = random_corruption(phase.corrupted, generator) if phase.corrupted else None
        views.append(View(size, parts, colours, corrupted))
    return views


def make_batch(frames: FrameSet, views: Sequence[View]) -> Batch:
    """Return views of one size as a batch."""
    images = np.empty((len(views), *views[0].size, 3), np.uint8)
    boxes, class_ids, ignored = [], [], []
    for image, view in zip(images, views, strict=True):
        moved, ids, skip = zip(*(_paste(frames, each, image) for each in view.parts), strict=True)
        image[:] = recoloured(image, view.colours)
        if (damage := view.corrupted) is not None:
            image[:] = corrupt(image, damage.name, damage.severity, damage.seed)
        boxes.append(np.concatenate(moved))
        class_ids.append(np.concatenate(ids))
        ignored.append(np.concatenate(skip))
    return collate(images, boxes, class_ids, ignored)


def _paste(
    frames: FrameSet, part: Part, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a part into `image`; return its boxes (K, 4) there, their classes, which are ignored."""
    (top, left), (height, width) = part.corner, part.size
    image[top : top + height, left : left + width] = cv2.warpAffine(
        np.asarray(frames.images[part.index]),
        part.matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(FILL, FILL, FILL),
    )
    moved, seen, fair = view_boxes(frames.boxes[part.index], part.matrix, part.size)
    return (
        moved[seen] + np.array([left, top, left, top], np.float32),
        frames.class_ids[part.index][seen],
        (frames.crowd[part.index] | ~fair)[seen],
    )


def collate(
    images: np.ndarray,
    boxes: Sequence[np.ndarray],
    class_ids: Sequence[np.ndarray],
    ignored: Sequence[np.ndarray],
) -> Batch:
    """Pad the boxes of images (B, H, W, 3) uint8 to one length."""
    most = max(1, *(len(each) for each in boxes))
    padded = np.zeros((len(boxes), most, 4), np.float32)
    padded_ids = np.zeros((len(boxes), most), np.int64)
    valid = np.zeros((len(boxes), most), bool)
    skip = np.zeros((len(boxes), most), bool)
    for row, (each, ids, skipped) in enumerate(zip(boxes, class_ids, ignored, strict=True)):
        padded[row, : len(each)] = each
        padded_ids[row, : len(each)] = ids
        valid[row, : len(each)] = ~skipped
        skip[row, : len(each)] = skipped
    return Batch(
        # A permuted NHWC array is what torch calls channels_last: no copy is needed.
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        boxes=torch.from_numpy(padded),
        class_ids=torch.from_numpy(padded_ids),
        valid=torch.from_numpy(valid),
        ignored=torch.from_numpy(skip),
    )


def random_view(
    source: tuple[int, int],
    boxes: np.ndarray,
    size: tuple[int, int],
    scale: tuple[float, float],
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the affine map (2, 3) from pixels of the frame to pixels of a random view."""
    height, width = size
    factor = math.exp(generator.uniform(math.log(scale[0]), math.log(scale[1])))
    stretch = math.exp(generator.uniform(-0.08, 0.08))
    sx, sy = factor * stretch, factor / stretch
    window = np.array([width / sx, height / sy])  # the view's size in pixels of the frame
    slack = np.array([source[1], source[0]]) - window
    if len(boxes) and generator.random() < 0.67:
        left, top, right, bottom = boxes[generator.integers(len(boxes))]
        centre = np.array([left + right, top + bottom]) / 2
        corner = centre - window * generator.uniform(0.2, 0.8, 2)
    else:
        corner = slack * generator.random(2)
    # Inside the frame where the view is smaller, around it (with a margin) where it is larger.
    corner = np.clip(corner, np.minimum(slack, 0), np.maximum(slack, 0))
    # Pixel centres lie at +0.5 in box coordinates, but at integers in warpAffine.
    matrix = np.array([[sx, 0, -corner[0] * sx], [0, sy, -corner[1] * sy]])
    if generator.random() < 0.5:
        matrix[0] = [-sx, 0, width + corner[0] * sx]
    return _to_pixel_centres(matrix)


def view_boxes(
    boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the boxes (K, 4) in a view, clipped; which (K,) are in it; which are fair to ask."""
    height, width = size
    edges = _from_pixel_centres(matrix)
    x = boxes[:, [0, 2]] * edges[0, 0] + edges[0, 2]
    y = boxes[:, [1, 3]] * edges[1, 1] + edges[1, 2]
    x.sort(axis=1)
    whole = (x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])
    x, y = x.clip(0, width), y.clip(0, height)
    w, h = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
    fair = (w >= KEEP_PIXELS) & (h >= KEEP_PIXELS) & (w * h >= KEEP_FRACTION * whole)
    clipped = np.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), axis=1).astype(np.float32)
    return clipped, (w > 0) & (h > 0), fair


def random_colours(
    size: tuple[int, int], generator: np.random.Generator, strength: float = 1.0
) -> Colours:
    """Return another light for an image of `size` (height, width), now and then blur or noise.

    `strength` is how far gamma, contrast, brightness and the colours' balance are moved, on a
    logarithmic scale, relative to the usual.
    """
    ramp = np.arange(256) / 255
    gamma = math.exp(generator.uniform(-0.35, 0.35) * strength)
    contrast = generator.uniform(0.75, 1.3) ** strength
    gains = generator.uniform(0.9, 1.1, 3) ** strength * generator.uniform(0.8, 1.2) ** strength
    tones = (ramp[:, None] ** gamma - 0.5) * contrast + 0.5
    table = np.clip(tones * gains * 255, 0, 255).astype(np.uint8)
    chance = generator.random()
    if chance < 0.1:
        return Colours(table, 'blur')
    if chance < 0.25:
        noise = generator.integers(-12, 13, (*size, 3), np.int16)
        return Colours(table, 'noise', noise.astype(np.int8))
    return Colours(table, 'grey' if chance < 0.3 else '')


def random_corruption(
    shares: Mapping[str, float], generator: np.random.Generator
) -> Corrupted | None:
    """Return a corruption of any severity, each kind as often as its share says, or none."""
    chance = generator.random()
    for name, share in shares.items():
        chance -= share
        if chance < 0:
            severity, seed = int(generator.choice(SEVERITIES)), int(generator.integers(2**32))
            return Corrupted(name, severity, seed)
    return None


def recoloured(image: np.ndarray, colours: Colours) -> np.ndarray:
    """Return the image (H, W, 3) uint8 under another light."""
    image = cv2.LUT(image, colours.table[None])
    if colours.effect == 'blur':
        return cv2.GaussianBlur(image, (3, 3), 0)
    if colours.effect == 'grey':
        return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if colours.noise is not None:
        return np.clip(image + colours.noise.astype(np.int16), 0, 255).astype(np.uint8)
    return image


def _to_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """Turn a map between box coordinates into one between indices of pixels."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    return moved


def _from_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    moved = matrix.copy()
    moved[:, 2] -= matrix[:, :2] @ [0.5, 0.5] - 0.5
    return moved
