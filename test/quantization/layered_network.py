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

"""A detector with layers, without training: what it sees is nonsense, but the same each time."""

from __future__ import annotations

import numpy as np
import onnx_writer as ow
from numpy.typing import NDArray
from tiny_detector import HEIGHT, WIDTH

CHANNELS = 8


def layered_onnx(outlier: float = 1.0) -> bytes:
    """Return a network of four convolutions with x · sigmoid(x), and a head for boxes and scores.

    `outlier` multiplies one channel of the second layer, and what reads it is divided by as much:
    the same network, but hard to write in 8 bits.
    """
    rng = np.random.default_rng(3)
    width = (3, CHANNELS, CHANNELS, CHANNELS, 7)
    constants: dict[str, NDArray[np.generic]] = {'255': np.float32(1 / 255)}
    for k in range(4):
        shape = (width[k + 1], width[k], 3, 3)
        scale = np.sqrt(2 / np.prod(shape[1:]))
        constants[f'w{k}'] = (scale * rng.standard_normal(shape)).astype(np.float32)
        constants[f'b{k}'] = (0.2 * rng.standard_normal(shape[0])).astype(np.float32)
    constants['w3'] *= 3
    nodes = [
        ow.node('Cast', ['image'], ['float'], to=1),
        ow.node('Transpose', ['float'], ['planes'], perm=[0, 3, 1, 2]),
        ow.node('Mul', ['planes', '255'], ['a0']),
    ]
    for k in range(4):
        strides = [1, 1] if k == 3 else [2, 2]
        nodes.append(
            ow.node(
                'Conv',
                [f'a{k}', f'w{k}', f'b{k}'],
                [f'c{k}'],
                kernel_shape=[3, 3],
                strides=strides,
                pads=[1] * 4,
            )
        )
        if k < 3:
            nodes.append(ow.node('Sigmoid', [f'c{k}'], [f's{k}']))
            last = f'm{k}' if k == 1 else f'a{k + 1}'
            nodes.append(ow.node('Mul', [f'c{k}', f's{k}'], [last]))
        if k == 1:  # one channel is far larger than the others, and made small again
            large = np.ones((1, CHANNELS, 1, 1), np.float32)
            large[0, 0] = outlier
            constants['large'] = large
            constants['w2'][:, :1] /= np.float32(outlier)
            nodes.append(ow.node('Mul', ['m1', 'large'], ['a2']))
    constants['rows'] = np.array([1, 7, -1], np.int64)
    constants['parts'] = np.array([4, 3], np.int64)
    constants['size'] = np.float32(12)
    nodes += [
        ow.node('Reshape', ['c3', 'rows'], ['flat']),
        ow.node('Transpose', ['flat'], ['cells'], perm=[0, 2, 1]),
        ow.node('Split', ['cells', 'parts'], ['sides', 'logits'], axis=2),
        ow.node('Sigmoid', ['sides'], ['shares']),
        ow.node('Mul', ['shares', 'size'], ['distances']),
        ow.node('Sigmoid', ['logits'], ['scores']),
        ow.node('Concat', ['distances', 'scores'], ['predictions'], axis=2),
    ]
    cells = (HEIGHT // 8) * (WIDTH // 8)
    return ow.model(
        nodes,
        [ow.value('image', 'uint8', [1, HEIGHT, WIDTH, 3])],
        [ow.value('predictions', 'float32', [1, cells, 7])],
        constants,
    )


def pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Return pictures with soft blobs, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    found = []
    for _ in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 40.0)
        for _ in range(5):
            at = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH)
            near = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 2 / rng.uniform(4, 20) ** 2)
            image += near[..., None] * rng.uniform(-40, 200, 3)
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return found
