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

"""TensorRT's EfficientNMS and its likes: a count, boxes, scores and classes.

Outputs in the manifest, in this order: the number of objects (1, 1) or (1,), boxes (1, K, 4),
scores (1, K), classes (1, K); what follows the objects counted means nothing. So export YOLOv6 and
YOLOv7 (num_dets, det_boxes, det_scores, det_classes), YOLO-NAS (num_predictions, pred_boxes,
pred_scores, pred_classes), and, with other parameters, TensorFlow's detection API. Parameters:

* `box_format`: 'xyxy', 'yxyx' (TensorFlow) or 'cxcywh';
* `normalized`: boxes in 0 … 1 of the input instead of pixels;
* `first_label`: class of the bundle's first label; 1 with TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _boxes, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'box_format': 'xyxy', 'normalized': False, 'first_label': 0}


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
    most = shapes[1][1] if len(shapes) == 4 and len(shapes[1]) == 3 else -1
    if list(shapes) not in (
        [(1, 1), (1, most, 4), (1, most), (1, most)],
        [(1,), (1, most, 4), (1, most), (1, most)],
    ):
        raise ValueError(
            'outputs (1, 1), (1, K, 4), (1, K), (1, K) — count, boxes, scores, classes — are '
            f'needed, not {", ".join(map(str, shapes))}'
        )


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the objects above the threshold."""
    merged = _options.merge(DEFAULTS, parameters)
    count = int(outputs[0].ravel()[0])
    boxes, scores, classes = (each[0, :count] for each in outputs[1:])
    rows = np.flatnonzero((scores >= score_threshold) & (classes >= merged['first_label']))
    corners = _boxes.to_corners(boxes[rows].astype(np.float32), merged['box_format'])
    if merged['normalized']:
        corners = corners * _boxes.scale(input_size)
    class_ids = np.rint(classes[rows]).astype(np.int64) - merged['first_label']
    return Candidates(corners, scores[rows].astype(np.float32), class_ids)
