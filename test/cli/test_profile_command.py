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

"""`profile`, and `prune` to milliseconds by what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from tiny_detector import HEIGHT, STRIDE, WIDTH, write_tiny_bundle  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pruned_perception.bundle import Bundle, load_bundle  # noqa: E402
from pruned_perception.cli.main import main  # noqa: E402
from pruned_perception.training.exporting import onnx_bytes  # noqa: E402


class Layers(nn.Module):
    """Three convolutions that detect nothing in particular."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 64, 8, STRIDE)
        self.second, self.last = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 7, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image.permute(0, 3, 1, 2).float() / 255).relu()
        return self.last(self.second(x).relu()).sigmoid().flatten(2).transpose(1, 2)


@pytest.fixture(scope='module')
def dense(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    example = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    data = onnx_bytes(Layers().eval(), (example,), ['image'], ['predictions'])
    return write_tiny_bundle(tmp_path_factory.mktemp('profile') / 'dense', name='dense', onnx=data)


@pytest.fixture(scope='module')
def table(dense: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp('table') / 'table.json'
    assert main(['profile', str(dense.path), '--out', str(file)]) == 0
    return file


def test_it_says_what_it_found_and_how_good_it_is(
    dense: Bundle, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(dense.path)
    code = main(['profile', path, '--out', str(table), '--check', path, '--rounds', '6'])
    text = capsys.readouterr().out
    assert code == 0
    assert 'in 3 convolutions' in text
    assert 'blocks of' in text
    assert 'off by' in text


def test_it_says_whether_8_bits_pay(
    dense: Bundle, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gain, sentence in ((0.96, 'INT8 does not pay'), (2.5, 'INT8 pays'), (None, 'not measured')):
        file = tmp_path / f'{gain}.json'
        file.write_text(json.dumps({**json.loads(table.read_text()), 'int8_gain': gain}))
        assert main(['profile', str(dense.path), '--out', str(file)]) == 0
        assert sentence in capsys.readouterr().out


def test_prediction_and_measurement_are_recorded(
    dense: Bundle, table: Path, tmp_path: Path
) -> None:
    path = str(shutil.copytree(dense.path, tmp_path / 'dense'))
    arguments = ['profile', path, '--out', str(table), '--check', path, '--rounds', '6', '--record']
    assert main(arguments) == 0
    entry = load_bundle(path).manifest['latency'][-1]
    assert entry['predicted_ms'] > 0
    assert entry['latency_ms']['p50'] > 0
    assert entry['execution_provider'] == 'cpu'


def test_prune_to_milliseconds(
    dense: Bundle, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads(table.read_text())['whole']['ms']
    options = ['--criterion', 'filter_l2', '--table', str(table), '--out', str(tmp_path / 's.pt')]

    code = main(['prune', str(dense.path), '--ms', str(0.7 * whole), *options, '--json'])
    plan = json.loads(capsys.readouterr().out)['plan']

    assert code == 0
    assert plan['predicted_ms'] <= 0.7 * whole
    assert plan['macs'] < plan['dense_macs']
    assert 'ms on' in plan['budget']


def test_a_table_of_another_machine_needs_force(
    dense: Bundle, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(table.read_text())
    content['target']['processor'] = 'The robot'
    other = tmp_path / 'robot.json'
    other.write_text(json.dumps(content))
    ms = str(0.7 * content['whole']['ms'])
    command = ['prune', str(dense.path), '--criterion', 'filter_l2', '--ms', ms]
    command += ['--table', str(other), '--out', str(tmp_path / 's.pt')]

    assert main(command) == 1
    assert 'of another machine or engine: processor The robot' in capsys.readouterr().err
    assert main([*command, '--force']) == 0


def test_milliseconds_need_a_table(
    dense: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['prune', str(dense.path), '--ms', '1', '--out', str(tmp_path / 's.pt')]
    assert main(command) == 1
    assert '--ms and --table go together' in capsys.readouterr().err
