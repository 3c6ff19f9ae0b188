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

"""Decisions of two detectors on a frame, against the definition tried out match by match."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference import Detections, InferenceError
from pruned_perception.inference.coco_metrics import Boxes
from pruned_perception.inference.decisions import (
    FrameDecision,
    ObjectDecisions,
    match_decisions,
    match_objects,
)
from pruned_perception.inference.nms import iou_matrix

# x of a box 10 wide and high, score, class: few places, so that boxes contend for each other.
rows = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0.1, 0.3, 0.4, 0.5, 0.8]), st.integers(0, 1)),
    max_size=5,
)


def detections(found) -> Detections:
    table = np.array(sorted(found, key=lambda row: -row[1]), np.float32).reshape(-1, 3)
    return Detections(squares(table[:, 0]), table[:, 1], table[:, 2].astype(np.int64))


def squares(left) -> np.ndarray:
    left = np.asarray(left, np.float32)
    zeros = np.zeros_like(left)
    return np.stack([left, zeros, left + 10, zeros + 10], axis=1)


def decide(parent, child, **options) -> FrameDecision:
    settings = {'score_threshold': 0.4, 'dead_band': 0.1, **options}
    return match_decisions(detections(parent), detections(child), **settings)


def can_be_unchanged(parent: Detections, child: Detections) -> bool:
    """Try every one-to-one matching: one must cover the sure detections of both sides at once."""
    links = (iou_matrix(parent.boxes, child.boxes) >= 0.5) & np.equal.outer(
        parent.class_ids, child.class_ids
    )
    links &= np.logical_and.outer(parent.scores >= 0.3, child.scores >= 0.3)
    sure_child = set(np.flatnonzero(child.scores >= 0.5).tolist())

    def search(i: int, taken: frozenset[int]) -> bool:
        if i == len(parent):
            return sure_child <= taken
        if parent.scores[i] < 0.5 and search(i + 1, taken):
            return True
        return any(
            search(i + 1, taken | {j}) for j in np.flatnonzero(links[i]).tolist() if j not in taken
        )

    return search(0, frozenset())


@given(rows, rows)
def test_a_frame_is_changed_when_no_matching_covers_all_sure_detections(parent, child) -> None:
    one, other = detections(parent), detections(child)
    assert decide(parent, child).changed == (not can_be_unchanged(one, other))


@given(rows, rows)
def test_exchanging_the_networks_exchanges_lost_and_invented(parent, child) -> None:
    there, back = decide(parent, child), decide(child, parent)
    assert (there.lost, there.invented) == (back.invented, back.lost)


@given(rows)
def test_equal_detections_are_no_change(found) -> None:
    same = decide(found, found)
    assert same == FrameDecision((), (), None)
    assert same.negative_flip is None


def test_flicker_inside_the_band_is_no_change_and_outside_it_is() -> None:
    assert not decide([(0, 0.45, 0)], []).changed
    assert not decide([(0, 0.8, 0)], [(1, 0.35, 0)]).changed
    assert decide([(0, 0.8, 0)], [(1, 0.25, 0)]).lost == (0,)
    assert decide([(0, 0.45, 0)], [], dead_band=0).lost == (0,)
    # Scores on the band's edges are sure and possible.
    assert decide([(0, 0.5, 0)], []).lost == (0,)
    assert not decide([(0, 0.5, 0)], [(0, 0.3, 0)]).changed


def test_another_class_or_place_is_lost_and_invented() -> None:
    assert decide([(0, 0.8, 0)], [(0, 0.8, 1)]) == FrameDecision((0,), (0,), None)
    assert decide([(0, 0.8, 0)], [(9, 0.8, 0)]) == FrameDecision((0,), (0,), None)
    assert not decide([(0, 0.8, 0)], [(9, 0.8, 0)], iou_threshold=0.05).changed


def test_one_detection_does_not_stand_for_two() -> None:
    two = [(0, 0.8, 0), (1, 0.7, 0)]
    assert decide(two, [(0, 0.8, 0)]).lost == (1,)  # the one with the lower score
    assert decide([(0, 0.8, 0)], two).invented == (1,)


def test_matching_gives_way_where_taking_the_best_overlap_would_lose_one() -> None:
    # The first overlaps both of the child's, the second only the one that suits the first best.
    assert not decide([(3, 0.8, 0), (6, 0.7, 0)], [(3, 0.8, 0), (0, 0.7, 0)]).changed


def truth(*left: int, classes=None, crowd=None) -> Boxes:
    ids = np.zeros(len(left), np.int64) if classes is None else np.array(classes)
    return Boxes(squares(left), ids, crowd)


def test_negative_flips_are_true_objects_that_only_the_parent_finds() -> None:
    objects = truth(0, 50, 100)
    parent = [(1, 0.8, 0), (51, 0.7, 0)]
    flipped = decide(parent, [(0, 0.8, 0)], ground_truth=objects)
    assert flipped.negative_flips == (1,)
    assert flipped.negative_flip is True
    # What neither finds, what the child alone finds, and what the parent invented are none.
    assert decide(parent, [*parent, (100, 0.8, 0)], ground_truth=objects).negative_flips == ()
    invented = decide([(200, 0.9, 0)], [], ground_truth=objects)
    assert invented.changed
    assert invented.negative_flip is False


def test_negative_flips_heed_the_dead_band() -> None:
    assert decide([(0, 0.45, 0)], [], ground_truth=truth(0)).negative_flips == ()
    assert decide([(0, 0.8, 0)], [(0, 0.35, 0)], ground_truth=truth(0)).negative_flips == ()
    assert decide([(0, 0.8, 0)], [(0, 0.25, 0)], ground_truth=truth(0)).negative_flips == (0,)


def test_crowds_and_other_classes_are_not_flipped() -> None:
    crowd = np.array([True])
    assert decide([(0, 0.8, 0)], [], ground_truth=truth(0, crowd=crowd)).negative_flips == ()
    assert decide([(0, 0.8, 0)], [], ground_truth=truth(0, classes=[1])).negative_flips == ()


@given(rows, st.lists(st.integers(0, 30), max_size=4))
def test_a_child_that_decides_as_its_parent_flips_nothing(found, objects) -> None:
    assert decide(found, found, ground_truth=truth(*objects)).negative_flips == ()


@pytest.mark.parametrize(
    'options', [{'dead_band': -0.1}, {'dead_band': 0.5}, {'score_threshold': 0.95}]
)
def test_a_band_that_leaves_the_scores_is_refused(options) -> None:
    with pytest.raises(InferenceError, match='dead-band'):
        decide([], [], **options)


@pytest.mark.parametrize('iou_threshold', [0, 1.1, float('nan')])
def test_an_impossible_overlap_is_refused(iou_threshold: float) -> None:
    with pytest.raises(InferenceError, match='IoU'):
        decide([], [], iou_threshold=iou_threshold)


def of_objects(parent, child, truth=None, crowd=(), **options) -> ObjectDecisions:
    """Compare at the threshold .4; the truth is (x, class) of each object, `crowd` which are."""
    boxes = None
    if truth is not None:
        table = np.array(truth, np.float32).reshape(-1, 2)
        marks = np.isin(np.arange(len(table)), crowd)
        boxes = Boxes(squares(table[:, 0]), table[:, 1].astype(np.int64), marks)
    return match_objects(
        detections(parent), detections(child), boxes, score_threshold=0.4, **options
    )


def test_objects_are_counted_at_the_threshold_without_a_band() -> None:
    truth = [(0, 0), (20, 0), (40, 1), (60, 1)]
    parent = [(0, 0.8, 0), (20, 0.41, 0), (60, 0.39, 1), (90, 0.5, 0)]
    child = [(1, 0.4, 0), (20, 0.39, 0), (40, 0.5, 1), (90, 0.6, 0), (120, 0.7, 0)]
    found = of_objects(parent, child, truth)
    assert (found.found, found.missed, found.gained) == ((0, 1), (1,), (2,))
    by_score = sorted(child, key=lambda row: -row[1])
    assert [by_score[k][0] for k in found.invented] == [120]  # the parent shows the one at 90, too
    assert len(found.detected) == 4
    assert (len(found.shown), len(found.lost)) == (3, 1)
    assert of_objects(parent, child).missed == ()
    assert [by_score[k][0] for k in of_objects(parent, child).invented] == [120, 40]


def test_one_detection_finds_one_object_and_those_of_the_parent_come_first() -> None:
    truth, both = [(2, 0), (0, 0)], [(1, 0.8, 0)]
    assert of_objects(both, both, truth).missed == ()
    assert of_objects(both, both, truth).gained == ()
    twice = [(0, 0.8, 0), (2, 0.7, 0)]
    assert of_objects(twice, both, truth).missed == (1,)
    assert of_objects(both, twice, truth).gained == (1,)
    assert of_objects([(0, 0.8, 0)], [(0, 0.8, 1)], [(0, 0)]).missed == (0,)  # another class


def test_what_lies_in_a_crowd_is_neither_missed_nor_invented() -> None:
    region = Boxes(np.array([[0, 0, 100, 10]], np.float32), np.zeros(1, np.int64), np.ones(1, bool))
    places = ((50, 0.8, 0), (97, 0.8, 0), (50, 0.8, 1))
    inside, outside, other = (detections([row]) for row in places)
    none = detections([])
    for found, count in ((inside, 0), (outside, 1), (other, 1)):
        decision = match_objects(none, found, region, score_threshold=0.4)
        assert len(decision.invented) == count
        assert decision.found == ()
    assert of_objects([(0, 0.8, 0)], [], [(0, 0)], crowd=[0]).missed == ()


@given(rows, rows, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1)), max_size=4))
def test_counts_of_objects_fit_each_other(parent, child, truth) -> None:
    found = of_objects(parent, child, truth)
    assert set(found.missed) <= set(found.found)
    assert not set(found.gained) & set(found.found)
    assert set(found.invented) <= set(found.detected)
    assert set(found.lost) <= set(found.shown)
    kept = len(found.found) - len(found.missed) + len(found.gained)
    assert kept <= len(found.detected)
    back = of_objects(child, parent, truth)
    assert len(back.found) == kept
    same = of_objects(parent, parent, truth)
    assert same.missed == same.gained == same.invented == same.lost == ()


def test_an_overlap_outside_0_1_is_refused_for_objects_too() -> None:
    with pytest.raises(InferenceError, match='IoU threshold'):
        of_objects([], [], iou_threshold=0.0)
