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

"""Sample complexity of sensitivity sampling: how many draws for which error, as functions.

The setting: a consumer's output z = Σ_j u_j is the sum of its input channels' contributions. m
channels are drawn independently with probabilities p_j = s_j / S, S = Σ_j s_j, and z is estimated
by ẑ = Σ_draws u_j / (m p_j), which is unbiased. Assume u_j ≤ K s_j z for a future input, where
s_j is the sensitivity measured on the calibration set.

Non-negative contributions (one sign quadrant of weights and activations): one draw's term Y lies
in [0, K S z / m] and has E[Y²] ≤ (K S z / m) · E[Y] = K S z² / m². Bernstein's inequality, both
tails, gives P(|ẑ − z| > ε z) ≤ 2 exp(−3 ε² m / (K S (6 + 2ε))). A union over N events (outputs ×
positions × quadrants of all consumers) at δ/2, where the other δ/2 pays for the assumption, gives

    m(ε) = ⌈(6 + 2ε) A / (3 ε²)⌉,    A = K S log(4 N / δ).

Signed contributions with |u_j| ≤ v_j ≤ K s_j V, V = Σ_j v_j: |Y − E[Y]| ≤ (K S + 1) V / m and
Var[Y] ≤ K S V² / m², hence, relative to V,

    m(ε) = ⌈(6 K S + 2 ε (K S + 1)) log(4 N / δ) / (3 ε²)⌉.

Sources: Baykal et al., Data-dependent coresets for compressing neural networks (ICLR 2019);
Liebenwein et al., Provable filter pruning (ICLR 2020), whose constants are derived again here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.pruning.errors import PruningError

DELTA = 1e-3  # with which bounds may fail, unless it is said

_STEPS, _GRID, _FINEST = 60, 256, 1e-9  # of Newton's method, and the grid that it begins on
_AT_ONCE, _TINY = 2.0**-60, 1e-300
_ROUNDING = 1e-12  # relative


def sample_complexity(
    epsilon: float,
    sensitivity_sum: float,
    events: int,
    *,
    delta: float,
    K: float = 1.0,
    signed: bool = False,
) -> int:
    """Return the number of draws m that suffices for the relative error `epsilon`.

    Args:
        epsilon: relative error > 0; of each sign quadrant, or of V where `signed`.
        sensitivity_sum: S ≥ 0, the sum of the sensitivities drawn from.
        events: N ≥ 1, the outputs × positions × quadrants that the claim is about, of all
            consumers together.
        delta: probability in (0, 1) that the claim fails.
        K: how far a future input may exceed the calibration set's sensitivities.
        signed: contributions of both signs at once, with the error relative to V.

    Raises:
        PruningError: an argument out of its domain.

    >>> sample_complexity(0.5, 4.0, 1000, delta=0.1)
    396
    >>> sample_complexity(0.5, 4.0, 1000, delta=0.1, signed=True)
    410
    >>> sample_complexity(0.05, 4.0, 1000, delta=0.1)
    34475
    """
    _check(0 < epsilon < math.inf, f'epsilon must be finite and > 0, got {epsilon}')
    spread, offset, logarithm = _terms(sensitivity_sum, events, delta, K, signed)
    m = (6 * spread + 2 * epsilon * offset) * logarithm / (3 * epsilon**2)
    # ε(m), rounded by a hair, asks for m draws again and not for one more.
    return math.ceil(m * (1 - _ROUNDING))


def relative_error(
    m: float,
    sensitivity_sum: float,
    events: int,
    *,
    delta: float,
    K: float = 1.0,
    signed: bool = False,
) -> float:
    """Return the relative error ε(m) that m > 0 draws guarantee: the inverse of m(ε).

    The root of 3 m ε² − 2 B ε − 6 A = 0, with A = K S log(4N/δ) and B = A, or (K S + 1) log(4N/δ)
    where `signed`. Values of 1 and more are vacuous. Arguments as of `sample_complexity`.

    >>> round(relative_error(396, 4.0, 1000, delta=0.1), 3)
    0.5
    """
    _check(0 < m < math.inf, f'm must be finite and > 0 draws, got {m}')
    spread, offset, logarithm = _terms(sensitivity_sum, events, delta, K, signed)
    A, B = spread * logarithm, offset * logarithm
    return (B + math.sqrt(B**2 + 18 * A * m)) / (3 * m)


@dataclass(frozen=True)
class Claim:
    """What a bound is about: N events, failing with probability δ, inputs within K · s_j."""

    events: int
    delta: float
    K: float = 1.0
    signed: bool = False

    def error(self, draws: float, total: float) -> float:
        """Return ε(m) of `draws` from sensitivities of the sum `total`."""
        if total == 0 or math.isinf(draws):
            return 0.0
        if draws <= 0:
            return math.inf
        return relative_error(
            draws, total, self.events, delta=self.delta, K=self.K, signed=self.signed
        )


def expected_distinct(probabilities: ArrayLike, m: float) -> float:
    """Return U(m) = Σ_j 1 − (1 − p_j)^m, the distinct channels expected in m draws."""
    return float((1 - _missed(_doubles(probabilities), m)).sum())


def distinct_variance(probabilities: ArrayLike, m: float) -> float:
    """Return the variance of the number of distinct channels in m draws.

    With q_j = (1 − p_j)^m the chance to miss channel j, and (1 − p_i − p_j)^m to miss two:
    Σ_j q_j (1 − q_j) + Σ_{i≠j} ((1 − p_i − p_j)^m − q_i q_j).
    """
    p = _doubles(probabilities)
    q = _missed(p, m)
    both = _missed(p[:, None] + p[None, :], m) - q[:, None] * q[None, :]
    np.fill_diagonal(both, 0.0)
    return max(0.0, float((q * (1 - q)).sum() + both.sum()))


def draws_for_distinct(probabilities: ArrayLike, wanted: float) -> float:
    """Return the m (a real number) with U(m) = `wanted`; infinite at the last possible channel.

    U never reaches the number of channels with p_j > 0, hence the infinity there.

    Raises:
        PruningError: more wanted than there are channels with p_j > 0, or less than none.
    """
    p = _doubles(probabilities)
    possible = int((p > 0).sum())
    _check(0 <= wanted <= possible, f'{wanted} distinct channels of {possible} with p > 0')
    return _inverse(p, [wanted])[0]


def draws_for_all(probabilities: ArrayLike) -> list[float]:
    """Return the m with U(m) = k for each k = 0 … the number of channels with p_j > 0."""
    p = _doubles(probabilities)
    possible = int((p > 0).sum())
    return _inverse(p, range(possible + 1))


def tail_sums(values: ArrayLike) -> list[float]:
    """Return, for k = 0 … c, the sum of all but the k highest values (c,)."""
    ascending = np.sort(_doubles(values)).tolist()
    return [0.0, *itertools.accumulate(ascending)][::-1]


def calibration_size(channels: int, *, delta: float, K_prime: float = 1.0) -> int:
    """Return how many calibration images suffice: ⌈K′ log(2 c / δ)⌉.

    If the distribution F_j of a channel's sensitivity on one image has F_j(M_j / K) ≤ exp(−1/K′),
    M_j its supremum, then |S| such images see M_j / K at least once, for all c channels together,
    with probability ≥ 1 − δ/2. K and K′ cannot be learnt from S itself.

    >>> calibration_size(1000, delta=0.01)
    13
    """
    _check(channels >= 1, f'channels must be ≥ 1, got {channels}')
    _check(0 < delta < 1, f'delta must be in (0, 1), got {delta}')
    _check(0 < K_prime < math.inf, f'K_prime must be finite and > 0, got {K_prime}')
    return math.ceil(K_prime * math.log(2 * channels / delta))


def expected_exceedances(channels: int, images: int) -> float:
    """Return how many of a layer's channels one more image is expected to exceed, at K = 1.

    If it is exchangeable with the `images` calibration images, each channel's maximum falls on it
    with probability 1 / (|S| + 1) at most.
    """
    return channels / (images + 1)


def _terms(
    sensitivity_sum: float, events: int, delta: float, K: float, signed: bool
) -> tuple[float, float, float]:
    _check(
        0 <= sensitivity_sum < math.inf,
        f'sensitivity_sum must be finite and ≥ 0, got {sensitivity_sum}',
    )
    _check(1 <= events < math.inf, f'events must be finite and ≥ 1, got {events}')
    _check(0 < delta < 1, f'delta must be in (0, 1), got {delta}')
    _check(0 < K < math.inf, f'K must be finite and > 0, got {K}')
    spread = K * sensitivity_sum
    return spread, spread + 1 if signed else spread, math.log(4 * events / delta)


def _doubles(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _missed(p: NDArray[np.float64], m: float) -> NDArray[np.float64]:
    if m == 0 or math.isinf(m):  # where m · log(1 − p) would be 0 · ∞
        return np.ones_like(p) if m == 0 else (p <= 0).astype(np.float64)
    with np.errstate(divide='ignore'):  # of p = 1, which one draw is sure of
        return np.exp(m * np.log1p(-p.clip(max=1.0)))


def _inverse(probabilities: NDArray[np.float64], wanted: Sequence[float]) -> list[float]:
    """Return the m with U(m) = k for each k in `wanted`.

    By Newton's method on log Σ_j (1 − p_j)^m, which is convex and falls: from the left it gets
    nearer with each step and never beyond, and from the place on a grid it takes few.
    """
    p = probabilities.clip(max=1.0)
    p = p[p > 0]
    missed = len(p) - np.array(wanted, dtype=np.float64)
    rates = np.log1p(-p[p < 1])  # what has p = 1 is drawn at once
    m = np.full_like(missed, _AT_ONCE)
    m[missed >= len(p)] = 0.0
    m[missed <= 0] = math.inf
    between = (missed > 0) & (missed < len(rates))
    if not between.any():
        return m.tolist()
    target = np.log(missed[between])
    # At the end of the grid even the rarest channel alone is missed less than that.
    end = (math.log(len(rates)) - target.min()) / -rates.max()
    grid = np.append(0.0, np.geomspace(end * _FINEST, end, _GRID))
    above = np.log(np.exp(grid[:-1, None] * rates).sum(1).clip(min=_TINY))  # falling
    place = np.searchsorted(-above, -target, side='right') - 1
    found = grid[place.clip(min=0)]
    for _ in range(_STEPS):
        left = np.exp(found[:, None] * rates)
        total = left.sum(1)
        step = (np.log(total) - target) * total / -(left @ rates)
        found += step.clip(min=0)
        if (step <= _ROUNDING * found).all():
            break
    m[between] = found
    return m.tolist()


def _check(right: bool, message: str) -> None:
    if not right:
        raise PruningError(message)
