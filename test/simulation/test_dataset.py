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

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.simulation import dataset
from pruned_perception.simulation.dataset import DatasetSpec, generate
from pruned_perception.simulation.scene import LABELS
from pruned_perception.simulation.splits import SPLITS

pytestmark = pytest.mark.usefixtures('rendering', 'few_frames_per_layout')


@pytest.fixture
def few_frames_per_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, 'FRAMES_PER_LAYOUT', 2)


def annotations(out: Path) -> dict:
    return json.loads((out / 'annotations.json').read_text())


def test_a_data_set_is_valid_coco(tmp_path: Path) -> None:
    summary = generate(DatasetSpec('train', 1, 5), tmp_path)
    content = annotations(tmp_path)
    assert [item['name'] for item in content['categories']] == list(LABELS)
    assert [item['id'] for item in content['images']] == list(range(5))
    assert [item['layout'] for item in content['images']] == [0, 0, 1, 1, 2]
    for item in content['images']:
        image = cv2.imread(str(tmp_path / 'images' / item['file_name']))
        assert image.shape == (480, 640, 3) == (item['height'], item['width'], 3)
        assert image.mean() > 10
    identifiers = [item['id'] for item in content['annotations']]
    assert sorted(set(identifiers)) == identifiers and identifiers[0] >= 1
    for item in content['annotations']:
        x, y, width, height = item['bbox']
        assert x >= 0 and y >= 0 and x + width <= 640 and y + height <= 480
        assert item['area'] == width * height > 0
        small_or_hidden = min(width, height) < 8 or item['visible'] < 0.3
        assert item['iscrowd'] == int(small_or_hidden)
    boxes = summary['boxes']
    counted = [item for item in content['annotations'] if not item['iscrowd']]
    assert boxes['count'] == len(counted) == sum(boxes['per_label'].values())
    assert sum(boxes['per_size'].values()) == len(counted)
    assert summary == json.loads((tmp_path / 'dataset.json').read_text())


def test_the_same_seed_gives_the_same_data_and_another_split_other_data(tmp_path: Path) -> None:
    hashes = {}
    for name, split, seed in (
        ('a', 'test', 3),
        ('b', 'test', 3),
        ('c', 'test', 4),
        ('d', 'train', 3),
    ):
        hashes[name] = generate(DatasetSpec(split, seed, 2), tmp_path / name)['sha256']
    assert hashes['a'] == hashes['b']
    assert len(set(hashes.values())) == 3


def test_dark_frames_are_drawn_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    split = SPLITS['train']
    usual = [image.mean() for image, _ in dataset.frames(split, 0, 0, 3)]
    monkeypatch.setattr(dataset, 'DARKEST', min(usual) + 1)
    assert min(image.mean() for image, _ in dataset.frames(split, 0, 0, 3)) > min(usual)
    monkeypatch.setattr(dataset, 'DARKEST', 1000.0)
    assert len(list(dataset.frames(split, 0, 0, 1))) == 1


def test_an_interrupted_data_set_is_completed_to_the_same_content(tmp_path: Path) -> None:
    spec = DatasetSpec('validation', 0, 6)
    whole = generate(spec, tmp_path / 'whole')

    def interrupt(done: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(spec, tmp_path / 'parts', interrupt)
    assert len(annotations(tmp_path / 'parts')['images']) == 4
    assert not json.loads((tmp_path / 'parts' / 'dataset.json').read_text())['complete']
    steps: list[int] = []
    assert generate(spec, tmp_path / 'parts', steps.append) == whole
    assert steps == [6], 'frames that were there have been rendered again'


def test_a_finished_data_set_is_left_alone_and_can_be_extended(tmp_path: Path) -> None:
    generate(DatasetSpec('train', 0, 3), tmp_path)
    first = (tmp_path / 'images' / '000000.png').stat().st_mtime_ns
    generate(DatasetSpec('train', 0, 3), tmp_path)
    extended = generate(DatasetSpec('train', 0, 5), tmp_path)
    assert (tmp_path / 'images' / '000000.png').stat().st_mtime_ns == first
    assert extended == generate(DatasetSpec('train', 0, 5), tmp_path / 'whole')


def test_a_folder_with_another_data_set_is_refused(tmp_path: Path) -> None:
    generate(DatasetSpec('train', 0, 1), tmp_path)
    before = (tmp_path / 'annotations.json').read_bytes()
    with pytest.raises(UserError, match=r'another data set \(seed 0, asked for 1\)'):
        generate(DatasetSpec('train', 1, 1), tmp_path)
    with pytest.raises(UserError, match=r"another data set .split 'train', asked for 'test'"):
        generate(DatasetSpec('test', 0, 1), tmp_path)
    assert (tmp_path / 'annotations.json').read_bytes() == before


def test_a_longer_data_set_is_not_cut(tmp_path: Path) -> None:
    generate(DatasetSpec('train', 0, 3), tmp_path)
    with pytest.raises(UserError, match='holds 3 frames, more than the 2'):
        generate(DatasetSpec('train', 0, 2), tmp_path)


def test_images_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    with pytest.raises(UserError, match='choose an empty folder'):
        generate(DatasetSpec('train', 0, 1), tmp_path)


@pytest.mark.parametrize('text', ['{"images": [', '{"images": []}', '[]'])
def test_a_damaged_data_set_is_named(tmp_path: Path, text: str) -> None:
    generate(DatasetSpec('train', 0, 1), tmp_path)
    (tmp_path / 'annotations.json').write_text(text)
    with pytest.raises(UserError, match='cannot be read'):
        generate(DatasetSpec('train', 0, 1), tmp_path)


def test_a_folder_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / '.lock', os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match='in use by another process'):
            generate(DatasetSpec('train', 0, 1), tmp_path)
    finally:
        os.close(descriptor)


def test_an_unwritable_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').write_text('')
    arguments = ['simulate', '--split', 'test', '--frames', '1', '--out', str(tmp_path / 'file')]
    assert main(arguments) == 1
    assert f'{tmp_path / "file"}: cannot be written' in capsys.readouterr().err


@pytest.mark.parametrize(('frames', 'seed'), [(0, 0), (1, -1)])
def test_impossible_numbers_are_refused(frames: int, seed: int) -> None:
    with pytest.raises(UserError, match=r'at least 1|must not be negative'):
        DatasetSpec('train', seed, frames)


def test_the_command_prints_the_histogram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['simulate', '--split', 'test', '--frames', '2', '--out', str(tmp_path)]) == 0
    output = capsys.readouterr().out
    counted = [item for item in annotations(tmp_path)['annotations'] if not item['iscrowd']]
    assert f'2 frames, {len(counted)} boxes' in output
    share = np.mean([max(item['bbox'][2:]) < 48 for item in counted])
    assert f'below 48 px: {share:.1%}' in output
