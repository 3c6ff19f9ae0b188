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

"""Records as plain data and back: what is written, what is read, and what errors name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pruned_perception.pruning import Plan, PruningError
from pruned_perception.pruning.certificate import read_certificate
from pruned_perception.pruning.records import Record, changed, from_dict, to_dict
from pruned_perception.training.detector.architecture import Architecture

MANIFESTS = sorted((Path(__file__).resolve().parents[2] / 'models').glob('*/*/manifest.json'))


@dataclass(frozen=True)
class Inner:
    name: str
    pair: tuple[str, float]
    many: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    inners: tuple[Inner, ...]
    named: dict[str, Inner]
    number: float
    count: int | None
    yes: bool
    mask: bytes
    table: dict[str, tuple[float, ...]] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)
    either: int | str = 0
    kind: ClassVar[str] = 'outer'
    _derived: ClassVar = ('total',)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise PruningError(f'number: must be ≥ 0, got {self.number}')

    @property
    def total(self) -> float:
        return self.number + len(self.inners)


INNER = Inner('a', ('b', 0.5), (3, 4))
OUTER = Outer(INNER, (INNER, INNER), {'x': INNER}, 2, None, True, b'\0\xff', {'y': (0.5, 1)})
PLAIN = {'name': 'a', 'pair': ['b', 0.5], 'many': [3, 4]}


@dataclass(frozen=True, eq=False)
class Holder:
    values: Tensor


@dataclass(frozen=True)
class Renamed(Record):
    """Calls its field otherwise in files."""

    own: int

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {'theirs': data['own']}

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {'own': data['theirs']}


@pytest.mark.parametrize(
    ('read', 'place'),
    [
        (Plan.from_dict, ('pruning',)),
        (read_certificate, ('certificate',)),
        (Architecture.from_dict, ('provenance', 'architecture')),
    ],
)
@pytest.mark.parametrize('path', MANIFESTS, ids=lambda path: '-'.join(path.parts[-3:-1]))
def test_records_of_shipped_models_are_written_again_byte_by_byte(
    path: Path, read: Any, place: tuple[str, ...]
) -> None:
    data = json.loads(path.read_text(encoding='utf-8'))
    for name in place:
        data = data[name]
    if data is None:  # the dense model was not pruned
        assert path.parent.name in ('dense', 'dense-int8')
        return
    record = read(data)
    assert json.dumps(record.to_dict()) == json.dumps(data)
    assert read(record.to_dict()) == record


def test_there_are_shipped_models() -> None:
    assert len(MANIFESTS) >= 4


def test_plain_data_have_the_fields_in_their_order() -> None:
    assert list(OUTER.to_dict().items()) == [
        ('inner', PLAIN),
        ('inners', [PLAIN, PLAIN]),
        ('named', {'x': PLAIN}),
        ('number', 2),
        ('count', None),
        ('yes', True),
        ('mask', 'AP8='),
        ('table', {'y': [0.5, 1]}),
        ('free', {}),
        ('either', 0),
        ('total', 4),
    ]


def test_what_is_written_is_read_and_written_again_the_same() -> None:
    text = json.dumps(OUTER.to_dict())
    again = Outer.from_dict(json.loads(text))
    assert again == OUTER
    assert json.dumps(again.to_dict()) == text
    assert isinstance(again.number, int)  # 2, not 2.0


def test_nothing_is_shared_with_the_record() -> None:
    free = {'a': [1, {'b': 2}]}
    record = Outer(INNER, (), {}, 0.0, 1, False, b'', free=free)
    data = record.to_dict()
    data['free']['a'][1]['b'] = 3
    assert free == {'a': [1, {'b': 2}]}
    assert data['free'] == {'a': [1, {'b': 3}]}


def test_fields_with_defaults_may_be_left_out() -> None:
    data = {'name': 'a', 'pair': ['b', 1]}
    assert from_dict(Inner, data) == Inner('a', ('b', 1))


def test_form_in_files_may_be_another() -> None:
    assert Renamed(3).to_dict() == {'theirs': 3}
    assert Renamed.from_dict({'theirs': 3}) == Renamed(3)


@given(st.lists(st.floats(allow_nan=False), max_size=8))
def test_tensors_survive_to_the_last_digit(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    again = from_dict(Holder, json.loads(json.dumps(to_dict(Holder(tensor)))))
    assert again.values.dtype == torch.float64
    assert torch.equal(again.values, tensor)


def test_numbers_that_are_not_finite_pass() -> None:
    data = json.loads(json.dumps({**OUTER.to_dict(), 'table': {'y': [math.inf, math.nan]}}))
    table = Outer.from_dict(data).table
    assert table['y'][0] == math.inf
    assert math.isnan(table['y'][1])


def test_first_type_that_fits_is_taken() -> None:
    for value in (3, 'three'):
        assert Outer.from_dict({**OUTER.to_dict(), 'either': value}).either == value


def test_only_what_differs_from_the_defaults() -> None:
    for record, names in (
        (Inner('a', ('b', 1)), ['name', 'pair']),
        (Inner('a', ('b', 1), (2,)), ['name', 'pair', 'many']),
    ):
        assert list(changed(record, to_dict(record))) == names


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'inner': 3}, 'field Outer.inner: must be a mapping, got 3'),
        ({'inner': {**PLAIN, 'name': 3}}, 'field Outer.inner.name: must be a text, got 3'),
        ({'inner': {'name': 'a'}}, 'field Outer.inner.pair is missing'),
        ({'inners': 'ab'}, "field Outer.inners: must be a list, got 'ab'"),
        ({'inners': [PLAIN, 3]}, r'field Outer.inners\[1\]: must be a mapping, got 3'),
        (
            {'inners': [{**PLAIN, 'many': [3, 1.5]}]},
            r'field Outer.inners\[0\].many\[1\]: must be an integer, got 1.5',
        ),
        ({'inners': [{**PLAIN, 'many': 3}]}, r'inners\[0\].many: must be a list of integers'),
        ({'named': {'x': {**PLAIN, 'pair': ['b']}}}, 'field Outer.named.x.pair: must have 2 ent'),
        ({'named': {'x': {**PLAIN, 'other': 1}}}, 'unknown field Outer.named.x.other; known: '),
        ({'number': True}, 'field Outer.number: must be a number, got True'),
        ({'number': '2'}, "field Outer.number: must be a number, got '2'"),
        ({'number': -1}, 'field Outer.number: must be ≥ 0, got -1'),
        ({'count': 1.0}, 'field Outer.count: must be an integer, got 1.0'),
        ({'yes': 1}, 'field Outer.yes: must be true or false, got 1'),
        ({'mask': 'not base64'}, "field Outer.mask: must be bytes in base64, got 'not base64'"),
        ({'mask': 3}, 'field Outer.mask: must be bytes in base64, got 3'),
        ({'free': []}, r'field Outer.free: must be a mapping, got \[\]'),
        ({'either': 1.5}, 'field Outer.either: must be a text, got 1.5'),
        ({'total': 5}, 'field Outer.total: does not fit the other fields'),
    ],
)
def test_errors_name_the_field_and_what_there_is(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Outer.from_dict({**OUTER.to_dict(), **change})


def test_derived_values_must_be_there() -> None:
    data = OUTER.to_dict()
    del data['total']
    with pytest.raises(PruningError, match=r'field Outer\.total is missing'):
        Outer.from_dict(data)


def test_caller_says_where_a_record_stands() -> None:
    with pytest.raises(PruningError, match=r'^field file\.inner\.name: must be a text'):
        from_dict(Inner, {**PLAIN, 'name': 3}, 'file.inner.')
    with pytest.raises(PruningError, match=r'^field name: must be a text'):
        from_dict(Inner, {**PLAIN, 'name': 3}, '')


def test_long_values_are_quoted_in_short() -> None:
    with pytest.raises(PruningError) as caught:
        Outer.from_dict({**OUTER.to_dict(), 'number': list(range(100_000))})
    assert len(str(caught.value)) < 200
