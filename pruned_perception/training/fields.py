"""From plain data, as YAML files and the command line give them, to a dataclass: one reader.

It knows fields and types from the dataclass; ranges are checked by the dataclass itself, whose
errors begin with the field's name.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pruned_perception.pruning.errors import PruningError

T = TypeVar('T')

# What fields were called in earlier files → their name now.
RENAMED = {'block': 'round_to', 'keep': 'ignored_layers'}

_WORDS = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a number',
    str: 'a text',
    tuple: 'a list of texts',
    Mapping: 'a mapping',
}


def read(kind: type[T], data: Any, where: str = '') -> T:
    """Return `kind(**data)`, checked.

    Args:
        kind: a dataclass of plain fields: texts, numbers, lists of texts, mappings.
        data: a mapping.
        where: what stands before a field's name in errors, like 'methods.ours.'.

    Raises:
        PruningError: something else than a mapping, an unknown field, or a wrong type or range;
            it names the field and what there is.
    """
    check_known(data, names_of(kind), where)
    hints = typing.get_type_hints(kind)
    for name, value in data.items():
        options = typing.get_args(hints[name]) if _is_union(hints[name]) else (hints[name],)
        if not any(_fits(value, option) for option in options):
            known = [_WORDS.get(typing.get_origin(each) or each) for each in options]
            words = ' or '.join(each for each in known if each)
            raise PruningError(f'field {where}{name}: must be {words}, got {value!r}')
    missing = [
        each.name
        for each in dataclasses.fields(kind)  # type: ignore[arg-type]
        if each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
        and each.name not in data
    ]
    if missing:
        raise PruningError(f'field {where}{missing[0]} is missing')
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    try:
        return kind(**values)
    except PruningError as error:
        raise PruningError(f'field {where}{error}') from error


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(each.name for each in dataclasses.fields(kind))


def check_known(data: Any, known: Iterable[str], where: str = '') -> None:
    """Raise PruningError unless `data` is a mapping of `known` names."""
    if not isinstance(data, Mapping):
        raise PruningError(f'field {where.rstrip(".") or "(all)"}: must be a mapping, got {data!r}')
    known = list(known)
    for name in data:
        if name in known:
            continue
        if RENAMED.get(name) in known:
            raise PruningError(f'field {where}{name}: is called {RENAMED[name]} now')
        raise PruningError(f'unknown field {where}{name}; known: {", ".join(sorted(known))}')


def plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, as plain data."""
    found = {}
    for each in dataclasses.fields(value):
        own = getattr(value, each.name)
        default = each.default_factory() if callable(each.default_factory) else each.default
        if own != default:
            found[each.name] = list(own) if isinstance(own, tuple) else own
    return found


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _fits(value: Any, hint: Any) -> bool:
    hint = typing.get_origin(hint) or hint
    if hint is tuple:
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
