"""Accuracy of an exported model: the ONNX file itself, through the robot's own detector."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pruned_perception import __version__
from pruned_perception.bundle import MANIFEST, Bundle
from pruned_perception.inference.coco_metrics import Boxes, Metrics, coco_metrics
from pruned_perception.inference.detector import Detector
from pruned_perception.training.data import DataError, frame_image, read_annotations

MIN_SCORE = 0.01  # AP needs the tail below the operating threshold
RESAMPLES = 1000

# Whose accuracy an entry of the manifest is: the bundle's own, or its control's.
MEMBER = 'member'
CONTROL = 'control: same widths, trained from scratch for the same total time'


def evaluate(
    bundle: Bundle,
    folder: str | os.PathLike[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Metrics, str]:
    """Return the COCO accuracy of `bundle` on the data set in `folder`, and that set's SHA-256.

    Every frame is read from its file and goes through preprocessing, ONNX Runtime, decoding and
    suppression as on the robot. Recall and precision are at the manifest's score threshold; the
    intervals come from a bootstrap over the groups (layouts) of the set.

    Raises:
        DataError: the data set is incomplete, or its labels are not the bundle's.
    """
    notes = read_annotations(folder)
    if notes.labels != bundle.labels:
        raise DataError(
            f'{folder}: its labels ({", ".join(notes.labels)}) are not those of {bundle.name} '
            f'({", ".join(bundle.labels)})'
        )
    detector = Detector(bundle, threads=threads)
    settings = replace(detector.settings, score_threshold=MIN_SCORE)
    found = []
    for index, path in enumerate(notes.paths):
        found.append(detector.detect(frame_image(path), 'bgr', settings)[0])
        if progress is not None:
            progress(index + 1, len(notes.paths))
    truth = [
        Boxes(boxes, class_ids, crowd)
        for boxes, class_ids, crowd in zip(notes.boxes, notes.class_ids, notes.crowd, strict=True)
    ]
    metrics = coco_metrics(
        truth,
        found,
        notes.labels,
        score_threshold=detector.settings.score_threshold,
        groups=notes.groups,
        resamples=resamples,
        seed=seed,
    )
    return metrics, notes.digest


def evaluation_record(metrics: Metrics, data: str, digest: str) -> dict[str, Any]:
    """Return the manifest's entry: `data` names the set."""
    return {
        'data': data,
        'annotations_sha256': digest,
        'tool': f'pruned_perception {__version__}',
        **metrics.to_json(),
    }


def record(bundle: Bundle, section: str, entry: dict[str, Any], *, keys: Sequence[str]) -> None:
    """Put `entry` into a list of the bundle's manifest, in place of one with equal `keys`.

    The model's own file and hash stay as they are.
    """
    path = Path(bundle.path) / MANIFEST
    manifest = json.loads(path.read_text(encoding='utf-8'))
    same = [entry.get(key) for key in keys]
    others = [each for each in manifest[section] if [each.get(key) for key in keys] != same]
    manifest[section] = [*others, entry]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)
