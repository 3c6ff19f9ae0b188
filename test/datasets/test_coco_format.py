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

"""COCO as tools write it: ids, gaps, orders, splits and groups."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import write_set
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.datasets import DataError, Dataset, dataset_splits, read_dataset

NAMES = ('cat', 'dog', 'cow', 'hen')
identifiers = st.integers(-5, 1000) | st.text('abc', min_size=1, max_size=3)


def boxes_by_picture(found: Dataset) -> dict[str, list[tuple[str, list[float], bool]]]:
    return {
        path.name: [
            (found.labels[k], box.tolist(), bool(crowd))
            for k, box, crowd in zip(found.class_ids[n], found.boxes[n], found.crowd[n],
                                     strict=True)
        ]
        for n, path in enumerate(found.paths)
    }  # fmt: skip


@given(st.data())
def test_names_boxes_and_crowds_do_not_depend_on_ids(data: st.DataObject) -> None:
    """Ids are any numbers or names, with gaps; rows may stand in any order."""
    unique = {'unique': True}
    categories = data.draw(st.lists(identifiers, min_size=4, max_size=4, **unique), 'categories')
    images = data.draw(st.lists(identifiers, min_size=3, max_size=3, **unique), 'images')
    wanted: dict[str, list[Any]] = {f'{n}.png': [] for n in range(3)}
    rows = []
    for n in range(data.draw(st.integers(0, 8), 'annotations')):
        picture = data.draw(st.integers(0, 2))
        kind = data.draw(st.integers(0, 3))
        crowd = data.draw(st.booleans())
        wanted[f'{picture}.png'].append((NAMES[kind], [n, 2 * n, n + 5, 2 * n + 7], crowd))
        rows.append(
            {'id': n, 'image_id': images[picture], 'category_id': categories[kind]}
            | {'bbox': [n, 2 * n, 5, 7], 'iscrowd': int(crowd)}
        )
    content = {
        'annotations': rows,
        'images': [
            {'id': each, 'file_name': f'{n}.png', 'height': 99, 'width': 99}
            for n, each in enumerate(images)
        ],
        'categories': [
            {'id': each, 'name': name} for each, name in zip(categories, NAMES, strict=True)
        ],
    }
    for section in ('images', 'categories'):
        content[section] = data.draw(st.permutations(content[section]))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'annotations.json').write_text(json.dumps(content))
        found = read_dataset(folder)
        assert boxes_by_picture(found) == wanted
        order = data.draw(st.permutations(NAMES))
        assert boxes_by_picture(found.with_labels(order, 'net')) == wanted
        assert found.with_labels(order, 'net').labels == tuple(order)


def test_labels_follow_the_order_of_ids_from_1_with_gaps(tmp_path: Path) -> None:
    def renumber(content: dict[str, Any]) -> None:
        for each, number in zip(content['categories'], (10, 1, 90), strict=True):
            each['id'] = number
        for each in content['annotations']:
            each['category_id'] = (10, 1, 90)[each['category_id']]

    found = read_dataset(write_set(tmp_path, renumber))
    assert found.labels == ('green', 'red', 'blue')
    assert [ids.tolist() for ids in found.class_ids] == [[1], [0], [2, 1]]
    assert [crowd.tolist() for crowd in found.crowd] == [[False], [False], [False, True]]


def test_classes_meet_by_name_or_are_refused(tmp_path: Path) -> None:
    def project(content: dict[str, Any]) -> None:
        content['categories'].append({'id': 77, 'name': 'my-project'})

    found = read_dataset(write_set(tmp_path, project))
    assert found.labels == ('red', 'green', 'blue', 'my-project')
    same = found.with_labels(('N/A 0', 'blue', 'green', 'red'), 'net')
    assert [ids.tolist() for ids in same.class_ids] == [[3], [2], [1, 3]]
    with pytest.raises(DataError, match=r'my-project\) are not those of net \(red, green, hat'):
        found.with_labels(('red', 'green', 'hat', 'blue'), 'net')
    with pytest.raises(DataError, match='are not those of net'):
        found.with_labels(('red', 'green'), 'net')


@pytest.mark.parametrize('unit', ['layout', 'venue', 'drive', 'group'])
def test_groups_are_what_the_images_share(tmp_path: Path, unit: str) -> None:
    def rename(content: dict[str, Any]) -> None:
        for each in content['images']:
            each[unit] = each.pop('layout')

    found = read_dataset(write_set(tmp_path, rename))
    assert (found.groups, found.unit) == (('3', '3', '4'), unit)


def test_without_groups_each_frame_is_its_own(tmp_path: Path) -> None:
    found = read_dataset(
        write_set(tmp_path, lambda content: [each.pop('layout') for each in content['images']])
    )
    assert (len(set(found.groups)), found.unit) == (3, None)


def test_annotations_need_no_id(tmp_path: Path) -> None:
    def drop(content: dict[str, Any]) -> None:
        for each in content['annotations']:
            del each['id']
        content['annotations'][1]['bbox'] = []

    with pytest.raises(DataError, match=r'annotation number 2 of the list \(image 8\): bbox'):
        read_dataset(write_set(tmp_path, drop))


def test_a_split_is_a_sub_folder(tmp_path: Path) -> None:
    for split in ('train', 'valid'):
        write_set(tmp_path / split)
    assert dataset_splits(tmp_path) == ('train', 'valid')
    found = read_dataset(tmp_path, 'valid')
    assert found.paths == read_dataset(tmp_path / 'valid').paths
    assert (found.split, found.folder) == ('valid', tmp_path / 'valid')
    assert dataset_splits(tmp_path / 'valid') == ('',)
    with pytest.raises(DataError, match=r"which split\? There is 'train', 'valid': give FOLDER"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="no split 'test'"):
        read_dataset(tmp_path, 'test')


def test_annotations_beside_the_pictures(tmp_path: Path) -> None:
    folder = write_set(tmp_path / 'train')
    (folder / 'annotations.json').rename(folder / 'images' / '_annotations.coco.json')
    found = read_dataset(folder / 'images')
    assert len(list(found.images())) == 3
    assert dataset_splits(folder) == ('images',), 'one split needs no name'
    assert read_dataset(folder).paths == found.paths


@pytest.mark.parametrize('place', ['val', 'images/val', 'images'])
def test_instances_of_a_split(tmp_path: Path, place: str) -> None:
    folder = write_set(tmp_path / 'set')
    (folder / 'annotations').mkdir()
    (folder / 'annotations.json').rename(folder / 'annotations' / 'instances_val.json')
    (folder / 'images').rename(tmp_path / 'pictures')
    (folder / place).parent.mkdir(exist_ok=True)
    (tmp_path / 'pictures').rename(folder / place)
    for path in (folder / 'val', folder / 'annotations' / 'instances_val.json'):
        found = read_dataset(path)  # a split without a folder of its own is named like one
        assert found.paths[0] == folder / place / '0.png'
        assert len(list(found.images())) == 3


def test_a_file_is_a_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    (folder / 'annotations.json').rename(folder / 'mine.json')
    found = read_dataset(folder / 'mine.json')
    assert (found.folder, len(found)) == (folder, 3)


def test_nothing_there_says_what_is_looked_for(tmp_path: Path) -> None:
    assert dataset_splits(tmp_path) == ()
    for path in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(DataError, match=rf'{path}/annotations\.json: no such file.* simulate'):
            read_dataset(path)


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    found = read_dataset(folder)
    (folder / 'images' / '0.png').unlink()
    assert found.image(1).dtype == np.uint8
    with pytest.raises(DataError, match=r'0\.png: missing'):
        found.image(0)
