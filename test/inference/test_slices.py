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

"""Where a detector fails: bins of size, place, light and group."""

from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruned_perception.datasets import Dataset
from pruned_perception.errors import UserError
from pruned_perception.inference import resampling
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.resampling import frame_weights
from pruned_perception.inference.slices import AXES, ByGroup, Frame, axes_from, by_group, slices

LABELS = ('ball', 'robot')


def frame(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def notes_of(
    boxes: list[np.ndarray],
    class_ids: list[list[int]],
    groups: list[str],
    crowd: list[list[bool]] | None = None,
) -> Dataset:
    count = len(boxes)
    return Dataset(
        folder=Path('/data'),
        source=Path('/data/annotations.json'),
        split='',
        labels=LABELS,
        paths=tuple(Path(f'{k}.png') for k in range(count)),
        sizes=((100, 200),) * count,
        boxes=tuple(boxes),
        class_ids=tuple(np.array(each, np.int64) for each in class_ids),
        crowd=tuple(
            np.zeros(len(each), bool) if crowd is None else np.array(crowd[k], bool)
            for k, each in enumerate(class_ids)
        ),
        groups=tuple(groups),
        unit='venue',
        digest='0' * 64,
    )


def found_of(boxes: np.ndarray, class_ids: list[int], score: float = 0.9) -> Detections:
    count = len(class_ids)
    return Detections(boxes, np.full(count, score, np.float32), np.array(class_ids, np.int64))


SMALL, TALL = (90, 45, 100, 55), (0, 0, 20, 90)


@pytest.fixture
def case() -> tuple[Dataset, dict[str, list[Detections]]]:
    """Two frames with a small ball and a tall robot: dense finds all and a ghost, half the tall."""
    both = frame(SMALL, TALL)
    ghost = frame(SMALL, TALL, (150, 10, 170, 22))
    notes = notes_of([both, both], [[0, 1], [0, 1]], ['a', 'b'])
    return notes, {
        'dense': [found_of(ghost, [0, 1, 0]), found_of(both, [0, 1])],
        'half': [found_of(both[1:], [1]), found_of(both, [1, 1])],  # a ball taken for a robot
    }


def counted(case: Any, axis: str, **options: Any) -> Any:
    notes, found = case
    (bins,) = axes_from([axis]).values()
    return slices(notes, found, axis.partition('=')[0], bins=bins, score_threshold=0.4, **options)


def test_objects_count_in_the_bin_of_their_own_box_and_detections_in_that_of_theirs(
    case: Any,
) -> None:
    small, middle, tall = counted(case, 'height=0,12,40', resamples=0).bins
    assert (small.name, middle.name, tall.name) == ('0–12', '12–40', '≥ 40')
    assert (small.objects, middle.objects, tall.objects) == (2, 0, 2)
    assert small.recall['dense'].value == 1
    assert small.recall['half'].value == -1  # the difference
    assert tall.recall['half'].value == 0
    assert (middle.reported['dense'], middle.precision['dense'].value) == (1, 0)
    assert middle.precision['half'].value is None  # nothing reported
    assert small.reported['half'] == 1
    assert small.precision['half'].value == -1


def test_classes_may_be_counted_alone_and_others_are_named(case: Any) -> None:
    found = counted(case, 'height=0', classes=['ball'], resamples=0)
    assert [each.objects for each in found.bins] == [2]
    assert found.bins[0].recall['half'].value == -1
    with pytest.raises(UserError, match=r'cat.* is no class here: there are ball, robot'):
        counted(case, 'height', classes=['cat'])


def test_crowd_boxes_are_neither_missed_nor_is_what_lies_in_them_false() -> None:
    region = frame((0, 0, 100, 100))
    notes = notes_of([region], [[0]], ['a'], [[True]])
    found = {'dense': [found_of(frame((10, 10, 30, 30)), [0])]}
    (only,) = slices(
        notes, found, 'height', bins=axes_from(['height=0'])['height'], score_threshold=0.4
    ).bins
    assert (only.objects, only.reported) == (0, {'dense': 0})


def test_the_middle_of_the_picture_has_radius_0_and_its_corner_1() -> None:
    where = AXES['radius'].value
    seen = Frame((100, 200), 0.0)
    boxes = np.array([[90, 40, 110, 60], [200, 100, 200, 100], [0, 50, 0, 50]], float)
    np.testing.assert_allclose(where(boxes, seen), [0, 1, 100 / math.hypot(100, 50)])


def test_light_is_the_frames_and_takes_all_its_boxes(case: Any) -> None:
    dark, bright = counted(case, 'light=0,50', light=[20, 90], resamples=0).bins
    assert (dark.objects, bright.objects) == (2, 2)
    assert (dark.recall['half'].value, bright.recall['half'].value) == (-0.5, -0.5)
    assert dark.precision['dense'].value == pytest.approx(2 / 3)


def test_bins_of_groups_are_named_and_data_without_any_refused(case: Any) -> None:
    notes, found = case
    many = notes.subset([0, 1, 0])
    one, other = slices(
        many,
        {name: [*each, each[0]] for name, each in found.items()},
        'group',
        bins=None,
        score_threshold=0.4,
    ).bins
    assert (one.name, one.objects, other.name, other.objects) == ('a', 4, 'b', 2)
    with pytest.raises(UserError, match='does not say which frames belong together'):
        counted(case, 'group')


@pytest.mark.parametrize(
    'word', ['size', 'height=', 'height=8,4', 'height=a', 'light=nan', 'group=1']
)
def test_axes_that_are_none_are_refused(word: str) -> None:
    with pytest.raises(UserError, match=word.partition('=')[0]):
        axes_from([word])


def test_few_groups_stay_and_their_frames_are_drawn() -> None:
    assert doctest.testmod(resampling).failed == 0
    groups = ['a'] * 10 + ['b'] * 30
    weights = frame_weights(groups, resamples=50)
    assert (weights[:, :10].sum(1) == 10).all()
    assert (weights[:, 10:].sum(1) == 30).all()
    assert weights.std() > 0
    many = [k // 2 for k in range(60)]
    whole = frame_weights(many, resamples=50)
    assert (whole[:, ::2] == whole[:, 1::2]).all()  # both frames of a group, or none
    alone = frame_weights(range(4), resamples=50)
    assert alone.std() > 0  # frames without groups


def test_an_interval_holds_the_value_and_none_stands_where_all_is_found(case: Any) -> None:
    notes, found = case
    many = notes.subset([0, 1] * 30)
    flat = {name: [each[k % 2] for k in range(60)] for name, each in found.items()}
    for k in range(0, 60, 3):
        flat['half'][k] = found_of(frame(SMALL, TALL), [0, 1])
    (bins,) = axes_from(['height=0,12']).values()
    small, tall = slices(many, flat, 'height', bins=bins, score_threshold=0.4).bins
    value, interval = small.recall['half']
    assert interval is not None
    assert interval[0] < value < interval[1] < 0
    assert small.recall['dense'] == (1, None)
    assert tall.recall['half'] == (0, None)


def test_ap50_of_a_group_is_of_its_frames_alone(case: Any) -> None:
    notes, found = case
    result = by_group(notes, found)
    assert result.ap50['a']['dense'] == pytest.approx({'mean': 1, 'ball': 1, 'robot': 1})
    assert result.ap50['a']['half'] == pytest.approx({'mean': 0.5, 'ball': 0, 'robot': 1})
    text = result.to_text()
    assert '2 venues are too few for an interval over venues (from 6 on)' in text
    assert '| −1.000 |' in text


def test_a_mean_over_groups_has_an_interval_from_six_on() -> None:
    rng = np.random.default_rng(0)

    def result(count: int) -> ByGroup:
        ap50 = {}
        for k in range(count):
            dense = float(rng.uniform(0.5, 0.7))
            small = dense - 0.1 + float(rng.uniform(-0.01, 0.01))
            ap50[f'v{k}'] = {
                'dense': {'mean': dense, 'ball': dense},
                'half': {'mean': small, 'ball': math.nan if k else small},
            }
        return ByGroup('venue', dict.fromkeys(ap50, 9), ('ball',), ap50)

    _, interval = result(6).over_groups('half', 'mean')
    assert interval is not None
    assert interval[0] < -0.1 < interval[1]  # paired: far narrower than the venues differ
    assert interval[1] - interval[0] < 0.03
    assert result(6).over_groups('half', 'ball')[1] is None  # one venue has any
    assert result(5).over_groups('half', 'mean')[1] is None
    assert 'Student' in result(6).to_text()
