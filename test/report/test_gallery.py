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

"""Frames side by side: what is missed and what is false, by name, failures first."""

from __future__ import annotations

import doctest
from pathlib import Path

import cv2
import numpy as np
import pytest
from square_files import write_yolo
from tiny_detector import write_tiny_bundle

from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.inference.coco_metrics import Boxes
from pruned_perception.inference.detections import Detections
from pruned_perception.report import gallery as gallery_module
from pruned_perception.report.gallery import as_picture, gallery

LABELS = ('ball', 'robot')
ONE, OTHER = (10, 10, 40, 40), (60, 20, 90, 70)


def boxes(*corners: tuple[int, ...]) -> np.ndarray:
    return np.array(corners, np.float32).reshape(-1, 4)


def seen(corners: list[tuple[int, ...]], class_ids: list[int]) -> Detections:
    scores = np.full(len(corners), 0.9, np.float32)
    return Detections(boxes(*corners), scores, np.array(class_ids, np.int64))


@pytest.fixture
def case() -> dict:
    """Three frames: all right; the member misses a ball; both fail, and the member twice."""
    return {
        'titles': ['right', 'missed', 'worst'],
        'image': lambda index: np.full((100, 120, 3), 40 * index, np.uint8),
        'found': {
            'dense': [seen([ONE], [0]), seen([ONE], [0]), seen([ONE, OTHER], [0, 0])],
            'half': [seen([ONE], [0]), seen([], []), seen([OTHER], [0])],
        },
        'labels': LABELS,
        'groups': ['a', 'a', 'b'],
        'score_threshold': 0.4,
        'count': 3,
    }


ALONE = Boxes(boxes(ONE), np.array([0]))
TRUTH = [ALONE, ALONE, Boxes(boxes(ONE, OTHER), np.array([0, 1]))]


def test_the_worst_come_first_and_one_without_failures_last(case: dict) -> None:
    assert doctest.testmod(gallery_module).failed == 0
    rows = gallery(**case, truth=TRUTH)
    assert [row.title for row in rows] == ['worst', 'missed', 'right']
    dense, half = rows[0].views
    assert dense.failures == 'missed: robot; false: ball'
    assert half.failures == 'missed: ball, robot; false: ball'
    assert [view.failures for view in rows[1].views] == ['no failure', 'missed: ball']


def test_without_labels_the_parent_is_the_yardstick(case: dict) -> None:
    rows = gallery(**case, truth=None)
    assert [view.failures for view in rows[0].views] == ['no failure', 'missed: ball']
    assert {view.failures for row in rows for view in row.views[:1]} == {'no failure'}


def test_classes_may_be_looked_at_alone(case: dict) -> None:
    (row,) = [row for row in gallery(**case, truth=TRUTH, classes=['robot']) if row.views[0].missed]
    assert [view.failures for view in row.views] == ['missed: robot'] * 2
    with pytest.raises(UserError, match=r'cat.* is no class'):
        gallery(**case, truth=TRUTH, classes=['cat'])


def test_what_is_missed_is_dashed_and_what_is_false_framed(case: dict) -> None:
    worst = gallery(**case, truth=TRUTH)[0]
    half = worst.views[1].picture.astype(int)
    edge = half[10, 11:40]  # the upper edge of the missed ball: black and white
    assert {tuple(each) for each in edge} <= {(0, 0, 0), (255, 255, 255)}
    assert len({tuple(each) for each in edge}) == 2
    assert (half[16, 56:90] == (255, 0, 255)).all()  # 4 px around the false one
    picture = as_picture([worst])
    assert picture.shape == (100 + 2 * gallery_module.BAR + 6, 240, 3)


def test_the_command_writes_pages_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = write_yolo(tmp_path / 'set')
    (tmp_path / 'set' / 'labels' / '0.txt').write_text('1 0.1 0.8 0.05 0.05\n')  # nothing there
    model = str(write_tiny_bundle(tmp_path / 'tiny').path)
    for name in ('out.html', 'out.jpg'):
        command = ['gallery', str(data), '--model', model, '--out', str(tmp_path / name)]
        assert main(command) == 0
    out = capsys.readouterr().out
    assert 'tiny: missed: green; false: red' in out
    assert 'missed: green; false: red' in (tmp_path / 'out.html').read_text()
    assert cv2.imread(str(tmp_path / 'out.jpg')) is not None
    both = ['--model', model, model, '--names', 'a', 'b', '--unlabelled']
    pictures = str(data / 'images')
    assert main(['gallery', pictures, *both, '--out', str(tmp_path / 'u.png')]) == 0
    assert 'a: no failure' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--out', 'x.gif'], 'a page ends in .html'),
        (['--unlabelled', '--out', 'x.html'], 'give a member of it, too'),
        (['--members', 'tenth', '--out', 'x.html'], '--members: is for one family'),
        (['--names', 'a', 'b', '--out', 'x.html'], '--names: 2 for 1 bundles'),
        (['--classes', 'cat', '--out', 'x.html'], "'cat' is no class"),
    ],
)
def test_what_the_command_refuses(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, model = write_yolo(tmp_path / 'set'), write_tiny_bundle(tmp_path / 'tiny').path
    given = [*options[:-1], str(tmp_path / options[-1])]
    assert main(['gallery', str(data), '--model', str(model), *given]) == 1
    assert said in ' '.join(capsys.readouterr().err.split())


def test_a_disk_that_is_full_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, model = write_yolo(tmp_path / 'set'), write_tiny_bundle(tmp_path / 'tiny').path
    (tmp_path / 'full.html').symlink_to('/dev/full')
    (tmp_path / 'full.jpg').symlink_to('/dev/full')
    for name in ('full.html', 'full.jpg'):
        command = ['gallery', str(data), '--model', str(model), '--out', str(tmp_path / name)]
        assert main(command) == 1
        assert f'{name}: cannot be written: No space left on device' in capsys.readouterr().err
