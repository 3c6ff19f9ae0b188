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

"""NanoDet: class scores, and side distances as discrete distributions.

Li et al. 2020, Generalized Focal Loss, arXiv 2006.04388. A row per cell has C class scores (sigmoid
in the graph) and 4 · (R + 1) logits over 0 … R for left, top, right and bottom in units of the
stride; a distance is the softmax's mean. Outputs in the manifest: either one (1, N, C + 4 (R + 1)),
as its own export writes it; or per stride (1, N_s, C), then per stride (1, N_s, 4 (R + 1)).
Parameters: `strides` ([8, 16, 32, 64] for NanoDet-Plus), in the order of the rows or outputs;
`cell_centre`: 0.5 for NanoDet, 0 for NanoDet-Plus; `bins`: R + 1, of the one output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'strides': (8, 16, 32), 'cell_centre': 0.5, 'bins': 8}


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    merged = _options.merge(DEFAULTS, parameters)
    if merged['bins'] < 2:
        raise ValueError(f"parameter 'bins' must be 2 or more: {merged['bins']}")
    counts = _grid.cell_counts(input_size, merged['strides'])
    if len(shapes) == 1:
        _grid.check_shapes(shapes, [(1, sum(counts), classes + 4 * merged['bins'])])
        return
    last = shapes[-1][-1] if shapes[-1] else 0
    bins = last if last and last % 4 == 0 else 4
    want = [(1, count, classes) for count in counts] + [(1, count, bins) for count in counts]
    _grid.check_shapes(shapes, want)


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    merged = _options.merge(DEFAULTS, parameters)
    found = []
    first = 0
    if len(outputs) == 1:
        at = outputs[0].shape[2] - 4 * merged['bins']
        levels = [(outputs[0][0, :, :at], outputs[0][0, :, at:])]
    else:
        each = len(merged['strides'])
        levels = [(s[0], d[0]) for s, d in zip(outputs[:each], outputs[each:], strict=True)]
    for scores, distances in levels:
        rows, class_ids, best = _grid.best_above(scores, score_threshold)
        found.append((rows + first, class_ids, best, distances[rows]))
        first += len(scores)
    rows, class_ids, best, logits = (np.concatenate(column) for column in zip(*found, strict=True))
    corners, strides = _grid.cells(input_size, merged['strides'])
    sides = _expected(logits.reshape(len(rows), 4, logits.shape[1] // 4)) * strides[rows]
    centres = (corners[rows] + np.float32(merged['cell_centre'])) * strides[rows]
    return Candidates(_grid.sides_to_boxes(centres, sides), best, class_ids)


def _expected(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of 0 … R under the softmax of the last axis, (K, 4, R + 1) → (K, 4)."""
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    values = np.arange(logits.shape[2], dtype=np.float32)
    return (weights @ values) / weights.sum(axis=2)
