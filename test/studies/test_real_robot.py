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

"""A choice is an experiment of its own, and is compared by venue."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception.training.detector.experiment import experiment_from
from studies import real_robot

STUDIES = {
    name: yaml.safe_load((Path(real_robot.__file__).parent / f'{name}.yaml').read_text())
    for name in ('real_robot', 'real_hall')
}
STUDY = STUDIES['real_robot']


@pytest.mark.parametrize(
    ('study', 'choice'),
    [(name, choice) for name, each in STUDIES.items() for choice in each['choices']],
)
def test_every_choice_is_an_experiment(study: str, choice: str) -> None:
    for fold in STUDIES[study]['folds']:
        experiment = experiment_from(real_robot.experiment_of(STUDIES[study], choice, fold))
        assert experiment.name == f'{fold}-{choice.replace(" ", "-")}'
        assert experiment.budget is not None
        assert experiment.budget.steps


@pytest.mark.parametrize('choice', list(STUDY['choices']))
def test_a_choice_changes_what_the_first_one_has(choice: str) -> None:
    first = real_robot.experiment_of(STUDY, 'first', 'a')
    assert real_robot.experiment_of(STUDY, choice, 'a').keys() <= first.keys()


def test_what_is_cut_from_another_choice_is_of_the_same_fold() -> None:
    study = STUDIES['real_hall']
    for fold in study['folds']:
        half = experiment_from(real_robot.experiment_of(study, 'half', fold))
        control = experiment_from(real_robot.experiment_of(study, 'half from random weights', fold))
        assert (half.parent, half.architecture) == (f'{fold}-first', None)
        assert (control.control_of, control.distill) == (f'{fold}-half', None)
        assert half.data == control.data


@pytest.mark.parametrize('study', STUDIES.values(), ids=STUDIES)
def test_folds_judge_every_venue_once(study: dict) -> None:
    days = [day for each in study['venues'].values() for day in each]
    judged = [set(days) - set(fold['train']) for fold in study['folds'].values()]
    assert sorted(day for each in judged for day in each) == sorted(days)
    for venue in study['venues'].values():  # no tournament is in both parts
        assert sum(bool(set(venue) & each) for each in judged) == 1


def test_a_choice_is_compared_with_the_first_one_by_venue() -> None:
    def cell(venues: list[str], plus: float) -> dict:
        ap50 = {venue: dict.fromkeys(STUDY['judged'], 0.5 + plus) for venue in venues}
        return {'steps': 240, 'cpu_minutes': 8.0, 'ap50': ap50}

    cells = {
        'a/first': cell(['2019-06', '2024-06'], 0),
        'b/first': cell(['2024-02', '2024-07'], 0),
        'a/no mosaic': cell(['2019-06', '2024-06'], 0.02),
        'b/no mosaic': cell(['2024-02', '2024-07'], 0.04),
        'a/wider scales': cell(['2019-06', '2024-06'], 0.1),  # the other fold is missing
    }
    lines = real_robot.table(STUDY, cells).splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:]] == ['first', 'no mosaic']
    assert '+3.0 [+1.2, +4.8]' in lines[3]
