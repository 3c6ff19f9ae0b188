"""Confidence bounds of rates and differences, for independent frames and for frames of drives.

Frames of one drive resemble each other, so that a bound which counts frames promises too much.
Here whole clusters (drives, venues) are the unit; nothing is assumed of what happens in them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pruned_perception.pruning.errors import PruningError

Clusters = Sequence[Hashable] | NDArray[Any]
RESAMPLES = 20_000
_CHUNK = 1000  # resamples that are in memory at a time


@overload
def clopper_pearson(
    events: float, n: float, *, confidence: float = ..., side: Literal['upper', 'lower'] = ...
) -> float: ...


@overload
def clopper_pearson(
    events: float, n: float, *, confidence: float = ..., side: Literal['two-sided']
) -> tuple[float, float]: ...


def clopper_pearson(
    events: float,
    n: float,
    *,
    confidence: float = 0.95,
    side: Literal['upper', 'lower', 'two-sided'] = 'upper',
) -> float | tuple[float, float]:
    """Return the exact confidence bound of a probability after `events` in `n` trials.

    The upper bound is the p at which so few events have the probability 1 − confidence: with
    P(Bin(n, p) ≤ k) = P(Beta(k + 1, n − k) ≥ p), a quantile of that beta distribution. It is
    defined for numbers that are not whole, too. Source: Clopper and Pearson (1934).

    >>> round(clopper_pearson(0, 3000), 4)
    0.001

    Raises:
        PruningError: not 0 ≤ events ≤ n, no trial, or a confidence outside (0, 1).
    """
    check_confidence(confidence)
    if not 0 <= events <= n or not 0 < n < math.inf:
        raise PruningError(f'{events:g} events of {n:g} trials: must be 0 ≤ events ≤ trials > 0')
    if side == 'two-sided':
        each = (1 + confidence) / 2
        return (
            clopper_pearson(events, n, confidence=each, side='lower'),
            clopper_pearson(events, n, confidence=each, side='upper'),
        )
    if side == 'lower':
        return 1 - clopper_pearson(n - events, n, confidence=confidence)
    return 1.0 if events == n else float(stats.beta.ppf(confidence, events + 1, n - events))


def intraclass_correlation(values: ArrayLike, clusters: Clusters) -> float:
    """Return how alike the values of a cluster are, in [0, 1]: 0 independent, 1 all the same.

    The estimator of a one-way analysis of variance, (MSB − MSW) / (MSB + (n₀ − 1) MSW), with
    n₀ = (n − Σ m² / n) / (k − 1) for k clusters of unequal sizes m. Source: Donner (1986).

    Where the sample says nothing of it (all values equal, a single cluster, or clusters of one
    value each) the answer is 1: each cluster then counts as one decision, the worst case.

    Args:
        values: (n,) numbers or booleans.
        clusters: (n,) the cluster of each value.

    Raises:
        PruningError: no value, or lengths that differ.
    """
    values = np.asarray(values, float)
    members, sizes = _index(clusters, len(values))
    n, k = len(values), len(sizes)
    if k in (1, n) or np.ptp(values) == 0:
        return 1.0
    means = np.bincount(members, values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (k - 1)
    within = float(np.sum((values - means[members]) ** 2)) / (n - k)
    n0 = (n - float(sizes @ sizes) / n) / (k - 1)
    return min(1.0, max(0.0, (between - within) / (between + (n0 - 1) * within)))


def effective_sample_size(n: int, clusters: Clusters, icc: float) -> float:
    """Return how many independent values say as much about the mean: n / (1 + (m̄ − 1) ICC).

    m̄ = Σ m² / Σ m is the size of the cluster that a random value is in. Source: Kish (1965).

    Raises:
        PruningError: no value, lengths that differ, or an ICC outside [0, 1].
    """
    if not 0 <= icc <= 1:
        raise PruningError(f'the intra-class correlation must be in [0, 1], got {icc}')
    _, sizes = _index(clusters, n)
    return n / (1 + (float(sizes @ sizes) / n - 1) * icc)


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Clusters,
    *,
    confidence: float = 0.95,
    side: Literal['upper', 'lower'] = 'upper',
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return a one-sided confidence bound of the mean of values in [0, 1] from new clusters.

    Bayesian bootstrap (Rubin 1981) of whole clusters, to which one imagined cluster is added: the
    longest of all, its values all 1 for the upper bound, all 0 for the lower one. With a single
    value per cluster this is the bound of Gaffke (2005), which for yes and no is Clopper and
    Pearson's: Σ wᵢ yᵢ + w₀ with Dirichlet weights of k ones is Beta(k + 1, n − k). It never
    relies on an estimate of the intra-class correlation, which few clusters with rare events do
    not yield: without the imagined cluster, or with Clopper–Pearson on an estimated effective
    sample size, the bound is too low. Coverage for any distribution of the clusters'
    means is a conjecture (Learned-Miller and Thomas 2019); no counterexample is known.

    The price: after k clusters without an event the bound is 1 − (1 − confidence)^{1/k}, however
    many frames they have, since a drive of a kind not seen may change them all. New clusters are
    supposed to be drawn like these and to be no longer than the longest of these.

    Args:
        values: (…, n); leading dimensions are samples of their own.
        clusters: (n,) the cluster of each value.
        confidence: of each single bound.
        side: for an interval ask for both, at (1 + confidence) / 2.
        resamples: with 20,000 the level of a 95 % bound is within ±0.3 points of 95 %.
        seed: of the resampling.

    Returns:
        (…) the bounds.

    Raises:
        PruningError: no value, values outside [0, 1], lengths that differ, or a confidence
            outside (0, 1).
    """
    check_confidence(confidence)
    values = np.asarray(values, float)
    members, sizes = _index(clusters, values.shape[-1])
    if not np.all((values >= 0) & (values <= 1)):
        raise PruningError('cluster bootstrap: the values must be in [0, 1]')
    flat = values.reshape(-1, values.shape[-1])
    starts = np.cumsum(sizes, dtype=int) - sizes.astype(int)
    sums = np.add.reduceat(flat[:, np.argsort(members, kind='stable')], starts, axis=1)
    longest = float(sizes.max())
    extreme = longest if side == 'upper' else 0.0
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(flat)))
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        weights = generator.standard_exponential((count, len(sizes) + 1))
        total = weights[:, :-1] @ sizes + weights[:, -1] * longest
        events = weights[:, :-1] @ sums.T + weights[:, -1:] * extreme
        means[start : start + count] = events / total[:, None]
    level = confidence if side == 'upper' else 1 - confidence
    return np.quantile(means, level, axis=0).reshape(values.shape[:-1])


def rate_bound(
    events: ArrayLike,
    clusters: Clusters | None,
    *,
    confidence: float = 0.95,
    side: Literal['upper', 'lower'] = 'upper',
    seed: int = 0,
) -> float:
    """Return a one-sided bound of the rate of `events` (n,): exact, or by whole clusters."""
    happened = np.asarray(events, bool)
    if clusters is None:
        n = len(happened)
        return clopper_pearson(int(happened.sum()), n, confidence=confidence, side=side)
    return float(cluster_bootstrap(happened, clusters, confidence=confidence, side=side, seed=seed))


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a − b over pairs, and its confidence interval."""

    pairs: int
    mean: float
    low: float
    high: float
    confidence: float

    @property
    def is_tie(self) -> bool:
        """Say whether the interval holds 0: neither is shown to be better."""
        return self.low <= 0 <= self.high

    def to_text(self) -> str:
        """Return one line: mean, interval, pairs."""
        tie = ' (a tie)' if self.is_tie else ''
        return (
            f'{self.mean:+.4g}, {self.confidence:.4g} interval {self.low:+.4g} … {self.high:+.4g} '
            f'over {self.pairs} pairs{tie}'
        )


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
