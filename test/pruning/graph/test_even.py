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

"""Channels that go from grouped layers without taking groups away."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pruned_perception.pruning.graph.even import Balance, tie_evenly
from pruned_perception.pruning.graph.labels import Ties


def _sets(ties: Ties, labels: Tensor) -> list[list[int]]:
    """Return the labels that go together."""
    found: dict[int, list[int]] = {}
    for label, root in zip(labels.tolist(), ties.roots(labels), strict=True):
        found.setdefault(root, []).append(label)
    return list(found.values())


def _is_even(labels: list[int], side: Tensor) -> bool:
    """Whether each group of a side (groups, n) has as many of them."""
    return len({sum(label in labels for label in group) for group in side.tolist()}) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 99))
def test_between_two_sides_one_of_each_group_goes(groups: int, each: int, seed: int) -> None:
    """However they are shuffled: König's theorem."""
    ties = Ties()
    labels = ties.new(groups * each)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    sides = [labels.reshape(groups, each), labels[order].reshape(groups, each)]
    tie_evenly(ties, [Balance(f'layer {n}', side) for n, side in enumerate(sides)])
    found = _sets(ties, labels)
    assert {len(members) for members in found} == {groups}
    assert all(_is_even(members, side) for members in found for side in sides)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((2, 3, 4)), st.integers(0, 99)), min_size=1, max_size=4))
def test_between_more_sides_what_goes_is_even_too(drawn: list[tuple[int, int]]) -> None:
    ties = Ties()
    labels = ties.new(24)
    ties.tie(labels[:4], labels[4:8], 'by hand', joins=True)  # not all are alone
    sides = []
    for groups, seed in drawn:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
        sides.append(labels[order].reshape(groups, -1))
    tie_evenly(ties, [Balance(f'layer {n}', side) for n, side in enumerate(sides)])
    assert all(_is_even(members, side) for members in _sets(ties, labels) for side in sides)


def test_where_one_stays_its_side_does_and_what_that_meets() -> None:
    ties = Ties()
    first, second, third = (ties.new(6) for _ in range(3))
    ties.fix(first[:1], 'asked to')
    both = torch.cat((first[3:], second[:3])).reshape(2, 3)
    tie_evenly(
        ties,
        [
            Balance('both', both),  # before what makes it stay
            Balance('first', first.reshape(2, 3)),
            Balance('third', third.reshape(3, 2)),
        ],
    )
    stay = {label for label in range(1, 19) if ties.why_stays(ties.roots(torch.tensor([label]))[0])}
    assert stay == {*first.tolist(), *second[:3].tolist()}
    assert (
        ties.why_stays(ties.roots(second)[0])
        == 'is in a group of both, of which other channels stay'
    )
    assert [len(members) for members in _sets(ties, third)] == [3, 3]
