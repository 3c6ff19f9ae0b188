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

"""`quantize`: what it prints, and what it writes only where that is asked for."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from tiny_detector import square_image

pytest.importorskip('onnx', reason="quantisation needs onnx: extra 'train'")

from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.cli.main import main
from pruned_perception.inference.detector import Detector

TENTH = Path(__file__).resolve().parents[2] / 'models' / 'warehouse' / 'tenth'


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('drive')
    for k in range(8):
        image = square_image(('red', 'green', 'blue')[k % 3], 40 * k, 120, 120)
        cv2.imwrite(str(folder / f'{k}.png'), image[..., ::-1])
    return folder


def test_it_compares_and_writes_what_was_asked_for(
    tiny_bundle: Bundle, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(tiny_bundle.path), '--images', str(drive), '--rounds', '6']
    out = tmp_path / 'small'

    code = main([*arguments, '--out', str(out), '--keep', '--name', 'small', '--float-share', '0'])
    text = capsys.readouterr().out
    bundle = load_bundle(out)

    assert code == 0
    assert 'agreement 100.0%' in text
    assert '6 calibrate, 2 held out' in text
    assert 'runs on' in text
    assert 'provider' not in bundle.manifest['quantization']['made_on']  # the processor itself
    assert 'on this processor' in text
    assert bundle.name == 'small'
    assert bundle.manifest['latency'][0]['compared_with'] == 'tiny'
    Detector(bundle)
    assert main([*arguments, '--out', str(out)]) == 1
    assert 'a bundle is there already; give --force' in capsys.readouterr().err


def test_it_runs_on_the_provider_that_is_asked_for(
    tiny_bundle: Bundle, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(tiny_bundle.path), '--images', str(drive), '--rounds', '6']
    arguments += ['--keep', '--float-share', '0', '--out']
    code = main([*arguments, str(tmp_path / 'none'), '--execution-provider', 'tensorrt'])
    assert code == 1
    assert "execution_provider 'tensorrt': tensorrt: not there" in capsys.readouterr().err

    code = main([*arguments, str(tmp_path / 'out'), '--execution-provider', 'tensorrt, cpu'])
    assert code == 0
    (entry,) = load_bundle(tmp_path / 'out').manifest['latency']
    assert entry['execution_provider'] == 'cpu'
    assert entry['passed_over'] == {'tensorrt': 'not there'}


def test_layers_at_the_start_stay_in_float_where_that_is_asked_for(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(TENTH), '--images', str(drive), '--rounds', '6', '--keep']
    arguments += ['--float-share', '0', '--leading-float']
    assert main([*arguments, '2', '--out', str(tmp_path / 'two')]) == 0
    assert '2 of 33, 2 at the start for speed' in capsys.readouterr().out
    assert main([*arguments, '33', '--out', str(tmp_path / 'all')]) == 1
    assert 'leading_float: 33: tenth has 33 layers, of which one' in capsys.readouterr().err
    assert not (tmp_path / 'all').exists()


def test_one_frame_does_not_do(
    tiny_bundle: Bundle, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['quantize', str(tiny_bundle.path), '--images', str(drive / '0.png')]
    assert main([*arguments, '--out', str(tmp_path / 'q')]) == 1
    assert '2 at least' in capsys.readouterr().err
