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

"""Channels are ranked by what the others cannot make up for, in the loss's own currency."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

import trained  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pruned_perception.pruning import criteria  # noqa: E402
from pruned_perception.pruning.criteria import compensated, joint_error  # noqa: E402
from pruned_perception.pruning.tracing import trace  # noqa: E402

ROWS = 400


class Chain(nn.Module):
    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(first.shape[1], len(first), bias=False)
        self.second = nn.Linear(second.shape[1], len(second))
        with torch.no_grad():
            self.first.weight.copy_(first)
            self.second.weight.copy_(second)
            self.second.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def chain(outputs: int = 4) -> tuple[Chain, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, 8, generator=generator)
    second = torch.randn(outputs, 6, generator=generator)
    return Chain(first, second).eval(), torch.randn(ROWS, 8, generator=generator)


def scored(model: nn.Module, x: Tensor, loss: criteria.Loss | None = None) -> criteria.Evidence:
    subject = criteria.Subject(model, trace(model, (x[:1],)), [x], loss)
    return criteria.evidence('compensated_error', subject)


def test_what_a_channel_costs_is_the_residual_of_the_best_refit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compensated, 'RIDGE', 1e-9)
    monkeypatch.setattr(joint_error, 'POSITIONS', 10**6)
    model, x = chain()
    metric = torch.tensor([1.0, 2.0, 0.5, 3.0]).double()

    def loss(outputs: Tensor, index: int, generator: torch.Generator) -> Tensor:
        signs = torch.randint(0, 2, outputs.shape, generator=generator) * 2 - 1
        return (outputs * signs * metric.sqrt()).sum()

    found = scored(model, x, loss)
    (name,) = found.values
    with torch.no_grad():
        hidden = model.first(x).relu().double()
        wanted = model.second(hidden.float()).double()
    curvature = compensated.output_curvature(
        criteria.Subject(model, trace(model, (x[:1],)), [x], loss)
    )['second']
    hidden, wanted = hidden - hidden.mean(0), wanted - wanted.mean(0)

    def residual(kept: list[int]) -> float:
        fitted = hidden[:, kept] @ torch.linalg.lstsq(hidden[:, kept], wanted).solution
        error = wanted - fitted
        return float(torch.einsum('ni,ij,nj->', error, curvature, error)) / ROWS

    order = found.values[name].argsort().tolist()
    gone: list[int] = []
    for least in order[:-1]:
        left = [each for each in range(6) if each not in gone]
        costs = {each: residual([k for k in left if k != each]) for each in left}
        assert costs[least] == pytest.approx(min(costs.values()), rel=1e-4)
        gone.append(least)
        assert found.errors is not None
        assert float(found.errors[name][6 - len(gone)]) == pytest.approx(costs[least], rel=1e-3)


def test_a_copy_costs_nothing_though_its_contribution_is_large() -> None:
    model, x = chain()
    with torch.no_grad():
        model.first.weight[3] = 2 * model.first.weight[1]
        model.second.weight[:, 3] = 5.0
    found = scored(model, x)
    (name,) = found.values
    assert int(found.values[name].argmin()) in (1, 3)
    assert found.errors is not None
    errors = found.errors[name]
    assert float(errors[5]) < 5e-2 * float(errors[4])
    joint = criteria.evidence('joint_error', criteria.Subject(model, trace(model, (x[:1],)), [x]))
    assert int(joint.values[name].argmin()) != 3


def test_an_output_that_the_loss_does_not_see_is_free() -> None:
    """Only the first output counts; channels that feed the others alone cost nothing."""
    model, x = chain(outputs=2)
    with torch.no_grad():
        model.second.weight[0, :3] = 0
        model.second.weight[1, 3:] = 0

    def first_only(outputs: Tensor, index: int, generator: torch.Generator) -> Tensor:
        return outputs[:, 0].sum()

    found = scored(model, x, first_only)
    (name,) = found.values
    assert set(found.values[name].argsort()[:3].tolist()) == {0, 1, 2}
    assert found.errors is not None
    assert float(found.errors[name][3]) == pytest.approx(0, abs=1e-9)
    assert float(found.errors[name][2]) > 1e-5


def test_a_real_network_is_ranked_whatever_its_kernels() -> None:
    model, images = trained.network(), trained.batches(32, seed=5)
    subject = criteria.Subject(model, trained.structure(), images)
    found = criteria.evidence('compensated_error', subject)
    assert found.errors is not None
    for name, channels in trained.structure().channels.items():
        errors = found.errors[name]
        assert len(errors) == channels + 1
        assert float(errors[channels]) == 0
        assert (errors[1:] <= errors[:-1]).all()
        assert sorted(found.values[name].tolist()) == pytest.approx(
            [(each + 1) / channels for each in range(channels)]
        )
