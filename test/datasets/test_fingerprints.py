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

"""Records of pictures and drives: what they tell apart, how they are kept, how small they are."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_files import write_set

import pruned_perception.datasets.fingerprints as fingerprints_module
from pruned_perception.datasets import read_dataset
from pruned_perception.datasets.fingerprints import Fingerprints, fingerprints, picture_hash
from pruned_perception.errors import UserError


def test_a_picture_is_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    same = picture_hash(np.asfortranarray(pixels))
    assert same == picture_hash(pixels)
    assert len(same) == 6
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    others = [changed, pixels.reshape(6, 8, 3), pixels.astype(np.int16), pixels[::-1]]
    assert len({same, *map(picture_hash, others)}) == 5


def test_a_set_is_told_by_its_pictures_whatever_their_files(tmp_path: Path) -> None:
    notes = read_dataset(write_set(tmp_path / 'set'))
    found = fingerprints(notes)
    assert len(found.pictures) == 3
    assert found.drives == frozenset()  # numbers: each data set has its own
    assert fingerprints(notes) == found  # from the file beside the annotations
    (kept,) = (tmp_path / 'set').glob('*.hashes')
    assert len(kept.read_bytes()) == 18
    path = notes.paths[0]
    pixels = cv2.imread(str(path)) ^ 1
    cv2.imwrite(str(path), pixels)
    os.utime(path, ns=(1, 1))
    again = fingerprints(notes)
    assert len(again.pictures & found.pictures) == 2
    assert picture_hash(pixels) in again.pictures


def test_drives_meet_by_their_names() -> None:
    one = Fingerprints.of([b'abcdef'], ['hall 1', 'hall 2', '7'])
    two = Fingerprints.of([b'ABCDEF'], ['hall 2', 'yard', '7'])
    assert one.shared(two) == (0, 1)
    assert (one | two).shared(one) == (1, 2)
    assert doctest.testmod(fingerprints_module).failed == 0
    days = Fingerprints.of([], ['20240716', '20240717'])
    assert days.shared(Fingerprints.of([], ['20240717', '99999999'])) == (0, 1)


def test_ten_thousand_pictures_take_eighty_kilobytes() -> None:
    found = Fingerprints.of(k.to_bytes(6, 'big') for k in range(10_000))
    text = json.dumps(found.to_dict())
    assert len(text) < 81_000
    assert Fingerprints.from_dict(json.loads(text)) == found


@pytest.mark.parametrize(
    'data',
    [{}, {'pictures': 'AAAA', 'drives': ''}, {'pictures': '!', 'drives': ''}, {'pictures': 3}, 7],
)
def test_something_else_is_refused(data: object) -> None:
    with pytest.raises(UserError, match='not the record of a data set'):
        Fingerprints.from_dict(data)  # type: ignore[arg-type]
