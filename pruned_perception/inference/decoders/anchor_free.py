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

"""Our own detectors: distances to the box's sides, and scores, ready from the graph.

One output float32 (1, N, 4 + C), a row per cell: left, top, right, bottom distance from the
cell's centre ((column + 0.5) · stride, (row + 0.5) · stride) in input pixels, then C scores in
0 … 1. Parameters: `strides`, in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'strides': (8, 16, 32)}


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    strides = _options.merge(DEFAULTS, parameters)['strides']
    cells = sum(_grid.cell_counts(input_size, strides))
    _grid.check_shapes(shapes, [(1, cells, 4 + classes)])


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    strides = _options.merge(DEFAULTS, parameters)['strides']
    predictions = outputs[0][0]
    rows, class_ids, scores = _grid.best_above(predictions[:, 4:], score_threshold)
    corners, sizes = _grid.cells(input_size, strides)
    boxes = _grid.sides_to_boxes((corners[rows] + 0.5) * sizes[rows], predictions[rows, :4])
    return Candidates(boxes, scores, class_ids)
