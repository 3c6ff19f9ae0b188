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

"""A small network trained for a moment on gratings: untrained ones flatter the bounds."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from pruned_perception.pruning import Sensitivity, Structure, estimate_sensitivity, trace

CLASSES = 4  # orientations
STEPS = 150
EXAMPLE = (torch.zeros(1, 3, 16, 16),)


class Net(nn.Module):
    """Three convolutions with batch norm, global pooling, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (16, 32, 32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip((self.first, self.second, self.third), self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.head(x.mean((2, 3)))


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (count, 3, 16, 16) of noisy coloured gratings, and their orientations."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle = (labels + 0.6 * (uniform(count) - 0.5))[:, None, None] * math.pi / CLASSES
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing='ij')
    frequency = (0.7 + 0.6 * uniform(count))[:, None, None]
    phase = (2 * math.pi * uniform(count))[:, None, None]
    waves = (frequency * (row * angle.sin() + column * angle.cos()) + phase).sin()
    colours = 0.3 + 0.7 * uniform(count, 3, 1, 1)
    noise = torch.randn(count, 3, 16, 16, generator=generator)
    return waves[:, None] * colours + 0.5 + 0.3 * noise, labels


def batches(images: int, seed: int, *, size: int = 16) -> list[Tensor]:
    """Return unlabelled images in batches."""
    return list(examples(images, seed)[0].split(size))


@functools.cache
def network() -> Net:
    """Return the trained network in evaluation mode, always the same. Do not change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
    # By hand: importing an optimiser of PyTorch's takes longer than all of the training.
    speeds = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    for step in range(STEPS):
        images, labels = examples(16, seed=step)
        loss = nn.functional.cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, list(speeds))
        with torch.no_grad():
            for (parameter, speed), gradient in zip(speeds.items(), gradients, strict=True):
                parameter -= 0.05 * speed.mul_(0.9).add_(gradient)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Return the share of right answers on images of their own."""
    images, labels = examples(200, seed=10**6)
    return float((model(images).argmax(1) == labels).float().mean())


@functools.cache
def structure() -> Structure:
    """Return the trained network's structure."""
    return trace(network(), EXAMPLE)


@functools.cache
def sensitivity(
    definition: str, *, positions: int | None = None, images: int = 64, seed: int = 10**7
) -> Sensitivity:
    """Return the trained network's sensitivities on images of their own."""
    return estimate_sensitivity(
        network(),
        batches(images, seed),
        example_inputs=EXAMPLE,
        definition=definition,
        positions=positions,
        structure=structure(),
    )
