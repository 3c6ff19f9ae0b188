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

"""Accuracy of an exported model: the ONNX file itself, through the robot's own detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pruned_perception import __version__
from pruned_perception.bundle import Bundle
from pruned_perception.datasets import Dataset, read_dataset
from pruned_perception.datasets.fingerprints import SEEN, Fingerprints
from pruned_perception.inference.coco_metrics import Boxes, Metrics, coco_metrics
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector

MIN_SCORE = 0.01  # AP needs the tail below the operating threshold
RESAMPLES = 1000

# Whose accuracy an entry of the manifest is: the bundle's own, or its control's.
MEMBER = 'member'
CONTROL = 'control: same widths, trained from scratch for the same total time'
SHORT_CONTROL = 'control: same widths, trained from scratch for the time of the fine-tuning alone'


def evaluate(
    bundle: Bundle,
    folder: str | os.PathLike[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    detector: Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Metrics, str]:
    """Return the COCO accuracy of `bundle` on the data set in `folder`, and that set's SHA-256.

    Every frame is read from its file and goes through preprocessing, ONNX Runtime, decoding and
    suppression as on the robot. Recall and precision are at the manifest's score threshold; the
    intervals come from a bootstrap over the groups (layouts) of the set.

    `detector` runs the bundle: by default on one thread of the processor.

    Raises:
        DataError: the data set is broken or has no boxes, or its labels are not the bundle's.
    """
    notes = read_dataset(folder).with_labels(bundle.labels, bundle.name)
    notes.check_labelled()
    metrics = evaluate_notes(
        bundle, notes, resamples=resamples, seed=seed, detector=detector, progress=progress
    )
    return metrics, notes.digest


def evaluate_notes(
    bundle: Bundle,
    notes: Dataset,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    detector: Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Return the COCO accuracy of `bundle` on annotated frames with its labels; see `evaluate`."""
    detector = Detector(bundle) if detector is None else detector
    return score(
        notes,
        detect_all(detector, notes, progress=progress),
        score_threshold=detector.settings.score_threshold,
        resamples=resamples,
        seed=seed,
    )


def detect_all(
    detector: Detector, notes: Dataset, *, progress: Callable[[int, int], None] | None = None
) -> list[Detections]:
    """Return what a detector finds in each frame, down to `MIN_SCORE`."""
    settings = replace(detector.settings, score_threshold=MIN_SCORE)
    found = []
    for index, image in enumerate(notes.images()):
        found.append(detector.detect(image, 'bgr', settings)[0])
        if progress is not None:
            progress(index + 1, len(notes))
    return found


def score(
    notes: Dataset,
    found: Sequence[Detections],
    *,
    score_threshold: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metrics:
    """Return the COCO accuracy of what was found in each of the annotated frames."""
    truth = [
        Boxes(boxes, class_ids, crowd)
        for boxes, class_ids, crowd in zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)
    ]
    return coco_metrics(
        truth,
        found,
        notes.labels,
        score_threshold=score_threshold,
        groups=notes.groups,
        resamples=resamples,
        seed=seed,
    )


def evaluation_record(
    metrics: Metrics, data: str, digest: str, frames: Fingerprints | None = None
) -> dict[str, Any]:
    """Return the manifest's entry: `data` names the set, whose frames may certify no more."""
    return {
        'data': data,
        'annotations_sha256': digest,
        **({} if frames is None else {SEEN: frames.to_dict()}),
        'tool': f'pruned_perception {__version__}',
        **metrics.to_dict(),
    }
