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

"""PP-YOLOE of PaddleDetection, exported without suppression (Xu et al. 2022, arXiv 2203.16250).

With `exclude_nms=True` two outputs: boxes (1, N, 4), corners in pixels over the input
`scale_factor`, which a bundle gives as 1; scores (1, C, N), a row per class. With
`exclude_post_process=True` one output (1, N, 4 + C): corners in pixels, scores. No parameters.
(With its suppression: decoder `end_to_end`.)
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
    cells = shapes[0][1] if len(shapes[0]) == 3 else -1
    one, two = [(1, cells, 4 + classes)], [(1, cells, 4), (1, classes, cells)]
    _grid.check_shapes(shapes, one if len(shapes) == 1 else two)


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    if len(outputs) == 1:
        boxes, scores = outputs[0][0, :, :4], outputs[0][0, :, 4:]
    else:
        likely = np.flatnonzero(outputs[1][0].max(axis=0) >= score_threshold)
        boxes, scores = outputs[0][0, likely], outputs[1][0][:, likely].T
    rows, class_ids, best = _grid.best_above(scores, score_threshold)
    return Candidates(boxes[rows].astype(np.float32), best, class_ids)
