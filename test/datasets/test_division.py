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

"""Groups stay whole, whatever the shares and the seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.datasets import DataError
from pruned_perception.datasets.division import divide, grouped, tied

groups = st.lists(st.sampled_from('abcdefgh'), min_size=3, max_size=60)
shares = st.dictionaries(st.sampled_from(['train', 'val', 'test']), st.floats(0.01, 10), min_size=1)


@given(groups, shares, st.integers(0, 5))
def test_every_frame_is_in_one_split_and_every_group_too(
    groups: list[str], shares: dict[str, float], seed: int
) -> None:
    if len(set(groups)) < len(shares):
        with pytest.raises(DataError, match='groups stay whole'):
            divide(groups, shares, seed)
        return
    found = divide(groups, shares, seed)
    assert sorted(k for indices in found.values() for k in indices) == list(range(len(groups)))
    assert list(found) == list(shares) and all(found.values())
    owners = [{groups[k] for k in indices} for indices in found.values()]
    assert sum(map(len, owners)) == len(set(groups))
    assert divide(groups, shares, seed) == found


def test_shares_are_met_as_far_as_groups_allow() -> None:
    names = [str(k) for k in range(1000)]
    found = divide(names, {'train': 8, 'val': 1, 'test': 1}, 3)
    assert [len(found[name]) for name in ('train', 'val', 'test')] == [800, 100, 100]
    assert found != divide(names, {'train': 8, 'val': 1, 'test': 1}, 4)


@pytest.mark.parametrize('share', [0, -1, float('nan'), float('inf')])
def test_shares_are_above_zero(share: float) -> None:
    with pytest.raises(DataError, match='above 0'):
        divide(['a', 'b'], {'train': share, 'test': 1})


@given(st.lists(st.tuples(st.sampled_from('abcdef'), st.integers(0, 4)), max_size=20))
def test_frames_with_a_same_picture_are_of_one_group(pairs: list[tuple[str, int]]) -> None:
    names, pictures = [x for x, _ in pairs], [x for _, x in pairs]
    found = tied(names, pictures)
    for k in range(len(pairs)):
        for j in range(k):
            if names[k] == names[j] or pictures[k] == pictures[j]:
                assert found[k] == found[j]
    if len(set(pictures)) == len(pictures):
        assert len(set(found)) == len(set(names))


def test_groups_by_folder_by_pattern_or_none() -> None:
    names = ['hall_1/cam0/0.png', 'hall_1/cam1/0.png', 'yard_7/cam0/0.png']
    assert grouped(names, 'folder') == ['hall_1', 'hall_1', 'yard_7']
    assert grouped(names, 'picture') == names
    assert grouped(names, r'_(\d)/') == ['1', '1', '7']
    assert grouped(names, 'cam.') == ['cam0', 'cam1', 'cam0']
    for by, message in ((r'hall_\d', 'yard_7/cam0/0.png: has no group'), ('(', 'no regular')):
        with pytest.raises(DataError, match=message):
            grouped(names, by)
    with pytest.raises(DataError, match=r'0\.png: lies in no sub-folder'):
        grouped(['0.png'], 'folder')
