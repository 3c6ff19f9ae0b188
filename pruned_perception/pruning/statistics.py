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

"""Differences of pairs (seeds, frames, drives) with their intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from pruned_perception.pruning.errors import PruningError

_SMALLEST_LOG = -600.0  # of a p

Clusters = Sequence[Hashable] | NDArray[Any]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a − b over pairs (seeds), and its confidence interval."""

    pairs: int
    mean: float
    low: float
    high: float
    confidence: float
    images: int | None = None
    """Over how many images, too; None where the interval is over pairs alone."""
    p: float | None = None
    """Two-sided p where it is not Student's of the pairs."""

    @property
    def is_tie(self) -> bool:
        """Say whether the interval holds 0: neither is shown to be better."""
        return self.low <= 0 <= self.high

    @property
    def p_value(self) -> float:
        """Two-sided p that the mean is 0: by default of Student's test, from the interval."""
        if self.p is not None:
            return self.p
        half = (self.high - self.low) / 2
        if half == 0:
            return 1.0 if self.mean == 0 else 0.0
        quantile = stats.t.ppf((1 + self.confidence) / 2, self.pairs - 1)
        return float(2 * stats.t.sf(abs(self.mean) / half * quantile, self.pairs - 1))

    def to_text(self) -> str:
        """Return one line: mean, interval, pairs."""
        tie = ' (a tie)' if self.is_tie else ''
        return (
            f'{self.mean:+.4g}, {self.confidence:.4g} interval {self.low:+.4g} … {self.high:+.4g} '
            f'over {self.pairs} pairs{"" if self.images is None else f" × {self.images} images"}'
            f'{tie}'
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values of which those below α are all right at once with probability 1 − α.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, clusters: Clusters | None = None, confidence: float = 0.95
) -> PairedDifference:
    """Return the mean of a − b with Student's two-sided interval.

    Args:
        a: (n,) one number per seed, or per frame.
        b: (n,) the other method's, of the same seeds or frames.
        clusters: (n,) where pairs are not independent: the cluster of each; then the clusters'
            means are the pairs, each counting the same.
        confidence: of the interval.

    Raises:
        PruningError: fewer than two pairs, lengths that differ, numbers that are not finite, or
            a confidence outside (0, 1).
    """
    check_confidence(confidence)
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise PruningError(f'paired difference of shapes {first.shape} and {second.shape}')
    differences = first - second
    if not np.isfinite(differences).all():
        raise PruningError('paired difference: the numbers must be finite')
    if clusters is not None:
        members, sizes = _index(clusters, len(differences))
        differences = np.bincount(members, differences) / sizes
    n = len(differences)
    if n < 2:
        raise PruningError(f'paired difference: needs at least 2 pairs (seeds, clusters), got {n}')
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n)
    mean = float(differences.mean())
    return PairedDifference(n, mean, float(mean - half), float(mean + half), confidence)


def crossed_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """Return the mean of a − b with an interval that holds for other seeds and other images.

    Seeds (of training) and images are both drawn, and crossed: every network sees every image. The
    variance of the mean is that of the seeds' means plus that of the images' means, which counts
    what is of neither twice and is therefore not too small. Each part is widened by Student's
    quantile of its own degrees of freedom (Howe 1974), so that few seeds do not pass for many:
    half² = t²(S − 1) s²_seeds / S + t²(N − 1) s²_images / N. Resampling both, as one does with many
    of either (Owen 2007, The pigeonhole bootstrap), covers too little with few seeds.

    >>> right = np.array([[1, 1, 0, 1], [1, 1, 1, 1]])
    >>> found = crossed_difference(right, np.array([[1, 0, 0, 1], [1, 0, 0, 1]]))
    >>> found.mean, found.pairs, found.images
    (0.375, 2, 4)

    Args:
        a: (S, N) one number for each seed and image.
        b: (S, N) the other method's, of the same seeds and images.
        confidence: of the interval.

    Raises:
        PruningError: shapes that differ, fewer than two images, no seed, numbers that are not
            finite, or a confidence outside (0, 1). A single seed is allowed: the interval is then
            over images alone, of these two very networks.
    """
    check_confidence(confidence)
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise PruningError(f'difference of shapes {first.shape} and {second.shape}: must be (S, N)')
    differences = first - second
    if not np.isfinite(differences).all():
        raise PruningError('difference: the numbers must be finite')
    seeds, images = differences.shape
    if images < 2:
        raise PruningError(f'difference: needs at least 2 images, got {images}')
    mean = float(differences.mean())
    parts = [(differences.mean(0).var(ddof=1) / images, images - 1)]
    if seeds > 1:
        parts.append((differences.mean(1).var(ddof=1) / seeds, seeds - 1))

    def half(tail: float) -> float:
        return math.sqrt(sum(v * special.stdtrit(freedom, tail / 2) ** 2 for v, freedom in parts))

    low, high = _SMALLEST_LOG, 0.0  # of the p at which the interval just reaches 0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if half(math.exp(middle)) < abs(mean) else (middle, high)
    width, p = half(1 - confidence), math.exp(high)
    return PairedDifference(seeds, mean, mean - width, mean + width, confidence, images, p)


def check_confidence(confidence: float) -> None:
    """Raise PruningError unless it is a probability strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise PruningError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')


def _index(clusters: Clusters, n: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return each value's cluster, counted from 0, and the sizes of the clusters."""
    names = np.asarray(clusters)
    if names.shape != (n,):
        raise PruningError(f'clusters: {names.shape} names for {n} values; give one for each')
    if n == 0:
        raise PruningError('no values: statistics need at least one')
    _, members, sizes = np.unique(names, return_inverse=True, return_counts=True)
    return members, sizes.astype(float)
