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

"""Greedy class-wise non-maximum suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.detections import Boxes, ClassIds, Scores

# Candidates are taken in blocks of this many, highest scores first: within a block all overlaps
# are one small matrix, so a frame's usual few dozen candidates cost a handful of numpy calls.
BLOCK = 128
_ABOVE = ~np.tri(BLOCK, dtype=bool)  # of each pair in a block, the one whose score is higher
_TINY = np.finfo(np.float32).tiny  # the union of boxes without area, so that 0 / 0 is 0


def iou_matrix(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union of boxes (N, 4) and (M, 4) xyxy as an (N, M) array.

    A box without area overlaps nothing.
    """
    # By coordinate: operations on (N, M) arrays without a short last axis, which numpy does fast.
    width = np.minimum.outer(a[:, 2], b[:, 2])
    width -= np.maximum.outer(a[:, 0], b[:, 0])
    height = np.minimum.outer(a[:, 3], b[:, 3])
    height -= np.maximum.outer(a[:, 1], b[:, 1])
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    intersection = np.multiply(width, height, out=width)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = np.add.outer(area_a, area_b)
    union -= intersection
    return intersection / np.maximum(union, _TINY)


def class_wise_nms(
    boxes: Boxes, scores: Scores, class_ids: ClassIds, iou_threshold: float, max_detections: int
) -> NDArray[np.intp]:
    """Return the indices of the boxes to keep, highest score first, at most `max_detections`.

    A box is dropped where a kept one of its own class, with a score at least as high, overlaps it
    by more than `iou_threshold`. Equal scores: the earlier box comes first.
    """
    order = np.argsort(-scores, kind='stable')
    if len(order) < 2:
        return order[:max_detections]
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        if len(kept):
            clash = _clashes(boxes, class_ids, kept, block, iou_threshold)
            block = block[~clash.any(axis=0)]
        clash = _clashes(boxes, class_ids, block, block, iou_threshold)
        clash &= _ABOVE[: len(block), : len(block)]
        alive = np.ones(len(block), bool)
        for row in np.flatnonzero(clash.any(axis=1)):
            if alive[row]:
                alive &= ~clash[row]
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def _clashes(
    boxes: Boxes,
    class_ids: ClassIds,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    iou_threshold: float,
) -> NDArray[np.bool_]:
    overlap = iou_matrix(boxes[first], boxes[second]) > iou_threshold
    overlap &= np.equal.outer(class_ids[first], class_ids[second])
    return overlap
