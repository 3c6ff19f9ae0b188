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

"""Networks that pruning could get wrong without a word: cut rightly, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning import (
    Macs,
    PruningError,
    find_groups,
    make_plan,
    mask_channels,
    recalibrate,
    slice_channels,
)
from pruned_perception.pruning.graph.agreement import deviation
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.pruning.surgery import unsliceable
from pruned_perception.training import Task, TrainingBudget, finetune

INPUT = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class _BoxesAndScores(nn.Module):
    """Scores of 0 … 1 beside boxes in pixels; the scores are divided by a width in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scored = _conv(3, 16), _conv(16, 20)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(20, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.scored(x)
        scores = (self.scores(y) * (1 + 0.01 * y.shape[1])).sigmoid()
        return torch.cat((self.boxes(x).exp() * 640, scores), 1)


def test_small_outputs_beside_large_ones_are_verified() -> None:
    model = _BoxesAndScores().eval()
    groups = find_groups(model, INPUT)
    assert 'output 0 of the network computes something else' in groups.not_pruned['scored.0']
    assert [group.name for group in groups.prunable] == ['stem.0']


def test_differences_count_per_channel() -> None:
    one = nn.Conv2d(3, 4, 1)
    other = copy.deepcopy(one)
    with torch.no_grad():
        one.weight[0] *= 1e4
        other.weight.copy_(one.weight)
        other.weight[2] *= 1.1
        other.bias[2] *= 1.1
    found, where = deviation(nn.Sequential(one), nn.Sequential(other), INPUT, {})
    assert found == pytest.approx(0.1, rel=0.01)
    assert where == '0'


class _Normalised(nn.Module):
    """Not finite on what is constant: 0 / 0, or the logarithm of what is not positive."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least, self.inner = least, nn.Sequential(_conv(3, 16), nn.Conv2d(16, 8, 1))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner((x - self.least).log()))


def test_what_is_not_finite_proves_nothing() -> None:
    model = _Normalised(2.0).eval()
    zeros = (torch.zeros(1, 3, 16, 16),)
    for look in (find_groups, lambda *args: slice_channels(*args, {'inner.0.0': range(8)})):
        with pytest.raises(PruningError, match=r'inner\.0\.0 has NaN or inf.* its example'):
            look(model, zeros)
    images = [torch.rand(4, 3, 16, 16) + 3]
    assert len(find_groups(model, zeros, calibration=images).prunable) == 2
    with pytest.raises(PruningError, match='NaN or infinite values on its calibration set'):
        find_groups(model, zeros, calibration=[torch.rand(4, 3, 16, 16)])
    plan = make_plan(model, zeros, budget=Macs(0.5), round_to=1, calibration=images)
    plan.apply(model, images)


class _WrongWhenBright(nn.Module):
    """A branch that random inputs of 0 … 1 never reach has a width in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second, self.head = _conv(3, 16), _conv(16, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        if x.max() > 1:
            y = y * (y.shape[1] / 16)
        return self.head(self.second(y))


def test_calibration_inputs_verify_where_they_are_given() -> None:
    model, images = _WrongWhenBright().eval(), [torch.rand(4, 3, 16, 16) * 255]
    assert {group.name for group in find_groups(model, INPUT).prunable} == {'stem.0', 'second.0'}
    groups = find_groups(model, INPUT, calibration=images)
    assert {group.name for group in groups.prunable} == {'second.0'}
    assert 'second.0 computes something else' in groups.not_pruned['stem.0']
    plan = make_plan(model, INPUT, budget=Macs(0.8), round_to=1, calibration=images)
    assert set(plan.kept) == {'second.0'}


class _SortedScores(nn.Module):
    """Picks the best of many positions: rounding may swap two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scores, self.head = _conv(3, 32), nn.Conv2d(32, 1, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scores = (self.scores(x) * 1e-6 + 1).flatten(1)  # many are all but equal
        best = scores.topk(100).indices
        rows = x.flatten(2).transpose(1, 2)
        return self.head(rows.gather(1, best[..., None].expand(-1, -1, rows.shape[2])))


def test_rounding_is_no_error() -> None:
    find_groups(_SortedScores().eval(), INPUT)
    # All channels but one of a sum cancel: of what is left, single precision has few digits.
    model = nn.Sequential(_conv(3, 16), nn.Conv2d(16, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[1].weight[0] = 1e4
        model[1].weight[0, 8:] = -1e4
        model[0][0].weight[8:] = model[0][0].weight[:8] + 1e-7
        model[0][0].bias[8:] = model[0][0].bias[:8]
    assert {group.name for group in find_groups(model, INPUT).prunable} == {'0.0', '1'}


class _TwoOfFour(nn.Module):
    """Fails at the widths that its code does not know, which a random half need not be."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second, self.third = _conv(3, 16), _conv(16, 24), _conv(24, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.stem(x))
        if y.shape[1] not in (24, 13):
            raise ValueError('unexpected width')
        return self.head(self.third(y))


def test_a_group_that_fails_at_the_chosen_widths_is_named_and_left_out() -> None:
    model = _TwoOfFour().eval()
    kept = {'stem.0': range(8), 'second.0': range(12), 'third.0': range(8)}
    groups = find_groups(model, INPUT)
    assert {group.name for group in groups.prunable} == set(kept)
    failed = unsliceable(model, INPUT, kept)
    assert list(failed) == ['second.0']
    assert 'ValueError after second.0: unexpected width' in failed['second.0']
    with pytest.raises(PruningError, match=r'plan: second\.0 cannot be sliced.*leave out second'):
        slice_channels(model, INPUT, kept)
    plan = make_plan(model, INPUT, budget=Macs(0.6), round_to=1)
    assert set(plan.kept) == {'stem.0', 'third.0'}
    assert 'unexpected width' in plan.not_pruned['second.0']
    assert 0.55 < plan.macs / plan.dense_macs <= 0.6
    plan.apply(model)
    given = make_plan(
        model, INPUT, widths={name: len(each) for name, each in kept.items()}, round_to=1
    )
    assert given.widths == {'stem.0': 8, 'third.0': 8}


class _Many(nn.Module):
    def __init__(self, depth: int, broken: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(3 if i == 0 else 8, 8) for i in range(depth))
        self.head, self.broken, self.calls = nn.Conv2d(8, 2, 1), broken, 0

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index == self.broken and x.shape[1] != 8:
                raise ValueError('eight only')
        return self.head(x)


def test_one_failing_group_of_many_costs_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    from pruned_perception.pruning import surgery

    tried: list[int] = []
    original = surgery._Network.slice

    def counting(self: Any, kept: Any) -> nn.Module:
        tried.append(len(kept))
        return original(self, kept)

    monkeypatch.setattr(surgery._Network, 'slice', counting)
    groups = find_groups(_Many(32, 13).eval(), INPUT)
    assert list(groups.not_pruned) == ['layers.13.0', 'head']
    assert len(groups.prunable) == 31
    assert tried == [32, 1, 31]  # the layer where it shows is suspected first


def test_a_failure_that_shows_elsewhere_is_found_by_bisection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pruned_perception.pruning import surgery

    tried: list[int] = []
    original = surgery._Network.slice

    def counting(self: Any, kept: Any) -> nn.Module:
        tried.append(len(kept))
        return original(self, kept)

    class Late(_Many):
        def forward(self, x: Tensor) -> Tensor:
            narrow = False
            for index, layer in enumerate(self.layers):
                x = layer(x)
                narrow |= index == self.broken and x.shape[1] != 8
            if narrow:
                raise ValueError('eight only')
            return self.head(x)

    monkeypatch.setattr(surgery._Network, 'slice', counting)
    groups = find_groups(Late(32, 13).eval(), INPUT)
    assert list(groups.not_pruned) == ['layers.13.0', 'head']
    assert len(groups.prunable) == 31
    assert len(tried) <= 2 * 5 + 3


class _Auxiliary(nn.Module):
    """Has heads that run in training only, as GoogLeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(16, 24)
        self.auxiliary = nn.Sequential(_conv(16, 8), nn.Flatten(), nn.Linear(8 * 256, 3))
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        y = self.head(self.dropout(self.second(x)).mean((2, 3)))
        return (y, self.auxiliary(x)) if self.training else y


# The score reads gradients, errors of layers, or sensitivities.
@pytest.mark.parametrize('criterion', ['taylor', 'joint_error', 'absolute', 'filter_l2'])
def test_heads_for_training_are_cut_with_what_they_read(criterion: str) -> None:
    model = _Auxiliary().eval()
    images = [torch.rand(16, 3, 16, 16)]
    plan = make_plan(
        model,
        (INPUT[0][:1],),
        budget=Macs(0.5),
        round_to=1,
        criterion=criterion,
        calibration=images,
    )
    assert plan.widths['stem.0'] < 16
    assert plan.not_pruned['auxiliary.0.0'] == 'runs in training only'
    small = recalibrate(plan.apply(model), images)
    assert small.auxiliary[0][0].in_channels == plan.widths['stem.0']

    def step(network: nn.Module, batch: Tensor) -> Tensor:
        return sum(
            functional.cross_entropy(each, torch.zeros(16).long()) for each in network(batch)
        )

    task = Task(
        small, INPUT, images, training=lambda seed: iter(lambda: images[0], None), step=step
    )
    finetune(small, task, TrainingBudget(steps=2))


@dataclass
class _Data:
    boxes: Tensor
    note: str = 'none'


class _Named(NamedTuple):
    boxes: Tensor
    logits: None = None


class _Slotted:
    def __init__(self, boxes: Tensor) -> None:
        self.boxes, self.parent = boxes, self


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    'and None': lambda y: (y, None),
    'and text': lambda y: [y, 'name', {'scale': 2.0, 'shape': (3, 4)}],
    'dataclass': _Data,
    'named tuple': _Named,
    'object that holds itself': _Slotted,
    'nested': lambda y: {'a': [{'b': (y, None)}]},
}


class _Returning(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap, self.layers = wrap, nn.Sequential(_conv(3, 16), nn.Conv2d(16, 4, 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.layers(x)
        return self.wrap(x if mask is None else x * mask)


@pytest.mark.parametrize('kind', OUTPUTS)
def test_tensors_are_found_in_whatever_a_network_returns(kind: str) -> None:
    model = _Returning(OUTPUTS[kind]).eval()
    plan = make_plan(model, INPUT, budget=Macs(0.5), round_to=1)
    small = plan.apply(model)
    masked = mask_channels(model, find_groups(model, INPUT), plan.kept)
    (one,), (other,) = tensors(masked(*INPUT)), tensors(small(*INPUT))
    torch.testing.assert_close(one, other)
    assert '1' in [name.split('.')[-1] for name in plan.not_pruned]  # the head stays


@pytest.mark.parametrize('nothing', [None, 'text', 3, (None, 'text'), type])
def test_outputs_without_tensors_are_refused(nothing: Any) -> None:
    with pytest.raises(PruningError, match='holds no tensors'):
        find_groups(_Returning(lambda y: nothing).eval(), INPUT)


def test_inputs_may_be_none() -> None:
    model = _Returning(lambda y: y).eval()
    images = [(torch.rand(16, 3, 16, 16), None)]
    plan = make_plan(
        model,
        (INPUT[0], None),
        budget=Macs(0.5),
        round_to=1,
        criterion='absolute',
        calibration=images,
    )
    recalibrate(type(plan).from_dict(plan.to_dict()).apply(model, images), images)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_networks_of_other_precision_are_cut(dtype: torch.dtype) -> None:
    model = nn.Sequential(_conv(3, 16), _conv(16, 24), nn.Conv2d(24, 4, 1)).to(dtype).eval()
    images = [torch.rand(4, 3, 16, 16).to(dtype)]
    example = (INPUT[0].to(dtype),)
    plan = make_plan(model, example, budget=Macs(0.5), round_to=1, calibration=images)
    assert set(plan.kept) == {'0.0', '1.0'}
    small = recalibrate(plan.apply(model, images), images)
    assert {each.dtype for each in small.parameters()} == {dtype}


@pytest.mark.parametrize('built_there', [False, True])
def test_what_is_cut_under_inference_mode_can_be_trained(built_there: bool) -> None:
    def build() -> nn.Module:
        return nn.Sequential(_conv(3, 16), _conv(16, 24), nn.Conv2d(24, 4, 1)).eval()

    model = None if built_there else build()
    with torch.inference_mode():
        model = model or build()
        images = [torch.rand(4, 3, 16, 16)]
        plan = make_plan(model, INPUT, budget=Macs(0.5), round_to=1, calibration=images)
        small = recalibrate(plan.apply(model), images)
    assert not any(each.is_inference() for each in (*small.parameters(), *small.buffers()))
    small.train()(INPUT[0]).sum().backward()
    assert all(each.grad is not None for each in small.parameters())
