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

"""What a cut did to the outputs: measured on frames that nothing was fitted to."""

from __future__ import annotations

import copy
import math
import re
import warnings

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

import trained  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pruned_perception.pruning import Macs, Outcome, Planner, finish, output_error, prune  # noqa: E402
from pruned_perception.pruning import outcome as module  # noqa: E402
from pruned_perception.pruning.presets import RECOMMENDED  # noqa: E402


class Apart(nn.Module):
    """Outputs a small score beside large coordinates; each with an error of its own."""

    def __init__(self, score: float = 0.0, box: float = 0.0) -> None:
        super().__init__()
        self.errors = nn.Parameter(torch.tensor([float(score), float(box)]))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.sin(1e3 * x[:, 1:])
        return torch.cat((0.01 * (x[:, :1] + self.errors[0] * noise),
                          1e4 + 100 * (x[:, :1] + self.errors[1] * noise)), 1)  # fmt: skip


def frames(count: int = 400) -> list[Tensor]:
    return [torch.rand(count, 2, generator=torch.Generator().manual_seed(0))]


def test_the_error_is_relative_to_what_varies_and_small_outputs_count() -> None:
    same, boxes, scores = (
        output_error(Apart(), small, frames()) for small in (Apart(), Apart(0, 1), Apart(1, 0))
    )
    assert same == 0
    # A sine's deviation beside that of even numbers from 0 to 1; half of the outputs have it.
    wanted = 0.5 * math.sqrt(0.5) / math.sqrt(1 / 12)
    assert boxes == pytest.approx(wanted, rel=0.1)
    assert scores == pytest.approx(wanted, rel=0.1)


def test_a_constant_errs_by_one_and_batches_make_no_difference() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.005, 1e4 + 50]]).expand(len(x), 2)

    whole = output_error(Apart(), Constant(), frames())
    assert whole == pytest.approx(1, rel=0.02)
    parts = output_error(Apart(), Constant(), frames()[0].split(37))
    assert parts == pytest.approx(whole)


def test_outputs_that_cannot_be_compared_are_left_out() -> None:
    class Some(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.argmax(1), x[: self.count], x + 0.0

    assert output_error(Some(3), Some(2), frames()) == 0

    class Integers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (10 * x).round().long()

    assert output_error(Integers(), Integers(), frames()) is None


def test_what_is_not_finite_errs_without_bound() -> None:
    assert output_error(Apart(), Apart(0, math.inf), frames()) == math.inf


def test_the_call_without_options_is_the_recommended_recipe() -> None:
    batches = trained.batches(64, 0)
    _, plan, outcome = prune(trained.network(), trained.EXAMPLE, Macs(0.5), batches)
    assert (plan.criterion, plan.allocation, plan.allocation_by, plan.round_to) == tuple(
        RECOMMENDED[name] for name in ('criterion', 'allocation', 'allocation_by', 'round_to')
    )
    assert outcome is not None
    assert outcome.held_out
    assert outcome.images == 8
    assert None not in (outcome.plain, outcome.fitted)
    assert outcome.refit == (outcome.fitted < outcome.plain)
    assert outcome.error == min(outcome.fitted, outcome.plain)
    assert Outcome.from_dict(outcome.to_dict()) == outcome
    assert f'{outcome.error:.2f}' in outcome.to_text()
    named = Planner(trained.network(), trained.EXAMPLE, calibration=batches, **RECOMMENDED).plan(
        Macs(0.5)
    )
    assert (named.criterion, named.allocation) == (plan.criterion, plan.allocation)


def test_what_is_held_out_is_seen_by_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = module.refitted
    monkeypatch.setattr(
        module,
        'refitted',
        lambda model, small, plan, batches, **rest: (
            seen.append(torch.cat([each[0] for each in map(module.as_inputs, batches)]))
            or real(model, small, plan, batches, **rest)
        ),
    )
    compared: list[Tensor] = []
    error = module.output_error
    monkeypatch.setattr(
        module,
        'output_error',
        lambda model, small, batches: (
            compared.append(torch.cat([each[0] for each in batches]))
            or error(model, small, batches)
        ),
    )
    model, batches = trained.network(), trained.batches(64, 0)
    planner = Planner(model, trained.EXAMPLE, calibration=batches)
    plan = planner.plan(Macs(0.5))
    finish(model, planner.cut(plan), batches, plan=plan, refit=None)
    held = {each.numpy().tobytes() for each in compared[0]}
    assert len(held) == 8
    assert held.isdisjoint(each.numpy().tobytes() for each in seen[0])


def test_where_a_refit_does_harm_it_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = trained.network(), trained.batches(64, 0)
    planner = Planner(model, trained.EXAMPLE, calibration=batches)
    plan = planner.plan(Macs(0.5))

    def spoilt(model: nn.Module, small: nn.Module, *rest: object, **options: object) -> nn.Module:
        for each in small.parameters():
            each.data.mul_(0.1)
        return small

    small = planner.cut(plan)
    with monkeypatch.context() as patch:
        patch.setattr(module, 'refitted', lambda m, s, *a, **k: spoilt(m, copy.deepcopy(s)))
        finished, outcome = finish(model, small, batches, plan=plan, refit=None)
    assert outcome is not None
    assert not outcome.refit
    assert outcome.error == outcome.plain
    assert torch.equal(finished.first.weight, small.first.weight)
    _, forced = finish(model, small, batches, plan=plan, refit=True)
    assert forced is not None
    assert (forced.plain, forced.refit) == (None, True)


def test_a_network_that_collapses_is_named_with_the_nearest_budget_that_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batches = trained.network(), trained.batches(64, 0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        _, _, cut = prune(model, trained.EXAMPLE, Macs(0.1), batches, tuned=True)
    assert cut is not None
    assert cut.error is not None
    useless = 0.8 * cut.error
    monkeypatch.setattr(module, 'USELESS', useless)
    with pytest.warns(UserWarning, match='this network collapses at this budget.*nearest that'):
        _, _, outcome = prune(model, trained.EXAMPLE, Macs(0.1), batches, refit=False)
    assert outcome is not None
    assert outcome.collapses
    assert outcome.nearest is not None
    assert outcome.nearest.error < useless <= outcome.error
    said = re.search(r'nearest that holds: (\d+)%', outcome.to_text())
    assert said is not None
    planner = Planner(model, trained.EXAMPLE, calibration=batches)
    plan = planner.plan(Macs(int(said[1]) / 100))  # what is said is what was tried
    _, there = finish(model, planner.cut(plan), batches, plan=plan)
    assert there is not None
    assert there.error == pytest.approx(outcome.nearest.error)


def test_few_frames_are_compared_as_they_are_and_none_say_nothing() -> None:
    model, batches = trained.network(), trained.batches(64, 0)
    plan = Planner(model, trained.EXAMPLE, calibration=batches).plan(Macs(0.5))
    small = plan.apply(model)
    _, few = finish(model, small, trained.batches(8, 0), plan=plan, refit=None)
    assert few is not None
    assert (few.held_out, few.refit, few.images) == (False, False, 8)
    _, nothing = finish(model, small, (), plan=plan, recalibrated=False)
    assert nothing is None


def test_without_gradients_the_layers_own_errors_divide_the_budget() -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = trained.network()

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    plan = Planner(Closed().eval(), trained.EXAMPLE, calibration=trained.batches(64, 0)).plan(
        Macs(0.5)
    )
    assert (plan.criterion, plan.allocation, plan.allocation_by) == (
        'joint_error', 'least_error', None,
    )  # fmt: skip
