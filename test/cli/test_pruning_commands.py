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

"""`pruned-perception sensitivity | predict | prune | finetune | certify | pruning-report`.

On a user's own network: the one of docs/pruning.md, which is read from there.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception._io import locked  # noqa: E402
from pruned_perception.cli.main import main  # noqa: E402
from pruned_perception.pruning import criteria, lowrank, sparsity  # noqa: E402
from pruned_perception.pruning.allocation import RULES  # noqa: E402
from pruned_perception.pruning.presets import PRESETS  # noqa: E402
from pruned_perception.training.pipeline import load_pruned  # noqa: E402
from pruned_perception.training.task import load_task  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'pruning.md').read_text(encoding='utf-8')
OWN = ['--task', 'mynet:task', '--weights', 'mynet.pt']
TASKS = """
import dataclasses
import os
import signal
import torch
import mynet

def _changed(**fields):
    return dataclasses.replace(mynet.task(), **fields)

def empty():
    return _changed(calibration=[])

def few():
    return _changed(calibration=[torch.randn(3, 1, 12, 12)])

def not_a_number():
    return _changed(calibration=[torch.full((40, 1, 12, 12), float('nan'))])

def other_shape():
    return _changed(calibration=[torch.randn(40, 3, 12, 12)])

def fails():
    net = mynet.Net().eval()
    net.third.forward = lambda x: x.item()
    return _changed(model=net)

def interrupts():
    calls = []

    def step(network, batch):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return mynet.step(network, batch)

    return _changed(step=step)

def residual():
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.inner = torch.nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.inner(x) + x

    return _changed(model=Residual().eval())

def no_holdout():
    return _changed(holdout=None)

def calibrated_on_holdout():
    task = mynet.task()
    return dataclasses.replace(task, holdout=task.calibration, clusters=None, slices=None)
"""


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', PAGE, re.M | re.S)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the page's files, where the parent is trained."""
    folder = tmp_path_factory.mktemp('own')
    for block in blocks('python'):
        name = block.partition('\n')[0].removeprefix('# ')
        (folder / name).write_text(block, encoding='utf-8')
    (folder / 'tasks.py').write_text(TASKS, encoding='utf-8')
    with pytest.MonkeyPatch.context() as patch:
        _run(folder, 'mynet.py', patch)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go into that folder."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def _run(folder: Path, script: str, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    runpy.run_path(script, run_name='__main__')


def test_the_pages_seven_steps_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _run(folder, 'seven_steps.py', monkeypatch)
    printed = capsys.readouterr().out
    assert 'absolute sensitivity, 256 images' in printed
    assert 'deterministic selection' in printed
    assert 'second  kept whole: asked to keep second' in printed
    assert 'certified on 20 drives' in printed
    assert 'in 500 frames' in printed


def test_the_pages_own_criterion_and_published_method_make_plans(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _run(folder, 'own_criterion.py', monkeypatch)
    printed = capsys.readouterr().out
    assert 'spread scores, uniform allocation, deterministic selection, multiples of 4' in printed
    assert 'quadrants scores, equal_error allocation, mixed selection, multiples of 1' in printed


def test_help_names_methods_and_criteria(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(['prune', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert 'pfp (criterion quadrants, allocation equal_error, selection mixed, round_to 1)' in text
    for name in (*criteria.names(), *RULES, *lowrank.names(), *sparsity.names()):
        assert name in text


@pytest.mark.parametrize(
    ('arguments', 'now'),
    [
        (['prune', '--out', 'x.pt', '--keep', 'head'], '--keep is now --ignored-layers'),
        (['prune', '--out', 'x.pt', '--low-rank', 'alds'], 'is now --kind low_rank --criterion'),
        (['sensitivity', '--definition', 'summed'], '--definition is now --criterion'),
        (['finetune', '--out', 'x.pt', '--parent', 'dense.pt'], '--parent is now --teacher'),
    ],
)
def test_renamed_options_say_the_new_name(
    arguments: list[str], now: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert now in capsys.readouterr().err


def test_coreset_says_where_its_promise_is_vacuous(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(['coreset', *OWN, '--epsilon', '0.5', '--out', 'bound.json']) == 0
    printed = capsys.readouterr().out
    assert 'end-to-end relative error 0.5 with probability 0.9, 256 images' in printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for layer in ('first', 'second', 'third', 'head'):
        assert 'vacuous: no fewer draws than active weights' in lines[layer]
    assert 'vacuous in 4 of 4 layers' in printed
    assert main(['coreset', *OWN, '--epsilon', '0.5', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path('bound.json').read_text())


def test_the_pages_commands_run_in_order(here: Path, capsys: pytest.CaptureFixture) -> None:
    # The others need a shipped detector, or data.
    block = next(each for each in blocks('sh') if each.startswith('pruned-perception sensitivity'))
    for line in block.replace('\\\n', '').splitlines():
        program, *arguments = shlex.split(line)
        assert program == 'pruned-perception'
        assert main(arguments) == 0, line
    assert 'certified on 20 drives' in capsys.readouterr().out
    assert 'vacuous' in (here / 'small.html').read_text(encoding='utf-8')


def test_the_page_lists_every_method() -> None:
    for name in (*criteria.names(), *RULES, *lowrank.names(), *sparsity.names()):
        assert f'`{name}`' in PAGE
    for name, preset in PRESETS.items():
        assert f'| `{name}` | `{preset}` |' in PAGE


def test_with_json_standard_output_is_one_object(here: Path, capsys: pytest.CaptureFixture) -> None:
    def printed(*arguments: str) -> dict:
        assert main([*arguments, '--json']) == 0
        return json.loads(capsys.readouterr().out)

    found = printed('sensitivity', *OWN, '--images', '100', '--out', 's.json')
    assert found == json.loads(Path('s.json').read_text())
    assert found['calibration']['images'] == 100
    curve = printed('predict', 's.json', '--epsilons', '0.1', '2')
    assert [point['epsilon'] for point in curve['points']] == [0.1, 2]
    made = printed('prune', *OWN, '--params', '0.5', '--round-to', '4', '--out', 'j.pt')
    assert made['plan']['parameters'] <= made['plan']['dense_parameters'] / 2
    assert {each['layer'] for each in made['measured_errors']['consumers']} >= {'second', 'head'}
    tuned = printed('finetune', *OWN, '--pruned', 'j.pt', '--steps', '3', '--out', 'jt.pt')
    assert tuned['steps'] == 3
    assert set(tuned['before']) == set(tuned['after']) == {'accuracy'}
    certificate = printed('certify', *OWN, '--pruned', 'jt.pt', '--longest', '25')
    assert len(certificate['drives']) == 20
    assert certificate['unseen'] == ['the calibration set']
    shown = printed('pruning-report', 'j.json', '--sensitivity', 's.json', '--out', 'j.html')
    assert shown['sensitivity'] == found


def test_all_positions_and_a_second_half(here: Path, capsys: pytest.CaptureFixture) -> None:
    options = ['--positions', 'all', '--second-half', '--out', 'halves.json']
    assert main(['sensitivity', *OWN, *options]) == 0
    assert 'second half: 128 images' in capsys.readouterr().out
    found = json.loads(Path('halves.json').read_text())
    assert (len(found['ratios']), found['calibration']['images']) == (128, 128)
    assert main(['predict', 'halves.json', '--delta', '0.1', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['K'] > 1
    assert main(['predict', 'halves.json']) == 1
    assert 'δ = 0.001 on 128 image(s) of the second half: needs 1999' in capsys.readouterr().err
    assert main(['sensitivity', *OWN, '--second-half']) == 1
    assert 'give --positions all' in capsys.readouterr().err

    how = ['--macs', '0.5', '--criterion', 'absolute', '--round-to', '4', '--out', 'all.pt']
    for positions, words in (('all', 'certain on the calibration set'), ('8', 'estimates')):
        assert main(['prune', *OWN, *how, '--positions', positions, '--report', 'all.html']) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.startswith('a-priori bounds: vacuous in ')
        assert words in first
        assert words in Path('all.html').read_text(encoding='utf-8')


def test_predict_reads_the_file_alone(here: Path, tmp_path: Path, monkeypatch) -> None:
    assert main(['sensitivity', *OWN, '--out', str(tmp_path / 's.json')]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(['predict', 's.json', '--out', 'curve.json']) == 0
    points = json.loads(Path('curve.json').read_text())['points']
    sizes = [point['macs'] for point in points]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_a_pruned_file_gives_the_module_back(here: Path, capsys: pytest.CaptureFixture) -> None:
    options = ['--macs', '0.4', '--round-to', '4', '--json', '--out', 'back.pt']
    assert main(['prune', *OWN, *options]) == 0
    plan = json.loads(capsys.readouterr().out)['plan']
    task = load_task('mynet:task')  # untrained: only its architecture counts
    small = load_pruned(task, 'back.pt')
    assert small.second.out_channels == len(plan['kept']['second'])
    content = torch.load('back.pt', weights_only=True)
    assert set(content) == {'format', 'weights', 'plans'}
    for name, value in small.state_dict().items():
        assert torch.equal(value, content['weights'][name])


def test_channels_and_low_rank_go_together(here: Path, capsys: pytest.CaptureFixture) -> None:
    first = ['--macs', '0.6', '--round-to', '4', '--out', 'channels.pt']
    assert main(['prune', *OWN, *first]) == 0
    second = ['--kind', 'low_rank', '--criterion', 'alds', '--params', '0.6', '--out', 'both.pt']
    assert main(['prune', *OWN, '--pruned', 'channels.pt', *second]) == 0
    task = load_task('mynet:task', weights='mynet.pt')
    sizes = [
        sum(each.numel() for each in net.parameters())
        for net in (task.model, load_pruned(task, 'channels.pt'), load_pruned(task, 'both.pt'))
    ]
    assert sizes[2] <= 0.6 * sizes[1] < sizes[0]
    assert 'not comparable' in capsys.readouterr().out
    assert main(['finetune', *OWN, '--pruned', 'both.pt', '--steps', '2', '--out', 'bt.pt']) == 0
    assert main(['certify', *OWN, '--pruned', 'bt.pt', '--longest', '25']) == 0


def test_zeros_stay_zeros_while_fine_tuning(here: Path) -> None:
    options = ['--method', 'magnitude', '--params', '0.3', '--out', 'sparse.pt']
    assert main(['prune', *OWN, *options]) == 0
    tune = ['--pruned', 'sparse.pt', '--steps', '5', '--out', 'sparse_tuned.pt']
    assert main(['finetune', *OWN, *tune]) == 0
    before, after = (
        torch.load(name, weights_only=True)['weights'] for name in ('sparse.pt', 'sparse_tuned.pt')
    )
    zero = before['third.weight'] == 0
    assert zero.float().mean() > 0.5
    assert not after['third.weight'][zero].any()
    assert not torch.equal(before['third.weight'], after['third.weight'])


def test_a_criterion_of_ones_own_ranks_channels(here: Path, capsys: pytest.CaptureFixture) -> None:
    Path('first.py').write_text(
        'import torch\n'
        'def score(subject):\n'
        '    channels = subject.structure.channels\n'
        "    return subject.scores('first', {n: torch.arange(c, 0, -1) for n, c in "
        'channels.items()})\n'
    )
    options = ['--criterion', 'first.py', '--round-to', '4', '--json', '--out', 'first.pt']
    assert main(['prune', *OWN, '--macs', '0.5', *options]) == 0
    plan = json.loads(capsys.readouterr().out)['plan']
    assert plan['criterion'] == 'first'
    for kept in plan['kept'].values():
        assert kept == list(range(len(kept)))


def test_the_same_widths_with_other_channels(here: Path, capsys: pytest.CaptureFixture) -> None:
    options = ['--macs', '0.5', '--criterion', 'absolute', '--round-to', '4', '--out', 'one.pt']
    assert main(['prune', *OWN, *options]) == 0
    capsys.readouterr()
    one = json.loads(Path('one.json').read_text())['plan']
    for source in ('one.pt', 'one.json'):
        same = ['--same-widths-as', source, '--criterion', 'random', '--seed', '1', '--json']
        assert main(['prune', *OWN, *same, '--out', 'other.pt']) == 0
        other = json.loads(capsys.readouterr().out)['plan']
        widths = [{n: len(k) for n, k in plan['kept'].items()} for plan in (one, other)]
        assert widths[0] == widths[1]
        assert one['kept'] != other['kept']


def test_an_error_as_budget_keeps_every_bound_within_it(here: Path) -> None:
    options = ['--error', '0.8', '--criterion', 'absolute', '--round-to', '1', '--out', 'e.pt']
    assert main(['prune', *OWN, *options, '--ignored-layers', 'second']) == 0
    plan = json.loads(Path('e.json').read_text())['plan']
    assert 'second' not in plan['kept']
    assert max(plan['errors'].values()) <= 0.8
    assert plan['macs'] < plan['dense_macs']


def test_refit_comes_closer_to_the_parent(here: Path) -> None:
    task = load_task('mynet:task', weights='mynet.pt')
    images = torch.cat(list(task.calibration))
    gaps = []
    for extra in ('--no-refit', '--refit'):
        options = ['--macs', '0.5', '--round-to', '4', '--out', 'refit.pt', extra]
        assert main(['prune', *OWN, *options]) == 0
        with torch.no_grad():
            wanted, found = task.model(images), load_pruned(task, 'refit.pt')(images)
        gaps.append(float((wanted - found).square().mean()))
    assert gaps[1] < 0.5 * gaps[0]


def test_an_interrupted_fine_tuning_goes_on(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['prune', *OWN, '--macs', '0.5', '--round-to', '4', '--out', 'i.pt']) == 0
    options = ['--pruned', 'i.pt', '--weights', 'mynet.pt', '--steps', '12']
    interrupted = ['finetune', *options, '--out', 'broken.pt']
    assert main([*interrupted, '--task', 'tasks:interrupts']) == 130
    assert 'the same command goes on from broken.run' in capsys.readouterr().err
    assert not Path('broken.pt').exists()
    assert torch.load('broken.run/training.pt', weights_only=True)['steps'] == 5

    assert main([*interrupted, '--task', 'mynet:task']) == 0
    assert main(['finetune', *options, '--out', 'whole.pt', '--task', 'mynet:task']) == 0
    broken, whole = (
        torch.load(name, weights_only=True)['weights'] for name in ('broken.pt', 'whole.pt')
    )
    for name, value in whole.items():
        assert torch.equal(value, broken[name])


def test_two_trainings_in_one_folder_are_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['prune', *OWN, '--macs', '0.5', '--round-to', '4', '--out', 'f.pt']) == 0
    options = ['finetune', *OWN, '--pruned', 'f.pt', '--folder', 'one.run', '--out', 'ft.pt']
    assert main([*options, '--steps', '2']) == 0
    assert main([*options, '--steps', '3']) == 1
    assert 'one.run: holds another training (its budget differ)' in capsys.readouterr().err
    with locked(Path('one.run')):
        assert main([*options, '--steps', '2']) == 1
    assert 'one.run: in use by another process' in capsys.readouterr().err


def test_the_pages_comparison_is_read_and_makes_its_composition(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    (text,) = blocks('yaml')
    Path('mynet.yaml').write_text(text.replace('steps: 200', 'steps: 2'), encoding='utf-8')
    assert main(['compare', 'mynet.yaml', '--list']) == 0
    cells = capsys.readouterr().out.split()
    assert len(cells) == 1 + 10 * 2 * 3
    (cell,) = (
        each for each in cells if each.startswith('channels_then_ranks-macs0.5-2steps-seed0')
    )
    assert main(['compare', 'mynet.yaml', '--cell', cell, '--quiet']) == 0
    result = json.loads(Path(f'mynet.results/{cell}.json').read_text(encoding='utf-8'))
    assert 0.3 < result['shares']['macs'] <= 0.5


def test_a_pickled_network_is_not_loaded_and_the_error_says_what_to_save(
    here: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save(torch.nn.Linear(2, 2), 'whole_network.pt')
    assert main(['sensitivity', '--task', 'mynet:task', '--weights', 'whole_network.pt']) == 1
    message = capsys.readouterr().err
    assert 'whole_network.pt: no state dict' in message
    assert 'torch.save(network.state_dict(), FILE)' in message
    assert 'weights_only' not in message


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['sensitivity', '--task', 'tasks:empty'], 'calibration set: empty'),
        (['sensitivity', '--task', 'tasks:not_a_number'], 'NaN or infinite'),
        (['sensitivity', '--task', 'tasks:other_shape'], 'all but the first dimension'),
        (['sensitivity', '--task', 'tasks:fails'], 'third'),
        (['sensitivity', '--task', 'tasks:absent'], "'tasks:absent': cannot be imported"),
        (
            ['sensitivity', '--task', 'mynet:task', '--weights', 'tasks.py'],
            'tasks.py: not a checkpoint, nor a state dict',
        ),
        (['sensitivity'], 'give either a checkpoint or --task'),
        (['sensitivity', 'a.pt', '--task', 'mynet:task'], 'give either a checkpoint or --task'),
        (['sensitivity', '--task', 'mynet:task', '--calibration', 'd'], '--calibration belongs to'),
        (['sensitivity', '--task', 'mynet:task', '--out', '.'], 'is a folder'),
        (['predict', 'absent.json'], 'absent.json: cannot be read'),
        (['predict', 'tasks.py'], 'tasks.py: not JSON'),
        (['prune', *OWN, '--macs', '0.5', '--macs', '0.001'], 'the nearest is'),
        (['prune', *OWN], 'give exactly one of --macs'),
        (['prune', *OWN, '--macs', '0.5', '--params', '0.5'], 'give exactly one of --macs'),
        (['prune', *OWN, '--macs', '1.5'], 'must be in (0, 1]'),
        (['prune', *OWN, '--macs', '0.5', '--criterion', 'magic'], "unknown criterion 'magic'"),
        (['prune', *OWN, '--macs', '0.5', '--allocation', 'magic'], "unknown allocation 'magic'"),
        (['prune', *OWN, '--macs', '0.5', '--ignored-layers', 'tail'], "layers: 'tail' is no"),
        (
            ['prune', *OWN, '--macs', '0.5', '--method', 'alds', '--refit'],
            "field refit: belongs to kind 'channels', not to 'low_rank'",
        ),
        (['prune', *OWN, '--macs', '0.5', '--method', 'magic'], "method: unknown 'magic'"),
        (['prune', *OWN, '--macs', '0.5', '--method', 'magnitude'], 'must be of parameters'),
        (
            ['coreset', '--task', 'tasks:residual'],
            'branches or joins branches: a residual needs a Δ of its own',
        ),
        (
            ['prune', '--task', 'tasks:few', '--macs', '0.5', '--criterion', 'absolute'],
            '3 images are too few for δ = 0.001',
        ),
        (['finetune', *OWN, '--pruned', 'mynet.pt', '--steps', '2'], 'mynet.pt: not a checkpoint'),
        (['finetune', *OWN], 'exactly one of --cpu-minutes, --steps, --epochs, --wall-minutes'),
        (['certify', '--task', 'mynet:task'], 'give --parent, --child and --holdout'),
        (
            ['certify', '--task', 'tasks:no_holdout', '--pruned', 'small.pt'],
            'needs a `holdout`',
        ),
        (
            ['certify', '--task', 'tasks:calibrated_on_holdout', '--pruned', 'absolute.pt'],
            'never share frames',
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    if 'absolute.pt' in arguments:
        options = ['--macs', '0.5', '--criterion', 'absolute', '--round-to', '4']
        assert main(['prune', *OWN, *options, '--out', 'absolute.pt']) == 0
        capsys.readouterr()
    out = Path('refused.pt')
    if arguments[0] in ('prune', 'finetune'):
        arguments = [*arguments, '--out', str(out)]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert '\npruned-perception: error: ' in f'\n{printed.err}'
    assert not printed.out
    assert not out.exists()
    assert not out.with_suffix('.json').exists()
