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

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import Interrupted
from pruned_perception.compare.cell import run_cell
from pruned_perception.compare.study import read_study
from pruned_perception.pruning.records import from_dict
from pruned_perception.training.checkpoint import CheckpointError, read_checkpoint
from pruned_perception.training.compute import Compute, use_one_thread
from pruned_perception.training.detector import task as detector_tasks
from pruned_perception.training.detector.checkpoint import detector_from, total_cpu_seconds
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.experiment import ExperimentError
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.runs import Folders, run_experiment
from pruned_perception.training.detector.validation import validate
from pruned_perception.training.pipeline import Stage
from pruned_perception.training.task import Task

CHILD = {'architecture': None, 'parent': 'dense', 'prune': {'macs': 0.5, 'round_to': 16}}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pruned_perception.training.detector.runs.VALIDATIONS', 1)
    use_one_thread()


def _log(folder: Path, kind: str) -> list[dict]:
    records = map(json.loads, (folder / 'log.jsonl').read_text().splitlines())
    return [record for record in records if record['kind'] == kind]


def test_training_learns_to_find_shapes(shapes_data: Path, tmp_path: Path) -> None:
    data = tiny.experiment_data(batch=8, optimiser={'learning_rate': 0.004}, budget={'steps': 120})
    folders = _folders(tmp_path, shapes_data, data)
    validation = load_frames(shapes_data / 'validation', tiny.SIZE)
    untrained = validate(Detector(tiny.ARCHITECTURE).eval(), validation).ap50
    outcome = run_experiment(folders.experiment('tiny'), folders)
    trained = detector_from(read_checkpoint(outcome.checkpoint))
    ap50 = validate(trained, validation).ap50
    assert untrained < 0.05
    assert ap50 > 0.2
    folder = outcome.checkpoint.parent
    assert _log(folder, 'validation')[-1]['ap50'] == pytest.approx(ap50, rel=1e-3)
    losses = [record['total'] for record in _log(folder, 'step')]
    assert losses[-1] < 0.7 * losses[0]


def _terminate_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM arrive in this step of all that are done from now on."""
    draw, calls = detector_tasks.draw_views, []

    def draw_then_terminate(*args):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*args)

    monkeypatch.setattr(detector_tasks, 'draw_views', draw_then_terminate)


def _assert_equal_weights(one: Path, other: Path) -> None:
    expected, found = (read_checkpoint(each)['weights'] for each in (one, other))
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_a_recipes_precision_holds_whatever_the_command_says(
    shapes_data: Path, tmp_path: Path
) -> None:
    named = tiny.experiment_data('named', budget={'steps': 2}, precision='bfloat16')
    asked, plain = (tiny.experiment_data(name, budget={'steps': 2}) for name in ('asked', 'plain'))
    folders = _folders(tmp_path, shapes_data, named, asked, plain)
    half = Compute(precision=torch.bfloat16)
    finals = [
        run_experiment(folders.experiment(name), folders, compute=compute).checkpoint
        for name, compute in (('named', Compute()), ('asked', half), ('plain', Compute()))
    ]
    _assert_equal_weights(finals[0], finals[1])
    with pytest.raises(AssertionError):
        _assert_equal_weights(finals[0], finals[2])


@pytest.mark.parametrize('has', [True, False])
def test_bfloat16_without_instructions_for_it_is_said(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: has)
    named = tiny.experiment_data('named', budget={'steps': 1}, precision='bfloat16')
    folders = _folders(tmp_path, shapes_data, named)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter('always')
        run_experiment(folders.experiment('named'), folders)
    words = 'named: field precision: no instructions for bfloat16 here'
    assert [words in str(each.message) for each in raised].count(True) == (0 if has else 1)


@pytest.mark.parametrize('kind', ['from scratch', 'pruned and taught', 'control'])
def test_an_interrupted_experiment_ends_exactly_where_an_unbroken_one_does(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dense = tiny.experiment_data('dense', budget={'steps': 2})
    fields = {
        'from scratch': {},
        'pruned and taught': {**CHILD, 'distill': {'weight': 2}},
        'control': {'architecture': None, 'control_of': 'dense'},
    }[kind]
    whole, broken = (tiny.experiment_data(name, **fields) for name in ('whole', 'broken'))
    folders = _folders(tmp_path, shapes_data, dense, whole, broken)
    run_experiment(folders.experiment('dense'), folders)
    run_experiment(folders.experiment('whole'), folders)
    _terminate_in_step(5, monkeypatch)
    with pytest.raises(Interrupted, match='after 5 steps'):
        run_experiment(folders.experiment('broken'), folders)
    outcome = run_experiment(folders.experiment('broken'), folders)
    assert outcome.steps == 12
    _assert_equal_weights(folders.final('whole'), outcome.checkpoint)


def test_a_student_comes_closer_to_its_teacher_which_stays_what_it_is(
    shapes_data: Path, tmp_path: Path
) -> None:
    dense = tiny.experiment_data('dense', optimiser={'learning_rate': 0.004}, budget={'steps': 40})
    child = {**CHILD, 'distill': {'weight': 10}, 'budget': {'steps': 40}}
    folders = _folders(tmp_path, shapes_data, dense, tiny.experiment_data('child', **child))
    run_experiment(folders.experiment('dense'), folders)
    before = folders.final('dense').read_bytes()
    run_experiment(folders.experiment('child'), folders)
    assert folders.final('dense').read_bytes() == before
    log = _log(tmp_path / 'runs' / 'child' / '1', 'step')
    assert log[-1]['distilled_classes'] < 0.9 * log[0]['distilled_classes']
    # Ten times what the two sum up to, beside the losses on the labels.
    record = log[0]
    distilled = record['distilled_boxes'] + record['distilled_classes']
    assert record['total'] == pytest.approx(
        record['boxes'] + record['classes'] + 10 * distilled, rel=1e-3
    )


def test_a_finished_run_is_not_trained_again(shapes_data: Path, tmp_path: Path) -> None:
    folders = _folders(tmp_path, shapes_data, tiny.experiment_data())
    first = run_experiment(folders.experiment('tiny'), folders)
    changed = first.checkpoint.stat().st_mtime_ns
    assert run_experiment(folders.experiment('tiny'), folders) == first
    assert first.checkpoint.stat().st_mtime_ns == changed


def test_two_runs_in_one_folder_are_refused(shapes_data: Path, tmp_path: Path) -> None:
    folders = _folders(tmp_path, shapes_data, tiny.experiment_data())
    with locked(tmp_path / 'runs' / 'tiny'), pytest.raises(FolderError, match='in use'):
        run_experiment(folders.experiment('tiny'), folders)


def test_an_interrupted_run_does_not_go_on_as_another(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = _folders(tmp_path, shapes_data, tiny.experiment_data())
    _terminate_in_step(2, monkeypatch)
    with pytest.raises(Interrupted):
        run_experiment(folders.experiment('tiny'), folders)
    _folders(tmp_path, shapes_data, tiny.experiment_data(ema=0.9))
    with pytest.raises(FolderError, match='its recipe differ'):
        run_experiment(folders.experiment('tiny'), folders)


def _folders(tmp_path: Path, data: Path, *experiments: dict) -> Folders:
    for each in experiments:
        (tmp_path / f'{each["name"]}.yaml').write_text(yaml.safe_dump(each))
    return Folders(tmp_path, data, tmp_path / 'runs')


def test_prune_fine_tune_and_control(shapes_data: Path, tmp_path: Path) -> None:
    dense = tiny.experiment_data('dense')
    small = tiny.experiment_data('small', **CHILD, distill={'weight': 1})
    control = tiny.experiment_data(
        'control', architecture=None, budget=None, control_of='small', batch=2
    )
    brief = control | {'name': 'brief', 'budget': {'steps': 2}}
    folders = _folders(tmp_path, shapes_data, dense, small, control, brief)
    with pytest.raises(CheckpointError, match='train it first'):
        run_experiment(folders.experiment('small'), folders)
    outcomes = [
        run_experiment(folders.experiment(name), folders) for name in ('dense', 'small', 'control')
    ]
    contents = [read_checkpoint(outcome.checkpoint) for outcome in outcomes]
    assert contents[1]['architecture'] == contents[2]['architecture']
    assert contents[1]['architecture'] != contents[0]['architecture']
    plan = contents[1]['ancestry']['plan']
    assert plan['macs'] <= 0.5 * plan['dense_macs']
    # The control had the time of the dense training and the fine-tuning together.
    total = contents[0]['cpu_seconds'] + contents[1]['cpu_seconds']
    assert contents[1]['ancestry']['cpu_seconds'] == contents[0]['cpu_seconds']
    assert contents[2]['cpu_seconds'] >= total
    # One on another machine is told what that time bought.
    assert run_experiment(folders.experiment('brief'), folders).steps == 2


def test_iterations_are_a_cascade_whose_time_counts(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = {'macs': 0.25, 'round_to': 8, 'schedule': 'cascade', 'iterations': 3}
    whole = tiny.experiment_data('whole', **CHILD | {'prune': prune}, distill={'weight': 1})
    broken = whole | {'name': 'broken'}
    dense = tiny.experiment_data('dense', budget={'steps': 4})
    folders = _folders(tmp_path, shapes_data, dense, whole, broken)
    run_experiment(folders.experiment('dense'), folders)
    outcome = run_experiment(folders.experiment('whole'), folders)

    dense, small = (read_checkpoint(folders.final(name)) for name in ('dense', 'whole'))
    stages = [
        from_dict(Stage, json.loads((tmp_path / f'runs/whole/{number}/stage.json').read_text()))
        for number in (1, 2, 3)
    ]
    assert [stage.steps for stage in stages] == [4, 4, 4]
    plans = [*small['ancestry']['earlier_plans'], small['ancestry']['plan']]
    assert plans == [stage.pruning.plan.to_dict() for stage in stages]
    # Each cuts what the one before left, by about the same factor; the target is the parent's.
    assert [plan['dense_macs'] for plan in plans[1:]] == [plan['macs'] for plan in plans[:2]]
    for iteration, plan in enumerate(plans, start=1):
        assert plan['macs'] <= 0.25 ** (iteration / 3) * plans[0]['dense_macs']
    assert plans[2]['macs'] > 0.15 * plans[0]['dense_macs']
    seconds = [dense['cpu_seconds'], *(stage.cpu_seconds for stage in stages)]
    assert small['cpu_seconds'] == seconds[3] == outcome.cpu_seconds
    assert total_cpu_seconds(small) == pytest.approx(sum(seconds))

    # Interrupted within the second one.
    _terminate_in_step(6, monkeypatch)
    with pytest.raises(Interrupted, match='after 2 steps'):
        run_experiment(folders.experiment('broken'), folders)
    run_experiment(folders.experiment('broken'), folders)
    _assert_equal_weights(folders.final('whole'), folders.final('broken'))


@pytest.fixture
def dense(shapes_data: Path, tmp_path: Path) -> Folders:
    """Return folders where the experiment `dense` is finished."""
    phases = [
        {'until': 0.5, 'size': [64, 96], 'scale': [0.8, 1.25]},
        {'until': 1, 'size': list(tiny.SIZE), 'scale': [0.9, 1.1]},
    ]
    data = tiny.experiment_data(
        'dense', phases=phases, optimiser={'learning_rate': 0.003, 'weight_decay': 0.01}
    )
    folders = _folders(tmp_path, shapes_data, data)
    run_experiment(folders.experiment('dense'), folders)
    return folders


@pytest.mark.parametrize('iterations', [1, 2])
def test_compare_and_an_experiment_fine_tune_to_the_same_weights(
    dense: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iterations: int
) -> None:
    schedule = {} if iterations == 1 else {'schedule': 'cascade', 'iterations': iterations}
    prune = {'macs': 0.5, 'criterion': 'joint_error', **schedule}
    recipe = {key: dense.experiment('dense').to_dict()[key] for key in ('phases', 'optimiser')}
    child = tiny.experiment_data(
        'child', **CHILD | {'prune': prune}, distill={'weight': 2}, seed=7, **recipe
    )
    _folders(tmp_path, dense.data, child)
    run_experiment(dense.experiment('child'), dense)

    def task() -> Task:
        return detector_tasks.detector_task(
            dense.final('dense'),
            calibration=dense.data / 'train',
            train=dense.data / 'train',
            validation=dense.data / 'validation',
            validation_frames=2,
        )

    monkeypatch.setattr(tiny, 'task', task, raising=False)
    study = {
        'task': 'tiny:task',
        'methods': {'ours': {'criterion': 'joint_error', **schedule, 'distill': {'weight': 2}}},
        'budgets': {'macs': 0.5},
        'seeds': 7,
        'finetune': {'steps': 12},
    }
    (tmp_path / 'study.yaml').write_text(yaml.safe_dump(study))
    cell = read_study(tmp_path / 'study.yaml').cell('ours-macs0.5-12steps-seed7')
    _terminate_in_step(9, monkeypatch)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / 'results')
    run_cell(cell, tmp_path / 'results')
    (found,) = (tmp_path / 'results' / cell.name).glob(f'*/{iterations}/training.pt')
    _assert_equal_weights(dense.final('child'), found)


def test_nets_and_data_must_have_the_same_classes(shapes_data: Path, tmp_path: Path) -> None:
    data = tiny.experiment_data()
    data['architecture']['num_classes'] = 5
    folders = _folders(tmp_path, shapes_data, data)
    with pytest.raises(ExperimentError, match=r'5 classes.*disc, square, triangle'):
        run_experiment(folders.experiment('tiny'), folders)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 no zip', b'\x80\x02cos\nsystem\n.'])
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'x.pt'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'x\.pt'):
        read_checkpoint(path)


def test_checkpoints_run_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'owned'),)

    torch.save({'format': 1, 'weights': Payload()}, tmp_path / 'x.pt')
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / 'x.pt')
    assert not (tmp_path / 'owned').exists()


def test_the_command_survives_sigterm_and_resumes(
    shapes_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pruned_perception.cli.main import main

    _folders(tmp_path, shapes_data, tiny.experiment_data(budget={'cpu_minutes': 60}))
    command = ['train', '--quiet', str(tmp_path / 'tiny.yaml'), '--data', str(shapes_data)]
    command += ['--runs', str(tmp_path / 'runs')]
    log = tmp_path / 'runs' / 'tiny' / 'log.jsonl'
    with subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', *command],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while not log.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'run the same command again' in output
    steps = read_checkpoint(tmp_path / 'runs' / 'tiny' / 'training.pt')['steps']
    assert steps >= 20
    # So little CPU time is less than what was used: the resumed run is finished at once.
    assert main([*command, '--cpu-minutes', '0.001']) == 0
    assert f'tiny: {steps} steps' in capsys.readouterr().out
