import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from pruned_perception.training.checkpoint import CheckpointError, detector_from, read_checkpoint
from pruned_perception.training.data import load_frames
from pruned_perception.training.detector import Detector
from pruned_perception.training.experiment import Budget, Experiment, ExperimentError
from pruned_perception.training.loop import Outcome, RunError, locked, train
from pruned_perception.training.runs import Folders, run_experiment, use_one_thread
from pruned_perception.training.validation import validate


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('pruned_perception.training.loop.VALIDATIONS', 1)
    threads = torch.get_num_threads()
    use_one_thread()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def _run(folder: Path, data: Path, experiment: Experiment, steps: int) -> Outcome:
    torch.manual_seed(experiment.seed)
    return train(
        experiment,
        Detector(tiny.ARCHITECTURE),
        load_frames(data / 'train', tiny.SIZE),
        load_frames(data / 'validation', tiny.SIZE),
        folder,
        budget=Budget(steps=steps),
    )


def test_training_learns_to_find_shapes(shapes_data: Path, tmp_path: Path) -> None:
    experiment = tiny.experiment(batch=8, optimiser={'learning_rate': 0.004})
    validation = load_frames(shapes_data / 'validation', tiny.SIZE)
    untrained = validate(Detector(tiny.ARCHITECTURE).eval(), validation).ap50
    outcome = _run(tmp_path / 'run', shapes_data, experiment, steps=120)
    assert outcome.finished
    trained = detector_from(read_checkpoint(outcome.checkpoint))
    ap50 = validate(trained, validation).ap50
    assert untrained < 0.05
    assert ap50 > 0.2
    log = [json.loads(line) for line in (tmp_path / 'run' / 'log.jsonl').read_text().splitlines()]
    assert [record['ap50'] for record in log if record['kind'] == 'validation'][-1] == (
        pytest.approx(ap50, rel=1e-3)
    )
    losses = [record['total'] for record in log if record['kind'] == 'step']
    assert losses[-1] < 0.7 * losses[0]


def test_an_interrupted_run_ends_where_an_unbroken_one_does(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny.experiment()
    whole = _run(tmp_path / 'whole', shapes_data, experiment, steps=12)

    from pruned_perception.training import loop

    step, calls = loop._Run.step, []

    def step_then_terminate(run):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run)

    monkeypatch.setattr(loop._Run, 'step', step_then_terminate)
    first = _run(tmp_path / 'broken', shapes_data, experiment, steps=12)
    assert (first.finished, first.steps) == (False, 5)
    second = _run(tmp_path / 'broken', shapes_data, experiment, steps=12)
    assert (second.finished, second.steps) == (True, 12)
    expected, found = (read_checkpoint(each.checkpoint)['weights'] for each in (whole, second))
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def test_a_finished_run_is_not_trained_again(shapes_data: Path, tmp_path: Path) -> None:
    folders = _folders(tmp_path, shapes_data, tiny.experiment_data())
    first = run_experiment(folders.experiment('tiny'), folders)
    changed = first.checkpoint.stat().st_mtime_ns
    again = run_experiment(folders.experiment('tiny'), folders)
    assert again.finished
    assert first.checkpoint.stat().st_mtime_ns == changed


def test_two_runs_in_one_folder_are_refused(shapes_data: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunError, match='another training'):
        _run(tmp_path, shapes_data, tiny.experiment(), steps=1)


def test_another_experiments_folder_is_refused(shapes_data: Path, tmp_path: Path) -> None:
    _run(tmp_path, shapes_data, tiny.experiment('one'), steps=1)
    with pytest.raises(RunError, match="'one'"):
        _run(tmp_path, shapes_data, tiny.experiment('two'), steps=1)


def _folders(tmp_path: Path, data: Path, *experiments: dict) -> Folders:
    for each in experiments:
        (tmp_path / f'{each["name"]}.yaml').write_text(yaml.safe_dump(each))
    return Folders(tmp_path, data, tmp_path / 'runs')


def test_prune_fine_tune_and_control(shapes_data: Path, tmp_path: Path) -> None:
    dense = tiny.experiment_data('dense')
    small = tiny.experiment_data(
        'small', architecture=None, parent='dense', prune={'macs': 0.5, 'block': 16}
    )
    control = tiny.experiment_data(
        'control', architecture=None, budget=None, control_of='small', batch=2
    )
    folders = _folders(tmp_path, shapes_data, dense, small, control)
    with pytest.raises(CheckpointError, match='train it first'):
        run_experiment(folders.experiment('small'), folders)
    outcomes = [
        run_experiment(folders.experiment(name), folders) for name in ('dense', 'small', 'control')
    ]
    assert all(outcome.finished for outcome in outcomes)
    contents = [read_checkpoint(outcome.checkpoint) for outcome in outcomes]
    assert contents[1]['architecture'] == contents[2]['architecture']
    assert contents[1]['architecture'] != contents[0]['architecture']
    plan = contents[1]['ancestry']['plan']
    assert plan['macs'] <= 0.5 * plan['dense_macs']
    # The control had the time of the dense training and the fine-tuning together.
    total = contents[0]['cpu_seconds'] + contents[1]['cpu_seconds']
    assert contents[1]['ancestry']['cpu_seconds'] == contents[0]['cpu_seconds']
    assert contents[2]['cpu_seconds'] >= total


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


def test_the_command_survives_sigterm_and_resumes(shapes_data: Path, tmp_path: Path) -> None:
    _folders(tmp_path, shapes_data, tiny.experiment_data(budget={'cpu_minutes': 60}))
    command = [sys.executable, '-m', 'pruned_perception.cli.main', 'train', '--quiet']
    command += [str(tmp_path / 'tiny.yaml'), '--data', str(shapes_data)]
    command += ['--runs', str(tmp_path / 'runs')]
    log = tmp_path / 'runs' / 'tiny' / 'log.jsonl'
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not log.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'run the same command again' in output
    steps = read_checkpoint(tmp_path / 'runs' / 'tiny' / 'last.pt')['steps']
    assert steps >= 20
    # So little CPU time is less than what was used: the resumed run is finished at once.
    finished = subprocess.run(
        [*command, '--cpu-minutes', '0.001'], capture_output=True, text=True, check=True
    )
    assert f'tiny: {steps} steps' in finished.stdout
