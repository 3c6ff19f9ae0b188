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

"""Every command that reads annotated data reads every format alike, and refuses what is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest
import shapes
import square_files
import tiny
import torch
import yaml

from pruned_perception.cli.main import main
from pruned_perception.datasets import Dataset, read_dataset
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.network import Detector

SPLITS = {'train': (10, 1), 'val': (6, 2), 'test': (6, 3)}
FORMATS = ('coco', 'yolo', 'voc')


def write_yolo(notes: Dataset, folder: Path, split: str) -> None:
    for part in ('images', 'labels'):
        (folder / split / part).mkdir(parents=True)
    for path, (height, width), boxes, ids in zip(
        notes.paths, notes.sizes, notes.boxes, notes.class_ids, strict=True
    ):
        shutil.copyfile(path, folder / split / 'images' / path.name)
        rows = []
        for (left, top, right, bottom), k in zip(boxes.tolist(), ids.tolist(), strict=True):
            shares = [(left + right) / 2 / width, (top + bottom) / 2 / height,
                      (right - left) / width, (bottom - top) / height]  # fmt: skip
            rows.append(' '.join(map(str, [k, *shares])))
        (folder / split / 'labels' / f'{path.stem}.txt').write_text('\n'.join(rows))
    data = {split: f'../{split}/images' for split in SPLITS} | {'names': list(notes.labels)}
    (folder / 'data.yaml').write_text(yaml.safe_dump(data))


def write_voc(notes: Dataset, folder: Path, split: str) -> None:
    (folder / split).mkdir(parents=True)
    for path, boxes, ids in zip(notes.paths, notes.boxes, notes.class_ids, strict=True):
        shutil.copyfile(path, folder / split / path.name)
        objects = ''.join(
            f'<object><bndbox><ymax>{bottom}</ymax><xmax>{right}</xmax><ymin>{top}</ymin>'
            f'<xmin>{left}</xmin></bndbox><name>{escape(notes.labels[k])}</name></object>'
            for (left, top, right, bottom), k in zip(boxes.tolist(), ids.tolist(), strict=True)
        )
        (folder / split / f'{path.stem}.xml').write_text(f'<annotation>{objects}</annotation>')


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same three splits in each of FORMATS."""
    root = tmp_path_factory.mktemp('sets')
    for split, (count, seed) in SPLITS.items():
        shapes.write_shapes(root / 'coco' / split, count, seed=seed)
        notes = read_dataset(root / 'coco' / split)
        write_yolo(notes, root / 'yolo', split)
        write_voc(notes, root / 'voc', split)
    return root


@pytest.fixture(scope='module')
def trained(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Return the checkpoint of three steps, and a bundle of it, for each of FORMATS."""
    use_one_thread()
    root = tmp_path_factory.mktemp('runs')
    found = {}
    for name in FORMATS:
        data = {'train': f'{name}/train', 'validation': f'{name}/val'}
        file = root / f'{name}.yaml'
        file.write_text(yaml.safe_dump(tiny.experiment_data(name, data=data, budget={'steps': 3})))
        folders = ['--data', str(sets), '--runs', str(root / 'runs'), '--quiet']
        assert main(['train', str(file), *folders]) == 0
        checkpoint = root / 'runs' / name / 'final.pt'
        found[name] = checkpoint, root / f'{name}-bundle'
        compared = ['--compare-on', str(sets / name / 'val')]
        assert main(['export', str(checkpoint), '--out', str(found[name][1]), *compared]) == 0
    return found


@pytest.mark.parametrize('name', ['yolo', 'voc'])
def test_training_learns_the_same_of_every_format(
    name: str, sets: Path, trained: dict[str, tuple[Path, Path]]
) -> None:
    for split in SPLITS:
        frames = [load_frames(sets / each / split, tiny.SIZE) for each in ('coco', name)]
        np.testing.assert_array_equal(frames[0].images, frames[1].images)
        for one, other in zip(frames[0].boxes, frames[1].boxes, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)
    wanted, found = (read_checkpoint(trained[each][0])['weights'] for each in ('coco', name))
    for key, value in wanted.items():
        torch.testing.assert_close(value, found[key], atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize('name', FORMATS)
def test_every_command_takes_it(
    name: str,
    sets: Path,
    trained: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    checkpoint, bundle = trained[name]
    train, val, test = (str(sets / name / split) for split in SPLITS)
    assert main(['evaluate', test, '--model', str(bundle), '--resamples', '0', '--json']) == 0
    figures = json.loads(capsys.readouterr().out)
    boxes = sum(map(len, read_dataset(sets / 'coco' / 'test').boxes))
    assert (figures['boxes'], figures['images']) == (boxes, 6)
    small = tmp_path / 'small.pt'
    assert main(['prune', str(checkpoint), '--macs', '.6', '--calibration', train, '--out',
                 str(small), '--images', '4']) == 0  # fmt: skip
    tuned = tmp_path / 'tuned.pt'
    data = ['--train', train, '--validation', val]
    assert main(['finetune', str(small), *data, '--steps', '1', '--out', str(tuned)]) == 0
    again = tmp_path / 'again.pt'
    assert main(['import', str(bundle), '--calibration', train, '--out', str(again)]) == 0


@pytest.mark.parametrize('name', ['yolo', 'voc'])
def test_certificates_and_corruptions_take_it(
    name: str, tiny_family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = {'yolo': square_files.write_yolo, 'voc': square_files.write_voc}[name](tmp_path / name)
    family = tmp_path / 'family'
    shutil.copytree(tiny_family, family)
    pair = ['--parent', str(family / 'dense'), '--child', str(family / 'small')]
    assert main(['certify', *pair, '--holdout', str(folder), '--longest', '1', '9', '--json']) == 0
    certificate = json.loads(capsys.readouterr().out)
    assert certificate['frames'] == 3
    corrupted = ['evaluate', str(folder), '--model', str(family), '--corruptions', 'dark']
    out = tmp_path / 'out'
    assert main([*corrupted, '--severities', '1', '--out', str(out)]) == 0
    assert 'dark' in capsys.readouterr().out and (out / 'index.html').is_file()


def break_coco(folder: Path) -> str:
    file = folder / 'annotations.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['bbox'][0] = float('nan')
    file.write_text(json.dumps(content))
    return 'nan is not finite'


def break_yolo(folder: Path) -> str:
    file = folder / 'labels' / '000001.txt'
    file.write_text('0 nan .5 .1 .1\n')
    return '000001.txt: line 1: nan is not finite'


def break_voc(folder: Path) -> str:
    file = folder / '000001.xml'
    file.write_text(file.read_text().replace('<xmax>', '<xmax>-', 1))
    return '000001.xml: object 1'


BREAK: dict[str, Callable[[Path], str]] = {
    'coco': break_coco, 'yolo': break_yolo, 'voc': break_voc,
}  # fmt: skip


@pytest.mark.parametrize('name', FORMATS)
def test_every_command_refuses_what_is_broken_in_it(
    name: str,
    sets: Path,
    tiny_family: Path,
    trained: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    checkpoint, bundle = trained[name]
    shutil.copytree(
        sets / name, tmp_path / name, ignore=shutil.ignore_patterns('*.npy', '*.hashes')
    )
    message = BREAK[name](tmp_path / name / 'train')
    broken, sound = str(tmp_path / name / 'train'), str(tmp_path / name / 'val')
    child = tmp_path / 'child'
    detector = Detector(tiny.ARCHITECTURE).eval()
    tiny.bundle(detector, np.zeros((1, *tiny.SIZE, 3), np.uint8), child)
    data = {'train': f'{name}/train', 'validation': f'{name}/val'}
    file = tmp_path / 'again.yaml'
    file.write_text(yaml.safe_dump(tiny.experiment_data('again', data=data)))
    out = ['--out', str(tmp_path / 'x')]
    commands = [
        ['evaluate', broken, '--model', str(bundle)],
        ['evaluate', broken, '--model', str(tiny_family), '--corruptions', 'dark', *out],
        ['certify', '--parent', str(bundle), '--child', str(child), '--holdout', broken],
        ['train', str(file), '--data', str(tmp_path), '--runs', str(tmp_path / 'r'), '--quiet'],
        ['finetune', str(checkpoint), '--train', broken, '--validation', sound, '--steps', '1',
         *out],
        ['finetune', str(checkpoint), '--train', sound, '--validation', broken, '--steps', '1',
         *out],
        ['prune', str(checkpoint), '--macs', '.6', '--calibration', broken, *out],
        ['sensitivity', str(checkpoint), '--calibration', broken, *out],
        ['import', str(bundle), '--calibration', broken, *out],
        ['export', str(checkpoint), '--compare-on', broken, *out],
    ]  # fmt: skip
    for command in commands:
        assert main(command) == 1, command
        output = capsys.readouterr()
        assert message in output.err, (command, output.err)
        assert 'AP50' not in output.out


def test_what_is_learnt_from_does_not_judge(
    sets: Path,
    trained: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """The same picture under another name and in another format of file."""
    shutil.copytree(sets / 'yolo', tmp_path / 'yolo')
    train, val = (tmp_path / 'yolo' / split for split in ('train', 'val'))
    image = cv2.imread(str(train / 'images' / '000003.png'))
    cv2.imwrite(str(val / 'images' / '000001.png'), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    message = f'{train}/images/000003.png: the same picture as {val}/images/000001.png'
    data = {'train': 'yolo/train', 'validation': 'yolo/val'}
    (tmp_path / 'leak.yaml').write_text(yaml.safe_dump(tiny.experiment_data('leak', data=data)))
    folders = ['--data', str(tmp_path), '--runs', str(tmp_path / 'runs'), '--quiet']
    tune = ['--train', str(train), '--validation', str(val), '--steps', '1']
    for command in (
        ['train', str(tmp_path / 'leak.yaml'), *folders],
        ['finetune', str(trained['yolo'][0]), *tune, '--out', str(tmp_path / 'x.pt')],
    ):
        assert main(command) == 1
        assert message in capsys.readouterr().err
