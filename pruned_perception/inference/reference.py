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

"""Whether a quantised network computes here what it computed where it was made.

8-bit kernels differ between processors: where pairs of products are added in 16 bits, sums
saturate, and one file finds other objects. So a quantised bundle holds some of its outputs for a
picture that is the same everywhere, and every load compares.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES = 512
"""Of each output, spread evenly over it."""


def reference_picture(height: int, width: int) -> NDArray[np.uint8]:
    """Return (height, width, 3): shapes, edges, ramps and texture from integers alone."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    ramp = (x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256)
    picture = np.stack(ramp, axis=2)
    noise = ((x * 73856093) ^ (y * 19349663) ^ (x * y * 83492791)) % 251
    picture[y > height // 2] = np.stack([noise] * 3, axis=2)[y > height // 2]
    for k in range(12):  # boxes, discs and bars of many sizes and colours
        size = max(4, min(height, width) // (2 + k % 5))
        top, left = (37 * k * height // 100) % height, (61 * k * width // 100) % width
        at_y, at_x = y - top, x - left
        inside = (at_y >= 0) & (at_y < size) & (at_x >= 0) & (at_x < size // (1 + k % 3))
        if k % 2:
            inside = at_y * at_y + at_x * at_x < size * size // 4
        picture[inside] = ((k * 97) % 256, (k * 181 + 60) % 256, (k * 53 + 120) % 256)
    return picture.astype(np.uint8)


def sampled(output: NDArray[Any]) -> NDArray[np.float32]:
    """Return the values of an output that are compared, `VALUES` or all, float32."""
    flat = output.reshape(-1)
    count = min(VALUES, flat.size)
    return flat[np.arange(count) * flat.size // max(1, count)].astype(np.float32)


def packed(values: NDArray[np.float32]) -> str:
    """Return values as text: little-endian float32 in base 64."""
    return base64.b64encode(values.astype('<f4').tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """Return the values of a text that `packed` made; raises ValueError where it is none."""
    return np.frombuffer(base64.b64decode(text, validate=True), '<f4')


def deviations(
    check: Sequence[Mapping[str, Any]], outputs: Sequence[NDArray[Any]]
) -> list[tuple[float, float]]:
    """Return of each output how far it is off, as root mean square, and how far it may be.

    Args:
        check: the manifest's section `quantization.check`.
        outputs: of the reference picture, here.

    Raises:
        ValueError: other outputs, or other shapes, than the check's.
    """
    found = []
    if len(check) != len(outputs):
        raise ValueError(f'{len(check)} outputs are recorded, the network has {len(outputs)}')
    for entry, output in zip(check, outputs, strict=True):
        wanted = unpacked(entry['values'])
        here = sampled(output)
        if wanted.shape != here.shape:
            raise ValueError(f'{wanted.size} values are recorded, the output has {here.size}')
        gap = float(np.sqrt(np.mean((here.astype(float) - wanted) ** 2))) if wanted.size else 0.0
        found.append((gap, float(entry['tolerance'])))
    return found
