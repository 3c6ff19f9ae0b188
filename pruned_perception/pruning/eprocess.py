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

"""Confidence bounds of a rate from whole drives, for any number and any lengths of them.

The setting: drive i has e_i events among n_i frames (or objects), 0 ≤ e_i ≤ n_i ≤ L, where the
longest drive L is declared beforehand. Drives are drawn independently, like those to come; nothing
is assumed of what happens within one. The rate is that of all frames to come,

    m* = E[e] / E[n],

not that of each single drive.

For a candidate m let X_i(m) = (m n_i − e_i) / L, so that X_i ≥ −(1 − m), and E[X_i(m)] ≤ 0 for
m ≤ m*. With a share c in (0, 1) of the largest stake that cannot lose everything, λ = c / (1 − m),

    W_k(m) = Π_{i ≤ k} (1 + λ X_i(m))

is non-negative and, for m ≤ m*, a supermartingale with W_0 = 1: by Ville's inequality (1939)
W_k(m*) ever reaches 1/α with probability α at most. So does any mean of such products over several
c, with weights fixed beforehand. The bound is

    B_k = min {m : W_k(m) ≥ 1/α}.

*It is one*: with r = 1 / (1 − m) a factor is 1 + c (r (n_i − e_i) − n_i) / L, which grows with r
and therefore with m: W_k is monotone in m, and all m ≥ B_k are rejected, no other. So B_k < m*
implies W_k(m*) ≥ 1/α, and

    P(B_k ≥ m* for all k) ≥ 1 − α:

drives may be added and the bound looked at again, as often as one likes, without a correction.

*It is never below the share of events seen*: for m = Σ e / Σ n the X_i sum to 0, and W_k(m) ≤ 1 by
the concavity of the logarithm.

*The order of the drives makes no difference*, since a product has none.

The shares. Up to some hundred drives that are not very different, nothing beats the largest share
throughout: what a drive may lose is limited by L, not by the variance. Where drives differ very
much, or are very many, smaller shares do better: of 400 drives at an intra-class correlation of .7,
c = .9 alone proves 18.3 %, twenty shares alike 14.0 %; but these cost 4 points at 20 usual drives.
The mean of .9 of c = .9 and .1 of its halves, quarters … is .4 points from the better one of both
at 20 drives (.8 where lengths differ), and 2 at most. Stakes that follow the variance of earlier
drives gain these .4, up to 1.6 where drives are extreme, and lose 6 with 8 unequal ones; but their
bound depends on the order in which drives are listed, so that one hold-out has many. An average
over orders does not, and is proven only for a number of drives that is fixed beforehand: no bound
that one may extend. `python -m studies.coverage` prints all of them.

Source of the method: Waudby-Smith and Ramdas, Estimating means of bounded random variables by
betting (JRSS B 2024); here for ratios of two sums over drives of unequal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.inference.evidence import log_wealth
from pruned_perception.pruning.errors import PruningError, TooFewDrivesError

FRACTIONS = tuple(0.9 / 2**j for j in range(8))
"""Shares c of the largest stake."""
WEIGHTS = (0.9, *[0.1 / 7] * 7)
_BISECTIONS = 50
_MOST_DRIVES = 1 << 40  # as a forecast: never

Drives = tuple[ArrayLike, ArrayLike]
"""(k,) events and (k,) counts of the drives."""


def log_evidence(
    events: ArrayLike, counts: ArrayLike, rate: ArrayLike, *, longest: float
) -> NDArray[np.float64]:
    """Return log W(rate), the evidence that the rate is lower than `rate`.

    Args:
        events: (…, k) events of each drive.
        counts: (…, k) frames (or objects) of each drive.
        rate: (…) in [0, 1), the m of each sample.
        longest: L ≥ all counts, declared beforehand.
    """
    return log_wealth(_terms(*_checked(events, counts, longest), rate, longest), FRACTIONS, WEIGHTS)


def rate_bound(
    events: ArrayLike,
    counts: ArrayLike,
    *,
    longest: float,
    confidence: float = 0.95,
    side: Literal['upper', 'lower'] = 'upper',
) -> float:
    """Return a one-sided confidence bound of a rate from whole drives, however long they are.

    It holds after every drive at once: add drives and call it again. Drives must be drawn
    independently of each other and like those that the claim is about, none longer than declared.
    Where the claim is about venues, a venue is the drive. See the module for the proof.

    >>> round(rate_bound([3] * 41, [60] * 41, longest=60), 4)
    0.1261
    >>> round(rate_bound([0] * 20, [60] * 20, longest=60), 4)
    0.1566
    >>> round(rate_bound([0] * 20, [60] * 20, longest=240), 4)
    0.4263

    Args:
        events: (k,) events of each drive.
        counts: (k,) frames (or objects) of each drive; one of 0 says nothing and is harmless.
        longest: L, declared before the drives were seen.
        confidence: of this bound alone; for several at once see `rate_bounds`.
        side: the lower bound is 1 − the upper one of what is no event.

    Returns:
        The bound, never on the wrong side of Σ events / Σ counts.

    Raises:
        PruningError: fewer than two drives that count anything, a drive longer than declared,
            numbers that are not whole or not 0 ≤ events ≤ counts, a confidence outside (0, 1).
    """
    happened, counted = _one_sample(events, counts, longest)
    if side == 'lower':
        return 1 - rate_bound(counted - happened, counted, longest=longest, confidence=confidence)
    return float(upper_bounds(happened, counted, longest=longest, confidence=confidence))


def least_bound(drives: int, confidence: float = 0.95) -> float:
    """Return the lowest bound that so many drives can prove: of the longest, and without any event.

    >>> [round(least_bound(k), 3) for k in (2, 7, 20, 60)]
    [0.804, 0.382, 0.157, 0.055]

    Args:
        drives: how many.
        confidence: as of `rate_bound`.

    Raises:
        PruningError: no drive, or a confidence outside (0, 1).
    """
    return float(upper_bounds([0] * drives, [1] * drives, longest=1, confidence=confidence))


def upper_bounds(
    events: ArrayLike, counts: ArrayLike, *, longest: float, confidence: float = 0.95
) -> NDArray[np.float64]:
    """Return (…) upper bounds as of `rate_bound`, for (…, k) drives: each sample on its own.

    Without its refusal of a single drive or of nothing counted: there the bound is nearly, or
    just, 1.
    """
    happened, counted = _checked(events, counts, longest)
    _check_confidence(confidence)
    needed = -math.log1p(-confidence)
    low, high = np.zeros(happened.shape[:-1]), np.ones(happened.shape[:-1])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        terms = _terms(happened, counted, middle, longest)
        enough = log_wealth(terms, FRACTIONS, WEIGHTS) >= needed
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def rate_bounds(
    statements: Mapping[str, Drives],
    *,
    longest: float | Mapping[str, float],
    confidence: float = 0.95,
) -> dict[str, float]:
    """Return upper bounds of several rates that all hold at once: each at 1 − α / statements.

    For slices of a hold-out, for several kinds of events, for candidates of which one will be
    chosen by these very drives. What is stated must be fixed before the drives are seen.

    >>> day, night = ([1, 0, 2, 1] * 10, [40] * 40), ([2, 3, 0, 0] * 10, [20] * 40)
    >>> bounds = rate_bounds({'day': day, 'night': night}, longest={'day': 40, 'night': 20})
    >>> {name: round(bound, 4) for name, bound in bounds.items()}
    {'day': 0.1221, 'night': 0.1576}

    Args:
        statements: for each name (k,) events and (k,) counts of the drives.
        longest: declared for all, or for each name; a slice never has more than the whole drive,
            and a smaller number declared for it gives a lower bound.
        confidence: that all bounds hold.

    Raises:
        PruningError: see `rate_bound`; it names the statement.
    """
    _check_confidence(confidence)
    if not statements:
        raise PruningError('no statement: give events and counts of at least one')
    level = 1 - (1 - confidence) / len(statements)
    bounds = {}
    for name, (events, counts) in statements.items():
        most = longest[name] if isinstance(longest, Mapping) else longest
        try:
            bound = rate_bound(events, counts, longest=most, confidence=level)
        except PruningError as error:
            raise PruningError(f'{name}: {error}') from error
        bounds[name] = bound
    return bounds


def drives_needed(
    events: ArrayLike,
    counts: ArrayLike,
    target: float,
    *,
    longest: float,
    confidence: float = 0.95,
) -> int:
    """Return how many more drives would bring the bound down to `target`: a forecast, no bound.

    It supposes that the drives to come are, taken together, like those seen: x more of k drives
    raise each product to the power 1 + x / k. About an even chance that so many suffice.

    >>> drives_needed([3] * 41, [60] * 41, 0.1, longest=60)
    23
    >>> drives_needed([3] * 41, [60] * 41, 0.14, longest=60)
    0

    Args:
        events: (k,) events of each drive.
        counts: (k,) frames (or objects) of each drive.
        target: the bound that is wanted, in (0, 1).
        longest: as of `rate_bound`.
        confidence: as of `rate_bound`.

    Raises:
        PruningError: see `rate_bound`; or a target that no number of drives like these reaches.
    """
    happened, counted = _one_sample(events, counts, longest)
    _check_confidence(confidence)
    if not 0 < target < 1:
        raise PruningError(f'the bound that is wanted must be in (0, 1), got {target}')
    needed = -math.log1p(-confidence)
    terms = _terms(happened, counted, target, longest)
    logs = np.array([np.log1p(c * terms).sum() for c in FRACTIONS])

    def enough(more: int) -> bool:
        powers = logs * (1 + more / len(terms))
        return float(np.logaddexp.reduce(powers + np.log(WEIGHTS))) >= needed

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_DRIVES:
            raise PruningError(
                f'a bound of {target:.1%} is out of reach: of the drives seen, '
                f'{happened.sum() / counted.sum():.1%} are events; ask for more than that'
            )
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _terms(
    events: NDArray[np.float64], counts: NDArray[np.float64], rate: ArrayLike, longest: float
) -> NDArray[np.float64]:
    """Return X / (1 − m), (…, k): at least −1, and growing with m."""
    r = 1 / (1 - np.asarray(rate, float)[..., None])
    return (r * (counts - events) - counts) / longest


def _one_sample(
    events: ArrayLike, counts: ArrayLike, longest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    happened, counted = _checked(np.ravel(events), np.ravel(counts), longest)
    showing = np.count_nonzero(counted)
    if showing < 2:
        of = f'{showing} of {len(counted)} drives' if len(counted) > 1 else f'{len(counted)} drive'
        raise TooFewDrivesError(
            f'only {of} to judge by: one drive says nothing of how drives differ, and it takes 20 '
            'without any event for a bound of 16 %; certify on more drives that show this, or '
            'leave it out'
        )
    return happened, counted


def _checked(
    events: ArrayLike, counts: ArrayLike, longest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    happened, counted = np.asarray(events, float), np.asarray(counts, float)
    if happened.shape != counted.shape or happened.ndim < 1:
        raise PruningError(
            f'{happened.shape} events, {counted.shape} counts: give both for each drive'
        )
    for name, values in (('events', happened), ('counts', counted)):
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            raise PruningError(f'{name}: must be whole numbers, got {values[wrong][0]:g}')
    wrong = (happened < 0) | (happened > counted)
    if wrong.any():
        raise PruningError(
            f'a drive with {happened[wrong][0]:g} events of {counted[wrong][0]:g}: must be '
            '0 ≤ events ≤ counts'
        )
    if not 0 < longest < math.inf or (counted > longest).any():
        raise PruningError(
            f'a drive of {counted.max():g}, declared are at most {longest:g}: declare the longest '
            'drive that the certificate shall speak of, or cut drives into such of that length'
        )
    return happened, counted


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise PruningError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')
