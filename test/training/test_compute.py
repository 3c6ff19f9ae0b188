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

import blobs
import torch

from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute, fastest
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
