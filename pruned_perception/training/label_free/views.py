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

"""Pictures as inputs of a bundle's network: as they are, and as random views without end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruned_perception.bundle import InputSpec
from pruned_perception.inference.preprocess import Preprocessor, place
from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.label_free.agreement import Picture
from pruned_perception.training.label_free.recipe import LabelFree

ALIKE = 1.0  # grey levels: mean difference of two pictures below which they show the same
STRETCH = 0.08


def inputs_of(spec: InputSpec, frames: Sequence[Picture], most: int, size: int) -> list[Tensor]:
    """Return batches of inputs of BGR pictures, at most so many, from all over them.

    Raises PruningError where there are no frames, or all show the same.
    """
    if not len(frames):
        raise PruningError('frames: there are none to fit to')
    prepare = Preprocessor(spec)
    chosen = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    found = [torch.from_numpy(prepare(frames[index], 'bgr')[0].copy()) for index in chosen]
    first = frames[chosen[0]]
    if all(_alike(first, frames[index]) for index in chosen):
        raise PruningError(
            f'frames: all {len(chosen)} that were looked at show the same; give frames of a robot '
            'that moves'
        )
    return list(torch.cat(found).split(size))


def _alike(one: Picture, other: Picture) -> bool:
    return one.shape == other.shape and float(cv2.absdiff(one, other).mean()) < ALIKE


class Views:
    """Endless batches of random views of the frames; each frame once, then again."""

    def __init__(
        self, spec: InputSpec, frames: Sequence[Picture], recipe: LabelFree, seed: int
    ) -> None:
        """Take the network's input, BGR pictures, the recipe's views and batches, and a seed."""
        self.spec, self.frames, self.recipe, self.seed = spec, frames, recipe, seed
        self.prepare = Preprocessor(spec)
        self.drawn = 0  # everything random follows from this number and the seed

    def __iter__(self) -> Iterator[Tensor]:
        """Return itself."""
        return self

    def __next__(self) -> Tensor:
        """Return inputs of the next views."""
        inputs = []
        for _ in range(self.recipe.batch):
            epoch, place_in = divmod(self.drawn, len(self.frames))
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.frames))
            view = self._view(
                self.frames[int(order[place_in])], np.random.default_rng([self.seed, 1, self.drawn])
            )
            inputs.append(torch.from_numpy(self.prepare(view, 'bgr')[0].copy()))
            self.drawn += 1
        return torch.cat(inputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream."""
        return {'drawn': self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place in the stream."""
        self.drawn = state['drawn']

    def _view(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Return a view of the size of the network's input, in BGR."""
        height, width = picture.shape[:2]
        at = place(self.spec, height, width)
        base = np.array([[at.scale_x, 0, at.offset_x], [0, at.scale_y, at.offset_y], [0, 0, 1]])
        size = (self.spec.width, self.spec.height)
        within = random_affine(size, self.recipe.scale, self.recipe.mirrored, rng)
        matrix = (within @ base)[:2]
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # between indices of pixels
        pad = self.spec.pad_value
        view = cv2.warpAffine(
            picture, matrix, size, flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(pad, pad, pad),
        )  # fmt: skip
        return recoloured(np.asarray(view, np.uint8), self.recipe.colours, rng)


def random_affine(
    size: tuple[int, int],
    scale: tuple[float, float],
    mirrored: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return a random map (3, 3) of an image of `size` (width, height) into one of that size.

    Where it is magnified, the view lies within the image; where it is made smaller, the image lies
    within the view.
    """
    factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    stretch = math.exp(rng.uniform(-STRETCH, STRETCH))
    scales = np.array([factor * stretch, factor / stretch])
    offset = np.array(size) * (1 - scales) * rng.random(2)
    matrix = np.array([[scales[0], 0, offset[0]], [0, scales[1], offset[1]], [0, 0, 1]])
    if rng.random() < mirrored:
        matrix = np.array([[-1.0, 0, size[0]], [0, 1, 0], [0, 0, 1]]) @ matrix
    return matrix


def recoloured(image: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Return the image under another light: gamma, contrast, gains of the channels, noise."""
    if not strength:
        return image
    ramp = np.arange(256) / 255
    gamma = math.exp(strength * rng.uniform(-0.35, 0.35))
    contrast = math.exp(strength * rng.uniform(-0.28, 0.28))
    gains = 1 + strength * (rng.uniform(-0.1, 0.1, 3) + rng.uniform(-0.2, 0.2))
    tones = (ramp[:, None] ** gamma - 0.5) * contrast + 0.5
    table = np.clip(tones * gains * 255, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    chance = rng.random()
    if chance < 0.1 * strength:
        return np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8)
    if chance < 0.25 * strength:
        noise = rng.integers(-12, 13, image.shape, np.int16)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
