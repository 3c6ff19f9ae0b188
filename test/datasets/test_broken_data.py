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

"""Nothing is measured on broken ground truth: each kind is refused, with file and place named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coco_files import write_set
from hypothesis import example, given
from hypothesis import strategies as st

from pruned_perception.cli.main import main
from pruned_perception.datasets import DataError, read_dataset
from pruned_perception.datasets.boxes import OVERHANG, corners_from_size


def annotation(index: int = 1, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content['annotations'][index].update(fields)


def image(index: int = 1, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content['images'][index].update(fields)


def without(section: str, key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content[section][1].pop(key)


BROKEN = {
    'nan': (annotation(bbox=[1, 2, math.nan, 4]), r'annotation 12 .*bbox.*nan is not finite'),
    'infinite': (annotation(bbox=[1, 2, math.inf, 4]), r'annotation 12 .*inf is not finite'),
    'huge': (annotation(bbox=[1, 2, 10**400, 4]), r'annotation 12 .*is not finite'),
    'text': (annotation(bbox=['1', '2', '3', '4']), r"annotation 12 .*'1' is not a number"),
    'truth': (annotation(bbox=[1, 2, True, 4]), r'annotation 12 .*True is not a number'),
    'no numbers': (annotation(bbox=[]), r'annotation 12 .*\[\], not a list of 4 numbers'),
    'null': (annotation(bbox=None), r'annotation 12 .*None, not a list'),
    'three numbers': (annotation(bbox=[1, 2, 3]), r'annotation 12 .*not a list of 4'),
    'no box': (without('annotations', 'bbox'), r"annotation 12 .*'bbox' is missing"),
    'negative size': (annotation(bbox=[9, 9, -5, 4]), r'annotation 12 .*width -5, height 4'),
    'zero size': (annotation(bbox=[9, 9, 5, 0]), r'annotation 12 .*height 0; both must be above'),
    'outside': (annotation(bbox=[600, 9, 50, 9]), r'annotation 12 .*10 pixels out of its picture'),
    'far left': (annotation(bbox=[-30, 9, 50, 9]), r'annotation 12 .*30 pixels out'),
    'same id': (annotation(id=11), r'annotation 11 is there more than once'),
    'id of a kind': (annotation(id=[1]), r'annotations: number 2 of the list: id is \[1\]'),
    'unknown class': (annotation(category_id=5), r'annotation 12: category_id 5 is none of the 3'),
    'class by name': (annotation(category_id='red'), r"annotation 12: category_id 'red' is none"),
    'unknown image': (annotation(image_id=99), r'annotation 12: image_id 99 is none of the 3'),
    'image of a kind': (annotation(image_id={}), r'annotation 12: image_id \{\} is none'),
    'crowd of a kind': (annotation(iscrowd='no'), r"annotation 12: iscrowd is 'no'"),
    'same image id': (image(id=7), r'image 7 is there more than once'),
    'same picture': (image(file_name='0.png'), r'image 8: .*0\.png is the picture of .*image 7'),
    'no file': (without('images', 'file_name'), r"image 8: 'file_name' is missing"),
    'file of a kind': (image(file_name=3), r'image 8: 3 is no name'),
    'no size': (without('images', 'width'), r"image 8: 'width' is missing"),
    'size zero': (image(width=0), r'image 8: height and width are \(480, 0\)'),
    'size as text': (image(width='640'), r"image 8: height and width are \(480, '640'\)"),
    'some groups': (without('images', 'layout'), r'1\.png has no layout, though others have'),
    'group of a kind': (image(layout=[1]), r'image 8: its group is \[1\]'),
    'up': (image(file_name='../secret.png'), r"image 8: .*'\.\./secret\.png' leads out of"),
    'up, later': (image(file_name='images/../../x.png'), r'image 8: .*leads out of'),
    'absolute': (image(file_name='/etc/x.png'), r'image 8: .*leads out of'),
    'windows': (image(file_name='C:\\data\\x.png'), r'image 8: .*leads out of'),
    'storage': (image(file_name='gs://bucket/x.png'), r'image 8: .*leads out of'),
    'missing picture': (image(file_name='9.png'), r'9\.png: missing, though .*annotations\.json'),
    'other size': (
        image(width=600),
        r'1\.png: is 640 × 480 pixels as stored, but .*annotations\.json says 600 × 480',
    ),
    'no images': (
        lambda content: content.update(images=[], annotations=[]),
        r'annotations\.json: the data set has no images',
    ),
    'no boxes': (lambda content: content.update(annotations=[]), r'no box to be found in its 3'),
    'only crowds': (
        lambda content: [each.update(iscrowd=1) for each in content['annotations']],
        r'no box to be found .*4 crowd boxes',
    ),
    'no classes': (lambda content: content.update(categories=[]), r'categories: there are none'),
    'class twice': (
        lambda content: content['categories'][1].update(name='red'),
        r"categories: 'red' is there more than once",
    ),
    'class id twice': (
        lambda content: content['categories'][1].update(id=0),
        r'category 0 is there more than once',
    ),
    'class without name': (
        lambda content: content['categories'][1].pop('name'),
        r"category 1: 'name' is missing",
    ),
    'no annotations': (
        lambda content: content.pop('annotations'),
        r"not a COCO data set: 'annotations' is missing",
    ),
    'shares': (
        lambda content: [
            each.update(bbox=[number / 1000 for number in each['bbox']])
            for each in content['annotations']
        ],
        r'all boxes lie within the first pixel .*are these shares',
    ),
    'list of numbers': (
        lambda content: content.update(annotations=[1, 2]),
        r'annotations is not a list of objects',
    ),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_every_command_that_measures_refuses_it(
    kind: str, tiny_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
    change, message = BROKEN[kind]
    folder = write_set(tmp_path / 'set', change)
    arguments = ['evaluate', str(folder), '--model', str(tiny_family / 'dense')]
    assert main([*arguments, '--resamples', '0']) == 1
    output = capsys.readouterr()
    assert re.search(message, output.err) and str(folder) in output.err
    assert 'AP50' not in output.out

    from pruned_perception.training.detector.data import load_frames

    pair = ['--parent', str(tiny_family / 'dense'), '--child', str(tiny_family / 'small')]
    assert main(['certify', *pair, '--holdout', str(folder)]) == 1
    assert re.search(message, capsys.readouterr().err)
    with pytest.raises(DataError, match=message):
        load_frames(folder, (96, 128))
    assert not [file for file in folder.iterdir() if 'frames' in file.name]


def test_the_sound_set_is_taken_by_the_same_commands(
    tiny_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
    folder = write_set(tmp_path / 'set')
    arguments = ['evaluate', str(folder), '--model', str(tiny_family / 'dense')]
    assert main([*arguments, '--resamples', '0', '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result['boxes'], result['groups']) == (3, 2)
    assert result['ap50'] == pytest.approx(1)


@pytest.mark.parametrize('text', ['{"images": [', '[]', '\udcff\udcfe\udcff', '[' * 10**5])
def test_what_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / 'annotations.json').write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(DataError, match=r'annotations\.json: (cannot be read as JSON|not a COCO)'):
        read_dataset(tmp_path)


@pytest.mark.parametrize('key', ['annotations', 'bbox'])
def test_what_is_said_twice_is_refused_and_not_taken_from_the_last(
    tmp_path: Path, key: str
) -> None:
    folder = write_set(tmp_path / 'set')
    text = (folder / 'annotations.json').read_text()
    (folder / 'annotations.json').write_text(text.replace(f'"{key}":', f'"{key}": [], "{key}":', 1))
    with pytest.raises(DataError, match=f"the key '{key}' is there twice"):
        read_dataset(folder)


number = st.floats(allow_nan=True, allow_infinity=True)
anything = st.one_of(number, st.integers(), st.text(max_size=4), st.booleans(), st.none())


def has_an_area(left: float, top: float, right: float, bottom: float) -> bool:
    """Say whether corners span an area as boxes are kept, in float32."""
    return bool(np.float32(right) > np.float32(left) and np.float32(bottom) > np.float32(top))


@given(st.lists(anything, max_size=5) | anything)
@example([0.0, -17877000, 1.0, 1.0])  # no height: float32 has steps of 2 up there
def test_four_numbers_with_an_area_or_an_error(values: Any) -> None:
    """Whatever a file says: the result is finite and has an area, or DataError is raised."""
    try:
        left, top, right, bottom = corners_from_size(values, 'here')
    except DataError as error:
        assert str(error).startswith('here is ')
        sound = (
            isinstance(values, list)
            and len(values) == 4
            and all(type(value) in (int, float) and abs(value) < 1e15 for value in values)
            and min(values[2:]) > 0
            and has_an_area(*values[:2], values[0] + values[2], values[1] + values[3])
        )
        assert not sound
    else:
        assert all(math.isfinite(value) for value in (left, top, right, bottom))
        assert has_an_area(left, top, right, bottom) and min(values[2:]) > 0


def test_rounding_may_overhang(tmp_path: Path) -> None:
    folder = write_set(tmp_path, annotation(bbox=[-OVERHANG, 0, 642, 480.4]))
    assert read_dataset(folder).boxes[1].tolist() == [[-1, 0, 641, pytest.approx(480.4)]]


def test_a_picture_is_taken_as_stored_whatever_its_orientation_says(tmp_path: Path) -> None:
    """Sizes of the upright picture are those of another."""
    folder = write_set(
        tmp_path, lambda content: content['images'][1].update(file_name='turned.jpg')
    )
    file = folder / 'images' / 'turned.jpg'
    _, jpeg = cv2.imencode('.jpg', np.zeros((480, 640, 3), np.uint8))
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    file.write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    assert read_dataset(folder).image(1).shape == (480, 640, 3)

    content = json.loads((folder / 'annotations.json').read_text())
    content['images'][1] |= {'height': 640, 'width': 480}
    (folder / 'annotations.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r'turned\.jpg: is 640 × 480 .*480 × 640: .*EXIF'):
        read_dataset(folder).image(1)


@pytest.mark.parametrize('content', [b'', b'not a picture', b'\xff\xd8\xff'])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write_set(tmp_path)
    (folder / 'images' / '1.png').write_bytes(content)
    with pytest.raises(DataError, match=r'1\.png: .*(damaged|cut)'):
        list(read_dataset(folder).images())


def test_missing_pictures_are_counted_before_any_is_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    for index in (1, 2):
        (folder / 'images' / f'{index}.png').unlink()
    with pytest.raises(DataError, match=r'1\.png: missing \(and 1 more\)'):
        next(read_dataset(folder).images())


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    other = write_set(tmp_path / 'other')
    folder = write_set(tmp_path / 'set')
    picture = folder / 'images' / '1.png'
    picture.unlink()
    picture.symlink_to(other / 'images' / '1.png')
    with pytest.raises(DataError, match=r'image 8: .*1\.png is a link out of'):
        read_dataset(folder)
    picture.unlink()
    picture.symlink_to('2.png')  # within the folder, but it is image 9 already
    with pytest.raises(DataError, match=r'is the picture of .*image 8 already'):
        read_dataset(folder)
    linked = tmp_path / 'link'
    linked.symlink_to(other)  # the folder itself may be one
    assert len(list(read_dataset(linked).images())) == 3


def test_equal_names_in_two_folders_are_two_pictures_or_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path, lambda content: content['images'][1].update(file_name='b/0.png'))
    (folder / 'b').mkdir()
    (folder / 'images' / '1.png').replace(folder / 'b' / '0.png')
    found = read_dataset(folder)
    assert found.paths[:2] == (folder / 'images' / '0.png', folder / 'b' / '0.png')
    assert not np.array_equal(found.image(0), found.image(1))
    (folder / '0.png').write_bytes((folder / 'b' / '0.png').read_bytes())
    with pytest.raises(DataError, match=r"image 7: .*'0\.png' may be .*; name it with its folder"):
        read_dataset(folder)
