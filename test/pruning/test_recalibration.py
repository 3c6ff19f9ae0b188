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

from pruned_perception.pruning import PruningError, recalibrate


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    ).eval()


def _images(count: int = 64) -> Tensor:
    images = torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    images[-1] = 40.0  # one that is unlike all others
    return images


def _statistics(model: nn.Module) -> list[Tensor]:
    return [each for name, each in model.named_buffers() if 'running' in name]


def test_statistics_are_those_of_all_the_images() -> None:
    images, model = _images(), _network()
    norm = recalibrate(model, images.split(16))[1]
    assert isinstance(norm, nn.BatchNorm2d)
    read = model[0](images).detach()
    torch.testing.assert_close(norm.running_mean, read.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, read.var((0, 2, 3)))
    second = nn.BatchNorm2d(4, momentum=None)
    second(model[3](nn.functional.batch_norm(read, None, None, training=True).relu()))
    adjusted = recalibrate(model, [images])[4]
    assert isinstance(adjusted, nn.BatchNorm2d)
    torch.testing.assert_close(adjusted.running_mean, second.running_mean)
    torch.testing.assert_close(adjusted.running_var, second.running_var)


@pytest.mark.parametrize('sizes', [[63, 1], [1] * 64, [0, 40, 24], [1, 63]])
def test_images_weigh_the_same_whatever_the_batches(sizes: list[int]) -> None:
    whole = _statistics(recalibrate(_network(), [_images()]))
    parts = _statistics(recalibrate(_network(), _images().split(sizes)))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_large_sets_are_run_in_parts_that_do_not_depend_on_the_batches() -> None:
    images = torch.randn(1200, 2, 8, 8)
    seen: list[int] = []
    model = _network()
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    recalibrate(model, images.split(7))
    assert seen == [256, 256, 256, 432]
    seen.clear()
    recalibrate(model, [images])
    assert seen == [256, 256, 256, 432]


@pytest.mark.parametrize('empty', [list, lambda: iter(()), lambda: [torch.empty(0, 2, 8, 8)]])
def test_an_empty_set_is_refused(empty: Callable[[], list[Tensor]]) -> None:
    with pytest.raises(PruningError, match='empty, or a generator that was used up'):
        recalibrate(_network(), empty())


def test_values_that_are_not_finite_are_refused_and_their_place_is_named() -> None:
    broken = _images()
    broken[20] = torch.nan
    with pytest.raises(PruningError, match='batch 1 has values that are NaN'):
        recalibrate(_network(), broken.split(16))
    model = _network()
    model[3].weight.data[0] = torch.inf
    with pytest.raises(PruningError, match=r'4: what it reads .* is not finite'):
        recalibrate(model, [_images()])
    flat = nn.Sequential(nn.Conv2d(2, 3, 8), nn.BatchNorm2d(3))
    with pytest.raises(PruningError, match=r'1: reads one value per channel .* more images'):
        recalibrate(flat, [_images(1)])


class _TrainingHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main, self.auxiliary = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return x + self.auxiliary(x) if self.training else self.main(x)


def test_norms_that_do_not_run_and_all_modes_and_momenta_stay() -> None:
    model = _TrainingHead().train()
    model.main.eval()
    model.main.momentum = 0.3
    model.auxiliary.running_mean.fill_(5)
    adjusted = recalibrate(model, [(_images(), None)])
    assert (adjusted.training, adjusted.main.training) == (True, False)
    assert (adjusted.main.momentum, adjusted.auxiliary.momentum) == (0.3, 0.1)
    assert adjusted.auxiliary.running_mean.eq(5).all()
    assert not adjusted.main.running_mean.eq(0).any()
    assert model.main.running_mean.eq(0).all(), 'the original was changed'
    assert not adjusted.main._forward_pre_hooks
