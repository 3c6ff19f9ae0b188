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

"""Global response norms: how they are told, and what is left of them."""

import pytest
import torch
from networks import ResponseNorm
from torch import Tensor, nn

from pruned_perception.pruning import find_groups
from pruned_perception.pruning.graph.response import keep_response, response_axis


class _Instance(nn.Module):
    """Of the same form, but by each channel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[:, None, None] * x + self.bias[:, None, None]


@pytest.mark.parametrize(('axis', 'found'), [(1, -3), (3, -1)])
def test_it_is_told_by_what_it_computes(axis: int, found: int) -> None:
    assert response_axis(ResponseNorm(6, axis)) == found


@pytest.mark.parametrize(
    'other',
    [_Instance(), nn.LayerNorm(6), nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.Linear(6, 6),
     nn.Sequential(ResponseNorm(6, 1))],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_others_are_not_taken_for_one(other: nn.Module) -> None:
    assert response_axis(other) is None


def test_before_training_nothing_shows_and_it_stays_whole() -> None:
    norm = ResponseNorm(6, 1)
    nn.init.zeros_(norm.weight)
    assert response_axis(norm) is None
    model = nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.Conv2d(6, 4, 1))
    assert 'mixed' in find_groups(model, (torch.rand(1, 3, 4, 4),)).not_pruned['0']


def test_what_is_left_computes_what_the_whole_does_beside_zeros() -> None:
    whole, part = ResponseNorm(6, 1), ResponseNorm(4, 1)
    part.load_state_dict({name: each[:4] for name, each in whole.state_dict().items()})
    keep_response(part, 6, 4)
    x = torch.rand(2, 6, 3, 3)
    x[:, 4:] = 0
    assert torch.allclose(part(x[:, :4]), whole(x)[:, :4], rtol=1e-5, atol=1e-6)
