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

"""Channels that can go from a grouped layer without taking one of its groups away.

Of a grouped convolution either whole groups go, or the same number of channels from each. Where the
channels are shuffled between two such layers, as in ShuffleNet, all groups hang together, and only
the latter is possible: sets of channels in which every group of every such layer has the same part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruned_perception.pruning.graph.labels import Ties

_TRIES = 500  # partial sets of one size that are looked at


class Balance(NamedTuple):
    """One side of a grouped layer: labels (groups, n), of which equally many go in each group."""

    layer: str
    labels: Tensor


def tie_evenly(ties: Ties, balances: Sequence[Balance]) -> None:
    """Tie channels to sets, as small as are found, that take as many from each group.

    Where the sets of two such sides are regular (each channel in one group of both), there are sets
    of one channel from each, whatever was taken before (König, Birkhoff). With more sides, what is
    left over in the end goes together.
    """
    _stay_together(ties, balances)
    for sides in _connected(ties, balances):
        why = f'by {sides[0].layer}, whose groups lose equally many'
        parts = _parts(ties, sides)
        while parts:
            found = _even_set(list(parts.values()), sides) or range(len(parts))
            roots = [list(parts)[index] for index in found]
            first = torch.full((len(roots),), roots[0])
            ties.tie(first, torch.tensor(roots), why, joins=True)
            for root in roots:
                del parts[root]


def _stay_together(ties: Ties, balances: Sequence[Balance]) -> None:
    """Let sides stay of which one channel does: what is left of its group would be too few."""
    waiting = list(balances)
    while True:
        fixed = [
            each
            for each in waiting
            if any(
                ties.why_stays(root) is not None for root in set(ties.roots(each.labels.flatten()))
            )
        ]
        if not fixed:
            return
        for each in fixed:
            ties.fix(each.labels, f'is in a group of {each.layer}, of which other channels stay')
        waiting = [each for each in waiting if not any(each is other for other in fixed)]


def _connected(ties: Ties, balances: Sequence[Balance]) -> list[list[Balance]]:
    """Return the sides that have channels in common, each partition once; but what stays."""
    found: list[tuple[set[int], list[Balance]]] = []
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for each in balances:
        partition = tuple(tuple(sorted(ties.roots(group))) for group in each.labels)
        roots = {root for group in partition for root in group}
        if partition in seen or any(ties.why_stays(root) is not None for root in roots):
            continue
        seen.add(partition)
        near = [(own, sides) for own, sides in found if own & roots]
        found = [other for other in found if not any(other[0] is own for own, _ in near)]
        merged = [side for _, sides in near for side in sides]
        found.append((roots.union(*(own for own, _ in near)), [*merged, each]))
    return [sides for _, sides in found]


def _parts(ties: Ties, sides: Sequence[Balance]) -> dict[int, NDArray[np.int64]]:
    """Return how many channels of each root every group of every side has, in one row."""
    width = sum(len(side.labels) for side in sides)
    parts: dict[int, NDArray[np.int64]] = {}
    column = 0
    for side in sides:
        for group in side.labels:
            for root in ties.roots(group):
                parts.setdefault(root, np.zeros(width, dtype=np.int64))[column] += 1
            column += 1
    return dict(sorted(parts.items()))


def _even_set(parts: Sequence[NDArray[np.int64]], sides: Sequence[Balance]) -> list[int] | None:
    """Return the indices of a set, with the first, in which the groups of each side are equal.

    None of the groups has more than is needed: first those sets are tried in which each has as many
    as the first part has in one, then larger ones.
    """
    ends = np.cumsum([len(side.labels) for side in sides])
    spans = [
        slice(int(end) - len(side.labels), int(end)) for side, end in zip(sides, ends, strict=True)
    ]
    tries = 0

    def grow(chosen: list[int], total: NDArray[np.int64], most: int) -> list[int] | None:
        nonlocal tries
        span = max(spans, key=lambda each: int(np.ptp(total[each])))
        if not np.ptp(total[span]):
            return chosen
        tries += 1
        group = span.start + int(total[span].argmin())
        ranked: dict[bytes, int] = {}  # of those that are alike, the first
        for index, part in enumerate(parts):
            if part[group] and index not in chosen and (total + part).max() <= most:
                ranked.setdefault(part.tobytes(), index)
        for index in ranked.values():
            if tries > _TRIES:
                break
            if (found := grow([*chosen, index], total + parts[index], most)) is not None:
                return found
        return None

    least = int(parts[0].max())
    for most in range(least, least + 1 + max(len(side.labels) for side in sides)):
        tries = 0
        if (found := grow([0], parts[0], most)) is not None:
            return found
    return None
