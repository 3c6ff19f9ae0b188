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

"""Procedural, seamlessly repeating textures; each generator belongs to exactly one split."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.simulation.scene import Texture

SIZE = 128  # pixels; repeats over the texture's period

Weights = NDArray[np.float32]


def _noise(rng: np.random.Generator, cells: int) -> Weights:
    """Return smooth, periodic noise in 0…1."""
    grid = rng.random((cells, cells), dtype=np.float32)
    wrapped = np.pad(grid, 2, mode='wrap')
    scale = SIZE // cells
    image = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.clip(image[2 * scale : 2 * scale + SIZE, 2 * scale : 2 * scale + SIZE], 0, 1)


def _coordinates() -> tuple[Weights, Weights]:
    line: Weights = (np.arange(SIZE, dtype=np.float32) + 0.5) / np.float32(SIZE)
    return np.tile(line, (SIZE, 1)), np.tile(line[:, None], (1, SIZE))


def _concrete(rng: np.random.Generator) -> Weights:
    return 0.5 * _noise(rng, 8) + 0.3 * _noise(rng, 32) + 0.2 * _noise(rng, 64)


def _checker(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    cells = 2 * int(rng.integers(1, 4))
    return ((x * cells).astype(int) + (y * cells).astype(int)) % 2 + 0.2 * _noise(rng, 32)


def _tiles(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    cells = int(rng.integers(2, 5))
    joint = (np.minimum(x * cells % 1, y * cells % 1) < 0.06).astype(np.float32)
    shade = rng.random((cells, cells), dtype=np.float32)
    tiles = shade[(y * cells).astype(int), (x * cells).astype(int)]
    return np.where(joint > 0, 1.0, 0.4 * tiles + 0.15 * _noise(rng, 32))


def _stripes(rng: np.random.Generator) -> Weights:
    x, _ = _coordinates()
    count = int(rng.integers(2, 7))
    return (np.sin(2 * np.pi * count * x) > rng.uniform(-0.5, 0.8)) + 0.2 * _noise(rng, 16)


def _spots(rng: np.random.Generator) -> Weights:
    return np.clip(4 * (_noise(rng, 16) - rng.uniform(0.35, 0.6)), 0, 1)


def _corrugated(rng: np.random.Generator) -> Weights:
    x, _ = _coordinates()
    count = int(rng.integers(5, 11))
    return 0.5 + 0.5 * np.sin(2 * np.pi * count * x) * (0.8 + 0.2 * _noise(rng, 8))


def _plain(rng: np.random.Generator) -> Weights:
    return 0.25 * _noise(rng, 4) + 0.1 * _noise(rng, 64)


def _bricks(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    rows = 2 * int(rng.integers(2, 5))
    row = (y * rows).astype(int)
    shifted = x * rows / 2 + 0.5 * (row % 2)
    joint = (y * rows % 1 < 0.1) | (shifted % 1 < 0.05)
    shade = rng.random((rows, rows), dtype=np.float32)
    bricks = shade[row, shifted.astype(int) % rows]
    return np.where(joint, 1.0, 0.5 * bricks)


def _marble(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    waves = x + y + 0.6 * _noise(rng, 4) + 0.2 * _noise(rng, 16)
    return np.abs(np.sin(2 * np.pi * waves)) ** 0.5


def _planks(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    rows = int(rng.integers(3, 7))
    shade = rng.random(rows, dtype=np.float32)
    row = (y * rows).astype(int)
    grain = cv2.blur(np.tile(rng.random((SIZE, SIZE), dtype=np.float32), (1, 3)), (31, 1))
    seam = (y * rows % 1 < 0.07) | (np.abs(x - shade[row]) < 0.008)
    return np.where(seam, 1.0, 0.4 * shade[row] + 0.5 * grain[:, SIZE : 2 * SIZE])


def _terrazzo(rng: np.random.Generator) -> Weights:
    image = 0.2 * _noise(rng, 8)
    for _ in range(60):
        chip = np.zeros_like(image)
        points = rng.integers(8, SIZE - 8, 2) + rng.integers(-6, 7, (5, 2))
        cv2.fillConvexPoly(chip, cv2.convexHull(points.astype(np.int32)), 1.0)
        image = np.maximum(image, chip * rng.random())
    return image


def _rings(rng: np.random.Generator) -> Weights:
    x, y = _coordinates()
    radius = np.hypot(x - 0.5, y - 0.5)
    return (np.sin(2 * np.pi * radius * rng.integers(3, 7)) > 0) * 0.6 + 0.3 * _noise(rng, 16)


# Which generator paints for which split: disjoint, so that test surfaces are new to the network.
PATTERNS: dict[str, dict[str, Callable[[np.random.Generator], Weights]]] = {
    'train': {
        'plain': _plain,
        'concrete': _concrete,
        'checker': _checker,
        'tiles': _tiles,
        'stripes': _stripes,
        'spots': _spots,
        'corrugated': _corrugated,
    },
    'validation': {'bricks': _bricks, 'marble': _marble},
    'test': {'planks': _planks, 'terrazzo': _terrazzo, 'rings': _rings},
}


def paint(texture: Texture) -> NDArray[np.uint8]:
    """Return the texture as an RGB image, uint8 of shape (SIZE, SIZE, 3); same seed, same image."""
    generators = {name: paint for group in PATTERNS.values() for name, paint in group.items()}
    weights = generators[texture.pattern](np.random.default_rng(texture.seed))
    weights = np.clip(weights, 0, 1)[..., None]
    first, second = np.asarray(texture.colors)
    return np.round(255 * (first * (1 - weights) + second * weights)).astype(np.uint8)
