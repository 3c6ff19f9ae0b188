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

"""A structure says what a network costs at any widths."""

from __future__ import annotations

import json

import networks
import pytest
import torch
from torch import Tensor, nn

from pruned_perception.pruning import Structure, count, slice_channels, trace
from pruned_perception.pruning.structure import InputSpec

KINDS = pytest.mark.parametrize('kind', networks.ALL, ids=lambda kind: kind.__name__)


class Loop(nn.Module):
    """A layer between channels of one group, and one between two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.after, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.after(x + self.inner(x)))


LOOP = (torch.rand(1, 3, 5, 5),)


def dense(structure: Structure) -> tuple[int, int]:
    return structure.macs, structure.parameters


@KINDS
def test_size_at_the_dense_widths_is_that_of_the_network(kind: type[nn.Module]) -> None:
    model = networks.build(kind)
    structure = trace(model, networks.INPUT)
    cost = count(model, networks.INPUT)
    assert structure.exact_size(structure.channels) == (cost.macs, cost.parameters)
    assert structure.exact_size({}) == dense(structure) == (cost.macs, cost.parameters)


@KINDS
def test_structures_survive_json(kind: type[nn.Module]) -> None:
    structure = trace(networks.build(kind), networks.INPUT)
    again = Structure.from_dict(json.loads(json.dumps(structure.to_dict())))
    assert again == structure


def test_sizes_of_a_loop_as_by_hand() -> None:
    structure = trace(Loop(), LOOP)
    assert structure.channels == {'stem': 8, 'after': 4}
    # 25 positions; weights of stem, inner, after and head at k and m channels; two biases.
    for k, m in ((8, 4), (5, 4), (1, 3)):
        weights = 3 * k + k * k + k * m + 2 * m
        assert structure.exact_size({'stem': k, 'after': m}) == (25 * weights, weights + m + 2)


def test_expected_size_needs_the_variance_where_a_layer_reads_and_makes_one_group() -> None:
    structure = trace(Loop(), LOOP)
    # Half the time 2 channels and half the time 6: mean 4, variance 4.
    exact = [structure.size({'stem': k, 'after': 3}) for k in (2, 6)]
    found = structure.size({'stem': 4, 'after': 3}, {'stem': 4.0, 'after': 0.0})
    assert found.macs == pytest.approx(sum(each.macs for each in exact) / 2)
    assert found.parameters == pytest.approx(sum(each.parameters for each in exact) / 2)
    assert structure.size({'stem': 4, 'after': 3}).macs == pytest.approx(found.macs - 25 * 4)


def test_a_layer_of_two_groups_shrinks_with_each() -> None:
    model = networks.build(networks.PaddedShortcut)
    structure = trace(model, networks.INPUT)
    (outer,) = (term for term in structure.terms if term.layer == 'outer.0')
    assert outer.outputs == (('stem.0', 0.5),)
    kept = {'stem.0': [0, 3, 4], 'inner.0': list(range(7))}
    small = count(slice_channels(model, networks.INPUT, kept), networks.INPUT)
    widths = {name: len(each) for name, each in kept.items()}
    assert structure.exact_size(widths) == (small.macs, small.parameters)


def test_groups_that_are_taken_out_stay_whole() -> None:
    structure = trace(Loop(), LOOP)
    rest = structure.without({'stem': 'for a reason'})
    assert rest.channels == {'after': 4}
    assert rest.groups.not_pruned['inner'] == 'for a reason'
    assert rest.exact_size({'after': 2}) == structure.exact_size({'stem': 8, 'after': 2})
    assert rest.exact_size({'after': 2, 'stem': 1}) == rest.exact_size({'after': 2})
    assert list(rest.readers()) == ['head']


def test_readers_are_the_layers_that_mix_channels() -> None:
    structure = trace(networks.build(networks.Depthwise), networks.INPUT)
    readers = structure.readers()
    assert list(readers) == ['point', 'head'], 'a depthwise layer passes its channels on'
    assert [group.name for group, _ in readers['point']] == ['stem.0']


def test_groups_that_are_read_side_by_side_are_counted() -> None:
    structure = trace(networks.build(networks.Concatenation), networks.INPUT)
    wanted = {'stem.0': 1, 'left.0': 2, 'right.0': 2, 'merge.0': 1}
    assert structure.side_by_side() == wanted
    # Where one of them is kept whole, it loses nothing.
    assert structure.without({'left.0': 'kept'}).side_by_side()['right.0'] == 1


def test_inputs_are_described_for_one_example() -> None:
    spec = InputSpec.of(torch.zeros(7, 3, 5, dtype=torch.float16))
    assert spec == InputSpec((1, 3, 5), 'float16')
    assert spec.example().shape == (1, 3, 5)
    assert spec.example().dtype == torch.float16
