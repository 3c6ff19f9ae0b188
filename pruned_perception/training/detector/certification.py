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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle
from pruned_perception.datasets import Dataset, read_dataset
from pruned_perception.datasets.fingerprints import Fingerprints, fingerprints
from pruned_perception.inference.coco_metrics import SMALL, Boxes
from pruned_perception.inference.decisions import (
    ObjectDecisions,
    match_decisions,
    match_objects,
)
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
    if child.labels != parent.labels:
        raise PruningError(
            f'{child.manifest_path}: its labels ({", ".join(child.labels)}) are not those of '
            f'{parent.name} ({", ".join(parent.labels)})'
        )
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
    used = sets_used(parent, child)
    _check_annotations(notes, parent, child)
    seen = fingerprints(notes)
    check_unseen(seen, notes.groups, used)  # before the work
    needed = ('objects',) if clusters_of(notes) is None else ('frames', 'objects')
    for each in needed:
        if each not in longest:
            raise PruningError(
                f'declare the {each} of the longest {unit or notes.unit or UNIT} that the '
                'certificate shall speak of (--longest): no number that was seen can stand for it'
            )
    detectors = [Detector(each, threads=threads) for each in (parent, child)]
    lowest = max(0.0, threshold - dead_band)
    frames: list[ObjectDecisions] = []
    changed, flips, brightness = [], [], []
    for index, image in enumerate(notes.images()):
        found = [
            each.detect(image, 'bgr', replace(each.settings, score_threshold=lowest))[0]
            for each in detectors
        ]
        truth = Boxes(notes.boxes[index], notes.class_ids[index], notes.crowd[index])
        frames.append(
            match_objects(
                found[0],
                found[1],
                truth,
                score_threshold=threshold,
                iou_threshold=iou_threshold,
            )
        )
        decision = match_decisions(
            found[0],
            found[1],
            score_threshold=threshold,
            dead_band=dead_band,
            iou_threshold=iou_threshold,
            ground_truth=truth,
        )
        changed.append(decision.changed)
        flips.append(bool(decision.negative_flip))
        brightness.append(float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean()))
        if progress is not None:
            progress(index + 1, len(notes))
    ones = np.ones(len(notes), int)
    true = np.array([int((~crowd).sum()) for crowd in notes.crowd])
    counts: dict[str, Counts] = {
        'missed': _numbers([each.missed for each in frames], [each.found for each in frames]),
        'invented': _numbers(
            [each.invented for each in frames], [each.detected for each in frames]
        ),
        'gained': (np.array([len(each.gained) for each in frames]), true),
        'lost': _numbers([each.lost for each in frames], [each.shown for each in frames]),
        'changed': (np.array(changed, int), ones),
        'negative_flips': (np.array(flips, int), ones),
    }
    return certify_counts(
        counts,
        clusters=clusters_of(notes),
        longest=longest,
        terms=terms_at(threshold, iou_threshold, dead_band),
        slices={
            name: _numbers(
                *(
                    [
                        [k for k in each if chosen[k]]
                        for each, chosen in zip(those, own, strict=True)
                    ]
                    for those in ([x.missed for x in frames], [x.found for x in frames])
                )
            )
            for name, own in declared_slices(notes, np.array(brightness)).items()
        },
        unit=unit or notes.unit or UNIT,
        confidence=confidence,
        holdout=seen,
        used=used,
        holdout_sha256=notes.digest,
        record={
            'parent': {'name': parent.name, 'sha256': parent.sha256},
            'child': {'name': child.name, 'sha256': child.sha256},
            'score_threshold': threshold,
            'dead_band': dead_band,
            'iou_threshold': iou_threshold,
        },
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
    notes: Dataset, brightness: NDArray[np.float64]
) -> dict[str, tuple[NDArray[np.bool_], ...]]:
    """Return the slices that are always declared: name → per frame (K,) bool, its true objects.

    Small objects, those of dark frames, and those of each class.

    Args:
        notes: of the hold-out.
        brightness: (n,) mean of each frame, 0 … 255.
    """
    sides = [(boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) for boxes in notes.boxes]
    slices = {
        f'below {SMALL} px': tuple(each < SMALL for each in sides),
        'dark': tuple(
            np.full(len(ids), value < DARK)
            for ids, value in zip(notes.class_ids, brightness, strict=True)
        ),
    }
    for class_id, label in enumerate(notes.labels):
        slices[label] = tuple(ids == class_id for ids in notes.class_ids)
    return slices


def clusters_of(notes: Dataset) -> tuple[str, ...] | None:
    """Return the scene of each frame, or None where the data set does not say any."""
    return notes.groups if len(set(notes.groups)) < len(notes.groups) else None


def _check_pair(parent: Bundle, child: Bundle) -> None:
    pedigree = child.manifest['parent']
    if pedigree is not None and pedigree['sha256'] != parent.sha256:
        raise PruningError(
            f'{child.manifest_path}: its parent is {pedigree["name"]} '
            f'({pedigree["sha256"][:12]}…), not {parent.path} ({parent.sha256[:12]}…): give that'
        )
    if parent.sha256 == child.sha256:
        raise PruningError(f'{child.path}: is the same model as {parent.path}')
