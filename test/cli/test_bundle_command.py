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

"""`pruned-perception bundle show|verify|create`, as a user runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from stuck_networks import write_stuck_bundle
from tiny_detector import LABELS, square_image, tiny_onnx

from pruned_perception.bundle import load_bundle
from pruned_perception.cli.main import main
from pruned_perception.inference import Detector


def test_show_tells_what_a_bundle_is(tiny_bundle, capsys):
    assert main(['bundle', 'show', str(tiny_bundle.path)]) == 0
    text = capsys.readouterr().out
    for words in (
        tiny_bundle.sha256,
        'image: 128 × 96 rgb, stretch; uint8 NHWC',
        'predictions; decoder anchor_free {"strides": [8]}',
        'red, green, blue',
        'score 0.5, IoU 0.3, at most 100 detections',
        '12 parameters',
    ):
        assert words in text


def test_show_counts_what_is_nested_in_a_list(tiny_bundle, tmp_path, capsys):
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))
    manifest = json.loads((folder / 'manifest.json').read_text())
    manifest['provenance']['earlier_plans'] = [{'kept': list(range(4000))}] * 2
    manifest['provenance']['interval'] = [0.123456789, 0.2]
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    assert main(['bundle', 'show', str(folder)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert 'earlier_plans [2]' in line
    assert 'interval [0.1235, 0.2]' in line


def test_show_as_json_is_the_manifests(tiny_family, capsys):
    assert main(['bundle', 'show', str(tiny_family), '--json']) == 0
    dense, small = json.loads(capsys.readouterr().out)
    assert dense == json.loads((tiny_family / 'dense' / 'manifest.json').read_text())
    assert small['parent'] == {'name': 'dense', 'sha256': dense['onnx']['sha256']}


def test_verify_runs_every_member(tiny_family, capsys):
    assert main(['bundle', 'verify', str(tiny_family)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(':')[0] for line in lines] == [
        str(tiny_family / 'dense'),
        str(tiny_family / 'small'),
    ]
    assert main(['bundle', 'verify', str(tiny_family), '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [fact['name'] for fact in facts] == ['dense', 'small']
    assert facts[0]['sha256'] == load_bundle(tiny_family / 'dense').sha256


def test_verify_fails_where_only_a_run_can_tell(tiny_bundle, tmp_path, capsys):
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))
    manifest = json.loads((folder / 'manifest.json').read_text())
    manifest['labels'].append('pink')
    del manifest['contract_sha256']  # as its owner would
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    assert main(['bundle', 'show', str(folder)]) == 0
    assert main(['bundle', 'verify', str(folder)]) == 1
    assert 'with 4 labels does not fit' in capsys.readouterr().err


@pytest.fixture
def user_files(tmp_path) -> tuple[Path, Path]:
    """Return a user's ONNX file and list of labels."""
    onnx, labels = tmp_path / 'mine.onnx', tmp_path / 'labels.txt'
    onnx.write_bytes(tiny_onnx())
    labels.write_text('red\ngreen \r\nblue\n\n')
    return onnx, labels


def create(onnx, folder, labels, *options) -> int:
    return main(
        [
            *('bundle', 'create', str(onnx), str(folder), '--labels', str(labels)),
            *('--decoder', 'anchor_free', '--resize', 'stretch', *options),
        ]
    )


def test_create_makes_a_bundle_that_detects(user_files, tmp_path, capsys):
    onnx, labels = user_files
    options = ['--parameter', 'strides=[8]', '--score-threshold', '0.5', '--iou-threshold', '0.3']
    assert create(onnx, tmp_path / 'new', labels, *options) == 0
    bundle = load_bundle(tmp_path / 'new')
    assert bundle.name == 'new'
    assert bundle.labels == LABELS
    assert bundle.onnx_bytes == onnx.read_bytes()
    assert bundle.input.shape == (1, 96, 128, 3)
    assert bundle.output.names == ('predictions',)
    image = square_image('blue', left=200, top=160, side=120)
    detections, _ = Detector(bundle).detect(image, 'rgb')
    assert [LABELS[class_id] for class_id in detections.class_ids] == ['blue']
    assert bundle.sha256 in capsys.readouterr().out


def test_create_leaves_nothing_behind_where_the_decoder_does_not_fit(user_files, tmp_path, capsys):
    onnx, labels = user_files
    assert create(onnx, tmp_path / 'new', labels) == 1
    assert 'outputs of shape (1, 252, 7) are needed, not (1, 192, 7)' in capsys.readouterr().err
    assert not list(tmp_path.glob('new/*'))


def test_create_replaces_a_bundle_only_on_demand(user_files, tiny_bundle, tmp_path, capsys):
    onnx, labels = user_files
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))
    options = ['--parameter', 'strides=[8]', '--name', 'mine']
    assert create(onnx, folder, labels, *options) == 1
    assert 'give --force' in capsys.readouterr().err
    assert load_bundle(folder).name == 'tiny'
    assert create(onnx, folder, labels, *options, '--force') == 0
    assert load_bundle(folder).name == 'mine'


def test_a_failed_replacement_keeps_the_old_bundle(user_files, tiny_bundle, tmp_path, capsys):
    onnx, labels = user_files
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / 'bundle'))
    assert create(onnx, folder, labels, '--name', 'mine', '--force') == 1
    assert load_bundle(folder).name == 'tiny'


def test_labels_keep_their_ids(user_files, tmp_path, capsys):
    onnx, labels = user_files
    labels.write_bytes('\ufeffred\r\n???\r\nblue'.encode())
    assert create(onnx, tmp_path / 'new', labels, '--parameter', 'strides=[8]') == 0
    assert load_bundle(tmp_path / 'new').labels == ('red', '??? 1', 'blue')
    labels.write_text('red\n\nblue\n')
    assert create(onnx, tmp_path / 'newer', labels, '--parameter', 'strides=[8]') == 1
    assert 'labels.txt: line 2 is empty' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--outputs', 'boxes'], "'boxes' is no output of"),
        (['--parameter', 'strides'], '--parameter strides: write NAME=JSON'),
        (['--parameter', 'stride=[8]'], "unknown parameter 'stride'"),
        (['--mean', '1', '2', '3', '--parameter', 'strides=[8]'], 'field input.mean'),
        (['--size', '64', '64', '--parameter', 'strides=[8]'], 'field input.shape'),
    ],
)
def test_wrong_options_are_named(user_files, tmp_path, capsys, options, message):
    onnx, labels = user_files
    assert create(onnx, tmp_path / 'new', labels, *options) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob('new/*'))


@pytest.mark.parametrize(
    ('onnx', 'labels', 'message'),
    [
        ('nowhere.onnx', 'labels.txt', 'nowhere.onnx: cannot be read: No such file'),
        ('labels.txt', 'labels.txt', 'labels.txt: not an ONNX file'),
        ('mine.onnx', 'nowhere.txt', 'nowhere.txt: No such file'),
        ('mine.onnx', 'binary.txt', 'not a text file in UTF-8'),
    ],
)
def test_wrong_files_are_named(user_files, tmp_path, capsys, onnx, labels, message):
    (tmp_path / 'binary.txt').write_bytes(b'\xff\xfe\x00')
    assert create(tmp_path / onnx, tmp_path / 'new', tmp_path / labels) == 1
    assert message in capsys.readouterr().err


@pytest.mark.shared_data
def test_create_takes_a_third_party_detector(shared_data, tmp_path, capsys):
    onnx = shared_data / 'detectors' / 'yolox_nano' / 'yolox_nano.onnx'
    labels = shared_data / 'coco128_train' / 'coco.names'
    arguments = ['bundle', 'create', str(onnx), str(tmp_path / 'yolox'), '--labels', str(labels)]
    options = ['--decoder', 'yolox', '--color', 'bgr', '--align', 'top_left']
    assert main([*arguments, *options]) == 0
    bundle = load_bundle(tmp_path / 'yolox')
    assert bundle.input.shape == (1, 3, 416, 416)
    assert bundle.input.layout == 'NCHW'
    assert len(bundle.labels) == 80


def test_names_in_errors_cannot_steer_the_terminal(tmp_path, capsys):
    assert main(['bundle', 'show', str(tmp_path / '\x1b[2J\u202e')]) == 1
    shown = capsys.readouterr().err
    assert r'\x1b[2J\u202e' in shown
    assert shown.replace('\n', '').isprintable()


@pytest.mark.parametrize(
    ('breakable', 'words'),
    [(True, 'the run was broken off after'), (False, 'cannot be broken off')],
)
def test_a_network_that_does_not_end_is_no_bundle(tmp_path, breakable, words):
    """As a process: what cannot be broken off ends it."""
    bundle = write_stuck_bundle(tmp_path / 'bundle', breakable=breakable)
    (tmp_path / 'labels.txt').write_text('\n'.join(LABELS))
    create = ['create', bundle.onnx_path, tmp_path / 'new', '--decoder', 'anchor_free']
    create += ['--labels', tmp_path / 'labels.txt', '--parameter', 'strides=[8]']
    for action in (['verify', bundle.path], create):
        command = [sys.executable, '-m', 'pruned_perception.cli.main', 'bundle']
        ended = subprocess.run(
            [*map(str, [*command, *action]), '--time-limit', '1'], capture_output=True, text=True
        )
        assert ended.returncode == 1
        assert words in ended.stderr
        assert ended.stderr.count('\n') == 1
    assert not (tmp_path / 'new').exists()


def test_create_shows_what_is_found_in_pictures(user_files, tmp_path, capsys):
    onnx, labels = user_files
    picture = tmp_path / 'picture.png'
    image = square_image('red', left=200, top=160, side=120)[..., ::-1]
    picture.write_bytes(cv2.imencode('.png', image)[1].tobytes())
    options = ['--parameter', 'strides=[8]', '--image', str(picture)]
    assert create(onnx, tmp_path / 'new', labels, *options) == 0
    printed = capsys.readouterr()
    [own] = [line for line in printed.out.splitlines() if line.startswith('as the bundle is')]
    count, scores, again, *best = own.removeprefix('as the bundle is').split()
    assert int(count) > 0
    assert scores == again  # the square is symmetric
    assert best[:2] == ['red', '0.98,']
    [other] = [line for line in printed.out.splitlines() if line.startswith('--color bgr')]
    assert 'blue 0.98' in other
    assert printed.err == ''
    assert create(onnx, tmp_path / 'newer', labels, '--parameter', 'strides=[8]') == 0
    assert 'give --image' in capsys.readouterr().out
    empty = ['--image', str(tmp_path / 'none.png'), '--parameter', 'strides=[8]']
    assert create(onnx, tmp_path / 'newest', labels, *empty) == 1
    assert not (tmp_path / 'newest').exists()
