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

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
from pruned_perception.training.recipe import Recipe

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


STRIDE = 32
"""Sides of inputs are multiples of it, in all detectors that are known here."""
MARGIN = 0.15
"""Share of a part's sides that the middle of what it is around keeps from its edges."""


def part_of(spec: InputSpec) -> tuple[int, int]:
    """Return height and width of a part of the input, two thirds of its sides.

    >>> from types import SimpleNamespace
    >>> part_of(SimpleNamespace(height=288, width=384))
    (192, 256)
    """
    height, width = (
        max(STRIDE, STRIDE * round(side * 2 / 3 / STRIDE)) for side in (spec.height, spec.width)
    )
    return min(height, spec.height), min(width, spec.width)


class ViewBatch(NamedTuple):
    """Inputs of so many views, and which batch of the stream it is."""

    number: int
    inputs: Tensor


class Views:
    """Endless batches of random views of the frames; each frame once, then again."""

    def __init__(
        self,
        spec: InputSpec,
        frames: Sequence[Picture],
        recipe: LabelFree,
        seed: int,
        things: Sequence[NDArray[Any]] = (),
    ) -> None:
        """Take what views are made of.

        Args:
            spec: the network's input.
            frames: BGR pictures.
            recipe: its views and batches.
            seed: of everything random.
            things: for each frame, the middles (n, 2) of what parts of it are around, x, y in its
                pixels; without them, parts are anywhere.
        """
        self.spec, self.frames, self.recipe, self.seed = spec, frames, recipe, seed
        self.things, self.size = things, (spec.height, spec.width)
        self.preparers: dict[tuple[int, int], Preprocessor] = {}
        self.drawn = 0  # everything random follows from this number and the seed

    def __iter__(self) -> Iterator[ViewBatch]:
        """Return itself."""
        return self

    def __next__(self) -> ViewBatch:
        """Return the next views."""
        number, inputs = self.drawn // self.recipe.batch, []
        prepare = self.preparers.setdefault(self.size, Preprocessor(_resized(self.spec, self.size)))
        for _ in range(self.recipe.batch):
            epoch, place_in = divmod(self.drawn, len(self.frames))
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.frames))
            view = self._view(
                int(order[place_in]), np.random.default_rng([self.seed, 1, self.drawn])
            )
            inputs.append(torch.from_numpy(prepare(view, 'bgr')[0].copy()))
            self.drawn += 1
        return ViewBatch(number, torch.cat(inputs))

    def follow(self, recipe: Recipe, fraction: float) -> None:
        """Make views of the size that this phase of the training has."""
        if recipe.phases:
            self.size = recipe.phase(fraction).size

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream."""
        return {'drawn': self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place in the stream."""
        self.drawn = state['drawn']

    def _view(self, index: int, rng: np.random.Generator) -> Picture:
        """Return a view of a frame, of the current size, in BGR."""
        picture = self.frames[index]
        height, width = picture.shape[:2]
        at = place(self.spec, height, width)
        base = np.array([[at.scale_x, 0, at.offset_x], [0, at.scale_y, at.offset_y], [0, 0, 1]])
        whole, size = (self.spec.width, self.spec.height), self.size[::-1]
        around = None
        if size != whole and len(self.things) and len(self.things[index]):
            found = self.things[index]
            around = (base @ [*found[rng.integers(len(found))], 1])[:2]
        within = random_affine(
            whole, self.recipe.scale, self.recipe.mirrored, rng, part=size, around=around
        )
        matrix = (within @ base)[:2]
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # between indices of pixels
        pad = self.spec.pad_value
        view = cv2.warpAffine(
            picture, matrix, size, flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(pad, pad, pad),
        )  # fmt: skip
        return recoloured(np.asarray(view, np.uint8), self.recipe.colours, rng)


def _resized(spec: InputSpec, size: tuple[int, int]) -> InputSpec:
    sides = dict(zip('HW', size, strict=True))
    shape = tuple(sides.get(axis, side) for axis, side in zip(spec.layout, spec.shape, strict=True))
    return dataclasses.replace(spec, shape=shape)


def random_affine(
    size: tuple[int, int],
    scale: tuple[float, float],
    mirrored: float,
    rng: np.random.Generator,
    *,
    part: tuple[int, int] | None = None,
    around: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return a random map (3, 3) of an image of `size` (width, height) into a view.

    Along each side, a view that is smaller than the magnified image lies within it, and one that is
    larger has it within.

    Args:
        size: of the image.
        scale: least and largest magnification.
        mirrored: share of maps that mirror.
        rng: of everything random.
        part: (width, height) of the view; by default the image's.
        around: (2,) x and y in the image: what the view has in it, and not at its edge, where it
            can.
    """
    factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    stretch = math.exp(rng.uniform(-STRETCH, STRETCH))
    scales = np.array([factor * stretch, factor / stretch])
    view = np.array(size if part is None else part)
    slack = view - np.array(size) * scales
    low, high = np.minimum(slack, 0), np.maximum(slack, 0)
    if around is not None:
        middle = scales * around
        low, high = (np.clip(share * view - middle, low, high) for share in (MARGIN, 1 - MARGIN))
    offset = low + (high - low) * rng.random(2)
    matrix = np.array([[scales[0], 0, offset[0]], [0, scales[1], offset[1]], [0, 0, 1]])
    if rng.random() < mirrored:
        matrix = np.array([[-1.0, 0, view[0]], [0, 1, 0], [0, 0, 1]]) @ matrix
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
