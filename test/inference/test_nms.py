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

"""Non-maximum suppression against the definition, box by box."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference.nms import BLOCK, class_wise_nms, iou_matrix

# Few places and few scores, so that overlaps, equal boxes and ties are common.
places = st.integers(0, 12)
box = st.tuples(places, places, places, places, st.integers(0, 4), st.integers(0, 2))
rows = st.lists(box, max_size=40)


def columns(found):
    table = np.array(found, np.float64).reshape(-1, 6)
    corners, extent = table[:, :2], table[:, 2:4]
    boxes = np.concatenate([corners, corners + extent], axis=1).astype(np.float32)
    return boxes, (table[:, 4] / 4).astype(np.float32), table[:, 5].astype(np.int64)


def iou(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def reference(boxes, scores, class_ids, iou_threshold, max_detections) -> list[int]:
    """Return what greedy suppression keeps, by its definition."""
    waiting = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in waiting:
        clash = any(
            class_ids[i] == class_ids[j] and iou(boxes[i], boxes[j]) > iou_threshold for j in kept
        )
        if not clash:
            kept.append(i)
    return kept[:max_detections]


@given(rows, st.sampled_from([0.0, 0.3, 0.55, 0.99, 1.0]), st.integers(1, 50))
def test_it_keeps_what_the_definition_keeps(found, iou_threshold, max_detections):
    boxes, scores, class_ids = columns(found)
    kept = class_wise_nms(boxes, scores, class_ids, iou_threshold, max_detections)
    wanted = reference(boxes.tolist(), scores, class_ids, iou_threshold, max_detections)
    assert kept.tolist() == wanted


def test_many_candidates_in_several_blocks():
    rng = np.random.default_rng(0)
    count = 3 * BLOCK + 17
    corners = rng.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = rng.random(count, np.float32)
    class_ids = rng.integers(0, 3, count)
    for max_detections in (10, 10_000):
        kept = class_wise_nms(boxes, scores, class_ids, 0.4, max_detections)
        wanted = reference(boxes.astype(float).tolist(), scores, class_ids, 0.4, max_detections)
        assert kept.tolist() == wanted
    assert len(kept) > BLOCK


@given(rows, rows)
def test_the_matrix_is_the_formula(first, second):
    a, b = columns(first)[0], columns(second)[0]
    matrix = iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    for i, j in np.ndindex(matrix.shape):
        np.testing.assert_allclose(matrix[i, j], iou(a[i].tolist(), b[j].tolist()), rtol=1e-6)
