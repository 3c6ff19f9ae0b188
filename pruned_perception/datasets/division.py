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

"""Division of a data set into splits by groups: drives and venues stay whole."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePosixPath

from pruned_perception.datasets.errors import DataError

BY_PICTURE = 'picture'
BY_FOLDER = 'folder'


def grouped(names: Sequence[str], by: str) -> list[str]:
    """Return the group of each picture.

    Args:
        names: of the pictures, as paths relative to the folder that all lie in.
        by: `picture`: each is a group of its own; `folder`: its first sub-folder; or a regular
            expression that is looked for in the name, and whose first group, or all that it
            matches, is the name of the picture's group.

    Raises:
        DataError: no regular expression, or a picture without a group.

    >>> grouped(['hall_1/0.png', 'hall_1/1.png', 'yard_7/0.png'], r'^[a-z]+')
    ['hall', 'hall', 'yard']
    """
    if by == BY_PICTURE:
        return list(names)
    if by == BY_FOLDER:
        parts = [PurePosixPath(name).parts for name in names]
        if alone := [name for name, each in zip(names, parts, strict=True) if len(each) < 2]:
            raise DataError(f'{alone[0]}: lies in no sub-folder that could be its group')
        return [each[0] for each in parts]
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise DataError(f'groups by {by!r}: no regular expression: {error}') from error
    found = []
    for name in names:
        match = pattern.search(name)
        group = match and (match.group(1) if pattern.groups else match.group())
        if not group:
            raise DataError(f'{name}: has no group: {by!r} is not in its name')
        found.append(group)
    return found


def tied(groups: Sequence[str], same: Sequence[Hashable]) -> list[str]:
    """Return groups of which those that have a picture in common are one.

    Args:
        groups: of each frame.
        same: of each frame what is equal where the pictures are.

    >>> tied(['a', 'b', 'c', 'b'], [1, 2, 3, 1])
    ['a', 'a', 'c', 'a']
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[Hashable, str] = {}
    for group, key in zip(groups, same, strict=True):
        one, other = sorted((root(first.setdefault(key, group)), root(group)))
        parent[other] = one
    return [root(group) for group in groups]


def divide(
    groups: Sequence[str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[int]]:
    """Return for each split the indices of its frames, in order; groups stay whole.

    The largest groups are dealt first, those of a size in random order, each to the split that
    lacks most of its share.

    Args:
        groups: of each frame.
        shares: of the frames, by the names of the splits; relative to their sum.
        seed: same seed, same division.

    Raises:
        DataError: shares that are no positive numbers, or fewer groups than splits.

    >>> divide(['a', 'a', 'b', 'c'], {'train': 0.5, 'test': 0.5})
    {'train': [0, 1], 'test': [2, 3]}
    """
    if not shares or not all(0 < share < float('inf') for share in shares.values()):
        raise DataError(f'shares {dict(shares)}: numbers above 0 are needed')
    sizes = Counter(groups)
    if len(sizes) < len(shares):
        raise DataError(
            f'{len(sizes)} groups cannot be divided into {len(shares)} splits: groups stay whole'
        )
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -sizes[group])
    total = sum(shares.values())
    wanted = {name: len(groups) * share / total for name, share in shares.items()}
    given = dict.fromkeys(shares, 0)
    split_of: dict[str, str] = {}
    for place, group in enumerate(order):
        empty = [name for name in shares if given[name] == 0]
        # The last groups go to those that have none.
        among = empty if len(order) - place <= len(empty) else list(shares)
        name = max(among, key=lambda each: wanted[each] - given[each])
        split_of[group] = name
        given[name] += sizes[group]
    return {
        name: [k for k, group in enumerate(groups) if split_of[group] == name] for name in shares
    }
