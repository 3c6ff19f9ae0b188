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

"""What a network got right image by image, beside the figures that count."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record


class Figures(dict[str, float]):
    """Figures by name; `outcomes` has a number for each image, whose mean is the first figure.

    An image's may be right or wrong; of a figure that is no mean over images, such as AP, it is the
    pseudo-value of a frame or of a group of frames. Two networks are compared image by image, so
    the order is always the same.
    """

    def __init__(self, figures: Mapping[str, float], outcomes: ArrayLike | None = None) -> None:
        super().__init__({str(name): float(value) for name, value in figures.items()})
        self.outcomes = None if outcomes is None else np.asarray(outcomes, float)
        if self.outcomes is None:
            return
        first = next(iter(self.values()), np.nan)
        if self.outcomes.ndim != 1 or not np.isclose(
            self.outcomes.mean() if self.outcomes.size else np.nan, first, rtol=1e-4, atol=1e-6
        ):
            raise PruningError(
                f'outcomes of shape {self.outcomes.shape}: must be one number an image, whose mean '
                f'is the first figure, {first:g}'
            )


def share_right(right: ArrayLike, name: str = 'accuracy') -> Figures:
    """Return the percentage of images (n,) bool that are right, and which of them are.

    >>> share_right([True, False, True, True])
    {'accuracy': 75.0}
    """
    outcomes = 100 * np.asarray(right, bool).astype(float)
    return Figures({name: float(outcomes.mean())}, outcomes)


@dataclass(frozen=True)
class Outcomes(Record):
    """Outcomes of images as files have them: a bit an image where there are but 0 and one other.

    >>> kept = Outcomes.of(np.array([100.0, 0.0, 100.0]))
    >>> kept.values, kept.step
    (array([100.,   0., 100.]), 100.0)
    """

    images: int
    step: float | None
    """What a bit stands for; None where there are more values: single precision."""
    data: bytes
    """Compressed by zlib."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Outcomes:
        """Return what is to be written of (n,) values."""
        different = [float(each) for each in np.unique(values) if each != 0]
        if len(different) == 1:
            return cls(len(values), different[0], zlib.compress(np.packbits(values != 0).tobytes()))
        return cls(len(values), None, zlib.compress(values.astype('<f4').tobytes()))

    @property
    def values(self) -> NDArray[np.float64]:
        """(images,) outcomes.

        Raises PruningError where the data are damaged.
        """
        try:
            data = zlib.decompress(self.data)
            if self.step is None:
                return np.frombuffer(data, '<f4', self.images).astype(float)
            bits = np.unpackbits(np.frombuffer(data, np.uint8))[: self.images]
            if len(bits) == self.images:
                return self.step * bits.astype(float)
        except (zlib.error, ValueError) as error:
            raise PruningError(f'outcomes of {self.images} images are damaged: {error}') from error
        raise PruningError(f'outcomes of {self.images} images are damaged: {len(bits)} bits')
