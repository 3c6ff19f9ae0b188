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

"""Channels and low rank under one budget: what is planned, made, fitted and kept in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ranks_by_time import layers_of, table_of
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pruned_perception.pruning import (
    BudgetError,
    ErrorBound,
    Latency,
    Macs,
    Params,
    Plan,
    PruningError,
    count,
    make_plan,
    prune,
    recalibrate,
)
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.latency import latency_of
from pruned_perception.pruning.lowrank.factorisation import Factored
from pruned_perception.pruning.outcome import output_error
from pruned_perception.pruning.structure import rank_of
from pruned_perception.pruning.tracing import trace
from pruned_perception.report.findings import Findings
from pruned_perception.report.page import write_report
from pruned_perception.training import Task
from pruned_perception.training.pipeline import load_pruned, save_pruned

EXAMPLE = (torch.zeros(1, 8, 16, 16),)
CALIBRATION = [
    torch.rand(4, 8, 16, 16, generator=torch.Generator().manual_seed(number)) for number in range(6)
]


class Deep(nn.Module):
    """A wide layer of low rank between others; a grouped one; one with a weight norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(8, 32, 3, padding=1)
        self.thin = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.grouped = nn.Conv2d(32, 16, 3, 2, padding=1, groups=4)
        self.normed = weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.last = nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            narrow = torch.randn(32, 6) @ torch.randn(6, 288) / 20
            self.thin.weight.copy_(narrow.reshape(self.thin.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.thin(self.first(x).relu())).relu()
        return self.last(self.normed(self.grouped(x).relu()).relu())


@pytest.fixture(scope='module')
def model() -> nn.Module:
    return recalibrate(Deep().eval(), CALIBRATION)


def planned(model: nn.Module, budget: Budget, **options: Any) -> Plan:
    options = {'ranks': True, 'round_to': 4, **options}
    return make_plan(model, EXAMPLE, budget=budget, calibration=CALIBRATION, **options)


@pytest.mark.parametrize('budget', [Macs(0.5), Params(0.5)])
def test_both_share_a_budget_and_the_network_costs_what_was_planned(
    model: nn.Module, budget: Budget
) -> None:
    plan = planned(model, budget)
    dense = plan.dense_macs if isinstance(budget, Macs) else plan.dense_parameters
    assert (plan.macs if isinstance(budget, Macs) else plan.parameters) <= 0.5 * dense
    assert plan.ranks['thin'] == 8  # of the six that it has, in whole blocks
    small: Any = plan.apply(model)  # which raises where it costs something else
    assert isinstance(small.thin, Factored)
    assert small.thin.rank == 8
    assert small.thin.out_channels == plan.widths.get('thin', 32)
    assert plan.loss is not None
    alone = planned(model, budget, ranks=False, criterion='compensated_error')
    errors = {name: sum(plan.widths.values()) for name, plan in (('b', plan), ('a', alone))}
    assert errors['b'] > errors['a']  # channels stay that ranks make room for


def test_milliseconds_of_a_table_are_kept_and_ranks_are_where_it_says_that_they_are_faster(
    model: nn.Module,
) -> None:
    table = table_of(0.05, layers_of(model))
    plan = planned(model, Latency(5.5, table))
    assert plan.predicted_ms is not None
    assert plan.predicted_ms <= 5.5
    latency = latency_of(trace(model, EXAMPLE), table)
    ranks = {rank_of(name): rank for name, rank in plan.ranks.items()}
    assert plan.predicted_ms == pytest.approx(latency(plan.widths | ranks))
    assert plan.predicted_ms == pytest.approx(table.predict(layers_of(plan.apply(model))))
    assert 'thin' in plan.ranks
    for name in ranks:
        whole = {other: rank for other, rank in ranks.items() if other != name}
        assert latency(plan.widths | whole) > plan.predicted_ms


def test_a_network_in_which_no_layer_gains_says_so_and_is_cut_by_channels_alone(
    model: nn.Module,
) -> None:
    table = table_of(30, layers_of(model))
    plan = planned(model, Latency(7.995, table))
    alone = planned(model, Latency(7.995, table), ranks=False, criterion='compensated_error')
    assert plan.ranks == {}
    assert plan.kept == alone.kept
    assert 'low rank: no layer gains by it' in plan.to_text()


def test_what_is_grouped_or_computed_is_left_alone_or_made_plain(model: nn.Module) -> None:
    plan = planned(model, Macs(0.5))
    assert plan.left_alone['grouped'] == 'is a grouped convolution (4 groups)'
    assert 'left alone: is a grouped convolution' in plan.to_text()
    assert not {'grouped', 'first'} & plan.ranks.keys()
    assert 'normed' in plan.left_alone or 'normed' in plan.ranks  # its constants, see `plain`
    kept = planned(model, Macs(0.5), ignored_layers=('thin',))
    assert kept.left_alone['thin'] == 'asked to keep it'
    assert 'thin' not in kept.widths


def test_the_refit_finds_factors_that_the_weight_alone_does_not(model: nn.Module) -> None:
    small, plan, outcome = prune(
        model, EXAMPLE, Macs(0.2), CALIBRATION, ranks=True, round_to=4, refit=True, tuned=True
    )
    assert plan.ranks
    assert outcome is not None
    assert outcome.refit
    by_weight = output_error(model, recalibrate(plan.apply(model), CALIBRATION), CALIBRATION)
    fitted = output_error(model, small, CALIBRATION)
    assert by_weight is not None
    assert fitted is not None
    assert fitted < 0.8 * by_weight


def test_files_hold_the_layers_that_are_two(model: nn.Module, tmp_path: Path) -> None:
    small, plan, _ = prune(model, EXAMPLE, Macs(0.5), CALIBRATION, ranks=True, round_to=4)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    write_report(Findings('net', plan, None), tmp_path / 'page.html')
    assert '<code>thin</code>: 8<' in (tmp_path / 'page.html').read_text(encoding='utf-8')
    save_pruned(tmp_path / 'small.pt', small, [plan])
    task = Task(model=model, example_inputs=EXAMPLE, calibration=CALIBRATION)
    again = load_pruned(task, tmp_path / 'small.pt')
    assert torch.equal(again(CALIBRATION[0]), small(CALIBRATION[0]))
    assert 'ranks' not in planned(model, Macs(0.5), ranks=False).to_dict()


def test_ranks_cost_no_less_the_higher_they_are_and_nothing_at_full_rank(model: nn.Module) -> None:
    structure = trace(model, EXAMPLE)
    sizes = [structure.size({rank_of('thin'): rank}).macs for rank in range(1, 33)]
    assert sizes[-1] == structure.macs
    assert sizes[:-1] == sorted(sizes[:-1])
    assert sizes[-2] > structure.macs  # two of nearly full rank cost more than one
    cheapest = [structure.size({rank_of('thin'): r}, cheapest=True).macs for r in range(1, 33)]
    assert cheapest == [min(each, structure.macs) for each in sizes]


def test_what_cannot_be_divided_together_is_refused(model: nn.Module) -> None:
    with pytest.raises(PruningError, match="'filter_l2' does not say what a layer of low rank"):
        planned(model, Macs(0.5), criterion='filter_l2')
    with pytest.raises(PruningError, match="by the rule 'least_error'"):
        planned(model, Macs(0.5), criterion='compensated_error', allocation='uniform')
    with pytest.raises(PruningError, match='an error as budget needs sensitivities'):
        planned(model, ErrorBound(0.5), criterion='compensated_error')
    with pytest.raises(BudgetError, match='cannot be met'):
        planned(model, Macs(0.001))


def test_a_network_that_has_such_layers_is_cut_again(model: nn.Module) -> None:
    first = planned(model, Macs(0.6)).apply(model)
    small, plan, _ = prune(
        first, EXAMPLE, Macs(0.6), CALIBRATION, ranks=True, round_to=4, tuned=True
    )
    assert 'is linear, one of two' in plan.left_alone['thin.0']
    assert count(small, EXAMPLE).macs == plan.macs <= 0.6 * plan.dense_macs
    both = small.get_submodule('thin')
    assert isinstance(both, Factored)
    assert not any(isinstance(each, Factored) for each in both)
