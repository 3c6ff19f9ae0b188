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

"""`data check`, `convert`, `show`: every problem is listed, repairs are named, pages are safe."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pruned_perception.cli.main import main
from pruned_perception.datasets import dataset_splits, read_dataset
from pruned_perception.datasets.inspection import inspect

NAMES = ['ball', 'goal post']


def write_set(folder: Path, *, count: int = 6, seed: int = 0) -> Path:
    """Write a plain folder of two venues with YOLO labels."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        place = folder / ('hall' if index % 3 else 'yard')
        place.mkdir(parents=True, exist_ok=True)
        image = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(place / f'{index}.png'), image)
        (place / f'{index}.txt').write_text(f'{index % 2} .5 .5 .25 .5\n')
    (folder / 'obj.names').write_text('\n'.join(NAMES))
    return folder


def run(*arguments: object) -> int:
    return main(['data', *map(str, arguments)])


def test_a_sound_set_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run('check', write_set(tmp_path / 'set')) == 0
    text = capsys.readouterr().out
    assert 'set: 6 pictures, 0 without a box; 6 boxes, 0 crowds, 2 groups (group)' in text
    assert re.search(r'goal post +3 +3', text) and text.endswith('no problems\n')
    assert run('check', tmp_path / 'set', '--json') == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['problems'] == {} and facts['splits'][0]['groups'] == 2


def spoil(folder: Path) -> None:
    (folder / 'yard' / '0.txt').write_text('0 nan .5 .25 .5\n0 .95 .5 .3 .5\n9 .5 .5 .1 .1\n')
    (folder / 'hall' / '1.png').write_bytes(b'no picture')
    (folder / 'hall' / '2.png').unlink()


def test_all_problems_are_listed_with_counts_and_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(tmp_path / 'set')
    spoil(folder)
    assert run('check', folder) == 1
    text = capsys.readouterr().out
    for message in (
        r'yard/0\.txt: line 1: nan is not finite',
        r'yard/0\.txt: line 2 reaches 8 pixels out of its picture of 80 × 60',
        r'yard/0\.txt: line 3: class 9 is none of the 2 classes',
        r'hall/1\.png: of no known kind: damaged, or no image',
        r'hall/2\.txt: labels of a picture that is missing',
        r'pictures that are missing +1 +drop-images',
        r'boxes outside their picture +1 +clip',
    ):
        assert re.search(message, text), message
    assert run('check', folder, '--json') == 1
    assert json.loads(capsys.readouterr().out)['problems'] == {
        'box-numbers': 1, 'box-outside': 1, 'box-class': 1, 'picture-unreadable': 1,
        'picture-missing': 1,
    }  # fmt: skip


def test_a_conversion_mends_what_it_is_asked_to_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = write_set(tmp_path / 'set'), tmp_path / 'out'
    spoil(folder)
    assert run('convert', folder, '--out', out, '--repair', 'clip') == 1
    output = capsys.readouterr()
    assert '4 problems, nothing is written' in output.err and not out.exists()
    repairs = [
        word for name in ('clip', 'drop-boxes', 'drop-images') for word in ('--repair', name)
    ]
    assert run('convert', folder, '--out', out, *repairs) == 0
    text = capsys.readouterr().out
    assert re.search(r'drop-boxes: .*yard/0\.txt: line 1: nan is not finite', text)
    assert re.search(r'boxes outside their picture +1 +repaired: clip', text)
    record = json.loads((out / 'conversion.json').read_text())
    made = sorted(each['repair'] for each in record['repairs'])
    assert made == ['clip', 'drop-boxes', 'drop-boxes', 'drop-images', 'drop-images']
    found = read_dataset(out)
    assert (found.labels, found.unit, len(list(found.images()))) == (('ball', 'goal post'),
                                                                    'group', 4)  # fmt: skip
    assert sorted(set(found.groups)) == ['hall', 'yard']
    assert run('check', out) == 0
    assert run('convert', folder, '--out', out, *repairs) == 1
    assert 'is there already' in capsys.readouterr().err


def test_groups_stay_whole_in_a_division(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_set(tmp_path / 'set', count=12)
    shares = ['--split', 'train=0.7', 'test=0.3']
    assert run('convert', folder, '--out', tmp_path / 'a', *shares, '--unit', 'venue',
               '--group-by', 'folder') == 0  # fmt: skip
    assert dataset_splits(tmp_path / 'a') == ('test', 'train')
    train, test = (read_dataset(tmp_path / 'a' / split) for split in ('train', 'test'))
    assert (set(train.groups), set(test.groups)) == ({'hall'}, {'yard'})
    assert train.unit == 'venue' and len(list(train.images())) == 8
    assert run('convert', tmp_path / 'a' / 'train', '--out', tmp_path / 'b', *shares) == 1
    assert '1 groups cannot be divided into 2' in capsys.readouterr().err
    assert run('convert', folder / 'data.yaml', '--out', tmp_path / 'b') == 1
    assert run('convert', tmp_path / 'a', '--out', tmp_path / 'c', *shares) == 0
    assert len(read_dataset(tmp_path / 'c' / 'train')) == 8, 'all splits are divided anew'


def test_frames_without_groups_are_divided_only_if_each_is_said_to_be_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(tmp_path / 'set')
    for file in [*folder.glob('*/*')]:
        file.rename(folder / file.name)
    shutil.copyfile(folder / '0.png', folder / '6.png')  # the same picture is dealt once
    shares = ['--split', 'train=0.5', 'test=0.5']
    assert run('convert', folder, '--out', tmp_path / 'out', *shares) == 1
    assert '`--group-by picture` if each is its own' in capsys.readouterr().err
    for seed in range(4):
        out = tmp_path / str(seed)
        assert run('convert', folder, '--out', out, *shares, '--group-by', 'picture',
                   '--seed', seed) == 0  # fmt: skip
        assert not any(each.problems.found for each in inspect(out))
    divisions = {
        tuple(path.name for path in read_dataset(tmp_path / str(seed) / 'train').paths)
        for seed in range(4)
    }
    assert len(divisions) > 1
    assert (
        run('convert', folder, '--out', tmp_path / 'again', *shares, '--group-by', 'picture') == 0
    )
    assert (tmp_path / 'again/train/annotations.json').read_text() == (
        tmp_path / '0/train/annotations.json'
    ).read_text()


def test_nothing_is_left_of_a_conversion_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    folder = write_set(tmp_path / 'set')
    monkeypatch.setattr('pruned_perception.datasets.conversion.shutil.copyfile', full)
    assert run('convert', folder, '--out', tmp_path / 'out') == 1
    assert 'out: cannot be written: No space left on device' in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ['set']


def test_the_page_shows_numbers_and_pictures_and_escapes_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip('jinja2', reason="pages need jinja2: extra 'bench'")
    folder = write_set(tmp_path / 'set')
    (folder / 'obj.names').write_text('<script>alert(1)</script>\n\x1b[31mgoal')
    (folder / 'hall' / '1.png').rename(folder / 'hall' / '<b>1.png')
    (folder / 'hall' / '1.txt').rename(folder / 'hall' / '<b>1.txt')
    (folder / 'hall' / '2.txt').write_text('<i>')
    assert run('show', folder, '--out', tmp_path / 'page.html', '--pictures', '4') == 0
    assert '1 problems' in capsys.readouterr().out
    page = (tmp_path / 'page.html').read_text()
    assert page.count('data:image/jpeg') == 4 and page.count('data:image/png') == 1
    assert '&lt;script&gt;' in page and '&lt;i&gt;' in page
    assert '\x1b' not in page and '<script' not in page and '<i>' not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_no_data_set_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for action in ('check', 'convert', 'show'):
        options = [] if action == 'check' else ['--out', tmp_path / 'x']
        assert run(action, tmp_path / 'nowhere', *options) == 1
        assert 'nowhere/annotations.json: no such file' in capsys.readouterr().err


@pytest.mark.parametrize('value', ['train', 'train=', 'train=0', 'train=nan', '../x=1', '=1'])
def test_shares_that_are_none(value: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run('convert', tmp_path, '--out', tmp_path / 'x', '--split', value)
    assert 'NAME=SHARE' in capsys.readouterr().err


REAL = {
    'robocup_msl': (508, 4264, ['--group-by', 'folder', '--unit', 'venue'], 0),
    'raccoon': (50, 53, ['--group-by', 'picture'], 0),
    'coco128_train': (128, 929, ['--group-by', 'picture', '--repair', 'drop-images'], 2),
}
"""Pictures and boxes of the shared data, how they are divided, and problems."""


@pytest.mark.shared_data
@pytest.mark.parametrize('name', REAL)
def test_real_sets_are_read_checked_and_divided(
    name: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there')
    pictures, boxes, options, problems = REAL[name]
    assert run('check', folder, '--json') == (1 if problems else 0)
    facts = json.loads(capsys.readouterr().out)
    (split,) = facts['splits']
    assert (split['pictures'], split['boxes']) == (pictures, boxes)
    assert sum(facts['problems'].values()) == problems
    out = tmp_path / 'out'
    assert run('convert', folder, '--out', out, *options, '--split', 'train=.8', 'test=.2') == 0
    found = {each.split: each.notes for each in inspect(out)}
    assert sum(len(notes or ()) for notes in found.values()) == pictures
    assert sum(len(each) for notes in found.values() for each in notes.boxes) == boxes
    if name == 'robocup_msl':
        venues = [set(notes.groups) for notes in found.values()]
        assert not venues[0] & venues[1] and len(venues[0] | venues[1]) == 7
