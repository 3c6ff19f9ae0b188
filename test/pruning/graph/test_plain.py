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

"""Layers with the weights that they compute."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from pruned_perception.pruning import Params, Planner
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.outcome import finish
from pruned_perception.pruning.sparsity import make_plan


class _Standardised(nn.Conv2d):
    """As in NF-Nets: a gain of its own, and the weights of an output normalised together."""

    def __init__(self, *sizes: int, **options: int) -> None:
        super().__init__(*sizes, **options)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5) * self.gain
        return functional.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class _Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, 2 * self.weight, self.bias)


class _Padding(nn.Conv2d):
    """Does more than convolve, with weights that it has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


class _Dynamic(nn.Conv2d):
    """Weights that depend on the input are no constants."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * x.mean(), self.bias)


def _old(function: Callable[[nn.Module], nn.Module], layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        return function(layer)


def _conv(**options: int) -> nn.Conv2d:
    return nn.Conv2d(16, 24, 3, padding=1, **options)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    'standardised': lambda: _Standardised(16, 24, 3, padding=1, stride=2),
    'standardised, grouped': lambda: _Standardised(16, 24, 3, groups=4),
    'weight norm': lambda: parametrizations.weight_norm(_conv()),
    'weight norm, transposed': lambda: parametrizations.weight_norm(nn.ConvTranspose2d(16, 24, 2)),
    'weight norm by a hook': lambda: _old(nn.utils.weight_norm, _conv()),
    'spectral norm': lambda: parametrizations.spectral_norm(_conv()),
    'spectral norm by a hook': lambda: _old(nn.utils.spectral_norm, _conv()),
    'masked': lambda: prune.l1_unstructured(_conv(), 'weight', 0.5),
    'doubled': lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), _Doubled(16, 24)),
}


def _network(middle: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    flat = [] if isinstance(middle, nn.Sequential) else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), middle, nn.ReLU(), *flat,
        nn.Linear(24, 4),
    )  # fmt: skip


def _images() -> Tensor:
    return torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', LAYERS)
def test_a_network_computes_the_same_with_constants(name: str) -> None:
    model = _network(LAYERS[name]())
    model(_images())  # with gradients, after which old hooks leave what cannot be copied
    before = copy.deepcopy(list(model.state_dict().items()))
    found = plain(model)
    assert model.training
    assert found.training
    assert plain(found) is found
    assert torch.allclose(found.eval()(_images()), model.eval()(_images()), rtol=1e-5, atol=1e-6)
    layers = [
        m for m in found.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    assert all(type(each).__module__.startswith('torch.nn') for each in layers)
    assert all(isinstance(each.weight, nn.Parameter) for each in layers)
    assert all(each.weight.requires_grad for each in layers)
    after = list(model.state_dict().items())
    assert [key for key, _ in before] == [key for key, _ in after]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(before, after, strict=True))


@pytest.mark.parametrize('name', LAYERS)
def test_it_is_cut_before_and_behind(name: str) -> None:
    """Sizes are those planned, or `apply` says so; that it is cut rightly, `cut` has verified."""
    model = _network(LAYERS[name]())
    images = _images()
    planner = Planner(model, (images[:1],), calibration=[images], criterion='joint_error')
    channels = planner.structure.channels
    assert len(channels) == (1 if 'grouped' in name else 2)
    plan = planner.plan(widths={group: count // 2 for group, count in channels.items()})
    small, outcome = finish(model, planner.cut(plan), [images], plan=plan, refit=True)
    assert outcome is not None
    assert small(images).shape == (16, 4)


@pytest.mark.parametrize('name', LAYERS)
def test_single_weights_that_go_are_those_that_count(name: str) -> None:
    model = _network(LAYERS[name]())
    plan = make_plan(model, criterion='magnitude', budget=Params(0.5))
    layers = {each: m for each, m in plan.apply(model).named_modules() if hasattr(m, 'weight')}
    kept = {each.name: int((layers[each.name].weight != 0).sum()) for each in plan.layers}
    assert kept == plan.counts


@pytest.mark.parametrize(
    'layer', [nn.Conv2d(16, 24, 3), _Padding(16, 24, 3), _Dynamic(16, 24, 3)], ids=repr
)
def test_what_has_its_weights_or_no_constant_ones_stays(layer: nn.Module) -> None:
    model = _network(layer)
    assert plain(model) is model
