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

"""Formats of data sets: how files lie, and what is written in them.

A format is a module here with `LOOKS_FOR`, `splits` and `read`, and its name is the module's;
which one a folder is, its content says. Whoever reads data calls `read_dataset` and knows none.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from pruned_perception.datasets.dataset import Dataset
from pruned_perception.datasets.errors import DataError
from pruned_perception.datasets.problems import Problems

MODULES = tuple(
    module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith('_')
)
_SAME = ('val', 'valid', 'validation')
"""Names of one split; annotation services and frameworks do not agree."""


class Format(Protocol):
    """What a module of a format offers."""

    LOOKS_FOR: str
    """The file, relative to a folder, that is looked for first: for messages."""

    @staticmethod
    def splits(path: Path) -> tuple[str, ...]:
        """Return the names of the splits in `path`; ('',) where it is one set, () if it is none.

        `path` may be anything, also nothing that exists. Of the files it reads what lists the
        splits at most.
        """

    @staticmethod
    def read(path: Path, split: str, problems: Problems) -> Dataset:
        """Return one of `splits(path)`, built by a `DatasetBuilder` with these problems.

        Raises DataError.
        """


def read_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    format_name: str | None = None,
    problems: Problems | None = None,
) -> Dataset:
    """Read and validate a data set, or one split of it.

    Args:
        path: its folder or file; `FOLDER/SPLIT` names a split, whether there is such a folder or
            not.
        split: one of several; not needed where there is one.
        format_name: one of MODULES; found by the folder's content if None.
        problems: what to do about what is broken; by default the first problem is raised.

    Raises:
        DataError: there is no data set, its format or split is not clear, or something in it is
            broken; names file and annotation. Pictures are looked at when they are asked for.
    """
    path = Path(path).expanduser()
    name, splits = _detect(path, format_name)
    if name is None and split is None:
        try:
            parent, of_parent = _detect(path.parent, format_name)
        except DataError:
            if not path.exists():  # it can only be a split of that
                raise
            parent, of_parent = None, ()
        if parent is not None and (split := _among(path.name, of_parent)) is not None:
            name, splits, path = parent, of_parent, path.parent
    if name is None:
        looked = '; '.join(f'{path / get(each).LOOKS_FOR}: no such file' for each in MODULES)
        raise DataError(
            f'{looked}; give the folder of a data set, or make one with '
            f'`pruned-perception simulate --split train|validation|test --out {path}`'
        )
    if split is None and len(splits) == 1:
        split = splits[0]
    known = None if split is None else _among(split, splits)
    if known is None:
        asked = 'which split' if split is None else f'no split {split!r}'
        raise DataError(
            f'{path}: {asked}? There is {", ".join(map(repr, splits))}: give FOLDER/SPLIT'
        )
    return get(name).read(path, known, Problems() if problems is None else problems)


def dataset_splits(path: str | os.PathLike[str], format_name: str | None = None) -> tuple[str, ...]:
    """Return the names of a data set's splits: ('',) where it is undivided, () if it is none."""
    return _detect(Path(path).expanduser(), format_name)[1]


def get(name: str) -> Format:
    """Return the format of that name; raises DataError with the names that there are."""
    if name not in MODULES:
        raise DataError(f'unknown format {name!r} of data sets; there is {", ".join(MODULES)}')
    return cast(Format, importlib.import_module(f'{__name__}.{name}'))


def _among(split: str, splits: tuple[str, ...]) -> str | None:
    """Return the name that a split has in a data set; None where it has none of that name."""
    if split in splits:
        return split
    return next((each for each in splits if split in _SAME and each in _SAME), None)


def _detect(path: Path, format_name: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the name of the format of `path` and its splits; None and () where it is none."""
    try:
        found = {
            name: splits
            for name in (MODULES if format_name is None else (format_name,))
            if (splits := get(name).splits(path))
        }
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from error
    if len(found) > 1:
        raise DataError(f'{path}: may be of the formats {" and ".join(found)}; leave one of them')
    return next(iter(found.items()), (None, ()))
