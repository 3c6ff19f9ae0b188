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

"""Low rank under a budget of milliseconds: where the table says that it is faster, never else."""

from __future__ import annotations

import json
from pathlib import Path

import blobs
import pytest
import torch
from torch import Tensor, nn

from pruned_perception.cli.main import main
from pruned_perception.inference.latency_table import (
    Convolution,
    LatencyTable,
    LatencyTableError,
    Target,
    Times,
    Whole,
    convolution,
    factored,
)
from pruned_perception.pruning import BudgetError, Latency, count
from pruned_perception.pruning.lowrank import Decomposition, get, names

EXAMPLE = (torch.zeros(1, 8, 16, 16),)
CALIBRATION = [torch.rand(4, 8, 16, 16, generator=torch.Generator().manual_seed(3))]
BLOCK = 4
COUNTS = tuple(range(BLOCK, 33, BLOCK))


class Pair(nn.Module):
    """Two hidden layers with as many weights; the second runs on a quarter of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Conv2d(8, 32, 3, padding=1)
        self.small = nn.Conv2d(32, 8, 3, 2, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.small(self.wide(x).relu()).relu())


def layers_of(model: nn.Module, example: tuple[Tensor, ...] = EXAMPLE) -> list[Convolution]:
    return [
        convolution(shape[:4], shape[4:8], shape[8:])
        for layer in count(model, example).layers
        for shape in layer.shapes
    ]


def table_of(overhead: float = 0.3, layers: list[Convolution] | None = None) -> LatencyTable:
    """Return a table in which every layer takes so many ms beside its arithmetic."""
    layers = layers_of(Pair()) if layers is None else layers
    times = []
    seconds = [factored(each, BLOCK)[1] for each in layers]
    for geometry in dict.fromkeys(each.geometry for each in (*layers, *seconds)):
        unit = geometry.height * geometry.width * geometry.kernel_height * geometry.kernel_width
        rows = tuple(tuple(overhead + 2e-6 * unit * m * n for n in COUNTS) for m in COUNTS)
        times.append(Times(geometry, COUNTS, COUNTS, rows))
    target = Target('P', 'AVX2', 'engine 1', 'cpu', 1)
    return LatencyTable(target, BLOCK, Whole('net', '', 8.0, 0.9, tuple(layers)), tuple(times))


def chosen(method: str, ms: float, table: LatencyTable) -> Decomposition:
    return get(method)(Pair().eval(), EXAMPLE, Latency(ms, table), calibration=CALIBRATION)


@pytest.mark.parametrize('method', names())
def test_only_the_layer_that_gets_faster_is_made_two(method: str) -> None:
    table = table_of()
    plan = chosen(method, 7.0, table)

    assert list(plan.layers) == ['wide']
    assert plan.layers['wide'].groups == 1
    assert plan.layers['wide'].rank % BLOCK == 0
    assert plan.left_alone['small'] == 'faster at no rank'
    small = plan.apply(Pair().eval())
    assert plan.predicted_ms == pytest.approx(table.predict(layers_of(small)))
    assert plan.predicted_ms <= 7.0
    assert Decomposition.from_dict(plan.to_dict()) == plan


def test_the_largest_rank_within_the_budget_is_taken() -> None:
    """A block more would not fit: none of the time is left that it needs."""
    table = table_of()
    wide = layers_of(Pair())[0]
    ranks = table.faster_ranks(wide)
    rank = chosen('svd', 7.0, table).layers['wide'].rank

    gone = table.predict([wide])
    assert 8 - gone + ranks[rank] <= 7.0 < 8 - gone + ranks[rank + BLOCK]


def test_nothing_is_chosen_where_two_layers_always_take_longer() -> None:
    table = table_of(overhead=30)
    assert all(table.faster_ranks(each) == {} for each in layers_of(Pair()))
    assert chosen('alds', 8.001, table).layers == {}
    with pytest.raises(BudgetError, match=r'7 ms on P .* nearest is 8 ms \(8 ms whole\); prune ch'):
        chosen('alds', 7.0, table)


def test_a_table_without_the_second_layers_is_refused() -> None:
    table = table_of()
    old = LatencyTable(table.target, BLOCK, table.whole, table.times[:2])
    with pytest.raises(LatencyTableError, match='does not hold a convolution of 1 × 1'):
        chosen('svd', 7.0, old)


def test_the_command_takes_milliseconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = layers_of(blobs.Net(), (torch.zeros(1, 1, 8, 8),))
    table, out = tmp_path / 'robot.json', tmp_path / 'small.pt'
    table.write_text(json.dumps(table_of(1e-9, layers).to_dict()))
    command = ['prune', '--task', 'blobs:task', '--ms', '7', '--table', str(table), '--force']
    command += ['--out', str(out), '--kind']

    assert main([*command, 'low_rank', '--criterion', 'svd']) == 0
    plan = json.loads(out.with_suffix('.json').read_text())['plan']
    assert plan['predicted_ms'] <= 7
    assert set(plan['layers']) <= {'second', 'third'}
    assert plan['left_alone']['head'] == 'faster at no rank'  # no convolution: not in the table

    assert main([*command, 'sparsity', '--criterion', 'magnitude']) == 1
    assert '--ms is for channels and low rank' in capsys.readouterr().err
