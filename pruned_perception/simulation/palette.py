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

"""Colours and surfaces, drawn from a split's own bands."""

from __future__ import annotations

import colorsys

import numpy as np

from pruned_perception.simulation.scene import Color, Surface, Texture
from pruned_perception.simulation.splits import Split
from pruned_perception.simulation.textures import PATTERNS

Range = tuple[float, float]

# Hue in degrees, saturation and value in 0…1.
WOOD = ((25.0, 40.0), (0.3, 0.6), (0.45, 0.85))
CARDBOARD = ((24.0, 38.0), (0.3, 0.55), (0.45, 0.85))
SAFETY_ORANGE = ((8.0, 28.0), (0.8, 1.0), (0.75, 1.0))
SAFETY_YELLOW = ((48.0, 75.0), (0.75, 1.0), (0.8, 1.0))
FIRE_RED = ((-8.0, 6.0), (0.8, 1.0), (0.55, 0.9))
SKIN = ((14.0, 32.0), (0.25, 0.6), (0.3, 0.95))
ANY = ((0.0, 360.0), (0.35, 1.0), (0.25, 0.95))
MUTED = ((0.0, 360.0), (0.0, 0.35), (0.2, 0.9))
DARK = ((0.0, 360.0), (0.0, 0.5), (0.05, 0.3))
PALE = ((0.0, 360.0), (0.0, 0.1), (0.8, 1.0))
METAL = ((200.0, 230.0), (0.0, 0.15), (0.4, 0.8))


def color(
    split: Split, rng: np.random.Generator, ranges: tuple[Range, Range, Range] = ANY
) -> Color:
    """Draw a colour from ranges of hue (degrees), saturation and value.

    Hue and value come from the split's bands: from the same ranges, no two splits draw the same.
    """
    hue, saturation, value = ranges
    return colorsys.hsv_to_rgb(
        split.uniform(rng, *hue) / 360 % 1, rng.uniform(*saturation), split.uniform(rng, *value)
    )


def surface(
    split: Split, rng: np.random.Generator, ranges: tuple[Range, Range, Range] = ANY
) -> Surface:
    """Draw a plain surface: its colour from `ranges`, its gloss at random."""
    return Surface(
        color(split, rng, ranges), specular=rng.uniform(0, 0.5), shininess=rng.uniform(0.05, 0.6)
    )


def textured(
    split: Split,
    rng: np.random.Generator,
    ranges: tuple[Range, Range, Range] = MUTED,
    half_period: Range = (0.5, 3.0),
) -> Surface:
    """Draw a surface with one of the split's textures; `half_period` is in metres."""
    patterns = sorted(PATTERNS[split.name])
    texture = Texture(
        pattern=patterns[rng.integers(len(patterns))],
        colors=(color(split, rng, ranges), color(split, rng, ranges)),
        seed=int(rng.integers(2**31)),
        half_period=rng.uniform(*half_period),
    )
    return Surface(texture=texture, specular=rng.uniform(0, 0.3), shininess=rng.uniform(0, 0.3))
