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

"""YOLO as tools and services really write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from square_files import BOXES, HEIGHT, WIDTH, jpeg, picture, write_yolo, yolo_line
from tiny_detector import LABELS

from pruned_perception.datasets import (
    DataError,
    Dataset,
    Problems,
    dataset_splits,
    read_dataset,
)

CORNERS = [[left, top, left + width, top + height] for left, top, width, height in BOXES]


def check_sound(found: Dataset) -> None:
    assert found.labels == LABELS
    assert [ids.tolist() for ids in found.class_ids] == [[0], [1], [2]]
    np.testing.assert_allclose([each[0] for each in found.boxes], CORNERS, atol=1e-3)
    assert [image.shape for image in found.images()] == [(HEIGHT, WIDTH, 3)] * 3


@pytest.mark.parametrize(
    ('data', 'place'),
    [
        ({'train': 'images', 'names': list(LABELS)}, 'images'),
        ({'train': 'images', 'names': dict(enumerate(LABELS)), 'nc': 3}, 'images'),
        ({'train': 'images/', 'names': {str(k): x for k, x in enumerate(LABELS)}}, 'images'),
        ({'train': 'images/train', 'names': list(LABELS), 'val': None}, 'images/train'),
        ({'train': ['./images/train'], 'names': list(LABELS)}, 'images/train'),
        ({'train': '../train/images', 'names': list(LABELS)}, 'train/images'),
        ({'train': '..\\train\\images', 'names': list(LABELS)}, 'train/images'),
        ({'path': '', 'train': 'images', 'names': list(LABELS)}, 'images'),
        ({'path': '.', 'train': 'images', 'names': list(LABELS)}, 'images'),
        ({'path': 'deeper', 'train': 'images', 'names': list(LABELS)}, 'deeper/images'),
        ({'path': '/content/set', 'train': 'images', 'names': list(LABELS)}, 'images'),
        ({'path': 'C:\\set', 'train': 'images', 'names': list(LABELS)}, 'images'),
        ({'train': '.', 'names': list(LABELS)}, 'pictures'),
    ],
)
def test_where_data_yaml_says_that_pictures_are(
    data: dict[str, Any], place: str, tmp_path: Path
) -> None:
    folder = write_yolo(tmp_path / 'set', data, place)
    assert dataset_splits(folder) == ('train',)
    for path in (folder, folder / 'train', folder / 'data.yaml'):
        check_sound(read_dataset(path))
    assert read_dataset(folder).digest == read_dataset(folder).digest


def test_an_absolute_path(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set', {})
    data = {'path': str(folder), 'train': 'images', 'names': list(LABELS)}
    file = tmp_path / 'elsewhere.yaml'
    file.write_text(yaml.safe_dump(data))
    check_sound(read_dataset(file))
    file.write_text(yaml.safe_dump(data | {'path': None, 'train': str(folder / 'images')}))
    check_sound(read_dataset(file))


def test_pictures_beside_the_folder_are_found_where_they_are_if_nowhere_else(
    tmp_path: Path,
) -> None:
    write_yolo(tmp_path, {}, 'train/images')
    (tmp_path / 'config').mkdir()
    data = {'train': '../train/images', 'names': list(LABELS)}
    (tmp_path / 'config' / 'data.yaml').write_text(yaml.safe_dump(data))
    check_sound(read_dataset(tmp_path / 'config'))


@pytest.mark.parametrize('asked', ['val', 'valid', 'validation'])
def test_one_split_of_three_names(asked: str, tmp_path: Path) -> None:
    data = {'train': '../train/images', 'val': '../valid/images', 'names': list(LABELS)}
    write_yolo(tmp_path, {}, 'train/images')
    write_yolo(tmp_path, data, 'valid/images')
    assert dataset_splits(tmp_path) == ('train', 'val')
    assert read_dataset(tmp_path / asked).paths[0] == tmp_path / 'valid/images/0.png'
    with pytest.raises(DataError, match=r"which split.*'train', 'val'"):
        read_dataset(tmp_path)


@pytest.mark.parametrize('prefix', ['./', ''])
def test_lists_of_pictures(prefix: str, tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set', {'train': 'train.txt', 'names': list(LABELS)})
    lines = [f'{prefix}images/{k}.png' for k in (2, 0)]
    (folder / 'train.txt').write_text('\ufeff' + '\r\n'.join([*lines, '', '']), 'utf-8')
    assert [path.name for path in read_dataset(folder).paths] == ['2.png', '0.png']
    (folder / 'train.txt').write_text(str(folder / 'images/1.png'))
    assert [path.name for path in read_dataset(folder).paths] == ['1.png']
    for wrong, message in (
        ('images/9.png', r'images/9\.png is missing'),
        ('/etc/1.png', r"'/etc/1\.png' leads out"),
        ('../x.png', r"'\.\./x\.png' leads out"),
    ):
        (folder / 'train.txt').write_text(wrong)
        with pytest.raises(DataError, match=message):
            read_dataset(folder)


@pytest.mark.parametrize('names', ['obj.names', 'classes.txt'])
@pytest.mark.parametrize('place', ['', 'images', 'hall'])
def test_a_plain_folder_with_a_file_of_names(names: str, place: str, tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set', {}, place or '.')
    (folder / names).write_text('\n'.join(LABELS) + '\n')
    (folder / 'README.txt').write_text('0 is red, and nothing here is a label')
    check_sound(read_dataset(folder))


def test_sub_folders_are_groups_or_splits(tmp_path: Path) -> None:
    for venue in ('hall', 'yard/north', 'yard/south'):
        write_yolo(tmp_path, {}, venue)
    (tmp_path / 'obj.names').write_text('\n'.join(LABELS))
    found = read_dataset(tmp_path)
    assert (found.unit, found.groups) == ('group', ('hall',) * 3 + ('yard',) * 6)
    (tmp_path / 'hall').rename(tmp_path / 'train')
    (tmp_path / 'yard').rename(tmp_path / 'test')
    assert dataset_splits(tmp_path) == ('train', 'test')
    assert read_dataset(tmp_path / 'test').groups == ('north',) * 3 + ('south',) * 3


def test_a_picture_without_labels_is_empty_and_said_to_be(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    (folder / 'labels' / '1.txt').unlink()
    (folder / 'labels' / '2.txt').write_text('\n \n')
    problems = Problems()
    found = read_dataset(folder, problems=problems)
    assert [len(each) for each in found.boxes] == [1, 0, 0]
    assert '1 of 3 pictures have no labels' in problems.notes[0]


def first_line(folder: Path, text: str | bytes) -> Path:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / 'labels' / '0.txt').write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ('line', 'box'),
    [
        ('0 .5 .5 .25 .5', [240, 120, 400, 360]),
        ('\ufeff0\t.5 .5   .25 .5\r\n', [240, 120, 400, 360]),
        ('0 0.25 0.25 0.75 0.25 0.5 0.75', [160, 120, 480, 360]),
        ('0 .25 .25 .75 .25 .75 .75 .25 .75', [160, 120, 480, 360]),
        ('0.0 5e-1 .5 .25 .5', [240, 120, 400, 360]),
    ],
)
def test_boxes_and_polygons(line: str, box: list[float], tmp_path: Path) -> None:
    found = read_dataset(first_line(write_yolo(tmp_path / 'set'), line))
    np.testing.assert_allclose(found.boxes[0], [box], atol=1e-3)


def test_boxes_and_polygons_in_one_file(tmp_path: Path) -> None:
    text = '0 .5 .5 .25 .5\n1 .25 .25 .75 .25 .5 .75\n'
    found = read_dataset(first_line(write_yolo(tmp_path / 'set'), text))
    np.testing.assert_allclose(found.boxes[0], [[240, 120, 400, 360], [160, 120, 480, 360]])
    assert found.class_ids[0].tolist() == [0, 1]


def test_key_points_are_no_polygon(tmp_path: Path) -> None:
    data = {'train': 'images', 'names': list(LABELS), 'kpt_shape': [2, 2]}
    folder = write_yolo(tmp_path / 'set', data)
    for index in range(3):
        (folder / 'labels' / f'{index}.txt').write_text('0 .5 .5 .25 .5 .1 .1 .9 .9')
    np.testing.assert_allclose(read_dataset(folder).boxes[0], [[240, 120, 400, 360]])


BROKEN = {
    'score': ('0 .5 .5 .2 .4 .93', 'six columns: a box and a score', 'box-score'),
    'pixels': ('0 320 240 60 60', r'320 is no share .*are these pixels', 'box-pixels'),
    'polygon in pixels': ('0 20 20 90 20 50 80', 'are these pixels', 'box-pixels'),
    'nan': ('0 nan .5 .2 .4', 'nan is not finite', 'box-numbers'),
    'infinite': ('0 .5 -inf .2 .4', '-inf is not finite', 'box-numbers'),
    'text': ('red .5 .5 .2 .4', "'red' is not a number", 'box-numbers'),
    'commas': ('0,.5,.5,.2,.4', 'between spaces', 'box-numbers'),
    'underscore': ('0 .5 .5 1_0 .4', "'1_0' is not a number", 'box-numbers'),
    'no area': ('0 .5 .5 0 .4', 'width 0', 'box-area'),
    'negative': ('0 .5 .5 -.2 .4', 'width -128', 'box-area'),
    'outside': ('0 .9 .5 .6 .4', '128 pixels out', 'box-outside'),
    'unknown class': ('3 .5 .5 .2 .4', 'class 3 is none of the 3', 'box-class'),
    'class below': ('-1 .5 .5 .2 .4', 'class -1 is none', 'box-class'),
    'half a class': ('.5 .5 .5 .2 .4', 'no whole number', 'box-class'),
    'too few': ('0 .5 .5 .2', '4 columns', 'box-numbers'),
    'class alone': ('0', '1 columns', 'box-numbers'),
    'odd polygon': ('0 .1 .1 .2 .2 .3 .3 .4', '8 columns', 'box-numbers'),
    'twice': (f'{yolo_line(0)}\n{yolo_line(0)}', "the same box of 'red' is there", 'box-twice'),
    'no text': (b'\xff\xfe\x00\x00', 'not a text file', 'labels-unreadable'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_what_is_broken_is_named_with_file_and_line(kind: str, tmp_path: Path) -> None:
    text, message, name = BROKEN[kind]
    folder = first_line(write_yolo(tmp_path / 'set'), text)
    line = '' if name == 'labels-unreadable' else f': line {2 if kind == "twice" else 1}'
    with pytest.raises(DataError, match=rf'labels/0\.txt{line}.*{message}') as caught:
        read_dataset(folder)
    assert caught.value.kind == name


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'names': None}, 'names: a list'),
        ({'names': []}, 'names: a list'),
        ({'names': ['red', False, 'blue']}, 'class 1 is False, no text; write it in quotes'),
        ({'names': ['red', 'red', 'blue']}, "'red' is there more than once"),
        ({'names': ['red', ' ', 'blue']}, "' ' is no name"),
        ({'names': {'a': 'red'}}, "'a' is no class id"),
        ({'names': {1: 'red', '1': 'green'}}, 'id is there more than once'),
        ({'nc': 4}, 'nc is 4, but names has 3'),
        ({'train': 'nowhere'}, 'nowhere is missing'),
        ({'train': 3}, '3 is no path'),
        ({'path': 3}, 'path is 3'),
        ({'kpt_shape': 'x'}, 'kpt_shape'),
        ({'train': 'empty'}, 'has no images'),
    ],
)
def test_what_is_wrong_in_data_yaml(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = {'train': 'images', 'names': list(LABELS)} | change
    folder = write_yolo(tmp_path / 'set', data)
    (folder / 'empty').mkdir()
    with pytest.raises(DataError, match=message):
        read_dataset(folder)


def test_ids_with_gaps_keep_their_names(tmp_path: Path) -> None:
    data = {'train': 'images', 'names': {9: 'hat', 0: 'red', 1: 'green', 2: 'blue'}}
    folder = first_line(write_yolo(tmp_path / 'set', data), '9 .5 .5 .2 .4')
    found = read_dataset(folder)
    assert found.labels == ('red', 'green', 'blue', 'hat')
    assert found.class_ids[0].tolist() == [3]
    with pytest.raises(DataError, match='class 5 is none of the 4'):
        read_dataset(first_line(folder, '5 .5 .5 .2 .4'))


def test_other_yaml_files_are_no_data_sets(tmp_path: Path) -> None:
    (tmp_path / 'data.yaml').write_text('camera: front\n')
    assert dataset_splits(tmp_path) == ()
    (tmp_path / 'data.yaml').write_text('a: [')
    with pytest.raises(DataError, match=r'data\.yaml: not YAML'):
        read_dataset(tmp_path)


def test_labels_without_a_picture_are_one_that_is_missing(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    (folder / 'images' / '1.png').unlink()
    with pytest.raises(DataError, match=r'labels/1\.txt: labels of a picture that is missing'):
        read_dataset(folder)


@pytest.mark.parametrize('suffix', ['.gif', '.bmp', '.webp', '.tif'])
def test_pictures_of_other_kinds_are_not_passed_over(suffix: str, tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    kind = '.bmp' if suffix == '.gif' else suffix
    data = cv2.imencode(kind, picture(0))[1].tobytes()
    (folder / 'images' / f'0{suffix}').write_bytes(b'GIF89a' + data if suffix == '.gif' else data)
    (folder / 'images' / '0.png').unlink()
    with pytest.raises(DataError, match=rf'0\{suffix}: .*only JPEG and PNG are read'):
        read_dataset(folder)


def test_jfif_is_a_jpeg(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / 'set')
    (folder / 'images' / '0.png').unlink()
    (folder / 'images' / '0.jfif').write_bytes(jpeg(picture(0)))
    assert len(list(read_dataset(folder).images())) == 3


@pytest.mark.parametrize('orientation', [3, 6])
def test_shares_of_a_turned_picture_are_of_nobody_knows_which(
    orientation: int, tmp_path: Path
) -> None:
    folder = write_yolo(tmp_path / 'set')
    (folder / 'images' / '0.png').unlink()
    (folder / 'images' / '0.jpg').write_bytes(jpeg(picture(0), orientation))
    with pytest.raises(DataError, match=rf'0\.jpg: its EXIF orientation \({orientation}\)'):
        read_dataset(folder)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    other = write_yolo(tmp_path / 'other')
    folder = write_yolo(tmp_path / 'set')
    (folder / 'images' / '1.png').unlink()
    (folder / 'images' / '1.png').symlink_to(other / 'images' / '1.png')
    with pytest.raises(DataError, match=r'1\.png is a link out of'):
        read_dataset(folder)


shares = st.floats(0.01, 0.98)


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set of which tests change the first file of labels, or data.yaml."""
    return write_yolo(tmp_path_factory.mktemp('sound') / 'set')


@given(rows=st.lists(st.tuples(st.integers(0, 2), shares, shares, shares, shares), max_size=6))
def test_what_is_written_is_read(
    sound: Path, rows: list[tuple[int, float, float, float, float]]
) -> None:
    """A box in pixels → shares of six digits → the box, to a thousandth of a pixel."""
    boxes = []
    for k, x, y, w, h in rows:
        box = [WIDTH * x, HEIGHT * y, WIDTH * (x + w * (1 - x)), HEIGHT * (y + h * (1 - y))]
        boxes.append((k, box))
    lines = []
    for k, (left, top, right, bottom) in boxes:
        values = [(left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT,
                  (right - left) / WIDTH, (bottom - top) / HEIGHT]  # fmt: skip
        lines.append(' '.join([str(k), *(f'{value:.6f}' for value in values)]))
    if len(set(lines)) < len(lines):
        return
    found = read_dataset(first_line(sound, '\n'.join(lines)))
    assert found.class_ids[0].tolist() == [k for k, _ in boxes]
    np.testing.assert_allclose(
        found.boxes[0], np.array([box for _, box in boxes]).reshape(-1, 4), atol=2e-3
    )


words = st.one_of(
    st.sampled_from(['0', '1', '.5', '.1', 'nan', '-0.2', '1e400', '٣', '0x1', '']),
    st.floats().map(str),
    st.text(max_size=3),
)
lines = st.lists(st.lists(words, max_size=9).map(' '.join), max_size=4).map('\n'.join)


@given(data=lines.map(lambda text: text.encode('utf-8', 'replace')) | st.binary(max_size=60))
def test_any_bytes_are_boxes_inside_the_picture_or_an_error(sound: Path, data: bytes) -> None:
    try:
        found = read_dataset(first_line(sound, data))
    except DataError as error:
        assert re.search(r'0\.txt', str(error))
        return
    boxes = found.boxes[0]
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= -1).all() and (boxes <= [WIDTH + 1, HEIGHT + 1] * 2).all()


@given(
    data=st.binary(max_size=80) | st.text(max_size=60).map(lambda x: x.encode('utf-8', 'replace'))
)
def test_any_data_yaml_is_read_or_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp() / 'yaml'
    (place / 'images').mkdir(parents=True, exist_ok=True)
    (place / 'images' / '0.jpg').write_bytes(jpeg(np.zeros((8, 8, 3), np.uint8)))
    (place / 'data.yaml').write_bytes(b'train: images\n' + data)
    try:
        read_dataset(place)
    except DataError as error:
        assert 'data.yaml' in str(error)
