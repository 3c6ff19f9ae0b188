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

"""The table of parameters, what is written from it, and what its rows accept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pruned_perception.nodes import parameters as table
from pruned_perception.nodes.parameters import (
    ECHO_PARAMETERS,
    PERCEPTION_PARAMETERS,
    Parameter,
    ParameterError,
    check,
    class_ids,
)

ROOT = Path(__file__).resolve().parents[2]
ROWS = {row.name: row for row in PERCEPTION_PARAMETERS}


def test_the_parameter_file_is_that_of_the_table() -> None:
    file = ROOT / 'config' / 'perception.yaml'
    assert file.read_text(encoding='utf-8') == table.as_yaml(), (
        'run python -m pruned_perception.nodes.parameters'
    )


def test_the_parameter_file_holds_every_default() -> None:
    content = yaml.safe_load(table.as_yaml())
    given = content['/**/perception_node']['ros__parameters']
    assert given == {row.name: row.default for row in PERCEPTION_PARAMETERS}
    assert [type(value) for value in given.values()] == [
        type(row.default) for row in PERCEPTION_PARAMETERS
    ]


def test_the_documentation_is_that_of_the_table() -> None:
    page = (ROOT / 'docs' / 'node.md').read_text(encoding='utf-8')
    assert table.with_table(page) == page, 'run python -m pruned_perception.nodes.parameters'
    for row in PERCEPTION_PARAMETERS:
        assert f'| `{row.name}` |' in page


@pytest.mark.parametrize(
    'row', [*PERCEPTION_PARAMETERS, *ECHO_PARAMETERS], ids=lambda row: row.name
)
def test_every_default_is_accepted_by_its_own_row(row: Parameter) -> None:
    assert row.coerce(row.default) == row.default
    assert row.text.endswith('.')


def test_names_are_unique() -> None:
    assert len(ROWS) == len(PERCEPTION_PARAMETERS)


@pytest.mark.parametrize(
    ('name', 'given', 'kept'),
    [
        ('max_age_ms', 100, 100.0),
        ('score_threshold', 1, 1.0),
        ('score_threshold', -1, -1.0),
        ('score_threshold', 0.0, 0.0),
        ('classes', [], []),
        ('classes', ('person',), ['person']),
        ('threads', 2, 2),
    ],
)
def test_values_are_taken_in_the_tables_type(name: str, given: object, kept: object) -> None:
    value = ROWS[name].coerce(given)
    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ('name', 'given', 'reason'),
    [
        ('score_threshold', 1.01, '-1 … 1'),
        ('score_threshold', -0.5, 'neither in 0 … 1'),
        ('score_threshold', float('nan'), 'range'),
        ('score_threshold', True, 'double'),
        ('threads', 0, '1 … 256'),
        ('threads', 1.5, 'integer'),
        ('autostart', 1, 'bool'),
        ('classes', 'person', 'string_array'),
        ('classes', [1], 'string_array'),
        ('classes', None, 'string_array'),
        ('image_transport', 'theora', 'raw, compressed'),
        ('model', 3, 'string'),
    ],
)
def test_a_refusal_names_parameter_value_and_way_out(name: str, given: object, reason: str) -> None:
    with pytest.raises(ParameterError) as error:
        ROWS[name].coerce(given)
    assert name in str(error.value)
    assert repr(given) in str(error.value)
    assert reason in str(error.value)


def test_what_may_change_when() -> None:
    assert check(PERCEPTION_PARAMETERS, {'max_age_ms': 5, 'use_sim_time': True}, active=True) == {
        'max_age_ms': 5.0
    }
    assert check(PERCEPTION_PARAMETERS, {'model': 'm'}, active=False) == {'model': 'm'}
    with pytest.raises(ParameterError, match='deactivate'):
        check(PERCEPTION_PARAMETERS, {'model': 'm'}, active=True)
    with pytest.raises(ParameterError, match='restart'):
        check(PERCEPTION_PARAMETERS, {'autostart': False}, active=False)


def test_classes_by_name() -> None:
    labels = ['person', 'box', 'cone']
    assert class_ids([''], labels) is None
    assert class_ids([], labels) is None
    assert class_ids(['cone', 'person'], labels) == frozenset({0, 2})
    with pytest.raises(
        ParameterError, match="'horse' is no label of the model; it has person, box"
    ):
        class_ids(['person', 'horse'], labels)
