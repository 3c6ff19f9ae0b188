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

"""ResNets for CIFAR-10 (He et al., CVPR 2016, section 4.2) that load akamaster's trained weights.

The shortcuts without parameters (option A: every second pixel, further channels zero) are written
as fixed strided 1×1 convolutions whose weights are 0 and 1. The outputs are the same to the bit,
and what a padded channel belongs to is then plain to every tool that couples channels.

Weights: github.com/akamaster/pytorch_resnet_cifar10, folder `pretrained_models`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.training.task import load_weights

WIDTHS = (16, 32, 64)
CLASSES = 10
WEIGHTS = {
    20: 'resnet20-12fca82f.th',
    44: 'resnet44-014dd654.th',
    56: 'resnet56-4bfd9763.th',
}
FOLDER_VARIABLE = 'CIFAR_RESNET_WEIGHTS'


class Shortcut(nn.Conv2d):
    """Option A: reads every second pixel, puts its channels in the middle of the wider output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, stride=2, bias=False)
        first = (outputs - inputs) // 2
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(first, first + inputs), range(inputs)] = 1
        self.weight.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # The published files know no such convolution.
        state_dict.setdefault(f'{prefix}weight', self.weight.detach())
        super()._load_from_state_dict(state_dict, prefix, *rest)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else Shortcut(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        z = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(z)) + self.shortcut(x))


class ResNet(nn.Module):
    """6n + 2 layers in three stages: (B, 3, 32, 32) normalised → (B, 10) scores."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for number, outputs in enumerate(WIDTHS, start=1):
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(BasicBlock(inputs, outputs, stride))
                inputs = outputs
            setattr(self, f'layer{number}', nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def weights_folder() -> Path:
    """Return $CIFAR_RESNET_WEIGHTS, or the folder of the weights beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'cifar_resnet_weights'
    return Path(os.environ.get(FOLDER_VARIABLE, beside))


def pretrained(depth: int, folder: Path | None = None) -> ResNet:
    """Return the trained network of that depth, in evaluation mode."""
    model = ResNet(depth)
    load_weights(model, (folder or weights_folder()) / WEIGHTS[depth])
    return model.eval()
