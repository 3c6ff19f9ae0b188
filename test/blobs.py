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

"""A user's own network and data: which quarter of a noisy 8 × 8 image is bright.

It imports nothing but what a user would, so that tests can copy it anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.outcomes import Figures
from pruned_perception.training.task import Task


class Net(nn.Module):
    """Three convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (B, 4) of images (B, 1, 8, 8)."""
        x = self.first_norm(self.first(x)).relu()
        x = self.second_norm(self.second(x)).relu()
        return self.head(nn.functional.max_pool2d(self.third(x).relu(), 4).flatten(1))


def examples(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (n, 1, 8, 8) and labels (n,)."""
    labels = torch.randint(4, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    for row in (0, 1):
        for column in (0, 1):
            bright = (labels == 2 * row + column).float()[:, None, None, None]
            images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.7 * bright
    return images, labels


def training(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield examples(16, generator)


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy of noisy images; the noise is from the global generator."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images + 0.1 * torch.randn_like(images)), labels)


def accuracy(model: nn.Module, seed: int) -> Figures:
    """Return the share of right answers, and which they are."""
    images, labels = examples(256, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).double()
    return Figures({'accuracy': float(right.mean())}, right.numpy())


def network() -> Net:
    """Return the untrained network, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def task(**changes: Any) -> Task:
    """Return the task."""
    model = network()
    images, _ = examples(160, torch.Generator().manual_seed(1))
    fields: dict[str, Any] = {
        'model': model,
        'example_inputs': (images[:1],),
        'calibration': list(images.split(40)),
        'training': training,
        'step': step,
        'evaluate': lambda net: accuracy(net, 2),
        'test': lambda net: accuracy(net, 3),
        'trained_for': TrainingBudget(steps=60),
    }
    return Task(**(fields | changes))
