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

"""A detector of a few layers with random weights, and pictures on which it finds something."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruned_perception.bundle import Bundle, write_bundle
from pruned_perception.training.exporting import onnx_bytes

SIDE, STRIDE, CLASSES = 32, 8, 2


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 16)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.deep = nn.Conv2d(16, 16, 3, 1, 1)
        self.head = nn.Conv2d(16, 4 + CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 64 - 2
        for layer in self.layers:
            x = layer(x).relu()
        raw = self.head(self.deep(x).relu()).flatten(2).transpose(1, 2)
        return torch.cat(((raw[..., :4] + 2).exp(), raw[..., 4:].sigmoid()), -1)


def write_parent(folder: Path, *, score: float = 0.5) -> Bundle:
    """Write the bundle of a network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = Tiny()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
                assert module.bias is not None
                nn.init.normal_(module.bias, std=0.1)
        with torch.no_grad():
            network.head.weight *= 0.5
    data = onnx_bytes(
        network, (torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8),), ['image'], ['predictions']
    )
    manifest = {
        'schema_version': 1, 'name': 'tiny',
        'input': {
            'name': 'image', 'shape': [1, SIDE, SIDE, 3], 'dtype': 'uint8', 'layout': 'NHWC',
            'color': 'rgb', 'resize': 'stretch', 'align': 'center', 'pad_value': 114,
            'mean': [0, 0, 0], 'std': [1, 1, 1],
        },
        'output': {
            'names': ['predictions'], 'decoder': 'anchor_free', 'parameters': {'strides': [STRIDE]},
        },
        'labels': ['one', 'two'],
        'thresholds': {'score': score, 'iou': 0.6, 'max_detections': 100},
        'cost': {'parameters': 1, 'macs': 1}, 'parent': None, 'pruning': None, 'certificate': None,
        'evaluation': [], 'latency': [],
        'provenance': {'created': '2025-01-01T00:00:00Z', 'tool': 'test'},
    }  # fmt: skip
    return write_bundle(folder, data, manifest)


def pictures(count: int, seed: int) -> Sequence[NDArray[np.uint8]]:
    """Return BGR pictures (40, 48, 3): coloured rectangles on noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        picture = rng.integers(60, 120, (40, 48, 3), np.uint8)
        for _ in range(3):
            top, left = rng.integers(0, 30), rng.integers(0, 36)
            picture[top : top + 12, left : left + 12] = rng.integers(0, 256, 3)
        found.append(picture)
    return found
