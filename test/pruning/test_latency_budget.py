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

"""Budgets of milliseconds: kept by the table, spent where time is saved."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from torch import Tensor, nn  # noqa: E402

from pruned_perception.inference.latency_table import (  # noqa: E402
    Geometry,
    LatencyTable,
    LatencyTableError,
    Target,
    Times,
    Whole,
    convolution,
)
from pruned_perception.pruning import BudgetError, Latency, Macs, Plan, make_plan  # noqa: E402
from pruned_perception.pruning.latency import latency_of  # noqa: E402
from pruned_perception.pruning.structure import Structure  # noqa: E402
from pruned_perception.pruning.tracing import trace  # noqa: E402

BLOCK = 4
EXAMPLE = (torch.zeros(1, 3, 16, 16),)


class Chain(nn.Module):
    """Two hidden layers of as many channels; the second runs on a quarter of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, 2, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


def table_of(structure: Structure, block: int = BLOCK) -> LatencyTable:
    """Return a table in which time is arithmetic, times ten for the first layer."""
    layers = [
        convolution(each[:4], each[4:8], each[8:])
        for term in structure.terms
        for each in term.shapes
    ]
    times = []
    for geometry in dict.fromkeys(each.geometry for each in layers):
        unit = geometry.height * geometry.width * geometry.kernel_height * geometry.kernel_width
        unit *= 1e-6 * (10 if geometry.height == 16 else 1)
        counts = range(block, 17, block)
        rows = tuple(tuple(unit * m * n for n in counts) for m in counts)
        times.append(Times(geometry, tuple(counts), tuple(counts), rows))
    target = Target('P', 'AVX2', 'engine 1', 'CPU', 1)
    return LatencyTable(target, block, Whole('net', '', 8.0, 0.9, tuple(layers)), tuple(times))


@pytest.fixture
def structure() -> Structure:
    return trace(Chain().eval(), EXAMPLE)


def plan_at(ms: float, table: LatencyTable, **options: object) -> Plan:
    return make_plan(
        Chain().eval(),
        EXAMPLE,
        budget=Latency(ms, table),
        criterion='filter_l2',
        **options,  # type: ignore[arg-type]
    )


def test_the_whole_network_takes_what_was_measured(structure: Structure) -> None:
    latency = latency_of(structure, table_of(structure))
    assert latency({}) == pytest.approx(8.0)
    assert latency({'first': 16, 'second': 16}) == pytest.approx(8.0)
    assert latency({'first': 8}) < latency({'first': 12}) < 8.0


def test_the_plan_keeps_the_budget_in_whole_blocks(structure: Structure) -> None:
    table = table_of(structure)
    plan = plan_at(5.0, table)

    assert plan.predicted_ms is not None
    assert plan.predicted_ms <= 5.0
    assert plan.predicted_ms == pytest.approx(latency_of(structure, table)(plan.widths))
    assert all(width % BLOCK == 0 for width in plan.widths.values())
    assert sum(plan.widths.values()) < 32
    assert plan.round_to == BLOCK
    assert plan.budget == '5 ms on P (engine 1, 1 thread)'
    assert Plan.from_dict(plan.to_dict()) == plan
    small = plan.apply(Chain().eval())
    assert small.first.out_channels == plan.widths['first']


def test_a_table_of_the_network_in_8_bits_says_what_it_will_take_there(
    structure: Structure,
) -> None:
    """All layers but the first are in 8 bits, as `quantize` writes them, and times are the same."""
    table = table_of(structure)

    def in_8_bits(geometry: Geometry) -> Geometry:
        return geometry._replace(in_8_bits=geometry != table.whole.layers[0].geometry)

    whole = replace(
        table.whole,
        layers=tuple(
            each._replace(geometry=in_8_bits(each.geometry)) for each in table.whole.layers
        ),
    )
    times = tuple(replace(each, geometry=in_8_bits(each.geometry)) for each in table.times)
    quantized = replace(table, whole=whole, times=times)

    plan, wanted = plan_at(5.0, quantized), plan_at(5.0, table)
    assert plan.widths == wanted.widths
    assert plan.predicted_ms == pytest.approx(wanted.predicted_ms)
    assert plan.budget == '5 ms in 8 bits on P (engine 1, 1 thread)'


def test_time_is_saved_where_it_is_spent(structure: Structure) -> None:
    """Of two ways to save, the one that loses least for the time goes first."""
    widths = plan_at(6.5, table_of(structure), allocation='retained_share').widths
    assert widths['first'] < widths['second'] == 16


def test_a_budget_below_the_narrowest_network_says_what_can_be_had(structure: Structure) -> None:
    with pytest.raises(BudgetError, match=r'0\.1 ms on P .* the nearest is [\d.]+ ms \(8 ms whole'):
        plan_at(0.1, table_of(structure))
    with pytest.raises(BudgetError, match='finite number > 0'):
        Latency(-1, table_of(structure))


def test_a_layer_that_the_table_does_not_hold_is_named(structure: Structure) -> None:
    table = table_of(structure)
    lacking = LatencyTable(table.target, BLOCK, table.whole, table.times[:1] + table.times[2:])
    assert table.times[1].geometry == Geometry(3, 3, 2, 2, 8, 8, False)
    with pytest.raises(LatencyTableError, match='does not hold a convolution of 3 × 3, stride 2'):
        plan_at(5.0, lacking)


def test_plans_without_a_latency_do_not_speak_of_one() -> None:
    plan = make_plan(Chain().eval(), EXAMPLE, budget=Macs(0.5), criterion='filter_l2', round_to=4)
    assert plan.predicted_ms is None
    assert 'predicted_ms' not in plan.to_dict()
