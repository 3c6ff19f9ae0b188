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

"""Another format touches one place: a module with `splits` and `read`, and its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from coco_files import write_set

from pruned_perception.datasets import (
    DataError,
    Dataset,
    DatasetBuilder,
    Problems,
    formats,
    read_dataset,
)
from pruned_perception.datasets.boxes import corners

LINE = 'a.png 480 640 night 1 2 30 40'


@pytest.fixture
def lines_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a format of one line a picture: name, height, width, drive, one box."""

    def splits(path: Path) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in path.glob('*.lines')))

    def read(path: Path, split: str, problems: Problems) -> Dataset:
        file = path / f'{split}.lines'
        builder = DatasetBuilder(path, file, ['thing'], problems)
        for number, line in enumerate(file.read_text().splitlines(), 1):
            where = f'{file}: line {number}'
            name, height, width, drive, *box = line.split()
            size = (int(height), int(width))
            frame = builder.add_frame(name, [path], size=size, group=drive, where=where)
            builder.add_box(frame, corners([float(x) for x in box], where), 0, False, where)
        return builder.build(digest='0' * 64, split=split, unit='drive')

    name = f'{formats.__name__}.lines'
    module = SimpleNamespace(LOOKS_FOR='train.lines', splits=splits, read=read)
    monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(formats, 'MODULES', (*formats.MODULES, 'lines'))


@pytest.mark.usefixtures('lines_format')
def test_a_format_is_found_by_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / 'train.lines').write_text(LINE)
    (tmp_path / 'test.lines').write_text(LINE.replace('night', 'day'))
    found = read_dataset(tmp_path / 'test')
    assert (found.groups, found.unit, found.split) == (('day',), 'drive', 'test')
    assert found.boxes[0].tolist() == [[1, 2, 30, 40]]
    assert read_dataset(tmp_path, 'train', format_name='lines').groups == ('night',)
    assert read_dataset(write_set(tmp_path / 'coco')).labels == ('red', 'green', 'blue')


@pytest.mark.usefixtures('lines_format')
@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (LINE.replace('30', 'nan'), r'train\.lines: line 2 is .*nan is not finite'),
        (LINE.replace('30', '1'), r'line 2 is .*width 0'),
        (LINE.replace('30', '900'), r'line 2 reaches 260 pixels out'),
        (LINE.replace('a.png', '/b.png'), r"line 2: '/b\.png' leads out"),
        (LINE, r'line 2: .*is the picture of .*line 1 already'),
    ],
)
def test_what_is_broken_is_refused_whatever_the_format(
    tmp_path: Path, line: str, message: str
) -> None:
    other = line if line == LINE else line.replace('a.png', 'b.png')
    (tmp_path / 'train.lines').write_text(f'{LINE}\n{other}\n')
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


@pytest.mark.usefixtures('lines_format')
def test_two_formats_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    (folder / 'train.lines').write_text(LINE)
    with pytest.raises(DataError, match='formats coco and lines'):
        read_dataset(folder)
    assert len(read_dataset(folder, format_name='coco')) == 3
    with pytest.raises(
        DataError, match="unknown format 'mine' of data sets; there is coco, voc, yolo, lines"
    ):
        read_dataset(folder, format_name='mine')
