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

"""The factor K by which a new image may exceed the calibration set's sensitivities.

The bounds of sampling suppose that g_j(x) ≤ K s_j for a new image x and all channels j, s_j the
largest g_j over the calibration images. No K can be derived from these images alone; at K = 1 a new
image exceeds some of many channels nearly always. With a second half of calibration images, from
which no s_j is taken, K is a conformal quantile: of the ratios

    R(x) = max_j g_j(x) / s_j

of n such images and the new one, each order is equally likely if they are exchangeable. Hence the
new ratio is above the r-th smallest with probability 1 − r / (n + 1) at most, which is δ/2 or less
for r = ⌈(n + 1)(1 − δ/2)⌉. The other δ/2 pays for the draws. Nothing else is assumed; but at
sampled positions neither g nor s is what it stands for: take all positions.

Source: Vovk, Gammerman and Shafer, Algorithmic learning in a random world (2005).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.pruning.errors import PruningError


def images_needed(delta: float) -> int:
    """Return the fewest images of the second half that can carry δ: ⌈2 / δ⌉ − 1.

    >>> images_needed(0.1), images_needed(0.01), images_needed(0.001)
    (19, 199, 1999)

    Raises:
        PruningError: δ outside (0, 1).
    """
    return math.ceil(2 / _exact(delta)) - 1


def conformal_rank(images: int, delta: float) -> int:
    """Return r = ⌈(n + 1)(1 − δ/2)⌉: K is the r-th smallest of n ratios.

    >>> conformal_rank(256, 0.1)
    245

    Raises:
        PruningError: δ that so few images cannot carry; it says how many would, and which δ these
            do.
    """
    rank = math.ceil((images + 1) * (1 - _exact(delta) / 2))
    if images < 1 or rank > images:
        least = f', or δ ≥ {2 / (images + 1):.3g} with these' if images > 1 else ''
        raise PruningError(
            f'δ = {delta:g} on {images} image(s) of the second half: needs '
            f'{images_needed(delta)}{least}'
        )
    return rank


def largest_ratios(sensitivities: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """Return (n,) max_j g_j / s_j of each image; 0/0 = 0, and infinite where s_j = 0 < g_j.

    Args:
        sensitivities: (n, c) g_j ≥ 0 of each image of the second half, over all consumers.
        measured: (c,) s_j ≥ 0, from the first half.

    Raises:
        PruningError: shapes that do not fit, negative numbers or such that are not finite.
    """
    g, s = np.asarray(sensitivities, float), np.asarray(measured, float)
    if g.ndim != 2 or s.shape != g.shape[1:]:
        raise PruningError(f'sensitivities of shape {g.shape} for {s.shape} measured ones')
    if not (np.isfinite(g).all() and np.isfinite(s).all() and (g >= 0).all() and (s >= 0).all()):
        raise PruningError('sensitivities must be finite and ≥ 0')
    ratios = np.divide(g, s, out=np.where(g > 0, math.inf, 0.0), where=s > 0)
    return ratios.max(1, initial=0.0)


def conformal_factor(ratios: ArrayLike, delta: float) -> float:
    """Return K: a new image's largest ratio exceeds it with probability δ/2 at most.

    >>> conformal_factor([1.1, 0.9, 1.7, 1.0, 1.3], delta=0.4)
    1.7

    Args:
        ratios: (n,) from `largest_ratios`, of images from which no s_j was taken.
        delta: δ in (0, 1); half of it is spent here.

    Raises:
        PruningError: δ that n cannot carry; ratios that are NaN or negative; a K that is infinite.
    """
    values = np.ravel(np.asarray(ratios, float))
    rank = conformal_rank(len(values), delta)
    if not (values >= 0).all():
        raise PruningError('ratios of sensitivities must be ≥ 0 and not NaN')
    K = float(np.partition(values, rank - 1)[rank - 1])
    if math.isinf(K):
        silent = int(np.isinf(values).sum())
        raise PruningError(
            f'{silent} of {len(values)} images use channels that no image of the first half uses: '
            'no factor covers that; take more images for the first half'
        )
    return K


def exceedance_bound(images: int, delta: float, *, confidence: float = 0.95) -> float:
    """Return the share of new images that exceeds K at most, for 95 % of all second halves.

    `conformal_factor` holds δ/2 on average over second halves. For a single one the share is, at
    most, Beta(n + 1 − r, r) distributed; this is its quantile. It is below δ from 6.3 / δ
    images on.

    >>> round(exceedance_bound(199, 0.01), 4), round(exceedance_bound(629, 0.01), 4)
    (0.0149, 0.01)

    Raises:
        PruningError: see `conformal_rank`; a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise PruningError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')
    from scipy import stats  # of which nobody else here has need

    rank = conformal_rank(images, delta)
    return float(stats.beta.ppf(confidence, images + 1 - rank, rank))


def _exact(delta: float) -> Fraction:
    """Return δ as it is written, so that no rounding moves a rank."""
    if not 0 < delta < 1:
        raise PruningError(f'delta must be in (0, 1), got {delta}')
    return Fraction(str(float(delta)))
