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

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapes

from pruned_perception.datasets import DataError
from pruned_perception.training.detector.data import LIMIT, load_frames


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    (tmp_path / 'images').mkdir()
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 2] = 200  # red, in OpenCV's order
    cv2.imwrite(str(tmp_path / 'images' / '0.png'), image)
    _write(tmp_path)
    return tmp_path


def _write(folder: Path, **changes: object) -> None:
    content = {
        'images': [{'id': 7, 'file_name': '0.png', 'height': 48, 'width': 64, 'layout': 3}],
        'annotations': [
            {'id': 1, 'image_id': 7, 'category_id': 1, 'bbox': [8, 12, 16, 24]},
            {'id': 2, 'image_id': 7, 'category_id': 0, 'bbox': [0, 0, 4, 4], 'iscrowd': 1},
        ],
        'categories': [{'id': 1, 'name': 'b'}, {'id': 0, 'name': 'a'}],
    }
    (folder / 'annotations.json').write_text(json.dumps(content | changes))


def test_frames_and_boxes_come_at_the_networks_size(data_set: Path) -> None:
    frames = load_frames(data_set, (24, 16))
    assert frames.images.shape == (1, 24, 16, 3)
    assert frames.images[0, 5, 5].tolist() == [200, 0, 0]
    assert frames.boxes[0].tolist() == [[2, 6, 6, 18], [0, 0, 1, 2]]
    assert frames.class_ids[0].tolist() == [1, 0]
    assert frames.crowd[0].tolist() == [False, True]
    assert frames.groups == ('3',)
    assert frames.labels == ('a', 'b')


def test_the_second_load_reads_the_cache_and_changed_annotations_do_not(data_set: Path) -> None:
    load_frames(data_set, (24, 16))
    (data_set / 'images' / '0.png').unlink()
    assert len(load_frames(data_set, (24, 16))) == 1
    _write(data_set, categories=[{'id': 1, 'name': 'b'}, {'id': 0, 'name': 'c'}])
    with pytest.raises(DataError, match=r'0\.png: missing'):
        load_frames(data_set, (24, 16))
    assert not list(data_set.glob('.frames*')), 'a half-built cache was left behind'


def test_a_cache_of_a_stated_size_has_the_first_frames_and_the_others_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.write_shapes(tmp_path, 5, seed=1)
    whole = load_frames(tmp_path, (48, 64)).images
    limit = 2.5 * whole[0].nbytes
    monkeypatch.setenv(LIMIT, str(limit / 2**30))
    some = load_frames(tmp_path, (48, 64)).images
    (kept,) = tmp_path.glob('frames-*-first-2.npy')
    assert kept.stat().st_size < limit
    assert some.shape == whole.shape
    assert some.dtype == whole.dtype
    assert len(some) == 5
    for which in (0, 4, -1, slice(1, 4), np.array([3, 0, 3])):
        assert np.array_equal(some[which], whole[which])
    with pytest.raises(IndexError):
        some[5]
    monkeypatch.setenv(LIMIT, '1')
    assert isinstance(load_frames(tmp_path, (48, 64)).images, np.memmap)
    for wrong in ('much', '0', '-1'):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.raises(DataError, match=f'{LIMIT}={wrong}: must be a size in GiB'):
            load_frames(tmp_path, (48, 64))


def test_frames_that_are_only_shown_need_no_boxes(data_set: Path) -> None:
    _write(data_set, annotations=[])
    with pytest.raises(DataError, match='no box to be found in its 1 images'):
        load_frames(data_set, (24, 16))
    assert len(load_frames(data_set, (24, 16), labelled=False)) == 1


def test_a_missing_set_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='pruned-perception simulate'):
        load_frames(tmp_path, (24, 16))
