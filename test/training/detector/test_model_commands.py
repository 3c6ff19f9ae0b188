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
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapes
import tiny
import torch
import yaml

from pruned_perception.bundle import load_bundle, load_family, record_evidence, write_bundle
from pruned_perception.cli import main as command
from pruned_perception.cli import models
from pruned_perception.datasets import read_dataset
from pruned_perception.datasets.conversion import write_coco
from pruned_perception.datasets.fingerprints import Fingerprints
from pruned_perception.inference.accuracy import CONTROL, MEMBER, SHORT_CONTROL
from pruned_perception.inference.reference import packed, unpacked
from pruned_perception.pruning.certificate import certify_counts
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.detector.experiment import ExperimentError
from pruned_perception.training.detector.family import read_family_spec


@pytest.fixture(scope='module')
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where `models` has built a family of two, and a control."""
    root = tmp_path_factory.mktemp('family')
    for seed, (name, count) in enumerate({'train': 24, 'validation': 8, 'test': 12}.items()):
        shapes.write_shapes(root / 'shapes' / name, count, seed=seed)
    data = {'train': 'shapes/train', 'validation': 'shapes/validation'}
    experiments = [
        tiny.experiment_data('shapes-dense', data=data, budget={'steps': 6}),
        tiny.experiment_data(
            'shapes-half',
            data=data,
            architecture=None,
            parent='shapes-dense',
            prune={'macs': 0.5},
            budget={'steps': 3},
        ),
        tiny.experiment_data(
            'shapes-half-scratch',
            data=data,
            architecture=None,
            budget=None,
            control_of='shapes-half',
        ),
    ]
    experiments.append({**experiments[-1], 'name': 'shapes-half-brief', 'budget': {'steps': 3}})
    for each in experiments:
        (root / f'{each["name"]}.yaml').write_text(yaml.safe_dump(each))
    spec = {
        'name': 'shapes',
        'data': {
            name: {'split': name, 'frames': 1, 'seed': 0}
            for name in ('train', 'validation', 'test')
        },
        'members': [
            {'name': 'dense', 'experiment': 'shapes-dense'},
            {
                'name': 'half',
                'experiment': 'shapes-half',
                'control': 'shapes-half-scratch',
                'short_control': 'shapes-half-brief',
            },
        ],
        'provenance': {'data_licence': 'CC0-1.0'},
    }
    (root / 'shapes.yaml').write_text(yaml.safe_dump(spec))
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, 'ROUNDS', 2)
        patch.setattr(models, 'RUNS', 2)
        patch.setattr('pruned_perception.training.detector.runs.VALIDATIONS', 1)
        arguments = ['models', str(root / 'shapes.yaml'), '--data', str(root), '--quiet']
        arguments += ['--runs', str(root / 'runs'), '--out', str(root / 'models'), '--controls']
        arguments += ['--steps', 'train', 'export', 'evaluate', 'latency']
        assert command.main(arguments) == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    return root


def test_the_family_holds_its_evidence(family: Path) -> None:
    dense, half = load_family(family / 'models').members
    assert (dense.name, half.name) == ('dense', 'half')
    assert half.manifest['pruning']['macs'] == half.cost.macs <= dense.cost.macs / 2
    assert [each['net'].split(':')[0] for each in half.manifest['evaluation']] == [
        'member',
        'control',
        'control',
    ]
    evaluations = {each['net']: each for each in half.manifest['evaluation']}
    assert evaluations[SHORT_CONTROL]['steps'] == 3 < evaluations[CONTROL]['steps']
    for bundle in (dense, half):
        evaluation = bundle.manifest['evaluation'][0]
        assert evaluation['images'] == 12
        assert evaluation['groups'] == 3
        (latency,) = bundle.manifest['latency']
        assert latency['configuration']['threads'] == 1
        assert latency['latency_ms']['n'] == 4
        assert latency['predicted_ms'] > 0
        assert bundle.manifest['provenance']['data_licence'] == 'CC0-1.0'


def test_a_member_is_compared_with_its_controls_frame_by_frame(
    family: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['models', str(family / 'shapes.yaml'), '--data', str(family), '--controls']
    arguments += ['--runs', str(family / 'runs'), '--out', str(family / 'models')]
    assert command.main([*arguments, '--steps', 'evaluate']) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ' against ' in line]
    half = load_bundle(family / 'models' / 'half').manifest['evaluation']
    ap50 = {each['net']: each['ap50'] for each in half}
    for line, net in zip(lines, (CONTROL, SHORT_CONTROL), strict=True):
        assert line.startswith('half against shapes-half-')
        assert f': AP50 {ap50[MEMBER] - ap50[net]:+.4f} [' in line


def test_the_summary_says_what_the_manifests_say(
    family: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['models', str(family / 'shapes.yaml'), '--out', str(family / 'models')]
    assert command.main([*arguments, '--steps', 'summary']) == 0
    rows = [line.split(' | ') for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip('| ') for row in rows] == ['dense', 'half']
    half = load_bundle(family / 'models' / 'half').manifest
    assert rows[1][3].startswith(f'{half["evaluation"][0]["ap50"]:.3f}')
    assert rows[1][7].startswith(f'{half["evaluation"][1]["ap50"]:.3f}')
    assert rows[1][8].startswith(f'{half["evaluation"][2]["ap50"]:.3f}')
    assert rows[0][7] == rows[0][8] == '–'
    assert rows[0][10].startswith('1.00')


def test_the_summary_says_what_is_certified_and_how_far_that_reaches(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(family / 'models', tmp_path / 'models')
    arguments = ['models', str(family / 'shapes.yaml'), '--out', str(tmp_path / 'models')]
    for venues, said in (
        (2, 'Of a new venue this says next to nothing: 2 venues of'),
        (30, 'Holds after every venue at once'),
    ):
        certificate = certify_counts(
            {'missed': (np.tile([1, 0], venues), np.full(2 * venues, 5))},
            clusters=np.repeat(np.arange(venues), 2),
            longest={'objects': 10},
            unit='venue',
            holdout=Fingerprints(),
            used={},
        )
        half = load_bundle(tmp_path / 'models' / 'half')
        record_evidence(half, 'certificate', certificate.to_dict())
        assert command.main([*arguments, '--steps', 'summary']) == 0
        out = capsys.readouterr().out
        assert said in out
        assert f'| half | 10.0%, {certificate.headline.bound_text} |' in out


def test_evaluate_prints_json_lines(family: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ['evaluate', str(family / 'shapes' / 'test'), '--json', '--resamples', '0']
    assert command.main([*arguments, '--model', str(family / 'models')]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line['bundle'] for line in lines] == ['dense', 'half']
    recorded = load_bundle(family / 'models' / 'dense').manifest['evaluation'][0]
    assert lines[0]['ap50'] == recorded['ap50']
    assert set(lines[0]['per_class']) == set(shapes.LABELS)


def test_evaluate_of_a_family_says_what_members_gain_over_the_first(
    family: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ['evaluate', str(family / 'shapes' / 'test'), '--model', str(family / 'models')]
    assert command.main([*arguments, '--resamples', '50', '--json']) == 0
    dense, half = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 'against' not in dense
    found = half['against']
    assert found['bundle'] == 'dense'
    assert found['ap50'] == half['ap50'] - dense['ap50']
    assert found['interval'][0] <= found['interval'][1]
    assert command.main([*arguments, '--resamples', '50']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert '| member | AP50 | against dense [95 %] |' in lines
    low, high = found['interval']
    row = f'| half | {half["ap50"]:.3f} | {found["ap50"]:+.4f} [{low:+.4f}, {high:+.4f}] |'
    assert row in lines
    assert command.main([*arguments, '--member', 'half', '--resamples', '0']) == 0
    assert 'against' not in capsys.readouterr().out


def test_prune_and_export_by_hand(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dense = family / 'runs' / 'shapes-dense' / 'final.pt'
    pruned, control = tmp_path / 'pruned.pt', tmp_path / 'random.pt'
    data = str(family / 'shapes' / 'train')
    arguments = ['prune', str(dense), '--calibration', data, '--out']
    assert command.main([*arguments, str(pruned), '--macs', '0.6', '--json']) == 0
    plan = json.loads(capsys.readouterr().out)['plan']
    assert plan['macs'] <= 0.6 * plan['dense_macs']
    same = ['--same-widths-as', str(pruned), '--criterion', 'random']
    assert command.main([*arguments, str(control), *same]) == 0
    plans = [read_checkpoint(path)['ancestry']['plan'] for path in (pruned, control)]
    assert plans[0]['macs'] == plans[1]['macs']
    assert plans[0]['kept'] != plans[1]['kept']

    bundle = tmp_path / 'bundle'
    options = ['--out', str(bundle), '--compare-on', data]
    options += ['--parent', str(family / 'models' / 'dense')]
    assert command.main(['export', str(pruned), *options]) == 0
    assert load_bundle(bundle).cost.macs == plan['macs']


def test_import_starts_from_a_bundle_and_never_overwrites(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = str(family / 'shapes' / 'train')
    out = tmp_path / 'dense.pt'
    arguments = ['import', str(family / 'models'), '--out', str(out), '--calibration', data]
    assert command.main(arguments) == 0
    trained = read_checkpoint(family / 'runs' / 'shapes-dense' / 'final.pt')
    assert f'{trained["cpu_seconds"] / 60:.1f} CPU minutes' in capsys.readouterr().out
    content = read_checkpoint(out)
    for name in ('architecture', 'experiment', 'labels', 'data', 'steps'):
        assert content[name] == trained[name]
    pruned = tmp_path / 'pruned.pt'
    assert command.main(['prune', str(out), '--macs', '0.6', '--out', str(pruned)]) == 0
    ancestry = read_checkpoint(pruned)['ancestry']
    assert ancestry['cpu_seconds'] == content['cpu_seconds']

    assert command.main(arguments) == 1
    assert 'is there already' in capsys.readouterr().err


def test_a_family_grows_from_its_imported_dense_member(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / 'models' / 'dense', tmp_path / 'models' / 'dense')
    dense = load_bundle(tmp_path / 'models' / 'dense')
    arguments = ['models', str(family / 'shapes.yaml'), '--data', str(family), '--quiet']
    arguments += ['--runs', str(tmp_path / 'runs'), '--out', str(tmp_path / 'models')]
    assert command.main([*arguments, '--import-dense', '--steps', 'train', 'export']) == 0
    kept, half = load_family(tmp_path / 'models').members
    assert kept.sha256 == dense.sha256
    assert half.manifest['parent']['sha256'] == dense.sha256
    training = half.manifest['provenance']['training']
    before = dense.manifest['provenance']['training']['cpu_seconds']
    assert training['cpu_seconds_of_parents'] == pytest.approx(before, abs=0.1)


@pytest.fixture
def with_8_bits(family: Path, tmp_path: Path) -> list[str]:
    """Return the arguments that add half-int8 to a copy of the family."""
    shutil.copytree(family / 'models', tmp_path / 'models')
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    spec['quantize'] = {'members': ['half'], 'data': 'validation', 'scheme': 'u8s8'}
    spec['quantize']['leading_float'] = 1  # or a clock would decide over the bytes
    (tmp_path / 'shapes.yaml').write_text(yaml.safe_dump(spec))
    arguments = ['models', str(tmp_path / 'shapes.yaml'), '--data', str(family), '--quiet']
    return [*arguments, '--out', str(tmp_path / 'models'), '--steps', 'quantize']


def test_members_in_8_bits_are_a_step_that_gives_the_same_file_again(
    with_8_bits: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / 'models' / 'half-int8'
    assert command.main(with_8_bits) == 0
    first = load_bundle(folder)
    assert first.manifest['quantization']['source']['name'] == 'half'
    assert first.manifest['quantization']['scheme'] == 'u8s8'
    before = (folder / 'manifest.json').stat().st_mtime_ns

    assert command.main(with_8_bits) == 0
    assert (folder / 'manifest.json').stat().st_mtime_ns == before  # it was there

    shutil.rmtree(folder)
    assert command.main(with_8_bits) == 0
    again = load_bundle(folder)
    assert again.sha256 == first.sha256
    assert again.manifest['quantization'] == first.manifest['quantization']


def test_evaluate_goes_on_without_members_in_8_bits_for_other_processors(
    with_8_bits: list[str], family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(with_8_bits) == 0
    bundle = load_bundle(tmp_path / 'models' / 'half-int8')
    elsewhere = json.loads(json.dumps(bundle.manifest))
    for entry in elsewhere['quantization']['check']:
        entry['values'] = packed(-1 - unpacked(entry['values']))
    write_bundle(bundle.path, bundle.onnx_bytes, elsewhere)
    capsys.readouterr()
    words = ['evaluate', str(family / 'shapes' / 'test'), '--resamples', '0', '--json', '--model']

    assert command.main([*words, str(tmp_path / 'models')]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)['bundle'] for line in out.splitlines()] == ['dense', 'half']
    assert json.loads(out.splitlines()[0])['execution_provider'] == 'cpu'
    assert 'half-int8: left out' in err

    assert command.main([*words, str(bundle.path)]) == 1  # by itself it is refused
    assert 'something else on this processor' in capsys.readouterr().err


@pytest.mark.parametrize('change', [{'members': ['third']}, {'data': 'nothing'}, {'bits': 4}])
def test_a_family_that_is_quantised_wrongly_is_refused(
    with_8_bits: list[str], tmp_path: Path, change: dict, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / 'shapes.yaml'
    spec = yaml.safe_load(file.read_text())
    spec['quantize'].update(change)
    file.write_text(yaml.safe_dump(spec))
    assert command.main(with_8_bits) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert next(iter(change)) in error


def test_a_familys_data_may_be_parts_of_annotated_sets(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    part = {'source': 'test', 'group_by': 'picture', 'unit': 'picture', 'groups': [0, 3]}
    file = tmp_path / 'parts.yaml'
    arguments = ['models', str(file), '--sources', str(family / 'shapes'), '--steps', 'data']
    arguments += ['--data', str(tmp_path), '--out', str(tmp_path / 'out')]
    file.write_text(yaml.safe_dump(spec | {'name': 'parts', 'data': {'test': part}}))
    assert command.main(arguments) == 0
    assert 'test: 2 frames, SHA-256 ' in capsys.readouterr().out
    assert len(read_dataset(tmp_path / 'parts' / 'test')) == 2
    part['groups'] = ['0', 'nowhere']
    file.write_text(yaml.safe_dump(spec | {'name': 'others', 'data': {'test': part}}))
    assert command.main(arguments) == 1
    assert "has no picture 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize('other', ['validation', 'test', 'holdout'])
def test_a_group_that_is_trained_on_is_for_nothing_else(family: Path, other: str) -> None:
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    spec['data'] = {
        'train': {'source': 'football', 'groups': ['sydney', 20240716]},
        'test': {'source': 'football', 'groups': ['bordeaux']},
        other: {'source': 'football', 'groups': ['bangkok', '20240716']},
    }
    file = family / 'twice.yaml'
    file.write_text(yaml.safe_dump(spec))
    with pytest.raises(ExperimentError, match=f'venue 20240716 .* data.train .* data.{other}'):
        read_family_spec(file)
    spec['data'][other]['source'] = 'handball'  # halls of the same name elsewhere
    file.write_text(yaml.safe_dump(spec))
    assert set(read_family_spec(file).data) == {'train', 'test', other}


def test_a_hold_out_of_one_venue_certifies_nothing_and_is_looked_at_all_the_same(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    spec['data']['holdout'] = spec['data']['test']
    (tmp_path / 'shapes.yaml').write_text(yaml.safe_dump(spec))
    whole = read_dataset(family / 'shapes' / 'test')
    alone = replace(whole, groups=('hall',) * len(whole), unit='venue')
    write_coco([alone], tmp_path / 'data' / 'shapes' / 'holdout', {})
    arguments = ['models', str(tmp_path / 'shapes.yaml'), '--data', str(tmp_path / 'data')]
    assert command.main([*arguments, '--out', str(family / 'models'), '--steps', 'certify']) == 0
    out = capsys.readouterr().out
    assert 'no certificates: ' in out
    assert 'is of one venue, which says nothing of how venues differ' in out
    assert '**AP50 by venue**' in out
    assert 'One venue is too few for an interval over venues' in out


def test_without_a_test_set_members_are_evaluated_on_the_hold_out_once_they_are_certified(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    part = {'source': 'test', 'group_by': 'picture', 'groups': ['0', '3', '7', '9'], 'unit': 'hall'}
    del spec['data']['test']
    spec['data'].update(
        train={'source': 'train', 'groups': ['0'], 'group_by': 'picture'},
        validation={'source': 'validation', 'groups': ['0'], 'group_by': 'picture'},
        holdout=part,
    )
    spec['longest'] = {'frames': 5, 'objects': 50}
    (tmp_path / 'shapes.yaml').write_text(yaml.safe_dump(spec))
    for each in family.glob('shapes-*.yaml'):
        shutil.copy(each, tmp_path)
    arguments = ['models', str(tmp_path / 'shapes.yaml'), '--sources', str(family / 'shapes')]
    arguments += ['--data', str(tmp_path), '--runs', str(family / 'runs')]
    arguments += ['--out', str(tmp_path / 'models'), '--steps']
    steps = ['data', 'export', 'evaluate', 'certify', 'summary']  # in whatever order
    assert command.main([*arguments, *steps]) == 0
    out = capsys.readouterr().out
    assert out.index('half: not certified: only ') < out.index('dense on shapes holdout')
    dense, _ = load_family(tmp_path / 'models').members
    assert [each['data'] for each in dense.manifest['evaluation']] == ['shapes holdout']
    # Now nothing can be certified on them any more: whoever goes on has seen these frames.
    assert command.main([*arguments, 'certify']) == 1
    assert 'names it under evaluation' in capsys.readouterr().err


def test_a_family_needs_frames_to_be_evaluated_on(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    del spec['data']['test']
    file = tmp_path / 'shapes.yaml'
    file.write_text(yaml.safe_dump(spec))
    assert command.main(['models', str(file), '--steps', 'summary']) == 1
    assert 'shapes: field data: has neither test nor holdout' in capsys.readouterr().err


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Return a function after which no file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ('step', 'said'),
    [
        ('data', 'holdout: cannot be written: File too large'),
        ('train', 'log.jsonl: cannot be written: File too large'),
        ('export', 'cannot be written: File too large; make room'),
        ('quantize', 'half/model.onnx: its temporary files cannot be written: File too large'),
        ('evaluate', 'models/dense: cannot be written: File too large'),
        ('latency', 'the profile cannot be written: is the disk of '),
    ],
)
def test_a_disk_that_is_full_ends_every_step_and_leaves_what_was_there(
    family: Path,
    tmp_path: Path,
    step: str,
    said: str,
    full_disk: Callable[[int], None],
    capsys: pytest.CaptureFixture,
) -> None:
    out, runs, data = (tmp_path / name for name in ('models', 'runs', 'data'))
    spec = yaml.safe_load((family / 'shapes.yaml').read_text())
    spec['quantize'] = {'members': ['half'], 'data': 'validation', 'scheme': 'u8s8'}
    spec['longest'] = {'frames': 50, 'objects': 500}
    part = {'source': 'validation', 'group_by': 'picture', 'groups': ['0', '3']}
    spec['data']['holdout'] = part
    if step == 'data':  # of the others, those of the simulator come first
        spec['data'] = {'holdout': part}
        del spec['quantize']
    (tmp_path / 'shapes.yaml').write_text(yaml.safe_dump(spec))
    for each in family.glob('shapes-*.yaml'):
        shutil.copy(each, tmp_path)
    data.mkdir()
    (data / 'shapes').mkdir()
    for name in ('train', 'validation', 'test'):
        (data / 'shapes' / name).symlink_to(family / 'shapes' / name)
    if step == 'evaluate':  # on other frames than before: there is something to record
        (data / 'shapes' / 'test').unlink()
        (data / 'shapes' / 'test').symlink_to(family / 'shapes' / 'validation')
    arguments = ['models', str(tmp_path / 'shapes.yaml'), '--data', str(data), '--quiet']
    arguments += ['--sources', str(family / 'shapes'), '--runs', str(runs), '--out', str(out)]
    if step != 'train':
        shutil.copytree(family / 'runs', runs)
    if step not in ('data', 'export'):
        shutil.copytree(family / 'models', out)
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    full_disk(300)
    assert command.main([*arguments, '--steps', step]) == 1
    error = ' '.join(capsys.readouterr().err.split())
    assert said in error
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == before


def test_pruning_again_keeps_the_plans_before(family: Path, tmp_path: Path) -> None:
    dense = family / 'runs' / 'shapes-dense' / 'final.pt'
    once, twice = tmp_path / 'once.pt', tmp_path / 'twice.pt'
    assert command.main(['prune', str(dense), '--macs', '0.8', '--out', str(once)]) == 0
    assert command.main(['prune', str(once), '--macs', '0.7', '--out', str(twice)]) == 0
    first, second = (read_checkpoint(path)['ancestry'] for path in (once, twice))
    assert second['earlier_plans'] == [first['plan']]
    assert second['plan']['dense_macs'] == first['plan']['macs']


def test_the_report_of_a_checkpoint_names_its_run(family: Path, tmp_path: Path) -> None:
    dense, data = family / 'runs' / 'shapes-dense' / 'final.pt', family / 'shapes' / 'train'
    options = ['--calibration', str(data), '--macs', '0.6', '--criterion', 'summed']
    options += ['--report', str(tmp_path / 'page.html'), '--out', str(tmp_path / 'small.pt')]
    assert command.main(['prune', str(dense), *options]) == 0
    page = (tmp_path / 'page.html').read_text(encoding='utf-8')
    assert '<h1>shapes-dense at ' in page
    assert 'sensitivities (summed, 24 images' in ' '.join(page.split())


def test_sensitivities_of_a_checkpoint(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dense = str(family / 'runs' / 'shapes-dense' / 'final.pt')
    options = ['--calibration', str(family / 'shapes' / 'train'), '--images', '9']
    options += ['--criterion', 'quadrants', '--positions', '3']
    assert command.main(['sensitivity', dense, *options]) == 0
    assert 'quadrants sensitivity, 9 images, 3 positions an image' in capsys.readouterr().out
    assert command.main(['sensitivity', dense]) == 1
    assert 'give --calibration DATASET' in capsys.readouterr().err


def test_a_pruned_checkpoint_is_fine_tuned_with_its_parent_as_teacher(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dense = family / 'runs' / 'shapes-dense' / 'final.pt'
    small, tuned = tmp_path / 'small.pt', tmp_path / 'tuned.pt'
    assert command.main(['prune', str(dense), '--macs', '0.6', '--out', str(small)]) == 0
    capsys.readouterr()
    data = ['--train', str(family / 'shapes' / 'train')]
    data += ['--validation', str(family / 'shapes' / 'validation')]
    arguments = ['finetune', str(small), *data, '--steps', '3', '--out', str(tuned), '--json']
    assert command.main([*arguments, '--distill', '0.5', '--teacher', str(dense)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['steps'] == 3
    assert set(result['before']) == set(result['after']) == {'ap50', 'ap50_95'}
    before, after = read_checkpoint(small), read_checkpoint(tuned)
    assert after['architecture'] == before['architecture']
    assert after['ancestry'] == before['ancestry']
    assert after['experiment']['distill'] == {'weight': 0.5}
    assert after['steps'] == 3
    name = 'backbone.0.0.conv.weight'
    assert not torch.equal(after['weights'][name], before['weights'][name])

    bundle = ['--out', str(tmp_path / 'bundle'), '--compare-on', str(family / 'shapes' / 'test')]
    assert command.main(['export', str(tuned), *bundle]) == 0
    shapes.write_shapes(tmp_path / 'other', 2, seed=0)
    other = tmp_path / 'other' / 'annotations.json'
    other.write_text(other.read_text().replace('"triangle"', '"hexagon"'))
    wrong = [str(other.parent) if each == data[1] else each for each in arguments]
    assert command.main(wrong) == 1
    assert 'hexagon) are not those of' in capsys.readouterr().err
    assert command.main([*arguments, '--distill']) == 1
    assert '--distill WEIGHT and --teacher CHECKPOINT' in capsys.readouterr().err
    assert command.main(arguments[:2] + arguments[6:]) == 1
    assert 'give --train DATASET and --validation DATASET' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--macs', '0.001'], 'the nearest is'),
        (['--macs', '0.5', '--criterion', 'magic'], "unknown criterion 'magic'"),
        ([], 'exactly one of --macs, --params, --ms, --error and --same-widths-as'),
        (['--macs', '0.5', '--criterion', 'absolute'], 'needs a calibration set'),
        (['--macs', '0.5', '--refit'], '--refit looks at images: give --calibration'),
        (['--macs', '0.5', '--report', 'r.html'], '--report looks at images: give --calibration'),
        (
            ['--macs', '0.5', '--method', 'alds'],
            'with --task only; of our detector',
        ),
        (['--macs', '0.5', '--weights', 'w.pt'], '--weights belongs to --task'),
        (['--macs', '0.5', '--calibration', 'nowhere'], 'nowhere/annotations.json: no such file'),
    ],
)
def test_prune_refuses_what_cannot_be(
    family: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    options: list[str],
    message: str,
) -> None:
    dense = family / 'runs' / 'shapes-dense' / 'final.pt'
    assert command.main(['prune', str(dense), '--out', str(tmp_path / 'x.pt'), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'x.pt').exists()
