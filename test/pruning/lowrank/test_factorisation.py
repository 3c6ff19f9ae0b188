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

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pruned_perception.pruning.lowrank.factorisation import (
    error_bound,
    factored_layer,
    relative_error,
    relative_errors,
    slices,
    truncate,
)

GEOMETRIES = {
    'plain': {},
    'stride': {'stride': 2},
    'uneven stride and padding': {'stride': (2, 1), 'padding': (0, 2)},
    'padding': {'padding': 1},
    'dilation': {'dilation': 2, 'padding': 2},
    'same': {'padding': 'same', 'dilation': 2},
    'reflection': {'padding': 1, 'padding_mode': 'reflect'},
    'kernel': {'kernel_size': (1, 5), 'padding': (0, 2)},
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def _convolution(weight: Tensor, **geometry: object) -> nn.Conv2d:
    """Return a convolution of 8 to 12 channels with this weight, of (12, 8, κ)."""
    layer = nn.Conv2d(8, 12, **({'kernel_size': 3} | geometry))
    layer.weight.data = weight.reshape(layer.weight.shape).float()
    return layer


@pytest.mark.parametrize('groups', [1, 2, 8])
@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
@torch.no_grad()
def test_factors_compute_what_the_layer_with_their_product_does(
    geometry: dict, groups: int
) -> None:
    taps = math.prod(geometry.get('kernel_size', (3, 3)))
    layer = _convolution(_normal(12, 8, taps), **geometry)
    factors = truncate(slices(layer, groups), 2)
    product = torch.cat(tuple(factors.product), dim=1)  # slices side by side: (f, c κ)
    emulated = _convolution(product, **geometry)
    emulated.bias.data = layer.bias.data
    x = _normal(2, 8, 11, 9).float()
    factored = factored_layer(layer, factors, layer.bias)(x)
    assert (factored - emulated(x)).abs().max() <= 1e-5 * factored.abs().max()
    assert (factored - layer(x)).abs().max() > 0.1, 'nothing was cut: this proves nothing'


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('geometry', GEOMETRIES.values(), ids=GEOMETRIES)
@torch.no_grad()
def test_layer_of_exactly_rank_r_is_reproduced_at_rank_r(geometry: dict, groups: int) -> None:
    taps = math.prod(geometry.get('kernel_size', (3, 3)))
    parts = [_normal(12, 3, seed=i) @ _normal(3, 8 // groups * taps, seed=9 - i) for i in (0, 1)]
    layer = _convolution(torch.cat(parts[:groups], dim=1), **geometry)
    x = _normal(2, 8, 11, 9).float()
    largest = layer(x).abs().max()
    three, two = (
        (factored_layer(layer, truncate(slices(layer, groups), rank), layer.bias)(x) - layer(x))
        .abs()
        .max()
        for rank in (3, 2)
    )
    assert three <= 1e-5 * max(1, largest)
    assert two > 1e-2 * largest
    assert relative_errors(slices(layer, groups), [3])[3] < 1e-6


@torch.no_grad()
def test_linear_layer_of_exactly_rank_r_is_reproduced_at_rank_r() -> None:
    layer = nn.Linear(9, 7)
    layer.weight.data = (_normal(7, 3) @ _normal(3, 9, seed=1)).float()
    x = _normal(2, 5, 9).float()
    factored = factored_layer(layer, truncate(slices(layer, 1), 3), layer.bias)
    assert (factored(x) - layer(x)).abs().max() <= 1e-5
    assert [each.weight.shape for each in factored] == [(3, 9), (7, 3)]


def test_errors_of_known_singular_values() -> None:
    parts = torch.diag(torch.tensor([4.0, 2.0, 1.0]))[None].double()
    assert relative_errors(parts, [1, 2, 3]) == pytest.approx({1: 0.5, 2: 0.25, 3: 0.0})
    assert [error_bound(parts, rank) for rank in (1, 2, 3)] == pytest.approx([0.5, 0.25, 0.0])


def test_weight_of_zeros_has_no_error() -> None:
    parts = torch.zeros(2, 4, 6).double()
    assert relative_errors(parts, [1, 2]) == {1: 0.0, 2: 0.0}
    assert relative_error(parts, truncate(parts, 1)) == error_bound(parts, 1) == 0.0


PARTS = st.builds(
    lambda groups, outputs, columns, decay, seed: (
        _normal(groups, outputs, columns, seed=seed) * decay ** torch.arange(columns)
    ),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 12),
    st.integers(1, 8),
    st.floats(0.2, 1.0),
    st.integers(0, 1000),
)


@settings(max_examples=60, deadline=None)
@given(PARTS)
def test_direct_error_is_between_its_bounds(parts: Tensor) -> None:
    groups, outputs, columns = parts.shape
    errors = relative_errors(parts, range(1, min(outputs, columns) + 1))
    for rank, error in errors.items():
        bound = error_bound(parts, rank)
        assert error == pytest.approx(relative_error(parts, truncate(parts, rank)), abs=1e-6)
        assert bound / math.sqrt(groups) - 1e-6 <= error <= bound + 1e-6
        if groups == 1:
            assert error == pytest.approx(bound, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(PARTS, st.integers(0, 1000))
def test_no_other_factors_of_one_slice_are_closer(parts: Tensor, seed: int) -> None:
    one = parts[:1]
    best = relative_error(one, truncate(one, 1))
    basis = torch.linalg.qr(_normal(one.shape[1], 1, seed=seed)).Q
    other = torch.linalg.matrix_norm(one[0] - basis @ basis.T @ one[0], 2)
    assert best <= other / torch.linalg.matrix_norm(one[0], 2) + 1e-9


def test_equal_slices_attain_the_bound_and_break_it_without_the_root_of_k() -> None:
    parts = _normal(6, 10).expand(4, 6, 10)
    error, bound = relative_errors(parts, [2])[2], error_bound(parts, 2)
    assert error == pytest.approx(bound)
    assert error > 1.9 * bound / math.sqrt(4)


def test_bound_without_the_root_of_k_is_broken_by_random_slices() -> None:
    parts = _normal(8, 32, 36)
    error, bound = relative_errors(parts, [4])[4], error_bound(parts, 4)
    assert bound / math.sqrt(8) < 0.9 * error < error < bound


@pytest.mark.parametrize('bias', [True, False])
def test_factors_have_the_type_mode_and_frozen_parameters_of_the_layer(bias: bool) -> None:
    layer = nn.Conv2d(4, 6, 3, bias=bias).double().eval()
    layer.weight.requires_grad_(False)
    state = torch.random.get_rng_state()
    first, second = factored_layer(layer, truncate(slices(layer, 2), 1), layer.bias)
    assert torch.equal(torch.random.get_rng_state(), state), 'random numbers were drawn'
    assert first.weight.dtype == second.weight.dtype == torch.double
    assert not first.training
    assert not first.weight.requires_grad
    assert not second.weight.requires_grad
    assert first.bias is None
    assert second.bias.requires_grad if bias else second.bias is None
