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

"""SSD and torchvision style: boxes and scores, with labels or a score per class.

Outputs in the manifest, in this order: boxes (N, 4), scores (N,) and labels (N,) — N may differ
from image to image — or boxes (N, 4) and scores (N, K), one column per class; each may have a
leading batch dimension of 1. Parameters:

* `box_format`: 'xyxy', 'yxyx' (TensorFlow) or 'cxcywh',
* `normalized`: boxes in 0 … 1 of the input instead of pixels,
* `first_label`: the label, or the column, of the bundle's first class; 1 where 0 is background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _boxes, _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'box_format': 'xyxy', 'normalized': False, 'first_label': 1}


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    merged = _options.merge(DEFAULTS, parameters)
    _options.choice('box_format', merged['box_format'], _boxes.FORMATS)
    _options.first_label(merged)
    batched = len(shapes[0]) == 3
    flat = [shape[1:] if batched and shape[:1] == (1,) else shape for shape in shapes]
    count = flat[0][0] if flat[0] else -1
    per_class = merged['first_label'] + classes
    if flat not in ([(count, 4), (count,), (count,)], [(count, 4), (count, per_class)]):
        raise ValueError(
            'outputs (N, 4), (N,), (N,) — boxes, scores, labels — or '
            f'(N, 4), (N, {per_class}) are needed, not {", ".join(map(str, shapes))}'
        )


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold; those of the background are left out."""
    merged = _options.merge(DEFAULTS, parameters)
    first = merged['first_label']
    boxes = outputs[0].reshape(-1, 4)
    if len(outputs) == 3:
        scores, labels = outputs[1].ravel(), outputs[2].ravel()
        rows = np.flatnonzero((scores >= score_threshold) & (labels >= first))
        best, class_ids = scores[rows].astype(np.float32), labels[rows].astype(np.int64) - first
    else:
        scores = outputs[1].reshape(len(boxes), outputs[1].shape[-1])[:, first:]
        rows, class_ids, best = _grid.best_above(scores, score_threshold)
    few = _boxes.to_corners(boxes[rows].astype(np.float32), merged['box_format'])
    if merged['normalized']:
        few = few * _boxes.scale(input_size)
    return Candidates(few, best, class_ids)
