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

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import blobs
import numpy as np
import pytest
import torch
import yaml
from other_device import DEVICE, OtherDevice
from scipy import stats

from pruned_perception._io import FolderError, locked, write_json
from pruned_perception._processes import Interrupted
from pruned_perception.compare.cell import run_cell
from pruned_perception.compare.plot import draw
from pruned_perception.compare.result import Result, find_failure, find_result
from pruned_perception.compare.study import Cell, Study, read_study
from pruned_perception.compare.table import Table, make_table
from pruned_perception.pruning import PruningError
from pruned_perception.pruning.statistics import crossed_difference, holm, paired_difference
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.compute import Compute
from pruned_perception.training.loop import finetune
from pruned_perception.training.outcomes import Outcomes
from pruned_perception.training.pipeline import PipelineRecord
from pruned_perception.training.recipe import Recipe

STUDY = {
    'task': 'blobs:task',
    'methods': {
        'ours': {'criterion': 'absolute', 'round_to': 1},
        'l2': {'criterion': 'filter_l2', 'round_to': 1},
    },
    'budgets': {'macs': [0.6, 0.4]},
    'seeds': [0, 1],
    'baseline': 'l2',
}

TWICE = {'schedule': 'cascade', 'iterations': 2}


def _study(folder: Path, **changes: object) -> Study:
    data = {key: value for key, value in (STUDY | changes).items() if value is not None}
    path = folder / 'study.yaml'
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return read_study(path)


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a trained parent."""
    task = blobs.task()
    model = finetune(task.model, task, TrainingBudget(steps=120), recipe=Recipe(learning_rate=0.05))
    path = tmp_path_factory.mktemp('weights') / 'parent.pt'
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """Return a folder with the parent's weights."""
    shutil.copy(weights, tmp_path / 'parent.pt')
    return tmp_path


# The file


def test_cells_are_the_parent_and_all_combinations_with_readable_names(tmp_path: Path) -> None:
    tunings = [None, {'steps': 40}, {'cpu_minutes': 1.5, 'learning_rate': 0.1}]
    study = _study(tmp_path, finetune=tunings)
    names = [cell.name for cell in study.cells]
    assert len(names) == 1 + 2 * 2 * 3 * 2
    assert names[0] == 'parent'
    assert {'ours-macs0.6-seed0', 'ours-macs0.6-40steps-seed1', 'l2-macs0.4-1.5min-seed0'} <= set(
        names
    )
    assert study.cell('l2-macs0.4-1.5min-seed0').finetuning.changes == {'learning_rate': 0.1}
    with pytest.raises(PruningError, match="no cell 'other'"):
        study.cell('other')


def test_controls_come_after_what_they_control(tmp_path: Path) -> None:
    methods = {'control': {'kind': 'scratch', 'of': 'ours'}, **STUDY['methods']}
    study = _study(tmp_path, methods=methods)
    names = [cell.name for cell in study.cells]
    cell = study.cell('control-macs0.4-seed1')
    assert cell.source.name == 'ours-macs0.4-seed1'
    assert names.index(cell.name) > names.index(cell.source.name)


def test_results_of_earlier_versions_stay_those_of_their_configuration(tmp_path: Path) -> None:
    ranks = {'kind': 'low_rank', 'criterion': 'svd'}
    methods = {
        'ours': {'criterion': 'absolute', 'distill': True, **TWICE, 'then': ranks},
        'control': {'kind': 'scratch', 'of': 'ours', 'learning_rate': 0.5},
    }
    tuned = {'steps': 4, 'optimiser': {'name': 'adamw'}, 'ema': 0.5}
    study = _study(tmp_path, methods=methods, baseline='ours', finetune=tuned)
    cell = study.cell('control-macs0.4-4steps-seed1')
    assert cell.configuration == {
        'task': 'blobs:task',
        'weights_sha256': None,
        'method': {'kind': 'scratch', 'of': 'ours', 'learning_rate': 0.5},
        'criterion_sha256': None,
        'of': {
            'task': 'blobs:task',
            'weights_sha256': None,
            'method': {
                'kind': 'channels',
                'criterion': 'absolute',
                'schedule': 'cascade',
                'iterations': 2,
                'then': {'kind': 'low_rank', 'criterion': 'svd'},
                'distill': {'weight': 1.0},
            },
            'criterion_sha256': None,
            'of': None,
            'budget': {'macs': 0.4},
            'finetune': tuned,
            'recalibrate': True,
            'seed': 1,
        },
        'budget': {'macs': 0.4},
        'finetune': tuned,
        'recalibrate': True,
        'seed': 1,
    }
    assert cell.digest == '68fc53cb9ed5c30a5ca6645e73de07bb6579e2adb84a57e5c60868b336b27abc'


def test_digest_changes_with_all_that_the_result_depends_on(folder: Path) -> None:
    def digest(**changes: object) -> str:
        study = _study(folder, **changes)
        return next(cell for cell in study.cells if cell.label == 'ours').digest

    first = digest()
    assert digest() == first
    assert digest(baseline='ours', seeds=[0, 1, 2]) == first
    methods = {**STUDY['methods'], 'ours': {'criterion': 'summed', 'round_to': 1}}
    own = folder / 'own.py'
    others = [
        digest(methods=methods),
        digest(weights='parent.pt'),
        digest(recalibrate=False),
        digest(finetune={'steps': 4}),
        digest(finetune={'steps': 4, 'learning_rate': 0.5}),
        digest(seeds=[7]),
        digest(budgets={'macs': [0.5]}),
    ]
    twice = {'criterion': 'summed', 'schedule': 'cascade', 'iterations': 2}
    for text in ('def score(subject): ...', 'def score(subject): return None'):
        own.write_text(text)
        for method in (
            {'criterion': str(own)},
            {'criterion': 'summed', 'allocation_by': str(own)},
            {**twice, 'then': {'criterion': str(own)}},
            {**twice, 'then': {'criterion': 'summed', 'allocation_by': str(own)}},
        ):
            others.append(digest(methods={'ours': method}, baseline='ours'))
    torch.save(blobs.network().state_dict(), folder / 'parent.pt')
    others.append(digest(weights='parent.pt'))
    assert len({first, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'speed': 3}, 'unknown field speed'),
        ({'task': None}, 'field task is missing'),
        ({'seeds': [0.5]}, 'field seeds'),
        ({'seeds': [0, 0]}, r'two cells are called ours-macs0\.6-seed0'),
        ({'budgets': [0.5]}, 'field budgets: must be a mapping'),
        ({'budgets': {'flops': 0.5}}, "unknown unit 'flops'"),
        ({'budgets': {'macs': [1.5]}}, r'must be in \(0, 1\], got 1.5'),
        ({'methods': ['ours']}, 'field methods: must be a mapping'),
        (
            {'methods': {'l2': {'criterion': 'l2'}}},
            r"l2\.criterion: unknown criterion 'l2'",
        ),
        ({'methods': {'a/b': {}}}, r'methods\.a/b: names are'),
        ({'methods': {'parent': {}}}, "not 'parent'"),
        ({'methods': {'l2': {'kind': 'scratch', 'of': 'x'}}}, r"l2\.of: no method 'x'"),
        (
            {
                'methods': {
                    'l2': {'kind': 'sparsity', 'criterion': 'random'},
                    'control': {'kind': 'scratch', 'of': 'l2'},
                }
            },
            'no widths of its own',
        ),
        ({'baseline': 'x'}, "baseline: no method 'x'"),
        ({'finetune': 40}, 'field finetune: must be a mapping'),
        ({'finetune': {'steps': 0}}, 'finetune: training budget'),
        ({'finetune': {'steps': 4, 'rate': 1}}, 'finetune: unknown field rate'),
        ({'weights': 'absent.pt'}, r'absent\.pt: cannot be read'),
    ],
)
def test_bad_files_name_file_and_field(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message) as caught:
        _study(tmp_path, **change).cells[0].digest  # noqa: B018
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize('text', ['[1, 2]', 'a: [', '3', ''])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.yaml').write_text(text)
    with pytest.raises(PruningError, match=r'x\.yaml'):
        read_study(tmp_path / 'x.yaml')


# Cells


def test_result_holds_figures_sizes_configuration_and_versions(folder: Path) -> None:
    study = _study(folder, weights='parent.pt', finetune={'steps': 6})
    cell = study.cell('ours-macs0.4-6steps-seed1')
    result = run_cell(cell, folder / 'results')
    data = json.loads((folder / 'results' / f'{cell.name}.json').read_text())
    assert Result.from_dict(data) == result
    assert data['digest'] == cell.digest
    assert data['configuration']['method'] == {'kind': 'channels', **STUDY['methods']['ours']}
    assert data['configuration']['weights_sha256'] == study.weights_sha256
    assert {'pruned_perception', 'torch', 'python'} <= set(data['versions'])
    assert 0.25 < result.shares['macs'] <= 0.4
    assert set(result.before) == set(result.after) == {'accuracy'}
    assert result.test is None
    assert result.pipeline.steps == 6
    assert result.cpu_seconds > 0
    assert cell.name in result.to_text()


def test_cells_made_elsewhere_have_the_same_figures(folder: Path) -> None:
    methods = {
        'ours': {**STUDY['methods']['ours'], 'distill': True},
        'control': {'kind': 'scratch', 'of': 'ours'},
    }
    changes = {'methods': methods, 'baseline': None, 'finetune': {'steps': 4}}
    study = _study(folder, weights='parent.pt', **changes)
    cells = [
        study.cell(name)
        for name in ('parent', 'ours-macs0.4-4steps-seed0', 'control-macs0.4-4steps-seed0')
    ]
    for cell in cells:
        wanted = run_cell(cell, folder / 'here')
        with OtherDevice():
            found = run_cell(cell, folder / 'there', compute=Compute(DEVICE))
            tested = run_cell(cell, folder / 'there', test=True, compute=Compute(DEVICE))
        assert (found.before, found.after, found.shares) == (
            wanted.before,
            wanted.after,
            wanted.shares,
        )
        assert found.versions == {**wanted.versions, 'device': str(DEVICE)}
        assert tested.test is not None


def test_results_are_kept_and_made_again_when_the_configuration_changed(folder: Path) -> None:
    results = folder / 'results'
    study = _study(folder, weights='parent.pt')
    cell = study.cell('l2-macs0.6-seed0')
    first = run_cell(cell, results)
    written = (results / f'{cell.name}.json').stat().st_mtime_ns
    assert run_cell(cell, results).finished_at == first.finished_at
    broken = _study(folder, weights='parent.pt', task='blobs:absent')
    with pytest.raises(PruningError, match='absent'):
        run_cell(broken.cell(cell.name), results)
    assert find_failure(results, cell).startswith("PruningError: task 'blobs:absent'")
    assert find_result(results, cell) == first
    changed = _study(folder, weights='parent.pt', recalibrate=False).cell(cell.name)
    assert find_result(results, changed) is None
    assert run_cell(changed, results).digest != first.digest
    assert find_failure(results, cell) is None
    assert (results / f'{cell.name}.json').stat().st_mtime_ns > written


def test_control_has_the_widths_and_the_time_of_parent_and_cell(folder: Path) -> None:
    methods = {
        'ours': {**STUDY['methods']['ours'], 'schedule': 'cascade', 'iterations': 2},
        'control': {'kind': 'scratch', 'of': 'ours', 'learning_rate': 0.05},
    }
    study = _study(
        folder, weights='parent.pt', methods=methods, baseline=None, finetune={'steps': 10}
    )
    results = folder / 'results'
    control = study.cell('control-macs0.4-10steps-seed0')
    with pytest.raises(PruningError, match=r'needs the result of ours-macs0\.4-10steps-seed0'):
        run_cell(control, results)
    other = run_cell(control.source, results)
    found = run_cell(control, results)
    assert found.pipeline.steps == 60 + 10  # the parent had 60
    assert found.shares == other.shares
    network = torch.load(next((results / control.name).glob('*/training.pt')), weights_only=True)[
        'weights'
    ]
    pruned = torch.load(next((results / other.cell).glob('*/2/training.pt')), weights_only=True)[
        'weights'
    ]
    assert {k: v.shape for k, v in network.items()} == {k: v.shape for k, v in pruned.items()}
    assert found.before == {}
    assert found.after['accuracy'] > 0.6


def test_interrupted_cells_end_exactly_where_unbroken_ones_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cascade that is taught and averaged, and its control from scratch."""
    calls, stops = [], set()

    def step(model: torch.nn.Module, batch: tuple) -> torch.Tensor:
        calls.append(1)
        if len(calls) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return blobs.step(model, batch)

    monkeypatch.setattr(
        blobs,
        'stopped',
        lambda: blobs.task(step=step, trained_for=TrainingBudget(steps=10)),
        raising=False,
    )
    methods = {
        'ours': {'criterion': 'absolute', 'round_to': 1, 'distill': True, **TWICE},
        'control': {'kind': 'scratch', 'of': 'ours'},
    }
    study = _study(
        folder,
        task='blobs:stopped',
        weights='parent.pt',
        methods=methods,
        budgets={'macs': 0.4},
        baseline=None,
        finetune={'steps': 8, 'learning_rate': 0.05, 'ema': 0.8, 'clip': 1.0},
    )
    for cell in (study.cell(f'{name}-macs0.4-8steps-seed1') for name in methods):
        whole = run_cell(cell, folder / 'whole')
        stops |= {len(calls) + 3, len(calls) + 7}
        for _ in range(2):
            with pytest.raises(Interrupted):
                run_cell(cell, folder / 'broken')
        broken = run_cell(cell, folder / 'broken')
        assert broken.after == whole.after
        one, other = (
            read_checkpoint(max((folder / results / cell.name).glob('**/training.pt')))
            for results in ('whole', 'broken')
        )
        assert other['steps'] == one['steps']
        for name, value in one['weights'].items():
            assert torch.equal(other['weights'][name], value), name


def test_test_data_are_looked_at_once_and_only_when_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def task() -> object:
        def test(net: torch.nn.Module) -> dict[str, float]:
            looks.append(net)
            return blobs.accuracy(net, 3)

        return blobs.task(test=test)

    monkeypatch.setattr(blobs, 'counted', task, raising=False)
    study = _study(folder, weights='parent.pt', task='blobs:counted', finetune={'steps': 6})
    results = folder / 'results'
    cell = study.cell('ours-macs0.6-6steps-seed0')
    with pytest.raises(PruningError, match='no result yet'):
        run_cell(cell, results, test=True)
    plain = run_cell(cell, results)
    assert not looks
    tested = run_cell(cell, results, test=True)
    assert len(looks) == 1
    assert run_cell(cell, results, test=True) == tested
    assert len(looks) == 1
    assert tested.test_at is not None
    # It is the network of the result that was looked at, and nothing else changed.
    assert blobs.accuracy(looks[0], 2) == plain.after
    assert dataclasses.replace(tested, test=None, test_at=None, test_outcomes=None) == plain


def test_parent_is_a_cell_of_its_own(folder: Path) -> None:
    study = _study(folder, weights='parent.pt')
    result = run_cell(study.cell('parent'), folder / 'results')
    assert result.shares == {'macs': 1.0, 'params': 1.0}
    assert result.after['accuracy'] > 0.8


def test_cell_in_use_is_refused(folder: Path) -> None:
    cell = _study(folder, weights='parent.pt').cell('parent')
    with locked(folder / 'results' / 'parent'), pytest.raises(FolderError, match='in use'):
        run_cell(cell, folder / 'results')


# Table and plot


def _written(
    results: Path,
    cell: Cell,
    after: float,
    test: float | None = None,
    outcomes: Outcomes | None = None,
) -> None:
    share = cell.budget.share if cell.budget else 1.0
    result = Result(
        cell=cell.name,
        label=cell.label,
        digest=cell.digest,
        configuration=cell.configuration,
        before={'accuracy': after - 0.2},
        after={'accuracy': after, 'other': 9.0},
        test=None if test is None else {'accuracy': test},
        test_at=None if test is None else 'today',
        shares={'macs': share, 'params': share / 2},
        pipeline=PipelineRecord(()),
        cpu_seconds=90.0,
        finished_at='today',
        versions={},
        outcomes=outcomes,
    )
    write_json(results / f'{cell.name}.json', result.to_dict())


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Study, Path]:
    """Write results whose differences are known by hand."""
    study = _study(tmp_path, seeds=[0, 1, 2], finetune=[None, {'steps': 40}])
    results = tmp_path / 'results'
    for cell in study.cells:
        base = 0.9 if cell.budget is None else cell.budget.share + 0.01 * cell.seed
        gain = {'ours': (0.02, 0.03, 0.04)[cell.seed], 'l2': 0.0, 'parent': 0.0}[cell.label]
        if cell.name != 'ours-macs0.4-seed2':
            _written(results, cell, base + gain, test=base if cell.label == 'l2' else None)
    return study, results


def test_table_has_means_and_intervals_paired_by_seed(filled: tuple[Study, Path]) -> None:
    table = make_table(*filled)
    assert table.missing == ('ours-macs0.4-seed2',)
    rows = {(row.method, row.budget, row.finetuning): row for row in table.rows}
    assert len(rows) == 1 + 2 * 2 * 2
    row = rows['ours', '0.6 of the MACs', '40 steps']
    assert row.seeds == (0, 1, 2)
    assert row.after.mean == pytest.approx(0.6 + 0.01 + 0.03)
    assert row.after.deviation == pytest.approx(0.02)
    assert row.before.mean == pytest.approx(row.after.mean - 0.2)
    # Student's t with two degrees of freedom: 4.303; the differences' deviation is 0.01.
    assert row.difference.mean == pytest.approx(0.03)
    assert row.difference.high - row.difference.mean == pytest.approx(
        4.3027 * 0.01 / 3**0.5, rel=1e-4
    )
    assert rows['ours', '0.4 of the MACs', '–'].difference.pairs == 2
    assert rows['l2', '0.6 of the MACs', '–'].difference is None
    assert rows['l2', '0.6 of the MACs', '–'].before is None
    # What is to be compared stands together.
    assert [key[0] for key in rows] == ['parent', *['ours', 'l2'] * 4]
    assert rows['parent', '–', '–'].after.deviation is None
    assert rows['l2', '0.6 of the MACs', '–'].test.mean == pytest.approx(0.61)
    assert row.test is None


def test_tables_are_the_same_however_long_it_took_unless_times_are_asked_for(
    filled: tuple[Study, Path],
) -> None:
    study, results = filled
    before, timed = make_table(study, results), make_table(study, results, times=True)
    for path in results.glob('*.json'):
        content = json.loads(path.read_text()) | {'cpu_seconds': 60.0, 'finished_at': 'later'}
        path.write_text(json.dumps(content))
    after, later = make_table(study, results), make_table(study, results, times=True)
    assert after.to_text() == before.to_text()
    assert after.to_dict() == before.to_dict()
    assert 'CPU min' not in after.to_text()
    assert ' 1.5 ' in timed.to_text()
    assert 'CPU min' in later.to_text()
    assert Table.from_dict(json.loads(json.dumps(later.to_dict()))) == later
    assert later.to_text() != timed.to_text()


def test_table_reads_as_markdown_and_as_plain_data(filled: tuple[Study, Path]) -> None:
    table = make_table(*filled)
    text = table.to_text()
    lines = text.splitlines()
    assert lines[0].startswith('| method ')
    assert lines[1].startswith('|---')
    assert len({line.count('|') for line in lines[:11]}) == 1
    assert '+0.03 [+0.00516, +0.0548], p ' in text
    assert 'p: of 4 differences, by Holm' in text
    assert lines[0].rstrip(' |').endswith('steps')
    assert '24 of 25 cells done' in text
    assert 'missing: ours-macs0.4-seed2' in text
    assert 'test accuracy' in lines[0]
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_differences_can_be_computed_from_the_table_and_are_adjusted_by_holm(
    filled: tuple[Study, Path],
) -> None:
    table = make_table(*filled)
    rows = {(row.method, row.budget, row.finetuning): row for row in table.rows}
    ours, l2 = (rows[name, '0.6 of the MACs', '40 steps'] for name in ('ours', 'l2'))
    again = paired_difference(
        [ours.values[seed] for seed in ours.values], [l2.values[seed] for seed in ours.values]
    )
    assert again == ours.difference
    places = [n for n, row in enumerate(table.rows) if row.difference is not None]
    raw = [table.rows[n].difference.p_value for n in places]
    assert [table.adjusted[n, 'difference'] for n in places] == holm(raw)
    assert ours.difference.p_value == pytest.approx(stats.ttest_1samp([0.02, 0.03, 0.04], 0).pvalue)


def test_the_seed_that_chose_is_left_out(filled: tuple[Study, Path]) -> None:
    study, results = filled
    table = make_table(dataclasses.replace(study, chosen_on=(0,)), results)
    rows = {(row.method, row.budget, row.finetuning): row for row in table.rows}
    row = rows['ours', '0.6 of the MACs', '40 steps']
    assert row.difference.pairs == 2
    assert row.difference.mean == pytest.approx(0.035)
    assert row.seeds == (0, 1, 2)
    assert rows['ours', '0.4 of the MACs', '–'].difference is None  # one fresh seed
    assert 'left out of the differences: 0' in table.to_text()


def test_cells_keep_what_each_image_became_and_differences_are_over_images_too(
    folder: Path,
) -> None:
    study = _study(
        folder, weights='parent.pt', budgets={'macs': 0.4}, finetune={'cpu_minutes': 0.005}
    )
    results = folder / 'results'
    for cell in study.cells:
        made = run_cell(cell, results)
        assert made.outcomes is not None
        assert made.outcomes.values.mean() == pytest.approx(made.after['accuracy'])
        assert len(made.outcomes.values) == 256
        tested = run_cell(cell, results, test=True)
        assert tested.test_outcomes.values.mean() == pytest.approx(tested.test['accuracy'])
    table = make_table(study, results, times=True)
    row = next(row for row in table.rows if row.method == 'ours')
    sides = [
        [
            find_result(results, study.cell(f'{name}-macs0.4-0.005min-seed{seed}')).outcomes.values
            for seed in (0, 1)
        ]
        for name in ('ours', 'l2')
    ]
    assert row.difference == crossed_difference(*sides)
    assert row.test_difference.images == 256
    assert row.steps > 0
    assert row.cpu_seconds > 0
    assert 'Intervals are over seeds and 256 images' in table.to_text()
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_a_single_seed_has_an_interval_over_images_and_other_images_are_refused(
    tmp_path: Path,
) -> None:
    study = _study(tmp_path, seeds=[0], budgets={'macs': 0.4})
    results = tmp_path / 'results'
    for name, right in (('ours', [1.0, 1, 0, 1]), ('l2', [1.0, 0, 0, 1])):
        cell = study.cell(f'{name}-macs0.4-seed0')
        _written(results, cell, 0.5, outcomes=Outcomes.of(np.array(right)))
    table = make_table(study, results)
    (row,) = [row for row in table.rows if row.method == 'ours']
    assert (row.difference.pairs, row.difference.images) == (1, 4)
    assert 'over 4 images (or groups of frames), of these very networks' in table.to_text()
    cell = study.cell('ours-macs0.4-seed0')
    _written(results, cell, 0.5, outcomes=Outcomes.of(np.ones(5)))
    with pytest.raises(PruningError, match=r'ours-macs0\.4-seed0: its outcomes are of another'):
        make_table(study, results)


def test_tables_of_before_are_read_and_adjusted() -> None:
    data = json.loads(Path('studies/results/levers.json').read_text())
    table = Table.from_dict(data)
    assert table.rows[1].values == {}
    assert table.rows[1].steps is None
    assert table.adjusted
    assert all(0 <= p <= 1 for p in table.adjusted.values())


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_plot_names_every_method_and_panel(
    filled: tuple[Study, Path], tmp_path: Path, suffix: str
) -> None:
    pytest.importorskip('matplotlib')
    path = tmp_path / 'pictures' / f'plot.{suffix}'
    draw(make_table(*filled), path)
    content = path.read_bytes()
    if suffix == 'png':
        assert content.startswith(b'\x89PNG')
        return
    for text in (
        'ours',
        'l2',
        'parent',
        'not fine-tuned',
        'fine-tuned: 40 steps',
        'fine-tuned: 40 steps; test data',
        'MACs left',
        'accuracy',
    ):
        assert text in content.decode()


def test_plot_of_one_budget_has_a_row_per_method(
    filled: tuple[Study, Path], tmp_path: Path
) -> None:
    pytest.importorskip('matplotlib')
    table = make_table(*filled)
    budget = table.rows[1].budget
    rows = tuple(row for row in table.rows if row.budget in ('–', budget))
    draw(dataclasses.replace(table, rows=rows), tmp_path / 'plot.svg')
    content = (tmp_path / 'plot.svg').read_text(encoding='utf-8')
    for text in ('>ours<', '>l2<', '>parent<', 'fine-tuned: 40 steps', f'accuracy, {budget}'):
        assert text in content
    assert 'MACs left' not in content


def test_plot_of_nothing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib')
    table = make_table(_study(tmp_path), tmp_path / 'results')
    assert table.rows == ()
    with pytest.raises(PruningError, match='no results to draw'):
        draw(table, tmp_path / 'plot.png')
    with pytest.raises(PruningError, match=r'plot\.jpg: a plot is one of'):
        draw(table, tmp_path / 'plot.jpg')
