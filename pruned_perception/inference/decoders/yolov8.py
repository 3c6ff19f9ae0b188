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

"""YOLOv8-style (v8, v9, 11, …): one output (1, 4 + C, N), ready but for the suppression.

A column per candidate: centre and size of the box in input pixels, then C class scores (sigmoid
in the graph). No parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS: dict[str, Any] = {}


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    _options.merge(DEFAULTS, parameters)
    candidates = shapes[0][2] if len(shapes[0]) == 3 else -1
    _grid.check_shapes(shapes, [(1, 4 + classes, candidates)])


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each candidate."""
    predictions = outputs[0][0]
    likely = np.flatnonzero(predictions[4:].max(axis=0) >= score_threshold)
    few = predictions[:, likely].T
    rows, class_ids, scores = _grid.best_above(few[:, 4:], score_threshold)
    few = few[rows]
    return Candidates(_grid.centres_to_boxes(few[:, :2], few[:, 2:4]), scores, class_ids)
