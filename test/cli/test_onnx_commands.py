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

from pruned_perception.bundle import load_bundle, load_family
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


TASK = """
from pathlib import Path

from pruned_perception.bundle import load_bundle, load_family
from pruned_perception.training.onnx_import.task import bundle_task

PLACE = Path(__file__).parent


def task():
    return bundle_task(load_bundle(PLACE / 'dense'), PLACE / 'images', 16)
"""


def test_a_network_of_ones_own_goes_to_the_robot_and_makes_a_family_with_its_parent(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    (place / 'own_task.py').write_text(TASK)
    (place / 'labels.txt').write_text('\n'.join(LABELS) + '\n')
    task = ['--task', 'own_task:task']
    meaning = ['--labels', 'labels.txt', '--decoder', 'anchor_free', '--parameter', 'strides=[8]']
    code, text = run(capsys, 'export', *task, *meaning, '--out', 'own/dense')
    assert code == 0, text
    assert run(capsys, 'prune', *task, *PRUNE, '--out', 'own.pt')[0] == 0
    parent = ['--parent', 'own/dense']
    code, text = run(capsys, 'export', 'own.pt', *task, *meaning, *parent, '--out', 'own/small')
    assert code == 0, text
    family = load_family(place / 'own')
    assert [member.name for member in family.members] == ['dense', 'small']
    assert family.members[1].manifest['pruning']['budget'] == '0.6 of the MACs'
    dense, small = (member.cost for member in family.members)
    assert small.macs < 0.65 * dense.macs
    assert small.parameters < dense.parameters
    code, text = run(capsys, 'detect', 'images/001.png', '--model', 'own', '--member', 'small')
    assert code == 0, text
    assert 'nothing found' not in text
    # The same from the ONNX file of the cut network, which says nothing of its parent.
    small_onnx = family.members[1].onnx_path
    arguments = [small_onnx, 'own/again', *meaning, *parent]
    code, text = run(capsys, 'bundle', 'create', *arguments)
    assert code == 0, text
    assert f'{small.macs / 1e6:,.1f} MMAC' in text
    assert len(load_family(place / 'own').members) == 3


def test_a_child_that_is_none_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / 'labels.txt').write_text('a\nb\nc\n')
    create = ['bundle', 'create', place / 'dense' / 'model.onnx', tmp_path / 'child']
    meaning = ['--decoder', 'anchor_free', '--parameter', 'strides=[8]']
    options = [*meaning, '--labels', tmp_path / 'labels.txt', '--parent', place / 'dense']
    code, text = run(capsys, *create, *options)
    assert code == 1
    assert 'its labels are not those of the parent' in text
    assert not (tmp_path / 'child').exists()
