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

"""The best weight of a rank for data: what it loses, and why that adds to what channels lose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pruned_perception.pruning.lowrank.factorisation import (
    Factored,
    factorised,
    rank_losses,
    reduced_rank,
    truncate,
)

SEEDS = st.integers(0, 10**6)


def layer(seed: int, outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight, the covariance of its inputs and a metric of its outputs."""
    generator = torch.Generator().manual_seed(seed)
    weight, *roots = (
        torch.randn(*shape, generator=generator).double()
        for shape in ((outputs, inputs), (inputs, inputs + 2), (outputs, outputs + 2))
    )
    covariance, metric = (each @ each.T for each in roots)
    return weight, covariance, metric


def loss(change: Tensor, covariance: Tensor, metric: Tensor) -> float:
    return float((metric @ change @ covariance @ change.T).trace())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(1, 9))
def test_losses_fall_convexly_and_are_attained(seed: int, outputs: int, inputs: int) -> None:
    weight, covariance, metric = layer(seed, outputs, inputs)
    lost = rank_losses(weight, covariance, metric)
    full = min(weight.shape)
    scale = float(lost[0])

    assert len(lost) == full + 1
    assert scale == pytest.approx(loss(weight, covariance, metric))
    assert lost[-1] == 0
    steps = lost.diff()
    assert (steps <= 0).all()
    assert (steps.diff() >= -1e-9 * scale).all()
    for rank in range(1, full + 1):
        found = reduced_rank(weight, covariance, metric, rank, damping=0.0).product[0]
        attained = loss(weight - found, covariance, metric)
        assert attained == pytest.approx(float(lost[rank]), abs=1e-6 * scale)
        by_weight = loss(weight - truncate(weight[None], rank).product[0], covariance, metric)
        assert attained <= by_weight + 1e-9 * scale


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(2, 9), st.data())
def test_the_sum_of_both_losses_bounds_what_a_layer_loses_that_is_cut_and_made_two(
    seed: int, outputs: int, inputs: int, data: st.DataObject
) -> None:
    weight, covariance, metric = layer(seed, outputs, inputs)
    kept = sorted(data.draw(st.sets(st.integers(0, inputs - 1), min_size=1)))
    rank = data.draw(st.integers(1, min(outputs, len(kept))))
    within = covariance[kept][:, kept]
    fitted = torch.linalg.solve(within, covariance[kept] @ weight.T).T
    both = reduced_rank(fitted, within, metric, rank, damping=0.0).product[0]

    def wide(narrow: Tensor) -> Tensor:
        return torch.zeros_like(weight).index_copy_(1, torch.tensor(kept), narrow)

    channels = loss(weight - wide(fitted), covariance, metric)
    total = loss(weight - wide(both), covariance, metric)
    tail = float(rank_losses(fitted, within, metric)[rank])
    scale = loss(weight, covariance, metric)
    assert total == pytest.approx(channels + tail, abs=1e-6 * scale)
    assert tail <= float(rank_losses(weight, covariance, metric)[rank]) + 1e-9 * scale


def test_without_its_refit_the_sum_is_no_bound() -> None:
    """The two errors are not uncorrelated then: what the proof rests on is needed."""
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.1]]).double()
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    metric = torch.eye(2).double()
    unfitted = weight.clone()
    unfitted[:, 1] = 0
    fitted = weight[:, :1] + weight[:, 1:] * covariance[0, 1]
    channels = loss(weight - torch.cat((fitted, 0 * fitted), 1), covariance, metric)
    bound = channels + float(rank_losses(weight, covariance, metric)[1])
    assert loss(weight - unfitted, covariance, metric) > bound


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 2), st.booleans(), st.data())
def test_two_layers_compute_the_product_of_their_factors(
    seed: int, stride: int, bias: bool, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(5, 6, 3, stride, padding=1, bias=bias)
    model = nn.Sequential(conv, nn.ReLU()).eval()
    rank = data.draw(st.integers(1, 6))
    x = torch.randn(2, 5, 7, 8)
    both = factorised(model, {'0': rank})[0]

    assert isinstance(both, Factored)
    assert (both.rank, both.out_channels, both.bias is None) == (rank, 6, not bias)
    assert model[0] is conv
    first, second = (each.weight.detach().double().flatten(1) for each in both.both)
    product = (second @ first).reshape(conv.weight.shape).float()
    wanted = nn.functional.conv2d(x, product, conv.bias, stride, 1)
    torch.testing.assert_close(both(x), wanted, atol=1e-5, rtol=1e-5)
    if rank == 6:  # full: the layer as it was
        torch.testing.assert_close(both(x), conv(x), atol=1e-5, rtol=1e-5)
