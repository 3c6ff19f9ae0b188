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


"""`pruned-perception` itself: what is missing is named, with the command that brings it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pruned_perception.pruning import ChannelGroup, ChannelGroups, Sensitivity, Slice, Structure
from pruned_perception.pruning.records import CalibrationRecord
from pruned_perception.pruning.sensitivity import ConsumerSensitivity
from pruned_perception.pruning.structure import InputSpec, LayerTerm

FOUR = ((0, 1, 2, 3), (0, 1, 2, 3))
WITHOUT_TRAIN = """
import contextlib, io, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'onnx', 'onnxscript', 'scipy'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
from pruned_perception.cli.main import main

said = {}
for line in sys.argv[1:]:
    with contextlib.redirect_stderr(io.StringIO()) as error:
        said[line] = main(line.split()), error.getvalue()
print(json.dumps(said))
"""
COMMANDS = (
    'sensitivity net.onnx --out s.json',
    'prune net.onnx --macs 0.5 --out small.pt',
    'finetune small.pt --steps 3 --out tuned.pt',
    'train experiment.yaml',
    'compare comparison.yaml',
    'export final.pt --out bundle --compare-on data',
    'import bundle --calibration data --out net.pt',
    'optimize net.onnx --images data --macs 0.5 --out family',
    'pruning-report small.json --out page.html',
    'models',
)


def test_a_command_without_its_extra_says_which_and_how(tmp_path) -> None:
    for name in ('net.onnx', 'small.pt', 'final.pt'):
        (tmp_path / name).write_bytes(b'PK')
    for name in ('experiment.yaml', 'comparison.yaml'):
        (tmp_path / name).write_text('task: any:task\n')
    (tmp_path / 'small.json').write_text('{}')
    result = subprocess.run(
        [sys.executable, '-c', WITHOUT_TRAIN, *COMMANDS],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line, (status, said) in json.loads(result.stdout).items():
        assert status == 1, line
        assert said.startswith(f'pruned-perception: error: {line.split()[0]} needs torch'), said
        assert './dev shell --train' in said
        assert "pip install 'pruned_perception[train]'" in said
        assert said.count('\n') == 1


def test_sizes_are_predicted_without_the_extra_train(tmp_path) -> None:
    group = ChannelGroup('first', 4, (Slice('first', *FOUR),), (Slice('second', *FOUR),))
    terms = (
        LayerTerm('first', 400, 40, 4, (('first', 1.0),), ()),
        LayerTerm('second', 400, 40, 4, (), (('first', 1.0),)),
    )
    groups = ChannelGroups((group,), {'second': 'is the output'})
    structure = Structure(groups, terms, 800, 88, (InputSpec((1, 3), 'float32'),))
    measured = ConsumerSensitivity('second', 'first', 10, (0.4, 0.1, 0.3, 0.2))
    calibration = CalibrationRecord(100, '0' * 64)
    sensitivity = Sensitivity('absolute', structure, (measured,), calibration, None, 0)
    (tmp_path / 's.json').write_text(json.dumps(sensitivity.to_dict()))
    result = subprocess.run(
        [
            sys.executable, '-c', WITHOUT_TRAIN,
            'predict s.json --selection deterministic --epsilons 0.35 0.65 --out curve.json',
            'predict s.json --out drawn.json',
        ],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *_, last = result.stdout.splitlines()
    assert [status for status, _ in json.loads(last).values()] == [0, 0], last
    points = json.loads((tmp_path / 'curve.json').read_text())['points']
    assert [(each['channels'], each['macs'], each['parameters']) for each in points] == [
        ({'first': 2}, 400, 46),
        ({'first': 1}, 200, 25),
    ]
    drawn = json.loads((tmp_path / 'drawn.json').read_text())['points']
    assert drawn[0]['channels']['first'] > drawn[-1]['channels']['first'] == pytest.approx(1)


def test_accuracy_is_measured_without_the_extra_train(tmp_path) -> None:
    result = subprocess.run(
        [sys.executable, '-c', WITHOUT_TRAIN, f'evaluate {tmp_path} --model no_such_bundle'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    [(status, said)] = json.loads(result.stdout).values()
    assert status == 1
    assert 'no_such_bundle' in said and 'torch' not in said
