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

"""The command, with real processes and a network of the user's own from any folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception._io import locked
from pruned_perception.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
BLOBS = ROOT / 'test' / 'blobs.py'

OWN = """
from pathlib import Path
from pruned_perception.pruning import slice_channels

def every_second(task, budget, seed):
    if seed == 1 and budget.share == 0.4 and not Path('mended').exists():
        raise RuntimeError('this cell is broken')
    return slice_channels(task.model, task.example_inputs, {'second': [0, 2, 4, 6]})
"""

STUDY = {
    'task': 'users_network:task',
    'methods': {
        'l2': {'criterion': 'filter_l2', 'round_to': 1},
        'own': {'kind': 'function', 'function': 'users_method:every_second'},
    },
    'budgets': {'macs': [0.6, 0.4]},
    'seeds': [0, 1],
}

# A step function that ends its own process, as a signal from outside would, in its fifth step.
INTERRUPTED = """
import os
import signal

calls = []

def interrupted_step(model, batch):
    calls.append(1)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(model, batch)

def interrupted():
    return task(step=interrupted_step)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a user's network, method and comparison."""
    (tmp_path / 'users_network.py').write_text(BLOBS.read_text() + INTERRUPTED)
    (tmp_path / 'users_method.py').write_text(OWN)
    (tmp_path / 'study.yaml').write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the folder, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.syspath_prepend(str(folder))
    for name in ('users_network', 'users_method'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_interrupted_comparison_goes_on_and_one_broken_cell_stops_no_other(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a process for each cell; the first comparison is one, too, to be interrupted."""
    (here / 'study.yaml').write_text(yaml.safe_dump(STUDY | {'budgets': {'macs': [0.4]}}))
    results = here / 'study.results'
    command = ['compare', 'study.yaml', '--jobs', '2']
    with subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', *command, '--quiet'],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not list(results.glob('l2-*.json')):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    written = {path: path.stat().st_mtime_ns for path in results.glob('*.json')}
    assert 1 <= len(written) < 5

    assert main(command) == 1
    output, errors = capsys.readouterr()
    assert 'failed: 1 of 5 cells' in errors
    assert errors.count('this cell is broken') == 0  # the table says it
    assert '4 of 5 cells done' in output
    assert 'missing: own-macs0.4-seed1' in output
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    assert 'Traceback' in (results / 'own-macs0.4-seed1.log').read_text()

    (here / 'mended').touch()
    assert main([*command, '--json', '--quiet']) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table['missing'], table['failed']) == ([], {})
    assert {row['method']: len(row['seeds']) for row in table['rows']} == {
        'parent': 1,
        'l2': 2,
        'own': 2,
    }


def test_cell_that_is_stopped_while_it_trains_goes_on_where_it_was(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = STUDY | {
        'task': 'users_network:interrupted',
        'finetune': {'steps': 12, 'learning_rate': 0.05},
    }
    (here / 'study.yaml').write_text(yaml.safe_dump(study))
    cell = 'l2-macs0.6-12steps-seed1'
    command = ['compare', 'study.yaml', '--quiet', '--cell', cell]
    assert main(command) == 130
    assert f'{cell}: interrupted; the same command goes on' in capsys.readouterr().err
    assert not (here / 'study.results' / f'{cell}.json').exists()
    calls = sys.modules['users_network'].calls
    assert len(calls) == 5
    assert main(command) == 0
    assert len(calls) == 12
    assert main([*command, '--results', 'whole']) == 0
    resumed, whole = (
        json.loads((here / results / f'{cell}.json').read_text())
        for results in ('study.results', 'whole')
    )
    assert resumed['pipeline']['stages'][0]['steps'] == 12
    assert resumed['after'] == whole['after']


def test_one_cell_is_a_command_of_its_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['compare', 'study.yaml', '--list']) == 0
    names = capsys.readouterr().out.split()
    assert names[:2] == ['parent', 'l2-macs0.6-seed0']
    options = ['compare', 'study.yaml', '--results', 'out', '--quiet']
    assert main([*options, '--cell', names[1], '--json']) == 0
    assert json.loads(capsys.readouterr().out)['cell'] == names[1]
    assert json.loads((here / 'out' / f'{names[1]}.json').read_text())['test'] is None
    assert main([*options, '--cell', names[1], '--test']) == 0
    assert 'test: accuracy' in capsys.readouterr().out
    assert json.loads((here / 'out' / f'{names[1]}.json').read_text())['test']['accuracy'] > 0
    assert main([*options, '--table']) == 0
    assert '1 of 9 cells done' in capsys.readouterr().out
    assert main([*options, '--cell', 'other']) == 1
    assert "no cell 'other'" in capsys.readouterr().err


def test_folders_in_use_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(here / 'study.results'):
        assert main(['compare', 'study.yaml', '--quiet']) == 1
    assert 'study.results: in use by another process' in capsys.readouterr().err
    with locked(here / 'study.results' / 'parent'):
        assert main(['compare', 'study.yaml', '--cell', 'parent', '--quiet']) == 1
    assert 'parent: in use by another process' in capsys.readouterr().err


def test_a_process_that_dies_is_recorded(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, sys; print('out of memory'); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(
        'pruned_perception.compare.runner.command_for',
        lambda study, results, test, device: [sys.executable, '-c', script],
    )
    assert main(['compare', 'study.yaml', '--quiet', '--jobs', '9']) == 1
    captured = capsys.readouterr()
    assert 'failed: 9 of 9 cells' in captured.err
    assert '0 of 9 cells done' in captured.out
    assert 'failed: parent: signal 9: out of memory' in captured.out
