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

"""How far a detector's answers are from its parent's, without labels: one number for all decoders.

Raw outputs mix logits, distances and logarithms, and most cells see nothing. What counts is what
either network sees: its boxes and scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.detections import Boxes, Candidates
from pruned_perception.inference.nms import iou_matrix


def divergence(parent: Sequence[Candidates], child: Sequence[Candidates]) -> float:
    """Return the mean over candidates of |Δ score| + (1 − overlap), weighted by score².

    The weight of a candidate is the square of the higher of its two scores, so that background
    counts for nothing. 0: the same; 0.1, say: scores off by 0.05 and overlaps of 0.95; at most 2.
    A change of the class is no overlap. 0 where neither network has any candidate.

    Args:
        parent: of each image all candidates (a score threshold of −∞), cell by cell.
        child: likewise, of the other network. Where their number differs (networks that suppress
            by themselves), each of the parent's is compared with the most overlapping of its class.
    """
    total = weights = 0.0
    for one, other in zip(parent, child, strict=True):
        if len(one.scores) != len(other.scores):
            other = _counterparts(one, other)
        weight = np.maximum(one.scores, other.scores).astype(float) ** 2
        overlap = _overlap(one.boxes, other.boxes) * (one.class_ids == other.class_ids)
        total += float((weight * (np.abs(one.scores - other.scores) + 1 - overlap)).sum())
        weights += float(weight.sum())
    return total / weights if weights else 0.0


def relative_error(
    parent: Sequence[Sequence[NDArray[np.float32]]], child: Sequence[Sequence[NDArray[np.float32]]]
) -> float:
    """Return ‖child − parent‖ / ‖parent − its mean‖ over raw outputs, a root mean of squares.

    Args:
        parent: of each image the network's outputs.
        child: likewise, of the same shapes; all outputs count alike.
    """
    shares = []
    for one, other in zip(zip(*parent, strict=True), zip(*child, strict=True), strict=True):
        wanted, found = np.stack(one).astype(float), np.stack(other).astype(float)
        spread = float(((wanted - wanted.mean()) ** 2).sum())
        gap = float(((found - wanted) ** 2).sum())
        shares.append(gap / spread if spread else float(gap > 0))
    return float(np.sqrt(np.mean(shares)))


def _overlap(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the intersection over union of boxes (N, 4) with those of the same row."""
    a, b = a.astype(float), b.astype(float)
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - common
    return np.asarray(common / np.maximum(union, np.finfo(float).tiny))


def _counterparts(one: Candidates, other: Candidates) -> Candidates:
    """Return for each of `one` the candidate of `other` that overlaps it most, of its class."""
    if not len(other.scores) or not len(one.scores):
        return Candidates(one.boxes, np.zeros_like(one.scores), np.full_like(one.class_ids, -1))
    overlap = iou_matrix(one.boxes, other.boxes)
    overlap[np.not_equal.outer(one.class_ids, other.class_ids)] = -1
    best = overlap.argmax(axis=1)
    return Candidates(other.boxes[best], other.scores[best], other.class_ids[best])
