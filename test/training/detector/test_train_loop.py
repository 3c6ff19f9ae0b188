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

from pruned_perception._io import FolderError, locked
from pruned_perception.training.detector.checkpoint import (
    CheckpointError,
    detector_from,
    read_checkpoint,
)
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.experiment import Budget, Experiment, ExperimentError
from pruned_perception.training.detector.loop import Outcome, train
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.runs import (
    Folders,
    run_experiment,
    total_cpu_seconds,
    use_one_thread,
)
from pruned_perception.training.detector.validation import validate

STAGES = ('1/final.pt', '2/final.pt', 'final.pt')
CHILD = {'architecture': None, 'parent': 'dense', 'prune': {'macs': 0.5, 'round_to': 16}}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pruned_perception.training.detector.loop.VALIDATIONS', 1)
    use_one_thread()


def _run(
    folder: Path,
    data: Path,
    experiment: Experiment,
    steps: int,
    teacher: Detector | None = None,
) -> Outcome:
    torch.manual_seed(experiment.seed)
    return train(
        experiment,
        Detector(tiny.ARCHITECTURE),
        load_frames(data / 'train', tiny.SIZE),
        load_frames(data / 'validation', tiny.SIZE),
        folder,
        budget=Budget(steps=steps),
        teacher=teacher,
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


def _terminate_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM arrive in this step of all that are done from now on."""
    from pruned_perception.training.detector import loop

    step, calls = loop._Run.step, []

    def step_then_terminate(run):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run)

    monkeypatch.setattr(loop._Run, 'step', step_then_terminate)


def _assert_equal_weights(one: Outcome, other: Outcome) -> None:
    expected, found = (read_checkpoint(each.checkpoint)['weights'] for each in (one, other))
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)


@pytest.mark.parametrize('distilled', [False, True])
def test_an_interrupted_run_ends_where_an_unbroken_one_does(
    shapes_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    detector: Detector,
    distilled: bool,
) -> None:
    experiment, teacher = tiny.experiment(), None
    if distilled:
        experiment, teacher = tiny.experiment(**CHILD, distill={'weight': 2}), detector
    whole = _run(tmp_path / 'whole', shapes_data, experiment, 12, teacher)
    _terminate_in_step(5, monkeypatch)
    first = _run(tmp_path / 'broken', shapes_data, experiment, 12, teacher)
    assert (first.finished, first.steps) == (False, 5)
    second = _run(tmp_path / 'broken', shapes_data, experiment, 12, teacher)
    assert (second.finished, second.steps) == (True, 12)
    _assert_equal_weights(whole, second)


def test_a_student_comes_closer_to_its_teacher_which_stays_what_it_is(
    shapes_data: Path, tmp_path: Path, detector: Detector
) -> None:
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    experiment = tiny.experiment(**CHILD, distill={'weight': 10})
    _run(tmp_path, shapes_data, experiment, 40, detector)
    assert detector.state_dict().keys() == before.keys()
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), name
    records = map(json.loads, (tmp_path / 'log.jsonl').read_text().splitlines())
    log = [record for record in records if record['kind'] == 'step']
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
    again = run_experiment(folders.experiment('tiny'), folders)
    assert again.finished
    assert first.checkpoint.stat().st_mtime_ns == changed


def test_two_runs_in_one_folder_are_refused(shapes_data: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(FolderError, match='in use'):
        _run(tmp_path, shapes_data, tiny.experiment(), steps=1)


def test_another_experiments_folder_is_refused(shapes_data: Path, tmp_path: Path) -> None:
    _run(tmp_path, shapes_data, tiny.experiment('one'), steps=1)
    with pytest.raises(FolderError, match="'one'"):
        _run(tmp_path, shapes_data, tiny.experiment('two'), steps=1)


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
    # One on another machine is told what that time bought.
    assert run_experiment(folders.experiment('brief'), folders).steps == 2


def test_iterations_are_a_chain_of_runs_whose_time_counts(
    shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = {'macs': 0.25, 'round_to': 8, 'schedule': 'cascade', 'iterations': 3}
    whole = tiny.experiment_data('whole', **CHILD | {'prune': prune}, distill={'weight': 1})
    broken = whole | {'name': 'broken'}
    dense = tiny.experiment_data('dense', budget={'steps': 4})
    folders = _folders(tmp_path, shapes_data, dense, whole, broken)
    run_experiment(folders.experiment('dense'), folders)
    outcome = run_experiment(folders.experiment('whole'), folders)
    assert outcome.finished

    places = [folders.final('dense'), *(tmp_path / 'runs/whole' / end for end in STAGES)]
    dense, *stages = (read_checkpoint(place) for place in places)
    assert [content['steps'] for content in stages] == [4, 4, 4]
    plans = [content['ancestry']['plan'] for content in stages]
    assert stages[2]['ancestry']['earlier_plans'] == plans[:2]
    # Each cuts what the one before left, by about the same factor; the target is the parent's.
    assert [plan['dense_macs'] for plan in plans[1:]] == [plan['macs'] for plan in plans[:2]]
    for iteration, plan in enumerate(plans, start=1):
        assert plan['macs'] <= 0.25 ** (iteration / 3) * plans[0]['dense_macs']
    assert plans[2]['macs'] > 0.15 * plans[0]['dense_macs']
    seconds = [content['cpu_seconds'] for content in (dense, *stages)]
    for before, content in enumerate(stages, start=1):
        assert content['ancestry']['cpu_seconds'] == pytest.approx(sum(seconds[:before]))
    assert total_cpu_seconds(stages[2]) == pytest.approx(sum(seconds))

    # Interrupted within the second one.
    _terminate_in_step(6, monkeypatch)
    first = run_experiment(folders.experiment('broken'), folders)
    assert (first.finished, first.steps) == (False, 2)
    assert first.checkpoint.parent == tmp_path / 'runs/broken/2'
    second = run_experiment(folders.experiment('broken'), folders)
    assert second.checkpoint == folders.final('broken')
    _assert_equal_weights(outcome, second)


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
    steps = read_checkpoint(tmp_path / 'runs' / 'tiny' / 'last.pt')['steps']
    assert steps >= 20
    # So little CPU time is less than what was used: the resumed run is finished at once.
    assert main([*command, '--cpu-minutes', '0.001']) == 0
    assert f'tiny: {steps} steps' in capsys.readouterr().out
