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

"""A decoder's parameters: defaults, and the check of what a manifest gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` with the values `given`; those that are lists become tuples.

    Raises ValueError on a name that is not among the defaults, or a value of another kind.
    """
    unknown = [name for name in given if name not in defaults]
    if unknown:
        known = ', '.join(defaults) or 'none'
        raise ValueError(f'unknown parameter {unknown[0]!r}; known are: {known}')
    for name, value in given.items():
        _check(name, value, defaults[name])
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in {**defaults, **given}.items()
    }


def _check(name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        fits = isinstance(value, bool)
        kind = 'true or false'
    elif isinstance(default, str):
        fits, kind = isinstance(value, str), 'a string'
    elif isinstance(default, tuple):
        fits = (
            isinstance(value, list | tuple)
            and len(value) > 0
            and all(type(each) is int and each > 0 for each in value)
        )
        kind = 'a list of integers above 0'
    elif isinstance(default, int):
        fits, kind = type(value) is int, 'an integer'
    else:
        fits, kind = type(value) in (int, float), 'a number'
    if not fits:
        raise ValueError(f'parameter {name!r} must be {kind}, not {value!r}')


def first_label(merged: Mapping[str, Any]) -> None:
    """Raise ValueError where the parameter `first_label` is below 0."""
    if merged['first_label'] < 0:
        raise ValueError(f"parameter 'first_label' must be 0 or more: {merged['first_label']}")


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError where `value` is none of `choices`."""
    if value not in choices:
        raise ValueError(f'parameter {name!r} must be one of {", ".join(choices)}, not {value!r}')
