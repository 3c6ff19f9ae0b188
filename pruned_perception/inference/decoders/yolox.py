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

"""YOLOX, as its own export script writes it (Ge et al. 2021, arXiv 2107.08430).

One output float32 (1, N, 5 + C), a row per cell: offset of the box's centre from the cell's
corner and logarithm of the box's size, both in units of the stride; objectness; C class scores
(sigmoid in the graph). Score = objectness · class score. Parameters: `strides`; `decoded`: the
graph already returns centre and size in input pixels (`--decode_in_inference`; also YOLOv5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'strides': (8, 16, 32), 'decoded': False}


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    merged = _options.merge(DEFAULTS, parameters)
    if merged['decoded']:
        cells = shapes[0][1] if len(shapes[0]) == 3 else -1  # anchors per cell are the graph's
    else:
        cells = sum(_grid.cell_counts(input_size, merged['strides']))
    _grid.check_shapes(shapes, [(1, cells, 5 + classes)])


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    merged = _options.merge(DEFAULTS, parameters)
    predictions = outputs[0][0]
    # No class score is above 1, so the objectness alone rules most cells out.
    likely = np.flatnonzero(predictions[:, 4] >= score_threshold)
    few = predictions[likely]
    rows, class_ids, scores = _grid.best_above(few[:, 5:] * few[:, 4:5], score_threshold)
    few = few[rows]
    centres, sizes = few[:, :2], few[:, 2:4]
    if not merged['decoded']:
        corners, strides = _grid.cells(input_size, merged['strides'])
        at = likely[rows]
        centres = (centres + corners[at]) * strides[at]
        sizes = np.exp(sizes) * strides[at]
    return Candidates(_grid.centres_to_boxes(centres, sizes), scores, class_ids)
