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

"""coco_metrics agrees with pycocotools, and says what pycocotools does not."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import math

import numpy as np
import pytest

from pruned_perception.errors import UserError
from pruned_perception.inference import coco_metrics as coco_metrics_module
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics, gain
from pruned_perception.inference.detections import Detections

pytest.importorskip('pycocotools')

LABELS = ('person', 'box', 'cone')


def random_case(seed: int, images: int = 30) -> tuple[list[Boxes], list[Detections]]:
    """Ground truth, and detections that miss some boxes, move others and invent a few."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = rng.integers(0, 6)
        corner = rng.uniform(0, 400, (count, 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 150, (count, 2))]).astype(np.float32)
        ids = rng.integers(0, len(LABELS), count)
        truths.append(Boxes(boxes, ids))
        kept = rng.random(count) < 0.8
        moved = boxes[kept] + rng.normal(0, 4, (kept.sum(), 4)).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        extra = rng.integers(0, 3)
        at = rng.uniform(0, 400, (extra, 2))
        invented = np.hstack([at, at + rng.uniform(8, 150, (extra, 2))]).astype(np.float32)
        boxes = np.vstack([moved, invented])
        ids = np.concatenate([ids[kept], rng.integers(0, len(LABELS), extra)])
        found.append(Detections(boxes, rng.random(len(boxes)).astype(np.float32), ids))
    return truths, found


def by_pycocotools(truths: list[Boxes], found: list[Detections]) -> tuple[float, float]:
    """AP50 and AP50:95 the way pycocotools' own example computes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for image, (truth, each) in enumerate(zip(truths, found, strict=True)):
        for (x, y, right, bottom), k in zip(truth.boxes.tolist(), truth.class_ids, strict=True):
            bbox = [x, y, right - x, bottom - y]
            annotations.append(
                {'id': len(annotations) + 1, 'image_id': image, 'category_id': int(k)}
                | {'bbox': bbox, 'area': bbox[2] * bbox[3], 'iscrowd': 0}
            )
        for (x, y, right, bottom), s, k in zip(
            each.boxes.tolist(), each.scores, each.class_ids, strict=True
        ):
            results.append(
                {'image_id': image, 'category_id': int(k), 'score': float(s)}
                | {'bbox': [x, y, right - x, bottom - y]}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            'info': {},
            'images': [{'id': image} for image in range(len(truths))],
            'categories': [{'id': k} for k in range(len(LABELS))],
            'annotations': annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


@pytest.mark.parametrize('seed', range(5))
def test_ap_equals_pycocotools(seed: int) -> None:
    truths, found = random_case(seed)
    metrics = coco_metrics(truths, found, LABELS)
    ap50, ap = by_pycocotools(truths, found)
    assert metrics.ap50 == pytest.approx(ap50, abs=1e-12)
    assert metrics.ap50_95 == pytest.approx(ap, abs=1e-12)
    assert 0 < metrics.ap50_95 < metrics.ap50 < 1


def test_weights_repeat_images() -> None:
    """An image of weight 2 counts as the image given twice: the bootstrap's arithmetic."""
    from pruned_perception.inference.coco_metrics import _match

    truths, found = random_case(7, images=12)
    once = _match(truths, found, LABELS)
    twice = _match(truths + truths[:6], found + found[:6], LABELS)
    weights = np.array([2.0] * 6 + [1.0] * 6)
    for k in range(len(LABELS)):
        weighted = once['all', k].average_precision(weights)
        repeated = twice['all', k].average_precision(np.ones(18))
        np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_perfect_and_absent_detections() -> None:
    truths, _ = random_case(3)
    perfect = [Detections(t.boxes, np.full(len(t.boxes), 0.9), t.class_ids) for t in truths]
    metrics = coco_metrics(truths, perfect, LABELS, resamples=20)
    assert metrics.ap50 == pytest.approx(1)
    assert metrics.overall.recall == metrics.overall.precision == 1
    assert metrics.ap50_interval == pytest.approx((1, 1))
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for _ in truths]
    metrics = coco_metrics(truths, nothing, LABELS)
    assert metrics.ap50 == 0
    assert metrics.overall.recall == 0
    assert math.isnan(metrics.overall.precision)


def test_recall_and_precision_at_the_operating_threshold() -> None:
    truth = [Boxes(np.array([[0, 0, 40, 40], [100, 100, 160, 160.0]]), np.array([0, 0]))]
    boxes = np.array([[0, 0, 40, 40], [100, 100, 160, 160], [300, 300, 340, 340.0]])
    found = [Detections(boxes, np.array([0.9, 0.3, 0.8]), np.array([0, 0, 0]))]
    at_high = coco_metrics(truth, found, LABELS, score_threshold=0.5).overall
    assert (at_high.recall, at_high.precision) == (0.5, 0.5)
    at_low = coco_metrics(truth, found, LABELS, score_threshold=0.2).overall
    assert (at_low.recall, at_low.precision) == pytest.approx((1, 2 / 3))
    assert at_low.ap50 == at_high.ap50


def test_sizes_go_by_the_longer_side() -> None:
    tall = [0, 0, 10, 48.0]  # area far below 48², yet not small
    small = [100, 100, 147.9, 120.0]
    truth = [Boxes(np.array([tall, small]), np.array([0, 0]))]
    found = [Detections(np.array([tall]), np.array([0.9]), np.array([0]))]
    metrics = coco_metrics(truth, found, LABELS)
    assert (metrics.small.boxes, metrics.large.boxes) == (1, 1)
    assert (metrics.small.recall, metrics.large.recall) == (0, 1)
    assert metrics.size_histogram['32–48'] == 1
    assert metrics.size_histogram['48–64'] == 1
    assert sum(metrics.size_histogram.values()) == 2


def test_intervals_draw_whole_groups() -> None:
    """Frames repeated within a group add no certainty; as images of their own they would."""
    truths, found = random_case(11, images=12)
    groups = [g for g in range(12) for _ in range(8)]
    many_truths = [t for t in truths for _ in range(8)]
    many_found = [f for f in found for _ in range(8)]
    by_group = coco_metrics(many_truths, many_found, LABELS, groups=groups, resamples=200)
    by_image = coco_metrics(many_truths, many_found, LABELS, resamples=200)
    assert (by_group.groups, by_image.groups) == (12, 96)
    assert by_group.ap50_interval is not None
    assert by_image.ap50_interval is not None
    low, high = by_group.ap50_interval
    assert low <= by_group.ap50 <= high
    assert high - low > 1.5 * (by_image.ap50_interval[1] - by_image.ap50_interval[0])


def test_a_gain_is_paired_and_far_surer_than_two_intervals() -> None:
    truths, found = random_case(12, images=60)
    groups = [index // 3 for index in range(60)]
    rng = np.random.default_rng(0)
    worse = [  # the same detections, a tenth of them gone
        Detections(*(part[keep] for part in (each.boxes, each.scores, each.class_ids)))
        for each in found
        for keep in [rng.random(len(each.scores)) < 0.9]
    ]
    ours, theirs = (
        coco_metrics(truths, each, LABELS, groups=groups, resamples=200) for each in (found, worse)
    )
    difference = gain(ours, theirs)
    assert difference is not None
    assert difference.ap50 == ours.ap50 - theirs.ap50 > 0
    low, high = difference.interval
    assert low <= difference.ap50 <= high
    assert ours.ap50_interval is not None
    assert high - low < 0.7 * (ours.ap50_interval[1] - ours.ap50_interval[0])
    assert gain(ours, ours).interval == (0.0, 0.0)
    assert f'[{low:+.4f}, {high:+.4f}]' in difference.to_text()
    assert gain(coco_metrics(truths, found, LABELS), theirs) is None
    with pytest.raises(ValueError, match='different images, groups'):
        gain(ours, coco_metrics(truths, worse, LABELS, resamples=200))


def test_outcomes_of_groups_average_to_ap50_and_spread_like_its_bootstrap() -> None:
    truths, found = random_case(13, images=80)
    groups = [index // 2 for index in range(80)]
    metrics = coco_metrics(truths, found, LABELS, groups=groups, resamples=400, outcomes=True)
    values = metrics.ap50_outcomes
    assert values is not None
    assert values.shape == (40,)
    assert values.mean() == pytest.approx(metrics.ap50)
    assert metrics.draws is not None
    assert values.std(ddof=1) / 40**0.5 == pytest.approx(metrics.draws[:, 0].std(), rel=0.3)


@pytest.mark.parametrize('groups', [['hall', 'hall'], ['hall', 'empty']])
def test_outcomes_where_all_boxes_are_in_one_group(groups: list[str]) -> None:
    truth = [
        Boxes(np.array([[0, 0, 60, 60.0]]), np.array([1])),
        Boxes(np.zeros((0, 4)), np.zeros(0, int)),
    ]
    box = Detections(np.array([[0, 0, 60, 60.0]]), np.array([0.9]), np.array([1]))
    metrics = coco_metrics(truth, [box, box], LABELS, groups=groups, outcomes=True)
    assert metrics.ap50_outcomes is not None
    assert len(metrics.ap50_outcomes) == len(set(groups))
    assert metrics.ap50_outcomes.mean() == pytest.approx(metrics.ap50)


def test_classes_without_boxes_are_left_out_and_json_has_no_nan() -> None:
    truth = [Boxes(np.array([[0, 0, 60, 60.0]]), np.array([1]))]
    found = [Detections(np.array([[0, 0, 60, 60.0]]), np.array([0.9]), np.array([1]))]
    metrics = coco_metrics(truth, found, LABELS)
    assert metrics.ap50 == pytest.approx(1)
    assert math.isnan(metrics.per_class['person'].ap50)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    assert json.loads(text)['per_class']['person']['ap50'] is None
    assert 'cone' in metrics.to_text()


def test_crowd_boxes_are_neither_wanted_nor_wrong() -> None:
    boxes = np.array([[0, 0, 60, 60], [100, 100, 200, 200.0]])
    found = [Detections(boxes, np.array([0.5, 0.9]), np.array([0, 0]))]
    truth = [Boxes(boxes, np.array([0, 0]), crowd=np.array([False, True]))]
    metrics = coco_metrics(truth, found, LABELS)
    assert (metrics.overall.boxes, metrics.overall.recall, metrics.overall.precision) == (1, 1, 1)
    assert metrics.ap50 == pytest.approx(1)
    assert sum(metrics.size_histogram.values()) == 1
    alone = [Boxes(boxes[:1], np.array([0]))]
    assert coco_metrics(alone, found, LABELS).overall.precision == 0.5


def test_empty_set_and_mismatch() -> None:
    empty = coco_metrics([], [], LABELS, resamples=5)
    assert empty.images == 0
    assert math.isnan(empty.ap50)
    truths, found = random_case(0)
    with pytest.raises(ValueError, match='30 images but 29'):
        coco_metrics(truths, found[:-1], LABELS)
    bad = [Boxes(np.array([[0, 0, 5, 5.0]]), np.array([3]))]
    with pytest.raises(ValueError, match='class id 3'):
        coco_metrics(bad, [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))], LABELS)


@pytest.mark.parametrize(
    'box', [[0, 0, math.nan, 5], [0, 0, math.inf, 5], [5, 5, 5, 9], [9, 9, 3, 12]]
)
def test_broken_ground_truth_is_refused(box: list[float]) -> None:
    """A box of NaN once gave AP50 1."""
    truth = [Boxes(np.array([[0, 0, 5, 5.0]]), np.array([0]))] * 2
    truth[1] = Boxes(np.array([[0, 0, 5, 5.0], box]), np.array([0, 1]))
    found = [Detections(np.array([[0, 0, 5, 5.0]]), np.array([0.9]), np.array([0]))] * 2
    with pytest.raises(UserError, match='ground truth of image 1: box 1 is'):
        coco_metrics(truth, found, LABELS)


def test_intervals_over_few_groups_are_said_to_be_too_short() -> None:
    assert doctest.testmod(coco_metrics_module).failed == 0
