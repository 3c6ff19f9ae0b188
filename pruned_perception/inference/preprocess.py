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

"""Image → network input, and boxes back.

The order matters for speed: resize first, then change colours and types on the small image, into
buffers that are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import InputSpec
from pruned_perception.inference.detections import Boxes
from pruned_perception.inference.errors import ImageError

# OpenCV's resize keeps coordinates in 16 bits.
MAX_SIDE = 32766


class Placement(NamedTuple):
    """Where the source image lies in the network's input: input = source · scale + offset."""

    scale_x: float
    scale_y: float
    offset_x: int
    offset_y: int
    width: int
    """Width of the resized image in the network's input, pixels."""
    height: int
    """Height of the resized image in the network's input, pixels."""


def place(spec: InputSpec, height: int, width: int) -> Placement:
    """Return where an image of `height` × `width` pixels lies in the network's input."""
    if spec.resize == 'stretch':
        return Placement(spec.width / width, spec.height / height, 0, 0, spec.width, spec.height)
    scale = min(spec.width / width, spec.height / height)
    new_width = min(max(round(width * scale), 1), spec.width)
    new_height = min(max(round(height * scale), 1), spec.height)
    centred = spec.align == 'center'
    return Placement(
        # The scales of the rounded size, so that boxes fit to the fraction of a pixel.
        new_width / width,
        new_height / height,
        (spec.width - new_width) // 2 if centred else 0,
        (spec.height - new_height) // 2 if centred else 0,
        new_width,
        new_height,
    )


def boxes_to_source(boxes: Boxes, placement: Placement, height: int, width: int) -> Boxes:
    """Return boxes (K, 4) xyxy of the network's input in pixels of the source, clipped to it."""
    offset, scale, limit = _coordinates(placement, height, width)
    boxes = np.subtract(boxes, offset, dtype=np.float32)
    boxes /= scale
    np.maximum(boxes, 0, out=boxes)
    return np.minimum(boxes, limit, out=boxes)


@lru_cache(maxsize=16)
def _coordinates(placement: Placement, height: int, width: int) -> Sequence[NDArray[np.float32]]:
    """Return offset, scale and limit of x, y, x, y."""
    pairs = (
        (placement.offset_x, placement.offset_y),
        (placement.scale_x, placement.scale_y),
        (width, height),
    )
    return [np.array(pair * 2, np.float32) for pair in pairs]


_CONVERSIONS = {
    ('gray', 'rgb'): cv2.COLOR_GRAY2RGB,
    ('gray', 'bgr'): cv2.COLOR_GRAY2BGR,
    ('rgb', 'bgr'): cv2.COLOR_RGB2BGR,
    ('bgr', 'rgb'): cv2.COLOR_BGR2RGB,
}
ORDERS = ('rgb', 'bgr', 'gray')


class Preprocessor:
    """Turns images into the network's input tensor.

    The tensor returned is one buffer, overwritten by the next call: not for use by two threads.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec
        size = (spec.height, spec.width)
        self._small = {3: np.empty((*size, 3), np.uint8), 1: np.empty(size, np.uint8)}
        self._canvas = np.empty((*size, 3), np.uint8)
        self._source_size = (0, 0)
        self._placement = Placement(1, 1, 0, 0, spec.width, spec.height)
        self._planes = np.empty((3, *size), np.uint8)
        # Of a batch, all but the first image stay black.
        self._tensor: NDArray[Any] = np.zeros(spec.shape, spec.dtype)
        self._first = self._tensor[0] if 'N' in spec.layout else self._tensor
        if (spec.dtype, spec.layout[-1]) == ('uint8', 'C'):
            self._canvas = self._first  # what images are resized into is the tensor itself
        self._floats = np.empty(self._first.shape, np.float32)
        if spec.dtype == 'float32':
            self._floats = self._first
        # (x − mean) / std for each byte, (channel, 256): a table is faster than the arithmetic.
        values = np.arange(256, dtype=np.float32)
        mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
        self._table = (values - mean[:, None]) / std[:, None]
        self._normalised = any(spec.mean) or any(value != 1 for value in spec.std)

    def __call__(self, image: NDArray[np.uint8], order: str) -> tuple[NDArray[Any], Placement]:
        """Return the tensor (shape and type of the spec), and where the image lies in it.

        `image` is uint8 (H, W, 3) with `order` 'rgb' or 'bgr', or (H, W) with 'gray'; rows may
        be padded. Raises ImageError.
        """
        _check_image(image, order)
        height, width = image.shape[:2]
        if (height, width) != self._source_size:
            self._placement = place(self._spec, height, width)
            self._source_size = (height, width)
            self._canvas[:] = self._spec.pad_value  # the old image's border
        at = self._placement
        inner = self._canvas[
            at.offset_y : at.offset_y + at.height, at.offset_x : at.offset_x + at.width
        ]
        conversion = _CONVERSIONS.get((order, self._spec.color))
        if conversion is None:
            self._resize(image, inner)
        else:
            small = self._small[1 if order == 'gray' else 3][: at.height, : at.width]
            self._resize(image, small)
            cv2.cvtColor(small, conversion, dst=inner)
        self._fill_tensor()
        return self._tensor, at

    @staticmethod
    def _resize(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        height, width = target.shape[:2]
        if image.shape[:2] == (height, width):
            np.copyto(target, image)
        else:
            cv2.resize(image, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)

    def _fill_tensor(self) -> None:
        """Canvas → tensor, where the tensor is not the canvas itself."""
        dtype, floats = self._spec.dtype, self._floats
        if self._spec.layout[-1] == 'C':
            if dtype != 'uint8' and self._normalised:
                cv2.LUT(self._canvas, self._table.T[None], dst=floats)
            elif dtype != 'uint8':
                np.copyto(floats, self._canvas)
        else:
            planes = self._first if dtype == 'uint8' else self._planes
            cv2.split(self._canvas, [planes[0], planes[1], planes[2]])
            if dtype != 'uint8' and self._normalised:
                for channel in range(3):
                    cv2.LUT(planes[channel], self._table[channel], dst=floats[channel])
            elif dtype != 'uint8':
                np.copyto(floats, planes)
        if dtype == 'float16':
            np.copyto(self._first, floats, casting='same_kind')


def _check_image(image: NDArray[np.uint8], order: str) -> None:
    if order not in ORDERS:
        raise ImageError(f'colour order {order!r} is none of {", ".join(ORDERS)}')
    shape = (2,) if order == 'gray' else (3,)
    if (
        image.dtype != np.uint8
        or image.ndim not in shape
        or (image.ndim == 3) != (image.shape[2:] == (3,))
    ):
        expected = '(height, width)' if order == 'gray' else '(height, width, 3)'
        raise ImageError(
            f'an image with order {order!r} is uint8 {expected}, not {image.dtype} {image.shape}'
        )
    height, width = image.shape[:2]
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageError(
            f'image of {width} × {height} pixels; each side must be 1 … {MAX_SIDE} pixels'
        )
