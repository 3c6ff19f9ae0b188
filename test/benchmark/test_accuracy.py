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

"""Detections meet the ground truth of their own image, by stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('pycocotools')

from pruned_perception.benchmark.accuracy import accuracy, boxes_in_records, detections
from pruned_perception.errors import UserError

LABELS = ('person', 'box')
SECOND = 1_000_000_000


def row(x: float, score: float = 0.9, class_id: str = '0') -> list[object]:
    return [x, 100.0, 40.0, 60.0, score, class_id]


def test_rows_become_corners_sorted_by_score() -> None:
    found = detections([row(50, 0.5, 'box'), row(200, 0.8, '0')], LABELS)
    np.testing.assert_allclose(found.boxes, [[180, 70, 220, 130], [30, 70, 70, 130]])
    np.testing.assert_allclose(found.scores, [0.8, 0.5])
    assert found.class_ids.tolist() == [0, 1]
    assert detections([], LABELS).boxes.shape == (0, 4)


@pytest.mark.parametrize('class_id', ['2', '-1', 'cone', ''])
def test_foreign_classes_are_named(class_id: str) -> None:
    with pytest.raises(UserError, match='is no label of the model, which has person, box'):
        detections([row(0, 0.9, class_id)], LABELS)


def test_only_equal_stamps_meet() -> None:
    """A box at the right place in the wrong frame is wrong; an unanswered frame counts not."""
    truth = {0: [row(50)], SECOND: [row(300)], 2 * SECOND: [row(500)]}
    right = {0: [row(50)], SECOND: [row(300)], 99: [row(7)]}
    metrics = accuracy(truth, right, LABELS, score_threshold=0.4, resamples=20)
    assert (metrics.images, metrics.overall.recall, metrics.overall.precision) == (2, 1, 1)
    shifted = {0: [row(300)], SECOND: [row(500)], 2 * SECOND: [row(50)]}
    assert accuracy(truth, shifted, LABELS, score_threshold=0.4, resamples=0).overall.recall == 0


def test_same_frames_for_two_models() -> None:
    truth = {0: [row(50)], SECOND: [row(300)]}
    both = accuracy(
        truth, {0: [row(50)], SECOND: []}, LABELS, score_threshold=0.4, stamps={0}, resamples=0
    )
    assert (both.images, both.overall.recall) == (1, 1)


def test_no_common_stamp_says_so() -> None:
    with pytest.raises(UserError, match=r'none of the 1 frames .* same stamp'):
        accuracy({0: [row(50)]}, {1: [row(50)]}, LABELS, score_threshold=0.4)


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (
            [float('nan'), 100, 40, 60, 1, '0'],
            r'ground truth of stamp 5: box 1 .*nan is not finite',
        ),
        (['50', 100, 40, 60, 1, '0'], r"ground truth of stamp 5: box 1 .*'50' is not a number"),
        ([50, 100, 0, 60, 1, '0'], r'ground truth of stamp 5: box 1 .*width 0, height 60'),
        ([50, 100, 40, -60, 1, '0'], r'ground truth of stamp 5: box 1 .*height -60'),
        ([50, 100, 40], r'ground truth of stamp 5: box 1 .*not a list of 4 numbers'),
    ],
)
def test_broken_ground_truth_gives_no_figure(broken: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        accuracy({5: [row(50), broken]}, {5: [row(50)]}, LABELS, score_threshold=0.4)


def test_broken_detections_give_no_figure() -> None:
    with pytest.raises(UserError, match=r'detections of stamp 5: box 0 .*inf is not finite'):
        accuracy({5: [row(50)]}, {5: [row(float('inf'))]}, LABELS, score_threshold=0.4)


def test_records_that_are_no_json_are_named(tmp_path: Path) -> None:
    file = tmp_path / 'records.jsonl'
    file.write_text('{"stamp": 1, "boxes": []}\nbroken\n{"stamp": 2, "boxes": []}\n{"sta')
    with pytest.raises(UserError, match=r'records\.jsonl, line 2'):
        boxes_in_records(file)
    file.write_text(file.read_text().replace('broken\n', ''))
    assert boxes_in_records(file) == {1: [], 2: []}, 'only a line that was cut off is left out'
