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

"""Mixed precision changes products, not what is stored."""

from __future__ import annotations

import math
import warnings
from typing import Any

import blobs
import pytest
import torch
from torch import Tensor, nn

from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute, fastest, find_precision, workers_for
from pruned_perception.training.loop import train


def test_brain_floats_train_single_precision_weights_alike_and_repeatably() -> None:
    task, budget = blobs.task(), TrainingBudget(steps=5)
    single = train(task.model, task, budget).network
    brain, again = (
        train(task.model, task, budget, compute=Compute(precision=torch.bfloat16)).network
        for _ in range(2)
    )
    for name, value in brain.state_dict().items():
        wanted = single.state_dict()[name]
        assert value.dtype == wanted.dtype
        assert torch.equal(value, again.state_dict()[name])
        torch.testing.assert_close(value, wanted, rtol=0.1, atol=0.02)
    assert any(
        not torch.equal(value, single.state_dict()[name])
        for name, value in brain.state_dict().items()
    )


def test_the_fastest_computes_in_brain_floats_only_where_the_processor_can(
    monkeypatch,
) -> None:
    for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert fastest().precision == torch.float32
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True, raising=False)
    assert fastest().precision == torch.bfloat16


def test_float16_scales_its_loss_and_gives_way_where_a_loss_is_too_large_for_it() -> None:
    def steep(model: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        losses.append(nn.functional.cross_entropy(model(images) * scale, labels))
        return losses[-1]

    losses: list[Tensor] = []
    scale, task, budget = 1.0, blobs.task(step=steep), TrainingBudget(steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        half = train(task.model, task, budget, compute=Compute(precision=torch.float16)).network
    single = train(task.model, task, budget).network
    for name, value in single.state_dict().items():
        found = half.state_dict()[name]
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value, rtol=0.1, atol=0.02)
    losses.clear()
    scale = 1e6
    with pytest.warns(UserWarning, match=r'step 1 is too large for float16; it goes on in b?float'):
        train(task.model, task, budget, compute=Compute(precision=torch.float16))
    assert len(losses) == 6  # the first step is done again
    assert [math.isfinite(each.item()) for each in losses] == [False, *[True] * 5]


def test_precisions_are_those_of_the_device() -> None:
    cpu = torch.device('cpu')
    assert find_precision('auto', cpu) == torch.float32
    assert find_precision('float16', cpu) == torch.float16
    assert workers_for(cpu) == 0


@pytest.mark.parametrize(('has', 'wanted'), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_computes_in_what_it_has(
    has: bool, wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda **_: has)
    gpu = torch.device('cuda', 0)
    assert find_precision('auto', gpu) == wanted
    assert workers_for(gpu) >= 1
    assert Compute(gpu, precision=wanted).channels_last
    assert not Compute(gpu).channels_last
