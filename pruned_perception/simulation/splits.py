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

"""How training, validation and test are kept apart, and yet remain the same task.

Every continuous quantity that decides a scene's looks (hue, brightness, direction and strength of
lights, size of the hall) is drawn from *bands*: its range is cut into 24 equal bands, of which
test owns every sixth, validation every sixth, and training the others. So no value that a quantity
takes in one split is taken by it in another, while each split's values lie between those of the
others. Discrete choices (texture generators) are dealt out by name in `textures`; layouts differ
by construction, since a split's random streams are seeded with its name.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pruned_perception.errors import UserError

BANDS = 24


@dataclass(frozen=True)
class Split:
    """One part of the data, with the bands of every range that are its own."""

    name: str
    bands: tuple[int, ...]

    def rng(self, *path: int) -> np.random.Generator:
        """Return the random stream of this split and of a path of numbers (seed, layout, …)."""
        return np.random.default_rng([zlib.crc32(self.name.encode()), *path])

    def uniform(self, rng: np.random.Generator, low: float, high: float) -> float:
        """Draw from this split's bands of [low, high), uniformly."""
        band = self.bands[rng.integers(len(self.bands))]
        return low + (high - low) * (band + rng.random()) / BANDS


SPLITS: dict[str, Split] = {
    'train': Split('train', tuple(k for k in range(BANDS) if k % 6 not in (2, 5))),
    'validation': Split('validation', tuple(k for k in range(BANDS) if k % 6 == 5)),
    'test': Split('test', tuple(k for k in range(BANDS) if k % 6 == 2)),
}


def split_named(name: str) -> Split:
    """Return a split by its name.

    Raises
    ------
    UserError
        If there is no split of that name.
    """
    try:
        return SPLITS[name]
    except KeyError:
        raise UserError(f'split {name!r} is unknown; choose one of {", ".join(SPLITS)}') from None
