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

"""Whether two detectors decide alike: a dense network and its pruned child.

Users judge by the object: `match_objects` counts, at the operating threshold, what the child misses
of what its parent finds, what it finds beyond that, and what it invents.

Frame by frame (`match_decisions`), flicker about the score threshold would make most frames count
as changed, so that a band about the threshold is dead: only a sure detection of one network (above
the band) has to be found by the other, there with any score that is not below the band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.coco_metrics import Boxes as GroundTruth
from pruned_perception.inference.detections import Boxes, ClassIds, Detections
from pruned_perception.inference.errors import InferenceError
from pruned_perception.inference.nms import iou_matrix


@dataclass(frozen=True)
class FrameDecision:
    """What the child decides differently from its parent on one frame."""

    lost: tuple[int, ...]
    """Indices of the parent's sure detections that no detection of the child matches."""
    invented: tuple[int, ...]
    """Indices of the child's sure detections that no detection of the parent matches."""
    negative_flips: tuple[int, ...] | None
    """Indices of the true objects that the parent surely finds and the child does not find.

    None where no ground truth was given.
    """

    @property
    def changed(self) -> bool:
        """Say whether the two decide differently, in the dead-band's sense."""
        return bool(self.lost or self.invented)

    @property
    def negative_flip(self) -> bool | None:
        """Say whether there is a negative flip; None without ground truth."""
        return None if self.negative_flips is None else bool(self.negative_flips)


@dataclass(frozen=True)
class ObjectDecisions:
    """What the child decides differently from its parent on a frame, object by object.

    Indices are of the true objects, of the child's detections and of the parent's, all of them.
    """

    found: tuple[int, ...]
    """True objects that the parent finds."""
    missed: tuple[int, ...]
    """Those of them that the child does not find."""
    gained: tuple[int, ...]
    """True objects that only the child finds."""
    detected: tuple[int, ...]
    """The child's detections at the threshold."""
    invented: tuple[int, ...]
    """Those of them that are no true object and that the parent does not show either."""
    shown: tuple[int, ...]
    """The parent's detections at the threshold."""
    lost: tuple[int, ...]
    """Those of them without a counterpart among the child's: seen without knowing the truth."""


@dataclass(frozen=True)
class Hits:
    """What one network finds of a frame's objects; crowd boxes are neither objects nor missed."""

    objects: tuple[int, ...]
    """Indices of the objects that are to be found."""
    missed: tuple[int, ...]
    """Those of them that no detection is of."""
    detected: tuple[int, ...]
    """Indices of the detections at the threshold that count: all but those within a crowd box."""
    false: tuple[int, ...]
    """Those of them that are of no object."""


def match_truth(
    found: Detections,
    truth: GroundTruth,
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
) -> Hits:
    """Compare a network's detections on one frame with its objects, one to one within each class.

    At the operating threshold; as many are matched as can be, so that no order of the scores
    matters.

    Args:
        found: its detections.
        truth: the frame's objects.
        score_threshold: operating threshold.
        iou_threshold: least overlap of an object and its detection.

    Raises:
        InferenceError: an IoU threshold outside (0, 1].
    """
    _check_overlap(iou_threshold)
    crowd = np.zeros(len(truth.class_ids), bool)
    if truth.crowd is not None:
        crowd = truth.crowd.astype(bool)
    shown = found.scores >= score_threshold
    links = _links(truth.boxes, truth.class_ids, found.boxes, found.class_ids, iou_threshold)
    false = set(_unmatched(links.T, shown, ~crowd))
    beside = false & set(np.flatnonzero(_inside(found, truth, crowd, iou_threshold)).tolist())
    return Hits(
        objects=tuple(np.flatnonzero(~crowd).tolist()),
        missed=_unmatched(links, ~crowd, shown),
        detected=tuple(k for k in np.flatnonzero(shown).tolist() if k not in beside),
        false=tuple(sorted(false - beside)),
    )


def match_objects(
    parent: Detections,
    child: Detections,
    truth: GroundTruth | None = None,
    *,
    score_threshold: float,
    iou_threshold: float = 0.5,
) -> ObjectDecisions:
    """Compare the detections of two networks on one frame, one to one within each class.

    All at the operating threshold, without any band. An object that the parent finds is missed if
    no matching of the child's detections to such objects finds it, too. Without the truth, nothing
    is found, missed or gained, and what the parent does not show is invented.

    Args:
        parent: the dense network's detections.
        child: the pruned network's.
        truth: the frame's objects; crowd boxes are neither lost nor found, and what lies in one is
            not invented.
        score_threshold: operating threshold of both.
        iou_threshold: least overlap of two boxes that match.

    Raises:
        InferenceError: an IoU threshold outside (0, 1].
    """
    _check_overlap(iou_threshold)
    at_parent, at_child = (each.scores >= score_threshold for each in (parent, child))
    links = _links(parent.boxes, parent.class_ids, child.boxes, child.class_ids, iou_threshold)
    lost = _unmatched(links, at_parent, at_child)
    invented = set(_unmatched(links.T, at_child, at_parent))
    found: NDArray[np.intp] = np.zeros(0, int)
    missed: set[int] = set()
    gained: tuple[int, ...] = ()
    if truth is not None:
        crowd = np.zeros(len(truth.class_ids), bool)
        if truth.crowd is not None:
            crowd = truth.crowd.astype(bool)
        by_parent, by_child = (
            _links(truth.boxes, truth.class_ids, each.boxes, each.class_ids, iou_threshold)
            for each in (parent, child)
        )
        unseen = set(_unmatched(by_parent, ~crowd, at_parent))
        found = np.array([k for k in np.flatnonzero(~crowd) if k not in unseen], int)
        # Earlier rows are served first: what the parent finds comes before what only the child may.
        order = np.array([*found, *sorted(unseen)], int)
        rows = np.ones(len(order), bool)
        missed = {int(order[k]) for k in _unmatched(by_child[order], rows, at_child)}
        gained = tuple(sorted(unseen - missed))
        invented &= set(_unmatched(by_child.T, at_child, ~crowd))
        invented -= set(np.flatnonzero(_inside(child, truth, crowd, iou_threshold)).tolist())
    return ObjectDecisions(
        found=tuple(found.tolist()),
        missed=tuple(sorted(missed & set(found.tolist()))),
        gained=gained,
        detected=tuple(np.flatnonzero(at_child).tolist()),
        invented=tuple(sorted(invented)),
        shown=tuple(np.flatnonzero(at_parent).tolist()),
        lost=lost,
    )


def match_decisions(
    parent: Detections,
    child: Detections,
    *,
    score_threshold: float,
    dead_band: float,
    iou_threshold: float = 0.5,
    ground_truth: GroundTruth | None = None,
) -> FrameDecision:
    """Compare the detections of two networks on one frame, one to one within each class.

    A detection is *sure* at score ≥ threshold + band and *possible* at score ≥ threshold − band.
    The frame is unchanged if all sure detections of either side can be matched, one to one, to
    possible ones of the other. Each side is matched by itself, as fully as possible: if one
    matching covers all of the parent's sure detections and another all of the child's, then one
    matching covers both (Mendelsohn and Dulmage 1958). The verdict therefore depends on no order.

    Args:
        parent: the dense network's detections, down to score_threshold − dead_band.
        child: the pruned network's, likewise.
        score_threshold: operating threshold.
        dead_band: half width of the band about it; 0 for none.
        iou_threshold: least overlap of two boxes that match.
        ground_truth: the frame's objects; crowd boxes are neither lost nor found.

    Raises:
        InferenceError: a band that leaves the scores' range 0 … 1, or an IoU threshold outside
            (0, 1].
    """
    possible, sure = score_threshold - dead_band, score_threshold + dead_band
    if not (dead_band >= 0 and possible >= 0 and sure <= 1):
        raise InferenceError(
            f'score threshold {score_threshold:g} with a dead-band of ±{dead_band:g}: '
            'the band must lie within 0 … 1'
        )
    _check_overlap(iou_threshold)
    links = _links(parent.boxes, parent.class_ids, child.boxes, child.class_ids, iou_threshold)
    return FrameDecision(
        lost=_unmatched(links, parent.scores >= sure, child.scores >= possible),
        invented=_unmatched(links.T, child.scores >= sure, parent.scores >= possible),
        negative_flips=None
        if ground_truth is None
        else _negative_flips(parent, child, ground_truth, sure, possible, iou_threshold),
    )


def _negative_flips(
    parent: Detections,
    child: Detections,
    truth: GroundTruth,
    sure: float,
    possible: float,
    iou_threshold: float,
) -> tuple[int, ...]:
    wanted = np.ones(len(truth.class_ids), bool)
    if truth.crowd is not None:
        wanted &= ~truth.crowd.astype(bool)
    found_by_parent, found_by_child = (
        _links(truth.boxes, truth.class_ids, each.boxes, each.class_ids, iou_threshold)
        for each in (parent, child)
    )
    missed = _unmatched(found_by_parent, wanted, parent.scores >= sure)
    found = wanted.copy()
    found[list(missed)] = False
    return _unmatched(found_by_child, found, child.scores >= possible)


def _inside(
    found: Detections, truth: GroundTruth, crowd: NDArray[np.bool_], least: float
) -> NDArray[np.bool_]:
    """Return which detections (N,) lie in a crowd box of their class with that share of theirs."""
    boxes, regions = found.boxes[:, None], truth.boxes[crowd][None]
    low, high = (
        np.maximum(boxes[..., :2], regions[..., :2]),
        np.minimum(boxes[..., 2:], regions[..., 2:]),
    )
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    own = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    same = np.equal.outer(found.class_ids, truth.class_ids[crowd])
    return np.asarray((same & (common >= least * own)).any(1))


def _check_overlap(iou_threshold: float) -> None:
    if not 0 < iou_threshold <= 1:
        raise InferenceError(f'the IoU threshold must be in (0, 1], got {iou_threshold:g}')


def _links(
    a: Boxes, a_class_ids: ClassIds, b: Boxes, b_class_ids: ClassIds, iou_threshold: float
) -> NDArray[np.bool_]:
    """Return which of boxes (N, 4) and (M, 4) may be matched, (N, M)."""
    same_class = np.equal.outer(a_class_ids, b_class_ids)
    return same_class & (iou_matrix(a, b) >= iou_threshold)


def _unmatched(
    links: NDArray[np.bool_], rows: NDArray[np.bool_], columns: NDArray[np.bool_]
) -> tuple[int, ...]:
    """Return the rows that a largest one-to-one matching leaves over, earlier rows first served.

    Augmenting paths (Kuhn 1955): a row takes a column from another row that can move on.
    """
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column in np.flatnonzero(links[row] & columns).tolist():
            if column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return tuple(row for row in np.flatnonzero(rows).tolist() if not place(row, set()))
