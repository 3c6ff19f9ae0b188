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

"""FastestDet: one small map (github.com/dog-qiuqiu/FastestDet).

One output float32 (1, 5 + C, h, w): objectness, box, C class scores (sigmoid and softmax in the
graph). In units of the map's cells the box's centre is the cell's corner + tanh of the offsets;
its size is the sigmoid of the last two, of the whole image. Score = objectness^0.6 · class^0.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS: dict[str, Any] = {}

_OBJECT, _CLASS = 0.6, 0.4


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    _options.merge(DEFAULTS, parameters)
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 5 + classes):
        raise ValueError(f'one output of shape (1, {5 + classes}, h, w) is needed, not {shapes}')


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    channels, height, width = outputs[0].shape[1:]
    cells = outputs[0][0].reshape(channels, height * width)
    # No class score is above 1, so the objectness alone rules most cells out.
    likely = np.flatnonzero(cells[0] >= max(score_threshold, 0.0) ** (1 / _OBJECT))
    few = cells[:, likely].T
    products = few[:, :1] ** _OBJECT * few[:, 5:] ** _CLASS
    rows, class_ids, scores = _grid.best_above(products, score_threshold)
    few, at = few[rows], likely[rows]
    corners = np.stack([at % width, at // width], axis=1)
    cell = np.array([input_size[1] / width, input_size[0] / height], np.float32)
    whole = np.array([input_size[1], input_size[0]], np.float32)
    centres = (np.tanh(few[:, 1:3]) + corners.astype(np.float32)) * cell
    sizes = whole / (1 + np.exp(-few[:, 3:5]))
    return Candidates(_grid.centres_to_boxes(centres, sizes), scores, class_ids)
