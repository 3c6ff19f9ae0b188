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

"""Everything that is wrong is listed; a repair that is asked for mends it, and says so."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_files import write_set
from hypothesis import given
from hypothesis import strategies as st
from square_files import HEIGHT, WIDTH, jpeg, picture, write_voc, write_yolo, yolo_line
from tiny_detector import LABELS

from pruned_perception.datasets import DataError, Dataset, read_dataset
from pruned_perception.datasets.conversion import write_coco
from pruned_perception.datasets.errors import KINDS, REPAIRS
from pruned_perception.datasets.inspection import Inspected, inspect
from pruned_perception.images import read_header


def one(path: Path, *repairs: str) -> tuple[Inspected, Dataset]:
    (found,) = inspect(path, repairs=repairs)
    assert found.notes is not None
    return found, found.notes


def kinds(found: Inspected) -> list[str]:
    return [each.kind for each in found.problems.found]


def test_a_sound_set_has_no_problems(tmp_path: Path) -> None:
    for folder in (
        write_set(tmp_path / 'coco'),
        write_yolo(tmp_path / 'yolo'),
        write_voc(tmp_path / 'voc'),
    ):
        found, notes = one(folder)
        assert (found.problems.found, len(notes), len(found.hashes)) == ([], 3, 3)


def broken_coco(content: dict[str, Any]) -> None:
    images, annotations = content['images'], content['annotations']
    images[1]['width'] = 600
    images += [
        {'id': 20, 'file_name': 'gone.png', 'height': 9, 'width': 9, 'layout': 3},
        {'id': 21, 'file_name': '0.png', 'height': HEIGHT, 'width': WIDTH, 'layout': 3},
        {'id': 22, 'file_name': '/data/upload/3/extra.png', 'height': 480, 'width': 640,
         'layout': 3},
    ]  # fmt: skip
    sound = {'image_id': 7, 'category_id': 1}
    annotations += [
        {**sound, 'id': 30, 'bbox': [math.nan, 1, 2, 3]},
        {**sound, 'id': 31, 'bbox': ['1', '2', '3', '4']},
        {**sound, 'id': 32, 'bbox': [5, 5, -1, 3]},
        {**sound, 'id': 33, 'bbox': [630, 5, 30, 3]},
        {**sound, 'id': 34, 'bbox': [9000, 5, 30, 3]},
        {**sound, 'id': 35, 'bbox': [5, 5, 5, 5], 'category_id': 99},
        {**sound, 'id': 36, 'bbox': [5, 5, 5, 5], 'image_id': 99},
        {**sound, 'id': 36, 'bbox': [7, 7, 7, 7]},
        {**sound, 'id': 37, 'bbox': [8, 8, 8, 8], 'score': 0.5},
        {**sound, 'id': 38, 'bbox': [40, 80, 120, 120], 'category_id': 0},
    ]


def test_every_problem_of_a_coco_set_is_listed(tmp_path: Path) -> None:
    folder = write_set(tmp_path, broken_coco)
    cv2.imwrite(str(folder / 'images' / 'extra.png'), picture(0)[::-1].copy())
    found, notes = one(folder)
    assert sorted(kinds(found)) == sorted(
        ['picture-twice', 'picture-place', 'box-numbers', 'box-numbers', 'box-area', 'box-outside',
         'box-outside', 'box-class', 'box-picture', 'box-id', 'box-score', 'box-twice',
         'picture-size', 'picture-missing']
    )  # fmt: skip
    for problem in found.problems.found:
        assert str(folder) in problem.text and problem.repair is None
    assert [path.name for path in notes.paths] == ['0.png', '2.png']
    assert 'extra.png' in found.problems.notes[-1]


def test_every_repair_that_is_asked_for_is_made_and_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path, broken_coco)
    cv2.imwrite(str(folder / 'images' / 'extra.png'), picture(0)[::-1].copy())
    found, notes = one(folder, *REPAIRS)
    assert found.problems.unmended == []
    for problem in found.problems.found:
        assert problem.repair in KINDS[problem.kind][1]
    names = [path.name for path in notes.paths]
    assert names == ['0.png', '1.png', '2.png', 'extra.png']
    assert notes.sizes[1] == (HEIGHT, WIDTH)
    boxes = notes.boxes[0].tolist()
    assert boxes == [[40, 80, 160, 200], [630, 5, 640, 8], [7, 7, 14, 14], [8, 8, 16, 16]]
    for index in range(len(notes)):
        assert notes.image(index).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('missing', ['drop-boxes', 'clip', 'drop-images', 'take-sizes'])
def test_what_nobody_asked_to_repair_stays_a_problem(missing: str, tmp_path: Path) -> None:
    folder = write_set(tmp_path, broken_coco)
    found, _ = one(folder, *(set(REPAIRS) - {missing}))
    assert found.problems.unmended
    assert {missing} == {r for x in found.problems.unmended for r in KINDS[x.kind][1]}


def test_an_unknown_repair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown repair 'magic'; there is drop-images"):
        inspect(write_set(tmp_path), repairs=['magic'])


@pytest.mark.parametrize('orientation', range(2, 9))
@pytest.mark.parametrize('form', ['coco', 'yolo'])
def test_turned_pictures_are_mended_both_ways(orientation: int, form: str, tmp_path: Path) -> None:
    """The square is found where it is in the stored picture, and the copy is turned by nobody."""
    stored = picture(1)
    data = jpeg(stored, orientation)
    upright = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    found_in = {}
    for name, image in (('exif-stored', stored), ('exif-upright', upright)):
        rows, columns = np.where(image[..., 1].astype(int) - image[..., 2] > 60)
        height, width = image.shape[:2]
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        folder = tmp_path / name
        if form == 'coco':

            def change(
                content: dict[str, Any], box: list[int] = box, size: Any = (height, width)
            ) -> None:
                content['images'][1] |= {'file_name': 'turned.jpg', 'height': size[0],
                                         'width': size[1]}  # fmt: skip
                content['annotations'][1]['bbox'] = box

            write_set(folder, change)
        else:
            write_yolo(folder)
            left, top, across, down = box
            shares = [(left + across / 2) / width, (top + down / 2) / height,
                      across / width, down / height]  # fmt: skip
            (folder / 'images' / '1.png').unlink()
            (folder / 'labels' / '1.txt').unlink()
            (folder / 'labels' / 'turned.txt').write_text(' '.join(map(str, [1, *shares])))
        (folder / 'images' / 'turned.jpg').write_bytes(data)
        found, notes = one(folder, name)
        index = [path.name for path in notes.paths].index('turned.jpg')
        found_in[name] = notes.boxes[index][0].tolist()
        agrees = form == 'coco' and name == 'exif-stored' and orientation > 4
        assert kinds(found) == ([] if agrees else ['picture-turned'])
        assert notes.sizes[index] == (HEIGHT, WIDTH)
        write_coco([notes], folder.with_name(f'{name}-copy'), {})
        copy = read_dataset(folder.with_name(f'{name}-copy'))
        np.testing.assert_array_equal(copy.image(index), notes.image(index))
        assert read_header(copy.paths[index]).orientation == 1
        np.testing.assert_allclose(copy.boxes[index], notes.boxes[index], atol=1e-3)
    np.testing.assert_allclose(found_in['exif-upright'], found_in['exif-stored'], atol=0.01)


def test_without_being_asked_a_turned_picture_is_a_problem(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path, lambda content: content['images'][1].update(file_name='turned.jpg')
    )
    (folder / 'images' / 'turned.jpg').write_bytes(jpeg(picture(1), 3))
    found, notes = one(folder)
    assert (kinds(found), len(notes)) == (['picture-turned'], 2)
    with pytest.raises(DataError, match=r'turned\.jpg: its EXIF orientation \(3\)'):
        read_dataset(folder).image(1)


def test_broken_lines_of_yolo_are_left_out_one_by_one(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    lines = [yolo_line(0), '0 nan .5 .2 .4', '0 .9 .5 .6 .4', '7 .5 .5 .2 .4', '1 .5 .5 .2 .4 .9']
    (folder / 'labels' / '0.txt').write_text('\n'.join(lines))
    (folder / 'labels' / '1.txt').write_bytes(b'\xff\xfe')
    found, notes = one(folder)
    assert kinds(found) == ['box-numbers', 'box-outside', 'box-class', 'box-score',
                            'labels-unreadable']  # fmt: skip
    for number, problem in enumerate(found.problems.found[:4], 2):
        assert f'0.txt: line {number}' in problem.text
    # A picture whose labels cannot be read is not one without anything in it.
    assert [path.name for path in notes.paths] == ['0.png', '2.png']
    assert len(notes.boxes[0]) == 1
    found, notes = one(folder, 'drop-boxes', 'clip', 'drop-scores', 'drop-images')
    assert found.problems.unmended == [] and len(notes.boxes[0]) == 3
    assert found.left_out == ()


def two_splits(folder: Path) -> Path:
    for split in ('train', 'val', 'test'):
        write_yolo(folder, {}, f'{split}/images')
    data = {split: f'{split}/images' for split in ('train', 'val', 'test')}
    (folder / 'data.yaml').write_text(json.dumps(data | {'names': list(LABELS)}))
    for split, turned in (('train', 1), ('val', 0)):
        for index in range(3):
            if (split, index) not in (('train', 0), ('val', 1), ('train', 2)):
                file = folder / split / 'images' / f'{index}.png'
                cv2.imwrite(str(file), np.roll(picture(index), 5 + 7 * turned, axis=0))
    return folder


def test_the_same_picture_in_two_splits_stays_in_the_last_of_train_val_test(
    tmp_path: Path,
) -> None:
    folder = two_splits(tmp_path / 'set')
    (folder / 'train' / 'images' / '0.png').rename(folder / 'train' / 'images' / 'other.png')
    (folder / 'train' / 'labels' / '0.txt').rename(folder / 'train' / 'labels' / 'other.txt')
    found = inspect(folder)
    texts = [each.text for split in found for each in split.problems.found]
    assert [kinds(split) for split in found] == [['picture-shared'] * 2, ['picture-shared'], []]
    assert any('train/images/other.png: the same picture is in test' in text for text in texts)
    mended = inspect(folder, repairs=['drop-shared'])
    assert [len(split.notes or ()) for split in mended] == [1, 2, 3]
    assert not any(split.problems.unmended for split in mended)


def test_what_is_not_used_is_said(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / 'set')
    (folder / 'JPEGImages' / 'more.jpg').write_bytes(jpeg(picture(0)))
    (folder / 'JPEGImages' / 'anim.gif').write_bytes(b'GIF89a' + bytes(40))
    found, _ = one(folder)
    (note,) = found.problems.notes
    assert note.startswith('2 pictures') and '(1 .gif, 1 .jpg)' in note and 'anim.gif' in note


def test_pictures_that_are_there_several_times_are_said(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    os.link(folder / 'images' / '0.png', folder / 'images' / '9.png')
    found, _ = one(folder)
    assert any('1 pictures are the same as another' in note for note in found.problems.notes)


def test_a_split_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set', {'train': 'images', 'names': list(LABELS), 'test': 'x'})
    train, test = inspect(folder)
    assert (len(train.notes or ()), test.notes) == (3, None)
    assert kinds(test) == ['split-empty'] and 'x is missing' in test.problems.found[0].text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    section=st.sampled_from(['images', 'annotations', 'categories']),
    row=st.integers(0, 2),
    key=st.sampled_from(
        ['id', 'image_id', 'category_id', 'bbox', 'iscrowd', 'file_name', 'height', 'width',
         'name', 'layout', 'supercategory', 'score']
    ),
    value=anything,
)  # fmt: skip
def test_any_value_in_a_coco_file_is_listed_mended_or_refused(
    section: str, row: int, key: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / 'any-coco'
    if not folder.exists():
        write_set(folder)
        (folder / 'sound').write_text((folder / 'annotations.json').read_text())
    content = json.loads((folder / 'sound').read_text())
    content[section][row][key] = value
    (folder / 'annotations.json').write_text(json.dumps(content))
    for repairs in ((), tuple(REPAIRS)):
        try:
            (found,) = inspect(folder, repairs=repairs)
        except DataError as error:
            assert str(folder) in str(error)
            continue
        for problem in found.problems.found:
            assert str(folder) in problem.text
        if found.notes is None:
            assert found.problems.unmended
            continue
        boxes = np.concatenate(found.notes.boxes)
        assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
