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

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning import (
    BudgetError,
    Macs,
    PruningError,
    count,
    find_groups,
    make_plan,
    trace,
)


def test_multiply_accumulates_of_known_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8·8 positions · 8 · 3·9
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # 8·8 · 8 · 9
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8·8 · 8 · 4·4
        nn.Flatten(),
        nn.Linear(4 * 16 * 16, 10),
    )
    cost = count(model, (torch.zeros(2, 3, 16, 16),))
    expected = [64 * 8 * 27, 64 * 8 * 9, 64 * 8 * 16, 1024 * 10]
    assert [layer.macs for layer in cost.layers] == expected
    assert cost.macs == sum(expected)


def test_a_layer_used_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4)
    assert count(nn.Sequential(layer, nn.ReLU(), layer), (torch.zeros(1, 4),)).macs == 32


class _Functional(nn.Module):
    """Calls products by functions; its layers make channels that can be cut all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        return torch.einsum('bij,bkj->bik', x, x)


class _Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _filled(*shape: int) -> Tensor:
    return torch.ones(shape)


BATCHED = (_filled(2, 3, 4), _filled(2, 4, 5))
# Name → network, inputs, multiply-accumulates by hand.
MULTIPLYING: dict[str, tuple[nn.Module, tuple[Tensor, ...], int]] = {
    'Conv1d': (nn.Conv1d(2, 3, 3), (_filled(1, 2, 9),), 7 * 3 * 6),
    'Conv3d': (nn.Conv3d(2, 3, 3), (_filled(1, 2, 5, 5, 5),), 27 * 3 * 2 * 27),
    'ConvTranspose1d': (nn.ConvTranspose1d(2, 3, 3), (_filled(1, 2, 9),), 9 * 2 * 9),
    'ConvTranspose3d': (nn.ConvTranspose3d(2, 3, 2), (_filled(1, 2, 3, 3, 3),), 27 * 2 * 3 * 8),
    'Linear of rows': (nn.Linear(4, 5), (_filled(1, 7, 4),), 7 * 20),
    'Bilinear': (nn.Bilinear(4, 5, 6), (_filled(2, 4), _filled(2, 5)), 120),
    'MultiheadAttention': (
        nn.MultiheadAttention(8, 2, batch_first=True),
        (_filled(1, 5, 8),) * 3,
        4 * 5 * 64 + 2 * 25 * 8,  # projections, scores and sums
    ),
    'TransformerEncoderLayer': (
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        (_filled(1, 5, 8),),
        4 * 5 * 64 + 2 * 25 * 8 + 2 * 5 * 128,
    ),
    'LSTM': (nn.LSTM(4, 8, batch_first=True), (_filled(1, 3, 4),), 3 * 12 * 32),
    'LSTM both ways': (
        nn.LSTM(4, 8, batch_first=True, bidirectional=True), (_filled(1, 3, 4),), 2 * 3 * 12 * 32,
    ),
    'GRU': (nn.GRU(4, 8, batch_first=True), (_filled(1, 3, 4),), 3 * 12 * 24),
    'RNN': (nn.RNN(4, 8, batch_first=True), (_filled(1, 3, 4),), 3 * 12 * 8),
    'LSTMCell': (nn.LSTMCell(4, 8), (_filled(1, 4),), 12 * 32),
    'scaled_dot_product_attention': (
        _Call(functional.scaled_dot_product_attention), (_filled(1, 2, 5, 4),) * 3, 2 * 2 * 25 * 4,
    ),
    'F.linear': (_Call(functional.linear), (_filled(1, 4), _filled(5, 4)), 20),
    'F.conv2d': (_Call(functional.conv2d), (_filled(1, 2, 5, 5), _filled(3, 2, 3, 3)), 9 * 3 * 18),
    'F.conv_transpose2d': (
        _Call(functional.conv_transpose2d), (_filled(1, 2, 5, 5), _filled(2, 3, 2, 2)), 25 * 24,
    ),
    'bmm': (_Call(torch.bmm), BATCHED, 60),
    'matmul': (_Call(torch.matmul), BATCHED, 60),
    'matmul of vectors': (_Call(lambda x: x[0] @ x[0] + (x @ x[0]).sum()), (_filled(2, 4),), 6),
    'einsum': (_Call(lambda a, b: torch.einsum('bij,bjk->bik', a, b)), BATCHED, 60),
    'baddbmm': (_Call(lambda a, b: torch.baddbmm(_filled(2, 3, 5), a, b)), BATCHED, 60),
    'addbmm': (_Call(lambda a, b: torch.addbmm(_filled(3, 5), a, b)), BATCHED, 60),
    'addmm in place': (
        _Call(lambda a, b: _filled(3, 5).addmm_(a[0], b[0])), BATCHED, 30,
    ),
    'cdist': (_Call(torch.cdist), (_filled(1, 30, 3), _filled(1, 30, 3)), 900 * 3),
    'under inference mode': (
        _Call(torch.inference_mode()(functional.linear)), (_filled(1, 4), _filled(5, 4)), 20,
    ),
    'two layers and a product': (_Functional(), (_filled(1, 3, 4),), 2 * 3 * 32 + 9 * 4),
}  # fmt: skip


@pytest.mark.parametrize('name', MULTIPLYING)
def test_what_multiplies_is_counted_whoever_calls_it(name: str) -> None:
    model, inputs, macs = MULTIPLYING[name]
    cost = count(model, inputs)
    assert cost.macs == macs
    assert not cost.not_counted


def test_what_multiplies_and_is_not_counted_is_named() -> None:
    model = _Call(
        lambda x: torch.fft.rfft(x).abs() + functional.grid_sample(x, _filled(1, 4, 3, 2))
    )
    cost = count(model, (_filled(1, 2, 4, 4),))
    assert cost.not_counted == {'aten._fft_r2c': 1, 'aten.grid_sampler_2d': 1}
    with pytest.warns(UserWarning, match=r'aten._fft_r2c .* not counted'):
        trace(nn.Sequential(nn.Conv2d(2, 2, 1), model), (_filled(1, 2, 4, 4),))


def test_products_that_no_layer_makes_cost_what_they_do_at_any_width() -> None:
    model = _Functional()
    plan = make_plan(model, (_filled(1, 3, 4),), budget=Macs(0.5), round_to=1)
    assert (plan.dense_macs, plan.macs) == (228, 2 * 3 * 3 * 4 + 36)
    assert count(plan.apply(model), (_filled(1, 3, 4),)).macs == plan.macs


def test_networks_without_two_dimensional_convolutions_have_a_budget() -> None:
    signals = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3))
    with pytest.raises(BudgetError, match=r'0\.5 of the MACs cannot be met: nothing in it'):
        make_plan(signals, (_filled(1, 4, 20),), budget=Macs(0.5), round_to=1)
    vectors = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    assert make_plan(vectors, (_filled(1, 8),), budget=Macs(0.5), round_to=1).macs == 256
    with pytest.raises(PruningError, match='multiplies nothing'):
        make_plan(nn.Sequential(nn.BatchNorm2d(3)), (_filled(1, 3, 4, 4),), budget=Macs(0.5))


@pytest.mark.parametrize('wrap', [torch.jit.script, torch.compile])
def test_networks_without_code_to_follow_are_refused(wrap: Callable[..., nn.Module]) -> None:
    model = wrap(nn.Sequential(nn.Linear(4, 4)))
    for look in (count, find_groups):
        with pytest.raises(PruningError, match=r'TorchScript|_orig_mod'):
            look(model, (_filled(1, 4),))
