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

"""`sensitivity`, `predict`, `prune` and `export` on an ONNX detector: its bundle, or its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from tiny_detector import HEIGHT, LABELS, STRIDE, WIDTH
from wide_detector import write_squares, write_wide_bundle

from pruned_perception.bundle import load_bundle
from pruned_perception.cli.main import main
from pruned_perception.inference.detector import Detector

PRUNE = ['--macs', '0.6', '--criterion', 'filter_l2', '--round-to', '1']


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('onnx')
    write_wide_bundle(folder / 'dense')
    write_squares(folder / 'images', 20)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    code = main([str(each) for each in arguments])
    found = capsys.readouterr()
    return code, found.out + found.err


def test_a_bundle_is_measured_cut_and_a_bundle_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, images = place / 'dense', place / 'images'
    code, text = run(
        capsys, 'sensitivity', dense, '--calibration', images, '--out', place / 's.json', '--json'
    )
    assert code == 0, text
    measured = json.loads(text[text.index('{') :])
    assert measured['calibration']['images'] == 20
    assert run(capsys, 'predict', place / 's.json', '--delta', '0.1')[0] == 0
    small = place / 'small.pt'
    code, text = run(
        capsys, 'prune', dense, *PRUNE, '--calibration', images, '--images', 12, '--out', small
    )
    assert code == 0, text
    code, text = run(
        capsys, 'export', small, '--parent', dense, '--out', place / 'half', '--compare-on', images
    )
    assert code == 0, text
    parent, child = load_bundle(dense), load_bundle(place / 'half')
    assert child.manifest['parent'] == {'name': 'dense', 'sha256': parent.sha256}
    assert child.manifest['pruning']['budget'] == '0.6 of the MACs'
    assert child.labels == LABELS
    assert child.input == parent.input
    assert 0 < child.cost.macs < 0.65 * 14 * 6 * (HEIGHT // STRIDE) * (WIDTH // STRIDE)
    picture = cv2.imread(str(images / '001.png'))
    wanted, _ = Detector(parent).detect(picture)
    found, _ = Detector(child).detect(picture)
    np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
    assert len(found.scores)


def test_a_cut_network_is_cut_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = place / 'dense'
    first, second = place / 'first.pt', place / 'second.pt'
    budget = ['--macs', '0.8', '--round-to', '1']
    assert run(capsys, 'prune', dense, *budget, '--out', first)[0] == 0
    code, text = run(capsys, 'prune', dense, '--pruned', first, *budget, '--out', second)
    assert code == 0, text
    images = place / 'images'
    assert run(
        capsys, 'export', second, '--parent', dense, '--out', place / 'two', '--compare-on', images
    )[0] == 0  # fmt: skip
    manifest = load_bundle(place / 'two').manifest
    assert len(manifest['provenance']['earlier_plans']) == 1


def test_a_file_alone_takes_inputs_as_arrays(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (20, HEIGHT, WIDTH, 3), np.uint8)
    np.savez(place / 'inputs.npz', image=inputs)
    np.savez(place / 'others.npz', picture=inputs)
    file = place / 'dense' / 'model.onnx'
    code, text = run(capsys, 'sensitivity', file, '--calibration', place / 'inputs.npz', '--json')
    assert code == 0, text
    assert json.loads(text[text.index('{') :])['calibration']['images'] == 20
    for calibration, reason in (
        (place / 'images', r'an ONNX file does not say how images become its inputs'),
        (place / 'others.npz', "has no array 'image'"),
        (place / 'none.npz', 'cannot be read as .npz'),
    ):
        code, text = run(capsys, 'sensitivity', file, '--calibration', calibration)
        assert code != 0
        assert reason in text


def test_what_does_not_belong_to_an_onnx_detector(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, out = place / 'dense', place / 'x.pt'
    for arguments, reason in (
        (['sensitivity', dense], 'give --calibration DATASET'),
        (['prune', dense, *PRUNE, '--weights', 'w.pt', '--out', out], 'belongs to --task'),
        (['prune', place / 'images', *PRUNE, '--out', out], 'manifest'),
        (['prune', dense, *PRUNE, '--calibration', place / 'none', '--out', out], 'no such file'),
    ):  # fmt: skip
        code, text = run(capsys, *arguments)
        assert code != 0
        assert reason in text
    assert run(capsys, 'prune', dense, *PRUNE, '--out', out)[0] == 0
    code, text = run(capsys, 'export', out, '--out', place / 'y', '--compare-on', place / 'images')
    assert code != 0
    assert 'give the bundle of the detector, --parent BUNDLE' in text
