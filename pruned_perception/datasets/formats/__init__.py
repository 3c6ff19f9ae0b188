"""Formats of data sets: how files lie, and what is written in them.

A format is a module here with `LOOKS_FOR`, `splits` and `read`, and its name is the module's;
which one a folder is, its content says. Whoever reads data calls `read_dataset` and knows none.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from pruned_perception.datasets.dataset import Dataset
from pruned_perception.datasets.errors import DataError

MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))


class Format(Protocol):
    """What a module of a format offers."""

    LOOKS_FOR: str
    """The file, relative to a folder, that is looked for first: for messages."""

    @staticmethod
    def splits(path: Path) -> tuple[str, ...]:
        """Return the names of the splits in `path`; ('',) where it is one set, () if it is none.

        `path` may be anything, also nothing that exists. It looks at names, not into files.
        """

    @staticmethod
    def read(path: Path, split: str) -> Dataset:
        """Return one of `splits(path)`, built by a `DatasetBuilder`; raises DataError."""


def read_dataset(
    path: str | os.PathLike[str], split: str | None = None, *, format_name: str | None = None
) -> Dataset:
    """Read and validate a data set, or one split of it.

    Args:
        path: its folder or file; `FOLDER/SPLIT` names a split, whether there is such a folder or
            not.
        split: one of several; not needed where there is one.
        format_name: one of MODULES; found by the folder's content if None.

    Raises:
        DataError: there is no data set, its format or split is not clear, or something in it is
            broken; names file and annotation. Pictures are looked at when they are asked for.
    """
    path = Path(path).expanduser()
    name, splits = _detect(path, format_name)
    if name is None and split is None:
        with contextlib.suppress(DataError):
            parent, of_parent = _detect(path.parent, format_name)
            if path.name in of_parent:
                name, splits, path, split = parent, of_parent, path.parent, path.name
    if name is None:
        looked = '; '.join(f'{path / get(each).LOOKS_FOR}: no such file' for each in MODULES)
        raise DataError(
            f'{looked}; give the folder of a data set, or make one with '
            f'`pruned-perception simulate --split train|validation|test --out {path}`'
        )
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        asked = 'which split' if split is None else f'no split {split!r}'
        raise DataError(
            f'{path}: {asked}? There is {", ".join(map(repr, splits))}: give FOLDER/SPLIT'
        )
    return get(name).read(path, split)


def dataset_splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of a data set's splits: ('',) where it is undivided, () if it is none."""
    return _detect(Path(path).expanduser(), None)[1]


def get(name: str) -> Format:
    """Return the format of that name; raises DataError with the names that there are."""
    if name not in MODULES:
        raise DataError(f'unknown format {name!r} of data sets; there is {", ".join(MODULES)}')
    return cast(Format, importlib.import_module(f'{__name__}.{name}'))


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
