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

"""The tiny detector behind a loop that does not end on bright images, for time limits.

On an image whose mean is over `above` (grey levels, 0 … 255), and at most `until`, it goes on: for
ever with small nodes, between which a run can be broken off, or for minutes in a single one, where
it cannot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_writer as ow
from tiny_detector import HEIGHT, SIDE, STRIDE, WIDTH, write_tiny_bundle

from pruned_perception.bundle import Bundle

CELLS = (HEIGHT // STRIDE) * (WIDTH // STRIDE)
BRIGHT, ALWAYS = 200.0, -1.0
_BOXES = 300_000  # that do not overlap: the suppression compares each with all that it kept


def stuck_onnx(
    *,
    above: float = BRIGHT,
    until: float = np.inf,
    breakable: bool = True,
    symbolic: bool = False,
) -> bytes:
    """Return the ONNX file: no object is found, where it ends. `symbolic` as in tiny_onnx."""
    state = ('state_in', 'float32', [])
    if breakable:
        body_nodes = [
            ow.node('Identity', ['going_in'], ['going_out']),
            ow.node('Identity', ['state_in'], ['state_out']),
        ]
        constants = {}
    else:
        # The boxes are computed from the state, or they would be suppressed when it is loaded.
        body_nodes = [
            ow.node('Mul', ['state_in', 'zero'], ['nothing']),
            ow.node('Add', ['boxes', 'nothing'], ['moved']),
            ow.node('NonMaxSuppression', ['moved', 'box_scores', 'most', 'iou'], ['kept']),
            ow.node('Cast', ['kept'], ['kept_float'], to=1),
            ow.node('ReduceMean', ['kept_float'], ['state_out'], keepdims=0),
            ow.node('Identity', ['going_in'], ['going_out']),
        ]
        places = np.arange(_BOXES, dtype=np.float32)[:, None] * 2
        constants = {
            'boxes': np.hstack([places, places, places + 1, places + 1])[None],
            'box_scores': np.ones((1, 1, _BOXES), np.float32),
            'most': np.array([_BOXES], np.int64),
            'iou': np.array([0.5], np.float32),
            'zero': np.array(0, np.float32),
        }
    body = ow.graph(
        body_nodes,
        [ow.value('i', 'int64', []), ow.value('going_in', 'bool', []), ow.value(*state)],
        [ow.value('going_out', 'bool', []), ow.value('state_out', 'float32', [])],
        {},
    )
    nodes = [
        ow.node('Cast', ['image'], ['float'], to=1),
        ow.node('ReduceMean', ['float'], ['mean'], keepdims=0),
        ow.node('Greater', ['mean', 'above'], ['over']),
        ow.node('LessOrEqual', ['mean', 'until'], ['under']),
        ow.node('And', ['over', 'under'], ['going']),
        ow.node('Loop', ['', 'going', 'mean'], ['left'], body=body),
        ow.node('Mul', ['left', 'none'], ['score']),
        ow.node('Add', ['rows', 'score'], ['predictions']),
    ]
    rows = np.zeros((1, CELLS, 7), np.float32)
    rows[:, :, :4] = SIDE / 2
    constants |= {
        'above': np.array(above, np.float32),
        'until': np.array(until, np.float32),
        'none': np.array(0, np.float32),
        'rows': rows,
    }
    return ow.model(
        nodes,
        [ow.value('image', 'uint8', [1, HEIGHT, WIDTH, 3])],
        [ow.value('predictions', 'float32', [1, 'cells' if symbolic else CELLS, 7])],
        constants,
    )


def failing_onnx(*, crashes: bool) -> bytes:
    """Return the ONNX file of a network that fails on images that are bright, but not white.

    `crashes`: the engine's run ends with an error; otherwise its output is NaN.
    """
    nodes = [
        ow.node('Cast', ['image'], ['float'], to=1),
        ow.node('ReduceMean', ['float'], ['mean'], keepdims=0),
        ow.node('Greater', ['mean', 'above'], ['over']),
        ow.node('LessOrEqual', ['mean', 'until'], ['under']),
        ow.node('And', ['over', 'under'], ['bad']),
    ]
    if crashes:  # an index that is none
        nodes += [
            ow.node('Cast', ['bad'], ['index'], to=7),
            ow.node('Gather', ['rows', 'index'], ['row'], axis=0),
            ow.node('Identity', ['row'], ['shaped']),
        ]
    else:  # the root of −1
        nodes += [
            ow.node('Cast', ['bad'], ['one'], to=1),
            ow.node('Neg', ['one'], ['negative']),
            ow.node('Sqrt', ['negative'], ['root']),
            ow.node('Gather', ['rows', 'first'], ['row'], axis=0),
            ow.node('Add', ['row', 'root'], ['shaped']),
        ]
    rows = np.zeros((1, CELLS, 7), np.float32)
    rows[:, :, :4] = SIDE / 2
    constants = {
        'above': np.array(BRIGHT, np.float32),
        'until': np.array(250.0, np.float32),
        'rows': rows,
        'first': np.array(0, np.int64),
        'axis': np.array([0], np.int64),
    }
    return ow.model(
        [*nodes, ow.node('Unsqueeze', ['shaped', 'axis'], ['predictions'])],
        [ow.value('image', 'uint8', [1, HEIGHT, WIDTH, 3])],
        [ow.value('predictions', 'float32', [1, CELLS, 7])],
        constants,
    )


def write_stuck_bundle(folder: Path, **options: Any) -> Bundle:
    """Write a bundle of it; the options are those of `stuck_onnx`."""
    onnx = stuck_onnx(**options)
    return write_tiny_bundle(folder, name='stuck', onnx=onnx)
