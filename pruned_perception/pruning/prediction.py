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

"""What a network will cost at which error: predicted from sensitivities, nothing pruned yet.

From a file of sensitivities alone: without the network, and without PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import (
    DELTA,
    Claim,
    distinct_variance,
    expected_distinct,
    sample_complexity,
    tail_sums,
)
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record
from pruned_perception.pruning.sensitivity import Sensitivity

POINTS = 25


@dataclass(frozen=True)
class Point:
    """At the error ε: expected channels of each group, parameters and MACs (of the network)."""

    epsilon: float
    channels: dict[str, float]
    parameters: float
    macs: float

    @property
    def vacuous(self) -> bool:
        """Whether the error bound says nothing: it allows the whole output to be lost."""
        return self.epsilon >= 1


@dataclass(frozen=True)
class Curve(Record):
    """Error against size, in ascending order of ε; sizes are expectations of random selection."""

    definition: str
    selection: str
    delta: float
    K: float
    dense_macs: int
    dense_parameters: int
    dense_channels: int
    points: tuple[Point, ...]

    def to_text(self) -> str:
        """Return a table: error, share of MACs, parameters and channels."""
        drawn = self.selection == 'random'
        title = f'{self.definition} sensitivity, {self.selection} selection'
        if drawn:
            title += f', δ = {self.delta:g}, K = {self.K:g}; expected sizes'
        rows = [
            (
                point.epsilon,
                point.macs / self.dense_macs,
                point.parameters / self.dense_parameters,
                sum(point.channels.values()) / max(self.dense_channels, 1),
                'vacuous' if point.vacuous else '',
            )
            for point in self.points
        ]
        header = 'error ε:10.4g | MACs:8.1% | parameters:.1% | channels:.1% | '
        return f'{title}\n{Table.under(header, rows).to_text()}'


def predict(
    sensitivity: Sensitivity,
    *,
    delta: float = DELTA,
    K: float | None = None,
    selection: str = 'random',
    epsilons: Sequence[float] | None = None,
) -> Curve:
    """Predict size as a function of the error ε that every consumer may have.

    With random selection, m(ε) draws of each group give U(m) distinct channels in expectation;
    groups are drawn independently, so that expected costs follow from the expectations (and, for
    a layer between channels of one group, from the variances) of the widths. With deterministic
    selection, the fewest channels are kept whose Σ_pruned s_j is at most ε. Groups that a consumer
    reads side by side have equal parts of its ε.

    Args:
        sensitivity: as estimated.
        delta: probability with which the bound may fail.
        K: how far future inputs may exceed the sensitivities, see `allocate`.
        selection: 'random' or 'deterministic'.
        epsilons: errors to predict for; by default 25 from where nothing is pruned to where one
            channel per group is left.

    Raises:
        PruningError: unknown selection, bad errors, or too small a calibration set.
    """
    claim = sensitivity.claim(delta, K)
    if selection not in ('random', 'deterministic'):
        raise PruningError(
            f'selection: random or deterministic can be predicted, not {selection!r}'
        )
    if selection == 'random':
        sensitivity.check_drawn()
    structure = sensitivity.structure
    beside = structure.side_by_side()
    units = {group.name: group.unit for group in structure.groups.prunable}
    values = {
        name: each.reshape(-1, units[name]).sum(1) for name, each in sensitivity.largest.items()
    }
    if epsilons is None:
        totals = {name: float(each.sum()) for name, each in values.items()}
        last = {n: claim.error(1, S) if selection == 'random' else S for n, S in totals.items()}
        top = max((last[name] * beside[name] for name in last), default=0.0) or 1.0
        epsilons = np.geomspace(1e-3 * top, top, POINTS).tolist()
    if not epsilons or not all(0 < epsilon < math.inf for epsilon in epsilons):
        raise PruningError(
            f'epsilons: at least one, each finite and > 0, are needed, got {list(epsilons)}'
        )
    points = []
    for epsilon in sorted(epsilons):
        means, variances = {}, {}
        for name, each in values.items():
            own, unit = epsilon / beside[name], units[name]
            if selection == 'random':
                runs, variance = _drawn(each, own, claim, spread=name in structure.squared)
            else:
                runs, variance = _kept(each, own), 0.0
            means[name], variances[name] = unit * runs, unit**2 * variance
        size = structure.size(means, variances)
        points.append(Point(epsilon, means, size.parameters, size.macs))
    return Curve(
        sensitivity.definition,
        selection,
        delta,
        claim.K,
        structure.macs,
        structure.parameters,
        sum(structure.channels.values()),
        tuple(points),
    )


def _drawn(
    values: NDArray[np.float64], epsilon: float, claim: Claim, *, spread: bool
) -> tuple[float, float]:
    """Return the expected number of distinct channels, and its variance, where it is wanted."""
    total = float(values.sum())
    if total == 0:
        return 1.0, 0.0
    m = sample_complexity(
        epsilon, total, claim.events, delta=claim.delta, K=claim.K, signed=claim.signed
    )
    variance = distinct_variance(values / total, m) if spread else 0.0
    return expected_distinct(values / total, m), variance


def _kept(values: NDArray[np.float64], epsilon: float) -> float:
    tails = tail_sums(values)
    return float(next(kept for kept in range(1, len(tails)) if tails[kept] <= epsilon))
