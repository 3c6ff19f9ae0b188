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

"""The tiny detector with more channels than it needs: to be pruned, and taught again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from tiny_detector import HEIGHT, SIDE, STRIDE, WIDTH, write_tiny_bundle
from torch import Tensor, nn

from pruned_perception.bundle import Bundle
from pruned_perception.training.exporting import onnx_bytes


class Wide(nn.Module):
    """For each colour two channels, and eight that idle."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(SIDE, STRIDE, STRIDE)
        self.first, self.last = nn.Conv2d(3, 14, 1), nn.Conv2d(14, 3, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for colour in range(3):
                for copy in range(2):
                    self.first.weight[2 * colour + copy, colour] = 1
                    self.last.weight[:, 2 * colour + copy] = -0.25 / 32
                    self.last.weight[colour, 2 * colour + copy] = 0.5 / 32
            self.first.weight[6:] = 0.01 * torch.rand(8, 3, 1, 1)
            self.last.bias[:] = -4.0

    def forward(self, image: Tensor) -> Tensor:
        maps = self.last(self.first(self.pool(image.permute(0, 3, 1, 2).float())).relu())
        distances = torch.full((1, (HEIGHT // STRIDE) * (WIDTH // STRIDE), 4), SIDE / 2)
        return torch.cat((distances, maps.sigmoid().flatten(2).transpose(1, 2)), 2)


def write_wide_bundle(folder: Path, name: str = 'dense') -> Bundle:
    """Write its bundle."""
    example = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    torch.manual_seed(0)
    onnx = onnx_bytes(Wide(), (example,), ['image'], ['predictions'])
    return write_tiny_bundle(folder, name=name, onnx=onnx)


def write_squares(folder: Path, count: int, *, seed: int = 0) -> None:
    """Write pictures with a square each, where the detector finds it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        picture = rng.integers(0, 40, (HEIGHT, WIDTH, 3), np.uint8)
        x, y = 8 * rng.integers(0, 12), 8 * rng.integers(0, 9)
        picture[y : y + SIDE, x : x + SIDE, index % 3] = 255
        cv2.imwrite(str(folder / f'{index:03}.png'), picture)
