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

"""Certified prune potential: how small a member may be and lose less than a margin, under shift.

Members of a family are tried from large to small, under each of several corruptions of the images.
D_i in [−1, 1] is the difference of error rates, member − dense, on layout i (drive, venue): one
number per layout, so that whatever happens within one is harmless. H₀: the member loses the margin
or more, E[D] ≥ margin. The e-value

    e = Σ_c w_c Π_i (1 + λ_c (margin − D_i)),   λ_c = c / (1 − margin),  c ≤ .9,

has, under H₀, a mean of 1 at most: its factors are ≥ .1, and independent with means ≤ 1. So it is
1/α or more with probability α at most.

Along one corruption: a member counts only if all larger ones do; each is tested at the whole α, and
one stops at the first e < 1/α. Over the corruptions, which share their layouts and may depend on
each other in any way: Holm's step-down for e-values. All are closed testing: a set I of hypotheses
is tested by the mean, over the corruptions in I, of the e-value of the largest member in I, which
is an e-value if all of I is true. A member j under corruption k is certified when every such set
that holds it is rejected; the hardest sets give

    e*_kj = min_S (min_{i ≤ j} e_ki + Σ_{l ∈ S} min_i e_li) / (1 + |S|),

over sets S of other corruptions. P(any false certification, anywhere) ≤ α.

Sources: Liebenwein et al., Lost in pruning (MLSys 2021); Vovk and Wang, E-values: calibration,
combination and applications (Annals of Statistics 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruned_perception.inference.evidence import log_wealth
from pruned_perception.pruning.eprocess import FRACTIONS, WEIGHTS
from pruned_perception.pruning.errors import PruningError


@dataclass(frozen=True)
class PrunePotential:
    """How far down the family the loss is certified to be below the margin, for one corruption."""

    certified: int
    """How many members, from the largest on."""
    evidence: tuple[float, ...]
    """Logarithm of e* of each member; certified where ≥ log(1/α)."""


def loss_evidence(differences: ArrayLike, *, margin: float) -> NDArray[np.float64]:
    """Return log e against "the member loses at least the margin".

    >>> round(float(np.exp(loss_evidence([0.0] * 100, margin=0.05))), 1)
    92.4
    >>> round(float(np.exp(loss_evidence([0.02] * 100, margin=0.05))), 1)
    15.0

    Args:
        differences: (…, n) error rate of the member − that of the dense net, on each layout.
        margin: of what may be lost, in (0, 1).

    Raises:
        PruningError: no layout, differences outside [−1, 1], or a margin outside (0, 1).
    """
    if not 0 < margin < 1:
        raise PruningError(f'the margin must be in (0, 1), for example 0.05; got {margin}')
    D = np.asarray(differences, float)
    if D.ndim < 1 or D.shape[-1] < 1:
        raise PruningError('differences: no layout; give the difference of error rates on each')
    if not (np.abs(D) <= 1).all():
        raise PruningError('differences of error rates must be in [−1, 1] and not NaN')
    return log_wealth((margin - D) / (1 - margin), FRACTIONS, WEIGHTS)


def layouts_needed(margin: float, loss: float = 0.0, *, tests: int = 1, alpha: float = 0.05) -> int:
    """Return how many layouts certify a member that loses `loss` on each: a forecast.

    Layouts that differ among each other take more.

    >>> layouts_needed(0.05), layouts_needed(0.05, 0.02), layouts_needed(0.05, tests=7)
    (67, 111, 110)

    Args:
        margin: in (0, 1).
        loss: below the margin.
        tests: corruptions that are not certified to their end.
        alpha: probability that anything is certified falsely.

    Raises:
        PruningError: a loss at or above the margin: no number of layouts would do.
    """
    if not 0 < alpha < 1 or tests < 1:
        raise PruningError(f'alpha {alpha}, {tests} tests: must be in (0, 1) and ≥ 1')
    if not -1 <= loss < margin:
        raise PruningError(
            f'a loss of {loss:g} cannot be certified to be below {margin:g}, whatever the number '
            'of layouts'
        )
    needed = math.log(tests / alpha)
    low, high = 0, 1
    while loss_evidence([loss] * high, margin=margin) < needed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = loss_evidence([loss] * middle, margin=margin) >= needed
        low, high = (low, middle) if enough else (middle, high)
    return high


def certify_potential(
    differences: Mapping[str, Sequence[ArrayLike]], *, margin: float, confidence: float = 0.95
) -> dict[str, PrunePotential]:
    """Return for each corruption how small a member is certified to lose less than the margin.

    With probability ≥ `confidence` nothing that is certified, under any corruption, is false.

    Args:
        differences: for each corruption (clean is one), for each member from the largest to the
            smallest, (n,) the differences on the layouts; see `loss_evidence`.
        margin: in (0, 1).
        confidence: that all certified is true.

    Raises:
        PruningError: no corruption or no member, or see `loss_evidence`.
    """
    if not 0 < confidence < 1:
        raise PruningError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')
    if not differences or not all(map(len, differences.values())):
        raise PruningError('prune potential: give at least one corruption, each with some member')
    logs = {
        name: [float(loss_evidence(each, margin=margin)) for each in members]
        for name, members in differences.items()
    }
    needed = -math.log1p(-confidence)
    return {
        name: PrunePotential(certified=sum(e >= needed for e in adjusted), evidence=tuple(adjusted))
        for name, adjusted in adjust_evidence(logs).items()
    }


def adjust_evidence(logs: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return log e* of each corruption's members from their log e; see the module.

    >>> two = adjust_evidence({'clean': [math.log(90), math.log(50)], 'noise': [math.log(10)]})
    >>> {name: [round(math.exp(e), 1) for e in adjusted] for name, adjusted in two.items()}
    {'clean': [50.0, 30.0], 'noise': [10.0]}
    """
    adjusted = {}
    for name, members in logs.items():
        others = np.sort([min(each) for other, each in logs.items() if other != name])
        sums = np.logaddexp.accumulate(np.concatenate([[-math.inf], others]))
        sizes = np.log(np.arange(1, len(sums) + 1))
        chain = np.minimum.accumulate(members)
        adjusted[name] = [float((np.logaddexp(each, sums) - sizes).min()) for each in chain]
    return adjusted
