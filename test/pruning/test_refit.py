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

"""The least-squares refit: what is fitted, to what, and on how much."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from torch import Tensor, nn  # noqa: E402

from pruned_perception.pruning import Macs, Plan, make_plan  # noqa: E402
from pruned_perception.pruning import refit as module  # noqa: E402
from pruned_perception.pruning.graph.take import Take  # noqa: E402
from pruned_perception.pruning.refit import refit  # noqa: E402


class Chain(nn.Module):
    """Three convolutions; `split`: the second one's outputs part, as behind a shuffle."""

    def __init__(self, *, split: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.through, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(12, 4, 1)
        self.one, self.two = Take(1, range(0, 12, 2)), Take(1, range(1, 12, 2))
        self.split = split

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        if self.split:
            x = torch.cat((self.one(x), self.through(self.two(x))), 1)
        return self.last(x)


def setting(*, split: bool = False) -> tuple[Chain, Plan, list[Tensor], Tensor]:
    torch.manual_seed(0)
    chain = Chain(split=split).eval()
    images = torch.rand(40, 3, 10, 10)
    plan = make_plan(chain, (images[:1],), budget=Macs(0.5), round_to=1)
    return chain, plan, list(images[8:].split(8)), images[:8]


@pytest.mark.parametrize('split', [False, True])
def test_it_brings_the_output_back_on_other_images(split: bool) -> None:
    chain, plan, calibration, others = setting(split=split)
    small = plan.apply(chain)
    before = {name: each.clone() for name, each in small.state_dict().items()}
    fitted = refit(chain, small, plan, calibration)
    with torch.no_grad():
        wanted = chain(others)
        cut, mended = ((each(others) - wanted).square().mean() for each in (small, fitted))
    assert mended < 0.3 * cut
    for name, each in small.state_dict().items():
        assert torch.equal(each, before[name])
    assert torch.equal(fitted.first.weight, small.first.weight)  # its inputs are whole


def test_the_last_layer_is_the_regression_on_what_the_small_network_feeds_it() -> None:
    chain, plan, calibration, _ = setting()
    fitted = refit(chain, plan.apply(chain), plan, calibration, positions=400, ridge=1e-9)
    fed: list[Tensor] = []
    fitted.last.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    images = torch.cat(calibration)
    with torch.no_grad():
        wanted = chain(images).movedim(1, -1).reshape(-1, 4).double()
        fitted(images)
    x = fed[0].movedim(1, -1).flatten(0, 2).double()
    x = torch.cat((x, torch.ones(len(x), 1)), 1)
    best = torch.linalg.lstsq(x, wanted).solution
    residual = (x @ best - wanted).square().mean()
    with torch.no_grad():
        found = (fitted(images).movedim(1, -1).reshape(-1, 4) - wanted).square().mean()
    assert found == pytest.approx(float(residual), rel=0.02)


def test_as_many_images_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, plan, calibration, _ = setting()
    small = plan.apply(chain)
    seen: list[int] = []
    real = module._targets
    monkeypatch.setattr(
        module, '_targets', lambda *args: seen.append(args[-1].images) or real(*args)
    )
    whole = refit(chain, small, plan, calibration)
    monkeypatch.setattr(module, 'MEMORY', 4 * 8 * 12 * 100 * 10)
    part = refit(chain, small, plan, calibration)
    assert seen == [32, 10]
    assert not torch.equal(whole.last.weight, part.last.weight)
    assert torch.equal(part.last.weight, refit(chain, small, plan, calibration).last.weight)


def test_each_group_of_a_grouped_layer_is_the_regression_on_its_own_inputs() -> None:
    torch.manual_seed(0)
    grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 1), nn.ReLU(),
        grouped, nn.ReLU(), nn.Conv2d(16, 4, 1),
    ).eval()  # fmt: skip
    images = torch.rand(24, 3, 8, 8)
    plan = make_plan(model, (images[:1],), budget=Macs(0.6), round_to=1)
    small = plan.apply(model)
    groups = small[4].groups
    assert groups < 4
    assert plan.widths['2'] == 4 * groups
    fitted = refit(model, small, plan, images.split(8), positions=64, ridge=1e-9)
    fed: list[Tensor] = []
    fitted[4].register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    with torch.no_grad():
        wanted = model[:5](images)[:, list(plan.kept['2'])].double()
        found = fitted[:5](images).double()
    x = torch.nn.functional.unfold(fed[0].double(), 3, padding=1)  # (images, 16 · 9, positions)
    for part in range(groups):
        rows = x[:, part * 36 : part * 36 + 36].movedim(1, -1).flatten(0, 1)
        rows = torch.cat((rows, torch.ones(len(rows), 1)), 1)
        own = slice(part * 4, part * 4 + 4)
        goal = wanted[:, own].movedim(1, -1).flatten(0, 2)
        best = torch.linalg.lstsq(rows, goal, driver='gelsd').solution  # some inputs are dead
        residual = float((rows @ best - goal).square().mean())
        left = (found[:, own].movedim(1, -1).flatten(0, 2) - goal).square().mean()
        assert left == pytest.approx(residual, rel=0.02)


def test_layers_with_long_receptive_fields_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain, plan, calibration, _ = setting()
    small = plan.apply(chain)
    monkeypatch.setattr(module, '_LONGEST', 100)  # the second layer has 12 · 9 in the parent
    fitted = refit(chain, small, plan, calibration)
    assert torch.equal(fitted.second.weight, small.second.weight)
    assert not torch.equal(fitted.last.weight, small.last.weight)
