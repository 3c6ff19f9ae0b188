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

"""Accuracy of published detections against ground truth that carries the same stamps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pruned_perception.benchmark.bag import deserialise, read_bag, stamp_of
from pruned_perception.benchmark.results import read_json_lines
from pruned_perception.datasets.boxes import corners_from_size, finite_numbers
from pruned_perception.errors import UserError
from pruned_perception.inference.coco_metrics import Boxes, Metrics, coco_metrics
from pruned_perception.inference.detections import Detections

BLOCK_S = 2.0
"""Frames of one drive depend on each other: the bootstrap draws blocks of this length."""

Row = Sequence[Any]
"""[centre x, centre y, width, height, score, class id]; pixels; class id an index or a name."""


def boxes_of(message: Any) -> list[list[Any]]:
    """Return a row for each box of a vision_msgs/Detection2DArray that has a hypothesis."""
    return [
        [
            each.bbox.center.position.x,
            each.bbox.center.position.y,
            each.bbox.size_x,
            each.bbox.size_y,
            each.results[0].hypothesis.score,
            each.results[0].hypothesis.class_id,
        ]
        for each in message.detections
        if each.results
    ]


def detections(rows: Sequence[Row], labels: Sequence[str], where: str = 'detections') -> Detections:
    """Return rows as detections sorted by score, highest first; `where` begins messages.

    Raises:
        UserError: a row is not five finite numbers and a class id, which is an index into `labels`
            or one of them.
    """
    for index, row in enumerate(rows):
        finite_numbers(row[:5], 5, f'{where}: box {index}')
    numbers = np.array([row[:5] for row in rows], np.float32).reshape(-1, 5)
    centers, sizes, scores = numbers[:, :2], numbers[:, 2:4], numbers[:, 4]
    ids = np.array([_class_id(row[5], labels) for row in rows], np.int64)
    order = np.argsort(-scores, kind='stable')
    boxes = np.hstack([centers - sizes / 2, centers + sizes / 2]).astype(np.float32)
    return Detections(boxes[order], scores[order], ids[order])


def _class_id(text: str, labels: Sequence[str]) -> int:
    if text in labels:
        return labels.index(text)
    if text.isdigit() and int(text) < len(labels):
        return int(text)
    raise UserError(
        f'class id {text!r} is no label of the model, which has {", ".join(labels)}: are the '
        'ground truth and the model of the same classes?'
    )


def boxes_in_bag(bag: Path, topic: str) -> dict[int, list[list[Any]]]:
    """Return {header stamp in ns: rows} of a topic of Detection2DArrays.

    Raises:
        UserError: no readable bag, or no such topic in it.
    """
    return {
        stamp_of(record.data): boxes_of(deserialise(record)) for record in read_bag(bag, [topic])
    }


def boxes_in_records(file: Path) -> dict[int, list[list[Any]]]:
    """Return {header stamp in ns: rows} of the file that `monitor --records` wrote."""
    return {each['stamp']: each['boxes'] for each in read_json_lines(file)}


def accuracy(
    ground_truth: Mapping[int, Sequence[Row]],
    published: Mapping[int, Sequence[Row]],
    labels: Sequence[str],
    *,
    score_threshold: float,
    stamps: Collection[int] | None = None,
    resamples: int = 200,
) -> Metrics:
    """Return the COCO accuracy on the frames whose stamp is in both.

    Args:
        ground_truth: header stamp (ns) → rows.
        published: header stamp (ns) → rows; what the node left out at its score threshold is
            not known here, so that AP is that of the published boxes.
        labels: of the model.
        score_threshold: operating threshold of recall and precision.
        stamps: only these frames, so that two models are judged on the same ones.
        resamples: of the block bootstrap; see BLOCK_S.

    Raises:
        UserError: no frame is in both, or a box is broken; names the stamp.
    """
    common = set(ground_truth) & set(published)
    if stamps is not None:
        common &= set(stamps)
    if not common:
        raise UserError(
            f'none of the {len(published)} frames with detections has a ground truth of the same '
            f'stamp ({len(ground_truth)} frames): do the detections carry the header of the image?'
        )
    frames = sorted(common)
    truth = []
    for stamp in frames:
        where = f'ground truth of stamp {stamp}'
        for index, row in enumerate(ground_truth[stamp]):
            corners_from_size(row[:4], f'{where}: box {index}')
        each = detections(ground_truth[stamp], labels, where)
        truth.append(Boxes(each.boxes, each.class_ids))
    return coco_metrics(
        truth,
        [detections(published[stamp], labels, f'detections of stamp {stamp}') for stamp in frames],
        labels,
        score_threshold=score_threshold,
        groups=[int((stamp - frames[0]) / 1e9 / BLOCK_S) for stamp in frames],
        resamples=resamples,
    )
