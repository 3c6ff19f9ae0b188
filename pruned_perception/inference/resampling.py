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

"""The cluster bootstrap: whole scenes are drawn, since frames of one scene resemble each other.

Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

ENOUGH_GROUPS = 20
"""Rule of thumb: over fewer groups a bootstrap's percentile intervals are clearly too short."""
FEWEST_GROUPS = 6
"""Of fewer a bootstrap draws but a handful of values: not even all of them make 95 %."""


def clusters(groups: Sequence[Hashable]) -> tuple[list[Hashable], NDArray[np.intp]]:
    """Return the distinct groups in order of appearance and, per frame, the index of its own."""
    index: dict[Hashable, int] = {}
    members = np.array([index.setdefault(group, len(index)) for group in groups], np.intp)
    return list(index), members


def frame_weights(
    groups: Sequence[Hashable], *, resamples: int, seed: int = 0
) -> NDArray[np.int64]:
    """Return (resamples, n) how often each frame is drawn.

    Whole groups are drawn where there are enough of them; of fewer, each stays, and its frames are
    drawn: that is of more frames of these groups, and says nothing of a new one.

    Args:
        groups: of each of the n frames.
        resamples: how many.
        seed: same seed, same weights.
    """
    names, members = clusters(groups)
    generator = np.random.default_rng(seed)
    if _whole(len(names), len(groups)):
        drawn = generator.multinomial(
            len(names), np.full(len(names), 1 / len(names)), size=resamples
        )
        return np.asarray(drawn[:, members])
    weights = np.zeros((resamples, len(groups)), np.int64)
    for number in range(len(names)):
        own = np.flatnonzero(members == number)
        weights[:, own] = generator.multinomial(
            len(own), np.full(len(own), 1 / len(own)), size=resamples
        )
    return weights


def resampled_over(groups: int, frames: int, unit: str = 'group') -> str:
    """Return what `frame_weights` draws of so many groups and frames, in words.

    >>> resampled_over(60, 120, 'layout')
    'layouts'
    >>> resampled_over(7, 120, 'layout')
    'layouts (7 are few for that: the intervals are too short)'
    >>> resampled_over(1, 90, 'venue')
    'frames within each venue, as one is too few to resample: more such frames, no new venue'
    """
    if _whole(groups, frames):
        short = groups < min(ENOUGH_GROUPS, frames)
        return f'{unit}s' + (
            f' ({groups} are few for that: the intervals are too short)' if short else ''
        )
    few = f'{groups} are' if groups > 1 else 'one is'
    return (
        f'frames within each {unit}, as {few} too few to resample: more such frames, no new {unit}'
    )


def _whole(groups: int, frames: int) -> bool:
    """Say whether groups are drawn whole; where each frame is one, it is."""
    return groups >= min(FEWEST_GROUPS, frames)
