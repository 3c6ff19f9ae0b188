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

"""The part of JSON Schema (draft 2020-12) that our schema uses.

Importing the `jsonschema` package would be a good part of the way from a node's start to its
first detection; so it is the tests' reference, which this module is held against.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    'object': lambda value: isinstance(value, dict),
    'array': lambda value: isinstance(value, list),
    'string': lambda value: isinstance(value, str),
    'number': lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    # Stricter than the standard, where 1.0 is an integer too: counts are used as they are.
    'integer': lambda value: isinstance(value, int) and not isinstance(value, bool),
    'boolean': lambda value: isinstance(value, bool),
    'null': lambda value: value is None,
}
_ANNOTATIONS = frozenset(('$schema', 'title', 'description'))


def errors(value: Any, schema: Mapping[str, Any], field: str = '') -> Iterator[tuple[str, str]]:
    """Yield (field, message) for everything in `value` that is against `schema`.

    `value` is as `json.loads` returns it; `field` is its own path, such as `input.shape.0`.
    Raises NotImplementedError on a keyword that is not known here.
    """
    for keyword, rule in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _KEYWORDS:
            raise NotImplementedError(f'JSON Schema keyword {keyword!r}')
        yield from _KEYWORDS[keyword](value, rule, schema, field)
        if keyword == 'type' and not _has_type(value, rule):
            return  # the other keywords would only say the same again


def _has_type(value: Any, names: str | list[str]) -> bool:
    return any(_TYPES[name](value) for name in ([names] if isinstance(names, str) else names))


def _type(value: Any, names: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if not _has_type(value, names):
        wanted = names if isinstance(names, str) else ' or '.join(names)
        yield field, f'{_quote(value)} is no {wanted}'


def _same(value: Any, other: Any) -> bool:
    """JSON's equality: true is not 1, but 1.0 is."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _const(value: Any, wanted: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if not _same(value, wanted):
        yield field, f'{_quote(value)} is not {wanted!r}'


def _enum(value: Any, choices: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if not any(_same(value, choice) for choice in choices):
        yield field, f'{_quote(value)} is none of {", ".join(map(repr, choices))}'


def _required(value: Any, names: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name in names:
            if name not in value:
                yield _join(field, name), 'is missing'


def _properties(value: Any, rules: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, rule in rules.items():
            if name in value:
                yield from errors(value[name], rule, _join(field, name))


def _additional(value: Any, allowed: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if allowed is not False:
        raise NotImplementedError('additionalProperties other than false')
    if isinstance(value, dict):
        for name in value:
            if name not in schema.get('properties', {}):
                yield _join(field, name), 'is not known here'


def _items(value: Any, rule: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from errors(each, rule, _join(field, str(index)))


def _pattern(value: Any, pattern: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
    # Python's $ also matches before a newline at the end; that of ECMA, which is meant, does not.
    if isinstance(value, str) and not re.search(re.sub(r'\$$', r'\\Z', pattern), value):
        yield field, f'{_quote(value)} does not match {pattern}'


def _limit(
    kind: type | tuple[type, ...],
    measure: Callable[[Any], Any],
    fits: Callable[[Any, Any], bool],
    text: str,
) -> Callable[[Any, Any, Any, str], Iterator[tuple[str, str]]]:
    def check(value: Any, limit: Any, schema: Any, field: str) -> Iterator[tuple[str, str]]:
        counts = isinstance(value, kind) and not isinstance(value, bool)
        if counts and not fits(measure(value), limit):
            yield field, f'{_quote(value)} {text.format(limit)}'

    return check


_NUMBER = (int, float)
_KEYWORDS: dict[str, Callable[[Any, Any, Any, str], Iterator[tuple[str, str]]]] = {
    'type': _type,
    'const': _const,
    'enum': _enum,
    'required': _required,
    'properties': _properties,
    'additionalProperties': _additional,
    'items': _items,
    'pattern': _pattern,
    'minimum': _limit(_NUMBER, lambda x: x, lambda x, limit: x >= limit, 'is less than {}'),
    'maximum': _limit(_NUMBER, lambda x: x, lambda x, limit: x <= limit, 'is more than {}'),
    'exclusiveMinimum': _limit(_NUMBER, lambda x: x, lambda x, limit: x > limit, 'is not above {}'),
    'minItems': _limit(list, len, lambda n, limit: n >= limit, 'has fewer than {} items'),
    'maxItems': _limit(list, len, lambda n, limit: n <= limit, 'has more than {} items'),
    'minLength': _limit(str, len, lambda n, limit: n >= limit, 'has fewer than {} characters'),
    'maxLength': _limit(str, len, lambda n, limit: n <= limit, 'has more than {} characters'),
}


def _join(field: str, name: str) -> str:
    return f'{field}.{name}' if field else name


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}…'
