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

"""DETR style: a set of queries (Carion et al. 2020, arXiv 2005.12872).

Outputs in the manifest, in this order: logits (1, Q, K) and boxes (1, Q, 4), centre and size in
0 … 1 of the input; or one output (1, Q, 4 + K), the boxes first. Parameter `activation`: 'softmax'
(DETR; K = C + 1, the last is "no object"), 'sigmoid' (Deformable DETR, RT-DETR; K = C) or 'none',
where the graph returns scores (Ultralytics' RT-DETR, in one output). Queries do not overlap by
construction, so a bundle's threshold `iou` is usually 1, which suppresses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _boxes, _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'activation': 'softmax'}

ACTIVATIONS = ('softmax', 'sigmoid', 'none')


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    activation = _options.merge(DEFAULTS, parameters)['activation']
    _options.choice('activation', activation, ACTIVATIONS)
    queries = shapes[0][1] if len(shapes[0]) == 3 else -1
    columns = classes + (activation == 'softmax')
    one, two = [(1, queries, 4 + columns)], [(1, queries, columns), (1, queries, 4)]
    _grid.check_shapes(shapes, one if len(shapes) == 1 else two)


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each query."""
    activation = _options.merge(DEFAULTS, parameters)['activation']
    if len(outputs) == 1:
        boxes, logits = outputs[0][0, :, :4], outputs[0][0, :, 4:]
    else:
        logits, boxes = outputs[0][0], outputs[1][0]
    if activation == 'softmax':
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (weights / weights.sum(axis=1, keepdims=True))[:, :-1]
    elif activation == 'sigmoid':
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = logits
    rows, class_ids, best = _grid.best_above(scores, score_threshold)
    few = boxes[rows] * _boxes.scale(input_size)
    return Candidates(_grid.centres_to_boxes(few[:, :2], few[:, 2:]), best, class_ids)
