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

"""COCO accuracy of detections: AP50, AP50:95, per class and per size, with cluster intervals.

Matching is pycocotools' own (`COCOeval.evaluate`); only the averaging is done here, because the
bootstrap needs it with a weight per image. With all weights 1 it is `COCOeval.accumulate`'s.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.datasets.boxes import check_corners
from pruned_perception.errors import UserError
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.resampling import clusters, frame_weights, resampled_over

SMALL = 48
"""A box is small when its longer side, in pixels of the source image, is below this."""

SIZE_EDGES = (0, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
"""Lower edges of the size histogram's bins, in pixels; the last bin is open."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class Boxes:
    """Ground truth of one image: `boxes` (K, 4) xyxy in pixels, `class_ids` (K,).

    `crowd` (K,) bool marks COCO's crowd boxes, regions in which detections are neither right nor
    wrong; none are by default.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    crowd: np.ndarray | None = None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a subset of the boxes; nan where the subset has no box of the ground truth."""

    boxes: int
    ap50: float
    ap50_95: float
    recall: float  # at the operating threshold, IoU 0.5
    precision: float  # at the operating threshold, IoU 0.5


@dataclass(frozen=True)
class Metrics:
    """Accuracy on a set of images.

    `overall`, `small` and `large` average AP over the classes that have boxes there (COCO's
    rule); recall and precision are over all boxes together. `score_threshold` is the operating
    threshold of recall and precision; AP uses every detection given. Intervals are 95 %
    percentile intervals of a bootstrap, see `resampling`; None where it was not asked for.
    """

    images: int
    groups: int
    score_threshold: float
    overall: Accuracy
    small: Accuracy
    large: Accuracy
    per_class: dict[str, Accuracy]
    size_histogram: dict[str, int]
    ap50_interval: tuple[float, float] | None = None
    ap50_95_interval: tuple[float, float] | None = None
    draws: np.ndarray | None = field(default=None, compare=False)
    """(resamples, 2) AP50 and AP50:95 of the bootstrap; with the same groups and seed, of the same
    resamples for every network."""
    ap50_outcomes: np.ndarray | None = field(default=None, compare=False)
    """(groups,) pseudo-values of AP50, whose mean it is."""

    @property
    def resampled(self) -> str:
        """What intervals come from resampling of, see `resampling.frame_weights`."""
        return resampled_over(self.groups, self.images)

    @property
    def ap50(self) -> float:
        """AP at IoU 0.5, mean over classes."""
        return self.overall.ap50

    @property
    def ap50_95(self) -> float:
        """AP averaged over IoU 0.50:0.05:0.95, mean over classes."""
        return self.overall.ap50_95

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; nan becomes None."""
        return {
            'images': self.images,
            'groups': self.groups,
            'boxes': self.overall.boxes,
            'score_threshold': self.score_threshold,
            **_accuracy_json(self.overall),
            'ap50_interval': None if self.ap50_interval is None else list(self.ap50_interval),
            'ap50_95_interval': None
            if self.ap50_95_interval is None
            else list(self.ap50_95_interval),
            'small': {'longer_side_below_px': SMALL, **_accuracy_json(self.small)},
            'large': _accuracy_json(self.large),
            'per_class': {name: _accuracy_json(each) for name, each in self.per_class.items()},
            'size_histogram': dict(self.size_histogram),
        }

    def to_text(self) -> str:
        """Return a table for a terminal: overall, sizes, classes, and the size histogram."""
        rows = [('all', self.overall), (f'< {SMALL} px', self.small), (f'≥ {SMALL} px', self.large)]
        rows += list(self.per_class.items())
        note = f'(recall, precision at score ≥ {self.score_threshold:g}, IoU 0.5)'
        header = f' | boxes:6d | AP50:6.3f | AP50:95:.3f | recall:.3f | precision:.3f | {note}'
        cells = [(name, a.boxes, a.ap50, a.ap50_95, a.recall, a.precision, '') for name, a in rows]
        lines = [Table.under(header, cells).to_text()]
        if self.ap50_interval is not None and self.ap50_95_interval is not None:
            lines.append(
                f'95 % intervals over {self.groups} groups of images: '
                f'AP50 {self.ap50_interval[0]:.3f}–{self.ap50_interval[1]:.3f}, '
                f'AP50:95 {self.ap50_95_interval[0]:.3f}–{self.ap50_95_interval[1]:.3f}; '
                f'resampled: {self.resampled}'
            )
        total = max(1, self.overall.boxes)
        lines.append(f'box sizes (longer side, px) in {self.images} images:')
        lines += [
            f'  {name:>8}  {count:6d}  {100 * count / total:5.1f} %'
            for name, count in self.size_histogram.items()
        ]
        return '\n'.join(lines)


def coco_metrics(
    ground_truth: Sequence[Boxes],
    detections: Sequence[Detections],
    labels: Sequence[str],
    *,
    score_threshold: float = 0.4,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 0,
    seed: int = 0,
    outcomes: bool = False,
) -> Metrics:
    """Return the COCO accuracy of `detections[i]` against `ground_truth[i]`, image by image.

    Source: Lin et al., Microsoft COCO (2014), detection evaluation; intervals by the cluster
    bootstrap (Davison and Hinkley 1997, section 3.8).

    Args:
        ground_truth: one entry per image; class ids index `labels`.
        detections: one entry per image, in the same order. Give all candidates down to a low
            score: AP needs the tail that an operating threshold cuts off.
        labels: class names.
        score_threshold: operating threshold at which recall and precision are reported.
        groups: for each image, which cluster it belongs to (a layout, a venue); the bootstrap
            draws whole clusters, since frames of one scene are not independent, but for those that
            are too few (`resampling.frame_weights`). Default: every image is its own cluster.
        resamples: bootstrap resamples for the intervals; 0 leaves them out.
        seed: of the bootstrap.
        outcomes: compute the pseudo-value of each group, too: n AP50 − (n − 1) AP50 without it
            (Tukey's jackknife), moved so that their mean is AP50.

    Raises:
        UserError: pycocotools is not installed, or a box of the ground truth is not finite or has
            no area.
        ValueError: the sequences differ in length or a class id has no label.
    """
    if len(ground_truth) != len(detections):
        raise ValueError(f'{len(ground_truth)} images but {len(detections)} lists of detections')
    if groups is not None and len(groups) != len(ground_truth):
        raise ValueError(f'{len(ground_truth)} images but {len(groups)} group names')
    for index, truth in enumerate(ground_truth):
        check_corners(truth.boxes, f'ground truth of image {index}')
    sizes = _longer_sides([truth.boxes[~_crowd(truth)] for truth in ground_truth])
    matches = _match(ground_truth, detections, labels)
    ones = np.ones(len(ground_truth))

    def accuracy(area: str, classes: Sequence[int]) -> Accuracy:
        chosen = [matches[area, k] for k in classes]
        aps = [each.average_precision(ones) for each in chosen]
        true, false, boxes = np.sum(
            [each.counts(score_threshold) for each in chosen] or [(0, 0, 0)], axis=0
        )
        return Accuracy(
            boxes=int(boxes),
            ap50=_mean([ap[0] for ap in aps]),
            ap50_95=_mean([float(np.mean(ap)) for ap in aps]),
            recall=float(true / boxes) if boxes else math.nan,
            precision=float(true / (true + false)) if true + false else math.nan,
        )

    everything = range(len(labels))
    names, members = clusters(range(len(ground_truth)) if groups is None else groups)
    ap50_interval = ap50_95_interval = draws = None

    def weighted(weights: np.ndarray) -> tuple[float, float]:
        aps = [matches['all', k].average_precision(weights) for k in everything]
        return _mean([ap[0] for ap in aps]), _mean([float(np.mean(ap)) for ap in aps])

    if resamples > 0 and names:
        drawn = frame_weights(members.tolist(), resamples=resamples, seed=seed)
        draws = np.array([weighted(each.astype(float)) for each in drawn])
        low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
        ap50_interval = (float(low[0]), float(high[0]))
        ap50_95_interval = (float(low[1]), float(high[1]))
    overall = accuracy('all', everything)
    values = None
    if outcomes and names:
        without = [weighted((members != g).astype(float))[0] for g in range(len(names))]
        # Nothing to find where the only group with boxes is left out: 0, and not undefined.
        values = -(len(names) - 1) * np.nan_to_num(without)
        values += overall.ap50 - values.mean()
    return Metrics(
        images=len(ground_truth),
        groups=len(names),
        score_threshold=score_threshold,
        overall=overall,
        small=accuracy('small', everything),
        large=accuracy('large', everything),
        per_class={name: accuracy('all', [k]) for k, name in enumerate(labels)},
        size_histogram=size_histogram(sizes),
        ap50_interval=ap50_interval,
        ap50_95_interval=ap50_95_interval,
        draws=draws,
        ap50_outcomes=values,
    )


@dataclass(frozen=True)
class Gain:
    """AP50 of one network minus that of another, on the same images, and its 95 % interval.

    Of a bootstrap over groups of images with the same resamples for both.
    """

    ap50: float
    interval: tuple[float, float]

    def to_text(self) -> str:
        """Return both, to a tenth of a point."""
        return f'{self.ap50:+.4f} [{self.interval[0]:+.4f}, {self.interval[1]:+.4f}]'


def gain(ours: Metrics, theirs: Metrics) -> Gain | None:
    """Return the paired difference of AP50; None where there was no bootstrap.

    Raises:
        ValueError: bootstraps of different groups.
    """
    if ours.draws is None or theirs.draws is None:
        return None
    if (ours.images, ours.groups, len(ours.draws)) != (
        theirs.images,
        theirs.groups,
        len(theirs.draws),
    ):
        raise ValueError('the bootstraps are of different images, groups or resamples')
    differences = ours.draws[:, 0] - theirs.draws[:, 0]
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    return Gain(ours.ap50 - theirs.ap50, (float(low), float(high)))


def size_histogram(longer_sides: np.ndarray) -> dict[str, int]:
    """Return how many boxes fall in each bin of `SIZE_EDGES`, by the longer side in pixels."""
    counts, _ = np.histogram(longer_sides, bins=[*SIZE_EDGES, np.inf])
    names = [f'{low}–{high}' for low, high in itertools.pairwise(SIZE_EDGES)]
    names.append(f'≥ {SIZE_EDGES[-1]}')
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


@dataclass(frozen=True)
class _Matches:
    """pycocotools' matches of one class and size range, detections in order of falling score."""

    images: np.ndarray  # (D,) index of the image of each detection
    scores: np.ndarray  # (D,)
    true: np.ndarray  # (T, D) matched to a box that counts
    false: np.ndarray  # (T, D) unmatched and counted; boxes of other sizes are neither
    boxes: np.ndarray  # (I,) boxes that count, per image

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Return AP per IoU threshold (T,), images weighted by `weights` (I,); nan: no box."""
        boxes = float(self.boxes @ weights)
        if boxes == 0:
            return np.full(len(IOU_THRESHOLDS), math.nan)
        if not len(self.scores):
            return np.zeros(len(IOU_THRESHOLDS))
        each = weights[self.images]
        true = np.cumsum(self.true * each, axis=1)
        false = np.cumsum(self.false * each, axis=1)
        recall = true / boxes
        precision = true / (true + false + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
        return np.array(
            [
                row[np.searchsorted(reached, RECALL_POINTS, side='left')].mean()
                for row, reached in zip(padded, recall, strict=True)
            ]
        )

    def counts(self, score_threshold: float) -> tuple[int, int, int]:
        """Return true and false detections at `score_threshold` and IoU 0.5, and the boxes.

        Matching is greedy from the highest score, so that leaving out the tail changes no match.
        """
        kept = self.scores >= score_threshold
        return int(self.true[0, kept].sum()), int(self.false[0, kept].sum()), int(self.boxes.sum())


def _match(
    ground_truth: Sequence[Boxes], detections: Sequence[Detections], labels: Sequence[str]
) -> dict[tuple[str, int], _Matches]:
    """Match every image, class and size range by pycocotools."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            "accuracy needs pycocotools: pip install 'pruned_perception[bench]'"
        ) from error
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (truth, found) in enumerate(zip(ground_truth, detections, strict=True)):
        for box, k, crowd in zip(
            np.asarray(truth.boxes, float), truth.class_ids, _crowd(truth), strict=True
        ):
            entry = _annotation(len(truths), image, box, int(k), labels)
            truths.append({**entry, 'iscrowd': int(crowd)})
        for box, score, k in zip(
            np.asarray(found.boxes, float), found.scores, found.class_ids, strict=True
        ):
            entry = _annotation(len(results), image, box, int(k), labels)
            results.append({**entry, 'score': float(score)})
    images = [{'id': image} for image in range(len(ground_truth))]
    categories = [{'id': k, 'name': name} for k, name in enumerate(labels)]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        sides = []
        for annotations in (truths, results):
            side = COCO()
            side.dataset = {'images': images, 'annotations': annotations, 'categories': categories}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iouType='bbox')
        below = np.nextafter(SMALL**2, 0)
        evaluation.params.areaRng = [[0, 1e10], [0, below], [SMALL**2, 1e10]]
        evaluation.params.areaRngLbl = ['all', 'small', 'large']
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.iouThrs = IOU_THRESHOLDS
        evaluation.evaluate()
    matches = {}
    cells = iter(evaluation.evalImgs)  # class by class, size by size, image by image
    for k in range(len(labels)):
        for area in ('all', 'small', 'large'):
            per_image = [next(cells) for _ in images]
            matches[area, k] = _gather(per_image)
    return matches


def _gather(per_image: Sequence[dict[str, Any] | None]) -> _Matches:
    """Concatenate pycocotools' records of the images and sort them by falling score."""
    present = [(image, cell) for image, cell in enumerate(per_image) if cell is not None]
    boxes = np.zeros(len(per_image))
    for image, cell in present:
        boxes[image] = np.count_nonzero(np.asarray(cell['gtIgnore']) == 0)
    if not present:
        none = np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return _Matches(np.zeros(0, int), np.zeros(0), none, none, boxes)
    images = np.concatenate([np.full(len(c['dtScores']), i, int) for i, c in present])
    scores = np.concatenate([np.asarray(c['dtScores'], float) for _, c in present])
    matched = np.concatenate([np.asarray(c['dtMatches']) for _, c in present], axis=1) > 0
    ignored = np.concatenate([np.asarray(c['dtIgnore'], bool) for _, c in present], axis=1)
    order = np.argsort(-scores, kind='mergesort')
    return _Matches(
        images=images[order],
        scores=scores[order],
        true=(matched & ~ignored)[:, order],
        false=(~matched & ~ignored)[:, order],
        boxes=boxes,
    )


def _annotation(
    index: int, image: int, box: np.ndarray, class_id: int, labels: Sequence[str]
) -> dict[str, Any]:
    if not 0 <= class_id < len(labels):
        raise ValueError(
            f'class id {class_id} of image {image} is none of the {len(labels)} labels'
        )
    left, top, right, bottom = (float(value) for value in box)
    width, height = right - left, bottom - top
    return {
        'id': index + 1,  # pycocotools takes id 0 for "not matched"
        'image_id': image,
        'category_id': class_id,
        'bbox': [left, top, width, height],
        # COCO's size ranges go by this field: the square of the longer side, see SMALL.
        'area': max(width, height) ** 2,
        'iscrowd': 0,
    }


def _crowd(truth: Boxes) -> np.ndarray:
    return np.zeros(len(truth.class_ids), bool) if truth.crowd is None else truth.crowd.astype(bool)


def _longer_sides(per_image: Sequence[np.ndarray]) -> np.ndarray:
    none = np.zeros((0, 4))
    boxes = np.concatenate([none, *(np.asarray(each).reshape(-1, 4) for each in per_image)])
    return np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not nan; nan if there is none."""
    finite = [float(value) for value in values if not math.isnan(value)]
    return float(np.mean(finite)) if finite else math.nan


def _accuracy_json(accuracy: Accuracy) -> dict[str, Any]:
    values = {
        'boxes': accuracy.boxes,
        'ap50': accuracy.ap50,
        'ap50_95': accuracy.ap50_95,
        'recall': accuracy.recall,
        'precision': accuracy.precision,
    }
    return {key: None if math.isnan(value) else value for key, value in values.items()}
