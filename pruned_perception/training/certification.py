"""Certificate of a pruned detector: the two exported models, decision by decision, on a hold-out.

Every frame goes through both bundles as on the robot: preprocessing, ONNX Runtime, decoding,
suppression. So the certificate is of what runs there, fine-tuned, folded and quantised as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle
from pruned_perception.inference.coco_metrics import SMALL, Boxes
from pruned_perception.inference.decisions import match_decisions
from pruned_perception.inference.detector import Detector
from pruned_perception.pruning import PruningError
from pruned_perception.pruning.certificate.certificate import Certificate, certify_decisions
from pruned_perception.training.data import Annotations, DataError, frame_image, read_annotations

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
    score_threshold: float | None = None,
    dead_band: float = DEAD_BAND,
    iou_threshold: float = IOU_THRESHOLD,
    confidence: float = 0.95,
    unit: str = UNIT,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Run both bundles over a data set and certify how often they decide differently.

    Args:
        parent: the dense bundle.
        child: the one that was pruned from it.
        holdout: COCO data set that served neither training nor calibration.
        score_threshold: of both; by default the manifests', which must agree.
        dead_band: see `inference.decisions.match_decisions`.
        iou_threshold: likewise.
        confidence: of each figure; of the slices together.
        unit: what frames of one `layout` have in common.
        seed: of the bootstrap over clusters.
        threads: of ONNX Runtime.
        progress: called with (done, total).

    Raises:
        PruningError: the child is another parent's, labels or thresholds differ, or the hold-out
            was used for training.
        DataError: the data set is incomplete, or its labels are not the bundles'.
    """
    _check_pair(parent, child)
    notes = read_annotations(holdout)
    if not notes.labels == parent.labels == child.labels:
        raise DataError(
            f'{holdout}: labels {", ".join(notes.labels)}; {parent.name}: '
            f'{", ".join(parent.labels)}; {child.name}: {", ".join(child.labels)}; all three '
            'must be the same'
        )
    threshold = score_threshold
    if threshold is None:
        threshold = parent.thresholds.score
        if child.thresholds.score != threshold:
            raise PruningError(
                f'score thresholds: {threshold:g} of {parent.name}, {child.thresholds.score:g} of '
                f'{child.name}; say at which to compare them (--score-threshold)'
            )
    detectors = [Detector(each, threads=threads) for each in (parent, child)]
    lowest = max(0.0, threshold - dead_band)
    changed, flips, brightness = [], [], []
    for index, image in enumerate(_images(notes)):
        found = [
            each.detect(image, 'bgr', replace(each.settings, score_threshold=lowest))[0]
            for each in detectors
        ]
        truth = Boxes(notes.boxes[index], notes.class_ids[index], notes.crowd[index])
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
            progress(index + 1, len(notes.paths))
    declared = declared_slices(notes, np.array(brightness))
    return certify_decisions(
        np.array(changed, bool),
        negative_flips=np.array(flips, bool),
        clusters=clusters_of(notes),
        unit=unit,
        slices={name: chosen for name, chosen in declared.items() if chosen.any()},
        confidence=confidence,
        holdout_sha256=notes.digest,
        record={
            'parent': {'name': parent.name, 'sha256': parent.sha256},
            'child': {'name': child.name, 'sha256': child.sha256},
            'score_threshold': threshold,
            'dead_band': dead_band,
            'iou_threshold': iou_threshold,
            'slices_without_frames': [n for n, chosen in declared.items() if not chosen.any()],
            'trained_on': sorted({_trained_on(each.manifest) for each in (parent, child)} - {''}),
            'calibration': (child.manifest['pruning'] or {}).get('calibration'),
        },
        seed=seed,
    )


def record_certificate(bundle: Bundle, certificate: Certificate) -> None:
    """Put the certificate into the bundle's manifest; the model and its hash stay as they are."""
    path = bundle.manifest_path
    manifest = json.loads(path.read_text(encoding='utf-8'))
    manifest['certificate'] = certificate.to_dict()
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)


def declared_slices(
    notes: Annotations, brightness: NDArray[np.float64]
) -> dict[str, NDArray[np.bool_]]:
    """Return the slices that are always declared: name → (n,) bool, the frames that belong to it.

    Frames with a small box, dark frames, and for each class the frames that show it; crowd boxes
    count as shown by nobody.

    Args:
        notes: of the hold-out.
        brightness: (n,) mean of each frame, 0 … 255.
    """
    shown = [
        (boxes[~crowd], class_ids[~crowd])
        for boxes, class_ids, crowd in zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)
    ]
    sides = [(boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) for boxes, _ in shown]
    slices = {
        f'a box below {SMALL} px': np.array([bool((each < SMALL).any()) for each in sides]),
        'dark': np.asarray(brightness < DARK),
    }
    for class_id, label in enumerate(notes.labels):
        slices[f'with {label}'] = np.array([bool((ids == class_id).any()) for _, ids in shown])
    return slices


def clusters_of(notes: Annotations) -> tuple[str, ...] | None:
    """Return the scene of each frame, or None where the data set does not say any."""
    return notes.groups if len(set(notes.groups)) < len(notes.groups) else None


def _images(notes: Annotations) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames, bgr."""
    for path in notes.paths:
        yield frame_image(path)


def _check_pair(parent: Bundle, child: Bundle) -> None:
    pedigree = child.manifest['parent']
    if pedigree is not None and pedigree['sha256'] != parent.sha256:
        raise PruningError(
            f'{child.manifest_path}: its parent is {pedigree["name"]} '
            f'({pedigree["sha256"][:12]}…), not {parent.path} ({parent.sha256[:12]}…): give that'
        )
    if parent.sha256 == child.sha256:
        raise PruningError(f'{child.path}: is the same model as {parent.path}')


def _trained_on(manifest: Mapping[str, Any]) -> str:
    training = manifest['provenance'].get('training')
    return str(training.get('annotations_sha256', '')) if isinstance(training, Mapping) else ''
