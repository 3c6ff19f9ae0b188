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

"""What happens to pictures on a robot: seven kinds of damage at five severities, from a seed.

A corruption is a function of the *camera's* picture; whatever the robot does to pictures comes
after it. Sizes (of blurs, halos, clouds) are shares of the longer side, so that a severity looks
the same at every resolution. The random part depends on seed, corruption and picture alone, and
not on the severity: the five severities of a picture are the same accident, only worse.

The kinds follow Hendrycks and Dietterich, Benchmarking neural network robustness to common
corruptions and perturbations (ICLR 2019); formulas and strengths here are our own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.datasets.errors import DataError

VERSION = 1
"""Part of what identifies corrupted pictures: raise it with every change of what is done."""
SEVERITIES = (1, 2, 3, 4, 5)

_SIDE = 640.0  # pixels of the longer side for which lengths below are given
_FOG = 205.0  # brightness of dense fog
_OCTAVES = (2, 4, 8, 16)  # cells along a side of the clouds

Picture = NDArray[np.uint8]
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage; `levels` are its parameters at severities 1 … 5."""

    summary: str
    levels: tuple[Any, ...]
    apply: Callable[[Picture, Any, np.random.Generator], _Floats | Picture]


def corrupt(image: Picture, name: str, severity: int, seed: int | Iterable[int] = 0) -> Picture:
    """Return a damaged copy of a picture: same shape and type.

    Args:
        image: uint8 (H, W) or (H, W, 3) in any order of channels.
        name: of `CORRUPTIONS`.
        severity: 1 (hardly visible) … 5; 0 would be the picture itself and is no corruption.
        seed: number or numbers, for example the run's and the picture's.

    Raises:
        DataError: no such corruption or severity, or no such picture.
    """
    check_corruption(name, severity)
    _check_picture(image)
    numbers = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([zlib.crc32(name.encode()), *numbers])
    kind = CORRUPTIONS[name]
    return _rounded(kind.apply(image, kind.levels[severity - 1], rng))


def uniform_noise(image: Picture, level: float, seed: int | Iterable[int] = 0) -> Picture:
    """Return a copy with independent noise, uniform in −level … level grey levels, clipped.

    Raises:
        DataError: a level outside 0 … 255, or no such picture.
    """
    _check_picture(image)
    if not 0 <= level <= 255:
        raise DataError(f'uniform noise of ±{level} grey levels: must be in 0 … 255')
    numbers = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([zlib.crc32(b'uniform'), *numbers])
    return _rounded(image + level * (2 * rng.random(image.shape, dtype=np.float32) - 1))


def check_corruption(name: str, severity: int) -> None:
    """Raise DataError where there is no such corruption, or no such severity of it."""
    if name not in CORRUPTIONS:
        raise DataError(f'corruption {name!r} is unknown; there are {", ".join(CORRUPTIONS)}')
    if isinstance(severity, bool) or severity not in SEVERITIES:
        why = ': 0 is the picture itself, which is no corruption' if severity == 0 else ''
        raise DataError(
            f'severity {severity} of {name}{why}; give {SEVERITIES[0]} … {SEVERITIES[-1]}'
        )


def _check_picture(image: Picture) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise DataError(
            f'a picture is uint8 (height, width) or (height, width, 3), not {image.dtype} '
            f'{image.shape}'
        )


def _rounded(image: _Floats | Picture) -> Picture:
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _noise(image: Picture, level: tuple[float, float], rng: np.random.Generator) -> _Floats:
    """Add shot noise, of variance gain · brightness, and the sensor's own, σ; both as normal."""
    gain, sigma = level
    spread = np.sqrt(np.arange(256, dtype=np.float32) * np.float32(gain) + np.float32(sigma**2))
    return image + spread[image] * rng.standard_normal(image.shape, dtype=np.float32)


def _blur(image: Picture, radius: float, _: np.random.Generator) -> Picture:
    """Draw every point as a disc: out of focus."""
    radius *= _scale(image)
    half = int(np.ceil(radius))
    fine = (np.arange((2 * half + 1) * 5) - 2) / 5 - half  # five points a pixel
    disc = np.hypot(*np.meshgrid(fine, fine)) <= max(radius, 0.5)
    return _filtered(image, disc.reshape(2 * half + 1, 5, 2 * half + 1, 5).mean((1, 3)))


def _motion(image: Picture, length: float, rng: np.random.Generator) -> Picture:
    """Draw every point as a line, level within some degrees: the robot turns."""
    length *= _scale(image)
    angle = np.deg2rad(rng.normal(0, 12))
    half = int(np.ceil(length / 2))
    along = np.linspace(-length / 2, length / 2, 16 * half + 1)
    x, y = half + along * np.cos(angle), half + along * np.sin(angle)
    kernel = np.zeros((2 * half + 2, 2 * half + 2))
    left, top = x.astype(int), y.astype(int)
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = abs(1 - right - (x - left)) * abs(1 - below - (y - top))
        np.add.at(kernel, (top + below, left + right), share)
    return _filtered(image, kernel[:-1, :-1])


def _dark(image: Picture, level: tuple[float, float], rng: np.random.Generator) -> _Floats:
    """Leave a share of the light, with the sensor's noise."""
    share, sigma = level
    table = np.arange(256, dtype=np.float32) * np.float32(share)
    spread = np.sqrt(np.float32(0.3) * table + np.float32(sigma**2))
    return table[image] + spread[image] * rng.standard_normal(image.shape, dtype=np.float32)


def _glare(image: Picture, level: tuple[float, float, float], rng: np.random.Generator) -> _Floats:
    """Add a lamp in view: it saturates, has a halo, and veils the whole picture."""
    strength, size, veil = level
    height, width = image.shape[:2]
    side = max(height, width)
    at_x, at_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.05, 0.6) * height
    x = (np.arange(width, dtype=np.float32) - np.float32(at_x)) / side
    y = (np.arange(height, dtype=np.float32) - np.float32(at_y)) / side
    distance = np.hypot(x[None], y[:, None]) / np.float32(size)
    halo = 0.6 * np.exp(-(distance**2)) + 0.4 * np.exp(-distance / 2)
    return image + _per_channel(np.float32(strength) * halo + np.float32(veil), image)


def _jpeg(image: Picture, quality: int, _: np.random.Generator) -> Picture:
    """Compress and read again."""
    done, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    flag = cv2.IMREAD_GRAYSCALE if image.ndim == 2 else cv2.IMREAD_COLOR
    decoded = cv2.imdecode(data, flag)
    assert decoded is not None
    return np.asarray(decoded, np.uint8).reshape(image.shape)


def _fog(image: Picture, density: float, rng: np.random.Generator) -> _Floats:
    """Lose light by e^(−density · depth), and put the fog's own in its place.

    The depth is not known: it grows upwards, as on a floor seen from above it, in clouds.
    """
    height, width = image.shape[:2]
    clouds = np.zeros((height, width), np.float32)
    for cells in _OCTAVES:
        grid = rng.random((cells, cells), dtype=np.float32)
        clouds += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / cells
    clouds *= np.float32(1 / sum(1 / cells for cells in _OCTAVES))
    upwards = np.linspace(1.0, 0.5, height, dtype=np.float32)[:, None]
    depth = upwards * (np.float32(0.6) + np.float32(0.8) * np.clip(clouds, 0, 1))
    left = _per_channel(np.exp(np.float32(-density) * depth), image)
    return image * left + np.float32(_FOG) * (1 - left)


def _scale(image: Picture) -> float:
    return max(image.shape[:2]) / _SIDE


def _per_channel(plane: _Floats, image: Picture) -> _Floats:
    return plane if image.ndim == 2 else plane[..., None]


def _filtered(image: Picture, kernel: NDArray[np.float64]) -> Picture:
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8).reshape(image.shape)


CORRUPTIONS: dict[str, Corruption] = {
    'noise': Corruption(
        'shot noise (variance per grey level) and sensor noise (σ in grey levels)',
        ((0.3, 5.0), (0.8, 9.0), (1.6, 15.0), (3.0, 24.0), (5.0, 36.0)),
        _noise,
    ),
    'blur': Corruption(
        'out of focus: radius of the disc, pixels of 640', (1.2, 2.2, 3.4, 5.0, 7.0), _blur
    ),
    'motion': Corruption(
        'smeared by the robot’s turning: length, pixels of 640',
        (5.0, 9.0, 15.0, 23.0, 33.0),
        _motion,
    ),
    'dark': Corruption(
        'little light: share that is left, and σ of the noise',
        ((0.6, 2.0), (0.4, 2.5), (0.27, 3.0), (0.18, 3.5), (0.12, 4.0)),
        _dark,
    ),
    'glare': Corruption(
        'a lamp in view: its strength, its size (share of the longer side), and the veil',
        (
            (130.0, 0.06, 8.0),
            (200.0, 0.09, 20.0),
            (270.0, 0.13, 35.0),
            (330.0, 0.165, 50.0),
            (400.0, 0.2, 65.0),
        ),
        _glare,
    ),
    'jpeg': Corruption('compression: JPEG quality', (35, 20, 12, 7, 4), _jpeg),
    'fog': Corruption('fog: optical density of the picture', (0.3, 0.6, 1.0, 1.4, 1.9), _fog),
}
