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
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml

from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.detector.experiment import (
    ExperimentError,
    experiment_from,
    read_experiment,
    recipe_of,
)
from pruned_perception.training.detector.family import Member, experiments_of, read_family_spec
from pruned_perception.training.detector.runs import Folders
from pruned_perception.training.recipe import Recipe

CUTS = {'macs': 0.5, 'schedule': 'cascade', 'iterations': 2}
CHILD = {'architecture': None, 'parent': 'other', 'prune': CUTS}
EXPERIMENTS = Path(__file__).resolve().parents[3] / 'config' / 'experiments'


def test_the_shipped_family_and_its_experiments_are_valid() -> None:
    spec = read_family_spec(EXPERIMENTS / 'warehouse.yaml')
    folders = Folders(EXPERIMENTS, Path(), Path())
    assert spec.data['test'].frames >= 1000
    for index, member in enumerate(spec.members):
        experiment = folders.experiment(member.experiment)
        assert (experiment.architecture is not None) == (index == 0)
        if index:
            # Made in this order, so a parent has to come before its children.
            assert experiment.parent in [each.experiment for each in spec.members[:index]]
            for control in member.controls.values():
                assert folders.experiment(control).control_of == member.experiment
    assert sum(member.control is not None for member in spec.members) >= 3


def test_the_family_of_real_frames_and_its_experiments_are_valid() -> None:
    spec = read_family_spec(EXPERIMENTS / 'robocup.yaml')
    folders = Folders(EXPERIMENTS, Path(), Path('nowhere'))
    names = experiments_of(spec, folders, controls=True)
    dense, *others = [folders.experiment(name) for name in names]
    assert dense.pretrained == 'warehouse'
    assert len(others) >= 3
    pruned = [each for each in others if each.control_of is None]
    assert all(each.prune is not None and each.prune.table for each in pruned)
    assert spec.evaluated_on == 'holdout'


def test_parents_come_first_but_of_what_is_finished_none(tmp_path: Path) -> None:
    for name, parent in {'c': 'b', 'b': 'a', 'a': None, 'x': 'y', 'y': 'x'}.items():
        fields: dict = {} if parent is None else CHILD | {'parent': parent}
        (tmp_path / f'{name}.yaml').write_text(yaml.safe_dump(tiny.experiment_data(name, **fields)))
    folders = Folders(tmp_path, tmp_path, tmp_path / 'runs')
    spec = replace(
        read_family_spec(EXPERIMENTS / 'warehouse.yaml'), members=(Member('dense', 'c'),)
    )
    assert experiments_of(spec, folders, controls=False) == ['a', 'b', 'c']
    finished = folders.final('b')
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert experiments_of(spec, folders, controls=False) == ['b', 'c']
    with pytest.raises(ExperimentError, match='x is its own ancestor'):
        experiments_of(replace(spec, members=(Member('dense', 'x'),)), folders, controls=False)


def test_cpu_time_or_steps_measure_a_budget() -> None:
    assert TrainingBudget(cpu_minutes=2).fraction(30.0, 999) == 0.25
    assert TrainingBudget(steps=10).fraction(1e9, 5) == 0.5
    assert TrainingBudget(steps=10).fraction(0.0, 50) == 1


def test_parts_of_a_budget_make_up_the_whole() -> None:
    assert TrainingBudget(cpu_minutes=6).divided(4) == TrainingBudget(cpu_minutes=1.5)
    assert TrainingBudget(steps=10).divided(3) == TrainingBudget(steps=4)
    assert TrainingBudget(steps=10).divided(1) == TrainingBudget(steps=10)


def test_recipes_of_the_shipped_members_are_read() -> None:
    manifests = sorted((EXPERIMENTS.parents[1] / 'models').glob('*/*/manifest.json'))
    assert len(manifests) >= 4
    for path in manifests:
        written = json.loads(path.read_text(encoding='utf-8'))['provenance']['experiment']
        recipe = recipe_of(written)
        assert recipe.optimiser == 'adamw'
        assert recipe.learning_rate == written['optimiser']['learning_rate']
        assert (recipe.batch, recipe.ema, recipe.clip) == (written['batch'], written['ema'], 10.0)
        assert [phase.until for phase in recipe.phases] == [p['until'] for p in written['phases']]


def test_learning_rate_rises_then_falls() -> None:
    recipe = Recipe(learning_rate=1.0, warm_up=0.1, final=0.05)
    rates = [recipe.rate(step / 100) for step in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] > 0
    assert rates[10] == 1
    assert rates[-1] == pytest.approx(0.05)


@pytest.mark.parametrize('fields', [{}, CHILD | {'distill': {'weight': 2}}])
def test_what_is_written_can_be_read_again(fields: dict) -> None:
    experiment = tiny.experiment(**fields)
    assert experiment_from(experiment.to_dict()) == experiment


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'speed': 3}, 'unknown field speed'),
        ({'budget': {'hours': 3}}, r'unknown field budget\.hours'),
        ({'budget': {'steps': 3, 'cpu_minutes': 1}}, 'exactly one of cpu_minutes, steps'),
        ({'budget': {'steps': 0}}, 'field budget'),
        ({'budget': None}, 'field budget: needed'),
        ({'architecture': None}, 'exactly one of the fields architecture'),
        ({'parent': 'other', 'prune': {'macs': 0.5}}, 'exactly one of the fields architecture'),
        ({'architecture': None, 'parent': 'other'}, 'parent and prune belong together'),
        (CHILD | {'prune': {'round_to': 8}}, 'prune: needs exactly one of macs, params and ms'),
        (CHILD | {'prune': {'macs': 0.5, 'block': 8}}, r'prune\.block: is called round_to now'),
        (CHILD | {'prune': CUTS | {'distill': True}}, r'prune\.distill: stands beside prune'),
        (CHILD | {'prune': {'macs': 0.5, 'method': 'alds'}}, r'prune\.kind: our detector is'),
        (CHILD | {'prune': {'ms': 5}}, r'prune\.ms and prune\.table belong together'),
        (CHILD | {'prune': CUTS | {'table': 't.json'}}, r'prune\.table belong together'),
        (CHILD | {'prune': {'ms': 5, 'table': 'none.json'}}, r'none\.json'),
        (CHILD | {'prune': {'macs': 1.5}}, r'prune\.macs'),
        (CHILD | {'prune': {'macs': 'half'}}, r'prune\.macs'),
        (CHILD | {'prune': CUTS | {'iterations': 0}}, r'prune\.iterations'),
        (CHILD | {'prune': CUTS | {'iterations': 1.5}}, r'prune\.iterations'),
        ({'distill': {'weight': 1}}, 'field distill: needs the field parent'),
        (CHILD | {'distill': {'weight': 0}}, r'distill\.weight'),
        (CHILD | {'distill': 2}, 'field distill: must be a mapping'),
        (CHILD | {'distill': {'weight': 1, 'heat': 2}}, r'unknown field distill\.heat'),
        ({'phases': []}, 'field phases'),
        ({'phases': [{'until': 0.5, 'size': [64, 64], 'scale': [1, 1]}]}, 'until must rise to 1'),
        ({'phases': [{'until': 1, 'size': [64, 64], 'scale': [2, 1]}]}, r'phases\[0\]\.scale'),
        (
            {'phases': [{'until': 1, 'size': [64], 'scale': [1, 1]}]},
            r'phases\[0\]\.size: must have',
        ),
        ({'phases': [{'until': 1, 'size': [64, 64]}]}, r'phases\[0\]\.scale is missing'),
        ({'architecture': {'neck': 64}}, r'field architecture\.\w+ is missing'),
        ({'data': {'train': 'x'}}, r'data\.validation'),
        ({'batch': 0}, 'field batch'),
        ({'precision': 'int8'}, 'field precision: there are float32, bfloat16, float16'),
        ({'optimiser': {'rate': 1}}, r'unknown field optimiser\.rate'),
    ],
)
def test_bad_files_name_file_and_field(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / 'tiny.yaml'
    path.write_text(yaml.safe_dump(tiny.experiment_data(**change)))
    with pytest.raises(ExperimentError, match=message) as caught:
        read_experiment(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('text', ['[1, 2]', 'a: [', '3'])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'x.yaml'
    path.write_text(text)
    with pytest.raises(ExperimentError, match=r'x\.yaml'):
        read_experiment(path)
