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

"""A detector small enough to be written down, which really detects: squares of a pure colour.

Each cell of a grid of stride 8 scores the mean of `own channel − half of both others` in the
24 × 24 pixels around it; its box is this window. So a red, green or blue square of 24 × 24 input
pixels whose corners lie at multiples of 8 is found exactly, with a score of 0.98.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_writer as ow
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle, write_bundle

LABELS = ('red', 'green', 'blue')
HEIGHT, WIDTH = 96, 128
STRIDE, SIDE = 8, 24
GAIN = 32.0


def tiny_onnx(
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    gain: float = GAIN,
    scale: float = 1.0,
    symbolic: bool = False,
) -> bytes:
    """Return the ONNX file.

    `gain`: grey levels per unit of logit; `scale` multiplies the distances (nan: a network that
    returns NaN); `symbolic`: outputs with symbolic dimensions.
    """
    cells = (height // STRIDE) * (width // STRIDE)
    mix = np.full((3, 3, 1, 1), -0.5 / gain, np.float32)
    mix[range(3), range(3)] = 1 / gain
    nodes = [
        ow.node('Cast', ['image'], ['float'], to=1),
        ow.node('Transpose', ['float'], ['planes'], perm=[0, 3, 1, 2]),
        ow.node(
            'AveragePool',
            ['planes'],
            ['mean'],
            kernel_shape=[SIDE, SIDE],
            strides=[STRIDE, STRIDE],
            pads=[STRIDE] * 4,
            count_include_pad=1,
        ),
        ow.node('Conv', ['mean', 'mix', 'bias'], ['logits']),
        ow.node('Sigmoid', ['logits'], ['maps']),
        ow.node('Reshape', ['maps', 'rows'], ['flat']),
        ow.node('Transpose', ['flat'], ['scores'], perm=[0, 2, 1]),
        ow.node('Concat', ['distances', 'scores'], ['predictions'], axis=2),
    ]
    constants = {
        'mix': mix,
        'bias': np.full(3, -128 / gain, np.float32),
        'rows': np.array([1, 3, -1], np.int64),
        'distances': np.full((1, cells, 4), SIDE / 2 * scale, np.float32),
    }
    shape = [1, 'cells', 'columns'] if symbolic else [1, cells, 7]
    return ow.model(
        nodes,
        [ow.value('image', 'uint8', [1, height, width, 3])],
        [ow.value('predictions', 'float32', shape)],
        constants,
    )


def tiny_manifest(**changes: Any) -> dict[str, Any]:
    """Return the manifest, without the section `onnx`; `changes` replace top-level fields."""
    manifest: dict[str, Any] = {
        'schema_version': 1,
        'name': 'tiny',
        'input': {
            'name': 'image',
            'shape': [1, HEIGHT, WIDTH, 3],
            'dtype': 'uint8',
            'layout': 'NHWC',
            'color': 'rgb',
            'resize': 'stretch',
            'align': 'center',
            'pad_value': 114,
            'mean': [0, 0, 0],
            'std': [1, 1, 1],
        },
        'output': {
            'names': ['predictions'],
            'decoder': 'anchor_free',
            'parameters': {'strides': [STRIDE]},
        },
        'labels': list(LABELS),
        'thresholds': {'score': 0.5, 'iou': 0.3, 'max_detections': 100},
        'cost': {'parameters': 12, 'macs': 9 * (HEIGHT // STRIDE) * (WIDTH // STRIDE)},
        'parent': None,
        'pruning': None,
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {'created': '2025-01-01T00:00:00Z', 'tool': 'test'},
    }
    return {**manifest, **changes}


def write_tiny_bundle(
    folder: Path,
    *,
    name: str = 'tiny',
    macs: int | None = None,
    gain: float = GAIN,
    parent: dict[str, str] | None = None,
    onnx: bytes | None = None,
    **changes: Any,
) -> Bundle:
    """Write the bundle to `folder`; other `gain`s make other files that detect the same."""
    manifest = tiny_manifest(name=name, parent=parent, **changes)
    if macs is not None:
        manifest['cost'] = {**manifest['cost'], 'macs': macs}
    return write_bundle(folder, tiny_onnx(gain=gain) if onnx is None else onnx, manifest)


def square_image(
    label: str, left: int, top: int, side: int, *, height: int = 480, width: int = 640
) -> NDArray[np.uint8]:
    """Return a black rgb image (height, width, 3) with one square, pixels of this image.

    At 640 × 480 (five times the network's input) side 120 at multiples of 40 is found exactly.
    """
    image = np.zeros((height, width, 3), np.uint8)
    image[top : top + side, left : left + side, LABELS.index(label)] = 255
    return image
