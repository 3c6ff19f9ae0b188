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

"""Confidence intervals of medians and means of few runs, where resampling covers too little.

A percentile bootstrap over 5 or 10 values, or over runs of which those of one round resemble each
other, promises 95 % and covers much less. Two intervals that keep what they say:

* order statistics: of n independent values the number below their distribution's median is
  binomial (n, ½) whatever the distribution, so that the r-th smallest and the r-th largest enclose
  it with probability 1 − 2 P(Bin(n, ½) ≤ r − 1) or more. Six values carry 95 %, five do not;
* Student's t, for as few as two values, where they are averages themselves (of blocks, of rounds)
  and so nearly normal.

Runs of one round depend on each other: the unit is the round, and each counts as its median.
Sources: Thompson (1936) for the first; Student (1908); the series of Student's distribution is
26.7.3 and 26.7.4 of Abramowitz and Stegun.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.errors import UserError

CONFIDENCE = 0.95


def values_needed(confidence: float = CONFIDENCE) -> int:
    """Return the fewest values whose smallest and largest enclose the median.

    2 · 2⁻ⁿ ≤ 1 − confidence.

    >>> values_needed(0.95), values_needed(0.99)
    (6, 8)

    Raises:
        UserError: a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    return max(2, math.ceil(1 - math.log2(1 - confidence)))


def median_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return an interval that holds the median, from order statistics; nothing is assumed.

    >>> median_interval([11, 3, 8, 5, 9, 4, 12, 6, 10, 7])
    (4.0, 11.0)

    Args:
        values: (n,) independent values, or (rounds, runs): the runs of a round depend on each
            other, and the interval is of the median of a round's median.
        confidence: the least coverage.

    Raises:
        UserError: fewer values than `values_needed`, or such that are not finite.
    """
    sample = np.sort(_of_rounds(values))
    n, needed = len(sample), values_needed(confidence)
    if n < needed:
        raise UserError(
            f'{n} values carry an interval of the median of {max(0.0, 1 - 2.0 ** (1 - n)):.2%}, '
            f'not {confidence:.4g}: measure at least {needed}, or use the mean (mean_interval)'
        )
    rank, tail = 0, 0.0  # the rank-th smallest has P(Bin ≤ rank − 1) below
    while 2 * (tail + math.comb(n, rank) / 2**n) <= 1 - confidence:
        tail += math.comb(n, rank) / 2**n
        rank += 1
    return float(sample[rank - 1]), float(sample[n - rank])


def median_interval_if_any(values: ArrayLike) -> tuple[float, float] | None:
    """Return `median_interval` at 95 %; None where there are fewer values than it takes.

    >>> median_interval_if_any([3.0, 1.0, 2.0]) is None
    True
    """
    return median_interval(values) if len(np.asarray(values)) >= values_needed() else None


def mean_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Student's interval of the mean of values that are nearly normal.

    >>> tuple(round(each, 2) for each in mean_interval([4.1, 4.4, 3.9, 4.0, 4.3]))
    (3.88, 4.4)

    Args:
        values: (n,) independent values, or (rounds, runs), each round counting as its median.
        confidence: of the interval.

    Raises:
        UserError: fewer than two values, or such that are not finite.
    """
    _check_confidence(confidence)
    sample = _of_rounds(values)
    if len(sample) < 2:
        raise UserError(f'{len(sample)} value: an interval needs at least 2')
    half = (
        student_quantile((1 + confidence) / 2, len(sample) - 1)
        * float(sample.std(ddof=1))
        / math.sqrt(len(sample))
    )
    return float(sample.mean()) - half, float(sample.mean()) + half


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's distribution with a whole number of degrees of freedom.

    >>> round(student_quantile(0.975, 4), 4)
    2.7764

    Raises:
        UserError: a probability outside [½, 1), or no degree of freedom.
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        raise UserError(
            f'quantile {probability} with {freedom} degrees of freedom: must be in [½, 1), ≥ 1'
        )
    low, high = 0.0, math.pi / 2  # of θ = atan(t / √ν)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _within(middle, freedom) >= 2 * probability - 1 else (middle, high)
        )
    return math.sqrt(freedom) * math.tan(high)


def _within(theta: float, freedom: int) -> float:
    """Return P(|T| ≤ √ν tan θ): a finite series for whole ν."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = sine * cosine if odd else sine
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (theta + total) if odd else total


def _of_rounds(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, float)
    if sample.ndim not in (1, 2) or not np.isfinite(sample).all():
        raise UserError(
            f'values of shape {sample.shape}: must be finite, one for each run or one row for each '
            'round'
        )
    return sample if sample.ndim == 1 else np.median(sample, axis=1)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')
