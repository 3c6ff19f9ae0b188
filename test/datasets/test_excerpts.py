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

"""Parts of a data set by its groups."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pruned_perception.datasets import DataError, read_dataset
from pruned_perception.datasets.excerpts import excerpt, files_sha256


@pytest.fixture
def halls(tmp_path: Path) -> Path:
    """Five pictures of three halls, as YOLO's text files."""
    folder = tmp_path / 'halls'
    for hall, count in (('north', 2), ('south', 2), ('yard', 1)):
        (folder / hall).mkdir(parents=True)
        for number in range(count):
            value = 40 * len(list(folder.rglob('*.png')))
            picture = np.full((40, 60, 3), value, np.uint8)
            cv2.imwrite(str(folder / hall / f'{number}.png'), picture)
            (folder / hall / f'{number}.txt').write_text('1 0.5 0.5 0.25 0.5\n')
    (folder / 'obj.names').write_text('ball\nperson\n')
    return folder


def test_an_excerpt_has_the_groups_that_were_asked_for(halls: Path, tmp_path: Path) -> None:
    notes = excerpt(halls, ['yard', 'north'], tmp_path / 'part', sha256=read_dataset(halls).digest)
    assert (len(notes), notes.labels, notes.unit) == (3, ('ball', 'person'), 'venue')
    assert sorted(notes.groups) == ['north', 'north', 'yard']
    assert [boxes.tolist() for boxes in notes.boxes] == [[[22.5, 10.0, 37.5, 30.0]]] * 3
    again = excerpt(halls, ['north', 'yard'], tmp_path / 'part')
    assert again.digest == notes.digest


def test_what_an_excerpt_refuses(halls: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no venue 'west'; there are north, south, yard"):
        excerpt(halls, ['north', 'west'], tmp_path / 'part')
    with pytest.raises(DataError, match='another version of the data, or a part of it'):
        excerpt(halls, ['north'], tmp_path / 'part', sha256='0' * 64)
    assert not (tmp_path / 'part').exists()
    excerpt(halls, ['north'], tmp_path / 'part')
    with pytest.raises(DataError, match='holds something else than this excerpt'):
        excerpt(halls, ['south'], tmp_path / 'part')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'notes.txt').write_text('mine')
    with pytest.raises(DataError, match='holds something else than this excerpt'):
        excerpt(halls, ['south'], tmp_path / 'other')
    (halls / 'north' / '0.txt').write_text('7 0.5 0.5 0.25 0.5\n')
    with pytest.raises(DataError, match='class'):
        excerpt(halls, ['north'], tmp_path / 'new')


def test_other_pictures_under_the_same_labels_are_refused(halls: Path, tmp_path: Path) -> None:
    part = excerpt(halls, ['north', 'south'], tmp_path / 'part')
    known = files_sha256(part)  # names of the copy are others
    assert len(excerpt(halls, ['south', 'north'], tmp_path / 'new', pictures_sha256=known)) == 4
    cv2.imwrite(str(halls / 'south' / '1.png'), np.full((40, 60, 3), 7, np.uint8))
    with pytest.raises(DataError, match=f'of venue north, south, but {known[:12]}… is asked for'):
        excerpt(halls, ['north', 'south'], tmp_path / 'next', pictures_sha256=known)
    assert not (tmp_path / 'next').exists()
    with pytest.raises(DataError, match='holds something else than this excerpt'):
        excerpt(halls, ['north', 'south'], tmp_path / 'part')
    assert len(excerpt(halls, ['north'], tmp_path / 'next')) == 2


def test_a_folder_that_lacks_pictures_is_refused_with_what_is_missing(
    halls: Path, tmp_path: Path
) -> None:
    known = read_dataset(halls).digest
    (halls / 'south' / '1.png').unlink()
    with pytest.raises(DataError, match=r'1\.(png|txt)'):  # its labels are there
        excerpt(halls, ['south'], tmp_path / 'part', sha256=known)
    (halls / 'south' / '1.txt').unlink()
    with pytest.raises(DataError, match='another version of the data, or a part of it'):
        excerpt(halls, ['north'], tmp_path / 'part', sha256=known)
    with pytest.raises(DataError, match='nowhere'):
        excerpt(tmp_path / 'nowhere', ['north'], tmp_path / 'part')
    assert not (tmp_path / 'part').exists()
