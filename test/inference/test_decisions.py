"""Decisions of two detectors on a frame, against the definition tried out match by match."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference import Detections, InferenceError
from pruned_perception.inference.coco_metrics import Boxes
from pruned_perception.inference.decisions import FrameDecision, match_decisions
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
