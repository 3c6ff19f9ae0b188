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

"""A family is trained to its end by one command, which goes on where it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'training' / 'detector'))

import shapes
import tiny
from other_device import DEVICE, OtherDevice

from pruned_perception.training import compute
from studies import to_the_end


def test_a_family_and_its_controls_are_trained_until_they_no_longer_rise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that is not the CPU, see `other_device`; the CPU finds it all done."""
    for number, (name, count) in enumerate({'train': 8, 'validation': 8, 'test': 8}.items()):
        shapes.write_shapes(tmp_path / 'data' / 'tiny' / name, count, seed=number)
    data = {'train': 'tiny/train', 'validation': 'tiny/validation'}
    pruned = {'prune': {'macs': 0.5, 'criterion': 'filter_l2', 'round_to': 8}}
    files = {
        'dense': tiny.experiment_data('dense', data=data),
        'half': tiny.experiment_data(
            'half', data=data, architecture=None, parent='dense', **pruned
        ),
        'half-scratch': tiny.experiment_data(
            'half-scratch', data=data, architecture=None, control_of='half'
        ),
        'tiny': {
            'name': 'tiny',
            'data': {},
            'members': [
                {'name': 'dense', 'experiment': 'dense'},
                {'name': 'half', 'experiment': 'half', 'control': 'half-scratch'},
            ],
        },
    }
    for name, content in files.items():
        (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(content))
    command = [
        *('--family', str(tmp_path / 'tiny.yaml'), '--data', str(tmp_path / 'data')),
        *('--out', str(tmp_path / 'out'), '--epochs', '0.5', '--most-epochs', '1'),
        *('--gain', '200', '--no-speed', '--quiet'),
    ]
    with monkeypatch.context() as patch, OtherDevice():
        patch.setattr(compute, 'find_device', lambda name: DEVICE)
        there = ['--device', 'cuda', '--precision', 'float32', '--workers', '0']
        assert to_the_end.main([*command, *there]) == 0
    first = capsys.readouterr().out
    for name in ('dense', 'half', 'half-scratch'):
        assert f'{name}: 0.5 epochs, validation AP50' in first
        assert f'{name}: 1 epochs, validation AP50' in first  # no gain of 200: that is the end
    lines = first.splitlines()[-3:]
    assert lines[0].split()[:2] == ['member', 'epochs']
    assert [line.split()[0] for line in lines[1:]] == ['dense', 'half']
    assert '[' in lines[2]
    assert (tmp_path / 'out' / 'table.txt').read_text().splitlines() == lines
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').rglob('training.pt')}
    assert len(made) == 6
    assert to_the_end.main(command) == 0
    assert capsys.readouterr().out == first
    assert all(path.stat().st_mtime_ns == written for path, written in made.items())
