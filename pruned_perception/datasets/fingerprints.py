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

"""Which pictures and drives a set has: enough to tell whether another set shares any of them.

A picture is told by its decoded pixels, whatever its file is called, how it is compressed and
where it stands; a drive by its name. Of both a hash of 48 bits is kept, so that the record of ten
thousand pictures takes 80 kB of text: of 100,000 pictures and 10,000 others, all different, two
have the same hash with a probability of 4 in a million.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception._io import replacing
from pruned_perception.datasets.dataset import Dataset
from pruned_perception.datasets.errors import DataError
from pruned_perception.environment import place_for
from pruned_perception.errors import UserError

SEEN = 'seen'
"""Where checkpoints and manifests keep which frames a set has."""

_BYTES = 6
_DAY = re.compile(r'(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])')


@dataclass(frozen=True)
class Fingerprints:
    """The pictures and the named drives of a set, as hashes; without order and repetition."""

    pictures: frozenset[bytes] = frozenset()
    drives: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, pictures: Iterable[bytes], drives: Iterable[str] = ()) -> Fingerprints:
        """Return the record of a set.

        Args:
            pictures: of each the hash, from `picture_hash`.
            drives: their names. A number is no name: data sets count from 0, each its own drives;
                but a day, such as 20240716, is.
        """
        return cls(
            frozenset(pictures), frozenset(_hash(each.encode()) for each in drives if named(each))
        )

    def __or__(self, other: Fingerprints) -> Fingerprints:
        return Fingerprints(self.pictures | other.pictures, self.drives | other.drives)

    def shared(self, other: Fingerprints) -> tuple[int, int]:
        """Return how many pictures and how many drives both sets have."""
        return len(self.pictures & other.pictures), len(self.drives & other.drives)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the hashes, sorted, in base 64."""
        return {name: _packed(getattr(self, name)) for name in ('pictures', 'drives')}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fingerprints:
        """Read what `to_dict` wrote; raise UserError where it is something else."""
        try:
            return cls(*(_unpacked(data[name]) for name in ('pictures', 'drives')))
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            raise UserError(f'not the record of a data set: {error}') from error


def named(drive: str) -> bool:
    """Say whether a drive has a name, by which it is told in other sets, and no mere number.

    A day is a name: recordings lie in folders of that.

    >>> named('hall_3'), named('17'), named('20240716'), named('20241716')
    (True, False, True, False)
    """
    text = drive.strip()
    return not text.isdigit() or bool(_DAY.fullmatch(text))


def picture_hash(pixels: NDArray[Any]) -> bytes:
    """Return the hash of decoded pixels, of any shape and type."""
    head = f'{pixels.shape}{pixels.dtype}'.encode()
    return _hash(head + np.ascontiguousarray(pixels).tobytes())


def fingerprints(notes: Dataset) -> Fingerprints:
    """Return the record of a data set, through a file beside its annotations.

    Raises:
        DataError: a picture is missing or broken.
    """
    return Fingerprints.of(picture_hashes(notes), groups_of(notes))


def picture_hashes(notes: Dataset) -> list[bytes]:
    """Return the hash of each picture, in order, see `fingerprints`."""
    file = place_for(f'pictures-{_state(notes)}.hashes', notes.folder)
    try:
        content = file.read_bytes()
    except OSError:
        content = b''
    if len(content) == _BYTES * len(notes):
        return [content[k : k + _BYTES] for k in range(0, len(content), _BYTES)]
    hashes = [picture_hash(image) for image in notes.images()]
    _keep(file, hashes)
    return hashes


def check_apart(first: Dataset, second: Dataset) -> None:
    """Raise DataError where two sets have a picture in common, whatever it is called in either."""
    theirs = dict(zip(picture_hashes(second), second.paths, strict=True))
    shared = [
        (path, theirs[each])
        for each, path in zip(picture_hashes(first), first.paths, strict=True)
        if each in theirs
    ]
    if shared:
        path, other = shared[0]
        raise DataError(
            f'{path}: the same picture as {other}'
            + (f' (and {len(shared) - 1} more)' if len(shared) > 1 else '')
            + f': what {first.source} teaches, {second.source} cannot judge',
            'picture-shared',
        )


def groups_of(notes: Dataset) -> frozenset[str]:
    """Return the drives of a data set; none where each frame is its own."""
    return frozenset() if notes.unit is None else frozenset(notes.groups)


def _keep(file: Path, hashes: Iterable[bytes]) -> None:
    with contextlib.suppress(OSError), replacing(file) as temporary:  # it only saves time
        temporary.write_bytes(b''.join(hashes))


def _state(notes: Dataset) -> str:
    """Return what changes with the pictures' files, without reading them."""
    digest = hashlib.blake2b(notes.digest.encode(), digest_size=_BYTES)
    for path in notes.paths:
        with contextlib.suppress(OSError):  # missing: said when it is read
            found = path.stat()
            digest.update(f'{path.name} {found.st_size} {found.st_mtime_ns}'.encode())
    return digest.hexdigest()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_BYTES).digest()


def _packed(hashes: frozenset[bytes]) -> str:
    return base64.b64encode(b''.join(sorted(hashes))).decode()


def _unpacked(text: str) -> frozenset[bytes]:
    data = base64.b64decode(text, validate=True)
    if len(data) % _BYTES:
        raise ValueError(f'{len(data)} bytes are not whole hashes')
    return frozenset(data[k : k + _BYTES] for k in range(0, len(data), _BYTES))
