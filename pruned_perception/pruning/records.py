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

"""Records: dataclasses as plain data, which JSON, checkpoints and manifests hold, and back.

A record is a mapping of its fields, in their order. How each is read, its type says: records in
records, tuples as lists, mappings by texts, bytes in base64, tensors as nested lists in double
precision. Numbers stay as they are, so that an integer where a number is asked for is written
again as an integer; of other types nothing is known, and they pass.

Where files have another form than the fields, the class says so with `_written` and `_given`, and
names in `_derived` what is written beside the fields, to be compared when it is read.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import reprlib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pruned_perception.pruning.errors import PruningError

T = TypeVar('T')

_WORDS: dict[Any, str] = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a number',
    str: 'a text',
    dict: 'a mapping',
    Mapping: 'a mapping',
}
_MANY: dict[Any, str] = {int: 'integers', float: 'numbers', str: 'texts'}


@dataclasses.dataclass(frozen=True)
class CalibrationRecord:
    """What a calibration set was: its size and the SHA-256 of its inputs, in their order."""

    images: int
    sha256: str


class Written:
    """A dataclass that is written as plain data; readers of users' files read it."""

    _derived: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return to_dict(self)

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the form in files of fields that are plain already."""
        return data


class Record(Written):
    """A dataclass that goes to plain data and back."""

    @classmethod
    def from_dict(cls: type[T], data: Any) -> T:
        """Read what `to_dict` wrote; raise PruningError naming the field where it is not that."""
        return from_dict(cls, data)

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the plain fields of the form in files."""
        return data


def to_dict(record: Any) -> dict[str, Any]:
    """Return a dataclass as plain data, which shares nothing with it that can be changed."""
    data = {each.name: _plain(getattr(record, each.name)) for each in dataclasses.fields(record)}
    if not isinstance(record, Written):
        return data
    return record._written(data | {name: getattr(record, name) for name in record._derived})


def from_dict(kind: type[T], data: Any, where: str | None = None) -> T:
    """Return the dataclass that plain data describe.

    Args:
        kind: its class.
        data: a mapping, of a file or of `to_dict`.
        where: what stands before a field's name in errors, like 'methods.ours.'; by default the
            name of the class.

    Raises:
        PruningError: something else than a mapping, a field that is missing or unknown, or one of
            a wrong type or range; it names the field and what there is.
    """
    where = f'{kind.__name__}.' if where is None else where
    path = where.rstrip('.')
    _check_mapping(data, path)
    try:
        given = kind._given(data) if issubclass(kind, Record) else data
    except PruningError as error:
        raise _placed(error, path) from error
    derived = kind._derived if issubclass(kind, Written) else ()
    check_known(given, (*names_of(kind), *derived), where)
    if missing := [name for name in (*_needed(kind), *derived) if name not in given]:
        raise PruningError(f'field {where}{missing[0]} is missing')
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {
        name: _read(hints[name], value, f'{where}{name}')
        for name, value in given.items()
        if name not in derived
    }
    try:
        record = kind(**values)
    except PruningError as error:
        if str(error).partition(':')[0] in names_of(kind):
            raise PruningError(f'field {where}{error}') from error
        raise _placed(error, path) from error
    for name in derived:
        if given[name] != getattr(record, name):
            raise PruningError(f'field {where}{name}: does not fit the other fields')
    return record


def changed(record: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a record's plain data those fields that differ from their defaults."""
    found = {}
    for each in dataclasses.fields(record):
        default = each.default_factory() if callable(each.default_factory) else each.default
        if getattr(record, each.name) != default:
            found[each.name] = data[each.name]
    return found


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(each.name for each in dataclasses.fields(kind))


def check_known(data: Any, known: Iterable[str], where: str = '') -> None:
    """Raise PruningError unless `data` is a mapping of `known` names."""
    _check_mapping(data, where.rstrip('.'))
    known = tuple(known)
    for name in data:
        if name not in known:
            raise PruningError(f'unknown field {where}{name}; known: {", ".join(sorted(known))}')


def _check_mapping(data: Any, path: str) -> None:
    if not isinstance(data, Mapping):
        raise PruningError(f'field {path or "(all)"}: must be a mapping, got {reprlib.repr(data)}')


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if _is_tensor(type(value)):
        return value.tolist()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _needed(kind: type) -> tuple[str, ...]:
    """Return the names of the fields without a default."""
    return tuple(
        each.name
        for each in dataclasses.fields(kind)
        if each.default is each.default_factory is dataclasses.MISSING
    )


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(hint: Any, value: Any, path: str) -> Any:
    """Return the value of a type that plain data stand for."""
    kind: Any = typing.get_origin(hint) or hint
    arguments = typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return _read_union(arguments, value, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value, f'{path}.')
    if kind is tuple:
        return _read_tuple(hint, value, path)
    if kind is bytes or _is_tensor(kind):
        return _read_array(kind, value, path)
    if kind not in _WORDS:
        return value
    if not _fits(kind, value):
        raise _wrong(hint, value, path)
    if kind in (dict, Mapping):
        item = arguments[1] if arguments else Any
        return {name: _read(item, each, f'{path}.{name}') for name, each in value.items()}
    return value


def _read_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    """Return the value by the first type that it fits."""
    some = [each for each in options if each is not types.NoneType]
    if value is None and len(some) < len(options):
        return None
    for option in some[:-1]:
        try:
            return _read(option, value, path)
        except PruningError:
            continue
    return _read(some[-1], value, path)


def _read_tuple(hint: Any, value: Any, path: str) -> tuple[Any, ...]:
    items = typing.get_args(hint)
    if not isinstance(value, list | tuple):
        raise _wrong(hint, value, path)
    if items[-1] is ...:
        items = (items[0],) * len(value)
    if len(value) != len(items):
        raise PruningError(
            f'field {path}: must have {len(items)} entries, got {reprlib.repr(value)}'
        )
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_read(item, each, f'{path}[{index}]') for index, (item, each) in pairs)


def _is_tensor(kind: Any) -> bool:
    """Whether a type is a tensor's, of which there are none before PyTorch is imported."""
    torch = sys.modules.get('torch')
    return torch is not None and isinstance(kind, type) and issubclass(kind, torch.Tensor)


def _read_array(kind: type, value: Any, path: str) -> Any:
    """Return a tensor (double) of nested lists, or bytes of base64."""
    try:
        if kind is bytes:
            return base64.b64decode(value, validate=True)
        torch = sys.modules['torch']
        return torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        what = 'bytes in base64' if kind is bytes else 'nested lists of numbers'
        raise PruningError(f'field {path}: must be {what}, got {reprlib.repr(value)}') from error


def _fits(kind: Any, value: Any) -> bool:
    if kind in (int, float):
        numbers = int if kind is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, Mapping if kind is dict else kind)


def _wrong(hint: Any, value: Any, path: str) -> PruningError:
    kind = typing.get_origin(hint) or hint
    if kind is tuple:
        many = _MANY.get(typing.get_args(hint)[0])
        words = f'a list of {many}' if many else 'a list'
    else:
        words = _WORDS[kind]
    return PruningError(f'field {path}: must be {words}, got {reprlib.repr(value)}')


def _placed(error: PruningError, path: str) -> PruningError:
    return PruningError(f'field {path}: {error}' if path else str(error))
