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

"""Certificate of a pruned detector: the two exported models, object by object, on a hold-out.

Every frame goes through both bundles as on the robot: preprocessing, ONNX Runtime, decoding,
suppression. So the certificate is of what runs there, fine-tuned, folded and quantised as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle
from pruned_perception.datasets import Dataset, read_dataset
from pruned_perception.datasets.fingerprints import Fingerprints, fingerprints
from pruned_perception.inference.coco_metrics import SMALL, Boxes
from pruned_perception.inference.decisions import (
    FrameDecision,
    ObjectDecisions,
    match_decisions,
    match_objects,
)
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.pruning import PruningError
from pruned_perception.pruning.certificate import (
    Certificate,
    Counts,
    certify_counts,
    check_unseen,
)
from pruned_perception.training.detector.checkpoint import SEEN

DEAD_BAND = 0.1
"""Half width of the band about the score threshold within which detections may come and go."""
IOU_THRESHOLD = 0.5
DARK = 75
"""A frame is dark when its mean brightness, 0 … 255, is below this."""
UNIT = 'layout'
TRAINING = 'the training data'
"""As `sets_used` calls what a network was fitted on."""


def certify_bundles(
    parent: Bundle,
    child: Bundle,
    holdout: str | os.PathLike[str],
    *,
    longest: Mapping[str, int],
    score_threshold: float | None = None,
    dead_band: float = DEAD_BAND,
    iou_threshold: float = IOU_THRESHOLD,
    confidence: float = 0.95,
    unit: str | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Run both bundles over a data set and certify what the child misses, object by object.

    Args:
        parent: the dense bundle.
        child: the one that was pruned from it.
        holdout: data set on which nothing was fitted, chosen or stopped.
        longest: declared 'frames' and 'objects' of the longest drive, see `certify_counts`.
        score_threshold: of both; by default the manifests', which must agree.
        dead_band: of the lines about frames, see `inference.decisions.match_decisions`; objects
            are counted at the threshold itself.
        iou_threshold: likewise.
        confidence: of the headline; of the other statements and of the slices together.
        unit: what frames of one group have in common; the hold-out's own word by default.
        threads: of ONNX Runtime.
        progress: called with (done, total).

    Raises:
        PruningError: the child is another parent's, labels or thresholds differ, the hold-out or
            one of its drives was used before, or a drive is longer than declared.
        DataError: the data set is broken or has no boxes, or its labels are not the bundles'.
    """
    _check_pair(parent, child)
    _check_labels(parent, child)
    notes = read_dataset(holdout).with_labels(parent.labels, parent.name)
    notes.check_labelled()
    threshold = score_threshold
    if threshold is None:
        threshold = parent.thresholds.score
        if child.thresholds.score != threshold:
            raise PruningError(
                f'score thresholds: {threshold:g} of {parent.name}, {child.thresholds.score:g} of '
                f'{child.name}; say at which to compare them (--score-threshold)'
            )
    _check_annotations(notes, parent, child)
    return certify_labelled(
        parent,
        child,
        notes,
        used=sets_used(parent, child),
        longest=longest,
        score_threshold=threshold,
        dead_band=dead_band,
        iou_threshold=iou_threshold,
        confidence=confidence,
        unit=unit,
        threads=threads,
        progress=None if progress is None else lambda done: progress(done, len(notes)),
    )


def certify_labelled(
    parent: Bundle,
    child: Bundle,
    notes: Dataset,
    *,
    used: Mapping[str, Fingerprints | None],
    longest: Mapping[str, int],
    score_threshold: float | None = None,
    dead_band: float = DEAD_BAND,
    iou_threshold: float = IOU_THRESHOLD,
    confidence: float = 0.95,
    unit: str | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Certificate:
    """Run both bundles over annotated frames and certify what the child misses.

    Args:
        parent: the dense bundle.
        child: the one made of it.
        notes: annotated frames with the bundles' labels.
        used: the sets that anything was fitted, chosen or stopped on.
        longest: see `certify_bundles`, as all that follows.
        score_threshold: by default the parent's.
        dead_band: see there.
        iou_threshold: see there.
        confidence: see there.
        unit: see there.
        threads: of ONNX Runtime.
        progress: called with the frames done.

    Raises:
        PruningError: as `certify_bundles`.
    """
    threshold = parent.thresholds.score if score_threshold is None else score_threshold
    seen = fingerprints(notes)
    check_unseen(seen, notes.groups, used)  # before the work
    needed = ('objects',) if clusters_of(notes) is None else ('frames', 'objects')
    for each in needed:
        if each not in longest:
            raise PruningError(
                f'declare the {each} of the longest {unit or notes.unit or UNIT} that the '
                'certificate shall speak of (--longest): no number that was seen can stand for it'
            )
    found = decide_frames(
        parent,
        child,
        zip(notes.images(), truths(notes), strict=True),
        score_threshold=threshold,
        dead_band=dead_band,
        iou_threshold=iou_threshold,
        threads=threads,
        progress=progress,
    )
    frames = found.objects
    ones = np.ones(len(notes), int)
    true = np.array([int((~crowd).sum()) for crowd in notes.crowd])
    counts: dict[str, Counts] = {
        'missed': _numbers([each.missed for each in frames], [each.found for each in frames]),
        'invented': _numbers(
            [each.invented for each in frames], [each.detected for each in frames]
        ),
        'gained': (np.array([len(each.gained) for each in frames]), true),
        'lost': _numbers([each.lost for each in frames], [each.shown for each in frames]),
        'changed': (np.array([x.changed for x in found.frames], int), ones),
        'negative_flips': (
            np.array([bool(each.negative_flip) for each in found.frames], int),
            ones,
        ),
    }
    return certify_counts(
        counts,
        clusters=clusters_of(notes),
        longest=longest,
        terms=terms_at(threshold, iou_threshold, dead_band),
        slices={
            name: _slice([x.missed for x in frames], [x.found for x in frames], own)
            for name, own in declared_slices(
                notes.boxes, notes.class_ids, notes.labels, found.brightness
            ).items()
        },
        unit=unit or notes.unit or UNIT,
        confidence=confidence,
        holdout=seen,
        used=used,
        holdout_sha256=notes.digest,
        record=_record(parent, child, threshold, dead_band, iou_threshold),
    )


def certify_unlabelled(
    parent: Bundle,
    child: Bundle,
    frames: Iterable[NDArray[np.uint8]],
    *,
    drives: Sequence[str],
    longest: Mapping[str, int],
    holdout: Fingerprints,
    used: Mapping[str, Fingerprints | None],
    dead_band: float = DEAD_BAND,
    iou_threshold: float = IOU_THRESHOLD,
    confidence: float = 0.95,
    unit: str = 'drive',
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Certificate:
    """Run both bundles over frames without labels and certify what of the parent's is lost.

    Without the truth, what the parent shows is the yardstick: the headline is the share of its
    detections that the child does not show, and slices are of those.

    Args:
        parent: the dense bundle.
        child: the one made of it; score thresholds must agree.
        frames: (H, W, 3) uint8, bgr.
        drives: of each frame, the drive that it belongs to.
        longest: declared 'frames' and 'objects' (detections) of the longest drive.
        holdout: which frames and drives these are.
        used: the sets that anything was fitted, chosen or stopped on.
        dead_band: see `certify_bundles`.
        iou_threshold: likewise.
        confidence: likewise.
        unit: what a drive is called.
        threads: of ONNX Runtime.
        progress: called with the frames done.

    Raises:
        PruningError: as `certify_bundles`.
    """
    _check_pair(parent, child)
    threshold = parent.thresholds.score
    check_unseen(holdout, drives, used)
    found = decide_frames(
        parent,
        child,
        ((image, None) for image in frames),
        score_threshold=threshold,
        dead_band=dead_band,
        iou_threshold=iou_threshold,
        threads=threads,
        progress=progress,
    )
    objects, ones = found.objects, np.ones(len(found.objects), int)
    lost, shown = [x.lost for x in objects], [x.shown for x in objects]
    return certify_counts(
        {
            'lost': _numbers(lost, shown),
            'added': _numbers([x.invented for x in objects], [x.detected for x in objects]),
            'changed': (np.array([x.changed for x in found.frames], int), ones),
        },
        clusters=drives,
        longest=longest,
        terms=terms_at(threshold, iou_threshold, dead_band),
        slices={
            name: _slice(lost, shown, own)
            for name, own in declared_slices(
                [each.boxes for each in found.parent],
                [each.class_ids for each in found.parent],
                parent.labels,
                found.brightness,
            ).items()
        },
        unit=unit,
        confidence=confidence,
        holdout=holdout,
        used=used,
        record=_record(parent, child, threshold, dead_band, iou_threshold),
    )


@dataclass(frozen=True)
class Decisions:
    """What two bundles decide on frames, one by one."""

    parent: tuple[Detections, ...]
    """The parent's detections, down to the dead-band's lower end."""
    child: tuple[Detections, ...]
    objects: tuple[ObjectDecisions, ...]
    frames: tuple[FrameDecision, ...]
    brightness: NDArray[np.float64]
    """(n,) mean of each frame, 0 … 255."""


def decide_frames(
    parent: Bundle,
    child: Bundle,
    frames: Iterable[tuple[NDArray[np.uint8], Boxes | None]],
    *,
    score_threshold: float,
    dead_band: float = DEAD_BAND,
    iou_threshold: float = IOU_THRESHOLD,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Decisions:
    """Run both bundles over frames as on the robot, and compare what they decide.

    Args:
        parent: the dense bundle.
        child: the other one, of the same labels.
        frames: (H, W, 3) uint8, bgr, with the objects in it, where they are known.
        score_threshold: operating threshold of both.
        dead_band: about it, for frames; cut where it would leave 0 … 1.
        iou_threshold: least overlap of boxes that match.
        threads: of ONNX Runtime.
        progress: called with the frames done.

    Raises:
        PruningError: the labels differ.
    """
    _check_labels(parent, child)
    detectors = [Detector(each, threads=threads) for each in (parent, child)]
    lowest = max(0.0, score_threshold - dead_band)
    both: list[tuple[Detections, Detections]] = []
    objects, decisions, brightness = [], [], []
    for image, truth in frames:
        found, other = (
            each.detect(image, 'bgr', replace(each.settings, score_threshold=lowest))[0]
            for each in detectors
        )
        both.append((found, other))
        same: dict[str, Any] = {
            'score_threshold': score_threshold,
            'iou_threshold': iou_threshold,
        }
        objects.append(match_objects(found, other, truth, **same))
        decisions.append(
            match_decisions(found, other, dead_band=dead_band, ground_truth=truth, **same)
        )
        brightness.append(float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean()))
        if progress is not None:
            progress(len(objects))
    return Decisions(
        tuple(found for found, _ in both),
        tuple(other for _, other in both),
        tuple(objects),
        tuple(decisions),
        np.array(brightness),
    )


def truths(notes: Dataset) -> Iterator[Boxes]:
    """Yield the objects of each frame of a data set."""
    for index in range(len(notes)):
        yield Boxes(notes.boxes[index], notes.class_ids[index], notes.crowd[index])


def _record(
    parent: Bundle, child: Bundle, threshold: float, dead_band: float, iou_threshold: float
) -> dict[str, Any]:
    return {
        'parent': {'name': parent.name, 'sha256': parent.sha256},
        'child': {'name': child.name, 'sha256': child.sha256},
        'score_threshold': threshold,
        'dead_band': dead_band,
        'iou_threshold': iou_threshold,
    }


def _slice(
    events: Sequence[Sequence[int]],
    every: Sequence[Sequence[int]],
    own: Sequence[NDArray[np.bool_]],
) -> Counts:
    """Return how many of each frame's are of a slice."""
    return _numbers(
        *(
            [[k for k in each if chosen[k]] for each, chosen in zip(those, own, strict=True)]
            for those in (events, every)
        )
    )


def terms_at(threshold: float, iou_threshold: float, dead_band: float) -> dict[str, str]:
    """Return what the certificate's sentences about objects and about frames carry."""
    same = f'score ≥ {threshold:g}, IoU ≥ {iou_threshold:g}'
    return {
        'objects': f'{same}, no dead-band',
        'frames': f'{same}, dead-band ±{dead_band:g}: seen from {threshold + dead_band:g} on, '
        f'not seen below {threshold - dead_band:g}',
    }


def sets_used(*bundles: Bundle) -> dict[str, Fingerprints | None]:
    """Return the sets that anything was fitted, chosen or stopped on, as the manifests say.

    None where a manifest names a set of which no hashes are recorded.
    """
    used: dict[str, Fingerprints | None] = {}

    def add(name: str, recorded: Any) -> None:
        each = None if recorded is None else Fingerprints.from_dict(recorded)
        former = used.get(name)
        used[name] = each if former is None else former if each is None else former | each

    for bundle in bundles:
        manifest = bundle.manifest
        recorded = manifest['provenance'].get(SEEN) or {}
        if not recorded:
            add(f'the training of {bundle.name}', None)
        for name, each in recorded.items():
            add(f'the {name} data', each)
        for entry in manifest['evaluation']:
            add(f'the evaluation on {entry.get("data", "a data set")}', entry.get(SEEN))
    return used


def _check_annotations(notes: Dataset, *bundles: Bundle) -> None:
    """Raise PruningError where a manifest, an old one without hashes too, names this very set."""
    for bundle in bundles:
        manifest = bundle.manifest
        training = manifest['provenance'].get('training')
        entries = [('training', training), *(('evaluation', e) for e in manifest['evaluation'])]
        for name, entry in entries:
            known = isinstance(entry, Mapping) and entry.get('annotations_sha256')
            if known and known == notes.digest:
                raise PruningError(
                    f'{notes.source}: {bundle.manifest_path} names it under {name}: calibration, '
                    'training, choice and certification never share frames; certify on others'
                )


def _numbers(
    events: Sequence[Sequence[int]], every: Sequence[Sequence[int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([len(x) for x in events]), np.array([len(x) for x in every])


def declared_slices(
    boxes: Sequence[NDArray[Any]],
    class_ids: Sequence[NDArray[Any]],
    labels: Sequence[str],
    brightness: NDArray[np.float64],
) -> dict[str, tuple[NDArray[np.bool_], ...]]:
    """Return the slices that are always declared: name → per frame (K,) bool, its objects.

    Small objects, those of dark frames, and those of each class.

    Args:
        boxes: of each frame (K, 4), corners.
        class_ids: of each frame (K,).
        labels: of the classes.
        brightness: (n,) mean of each frame, 0 … 255.
    """
    sides = [(each[:, 2:] - each[:, :2]).max(1, initial=0) for each in boxes]
    slices = {
        f'below {SMALL} px': tuple(each < SMALL for each in sides),
        'dark': tuple(
            np.full(len(ids), value < DARK)
            for ids, value in zip(class_ids, brightness, strict=True)
        ),
    }
    for class_id, label in enumerate(labels):
        slices[label] = tuple(ids == class_id for ids in class_ids)
    return slices


def clusters_of(notes: Dataset) -> tuple[str, ...] | None:
    """Return the scene of each frame, or None where the data set does not say any."""
    return notes.groups if len(set(notes.groups)) < len(notes.groups) else None


def _check_labels(parent: Bundle, child: Bundle) -> None:
    if child.labels != parent.labels:
        raise PruningError(
            f'{child.manifest_path}: its labels ({", ".join(child.labels)}) are not those of '
            f'{parent.name} ({", ".join(parent.labels)})'
        )


def _check_pair(parent: Bundle, child: Bundle) -> None:
    pedigree = child.manifest['parent']
    if pedigree is not None and pedigree['sha256'] != parent.sha256:
        raise PruningError(
            f'{child.manifest_path}: its parent is {pedigree["name"]} '
            f'({pedigree["sha256"][:12]}…), not {parent.path} ({parent.sha256[:12]}…): give that'
        )
    if parent.sha256 == child.sha256:
        raise PruningError(f'{child.path}: is the same model as {parent.path}')
