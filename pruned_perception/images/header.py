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

"""What a JPEG or PNG says of itself at its start: size and orientation, without decoding it."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pruned_perception.images.checks import MAX_PIXELS, MAX_SEGMENTS, check_size, kind_of
from pruned_perception.images.errors import ImageError

TURNED = (5, 6, 7, 8)
"""Orientations whose upright picture has the stored one's height for its width."""

_ORIENTATION = 0x0112
_EXIF = b'Exif\0\0'


@dataclass(frozen=True)
class Header:
    """Size as stored, pixels, and EXIF's orientation: 1, as it is, … 8."""

    height: int
    width: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the picture as viewers show it."""
        if self.orientation in TURNED:
            return self.width, self.height
        return self.height, self.width


def read_header(source: bytes | str | os.PathLike[str]) -> Header:
    """Return the header of a file, or of its content.

    Nothing but the start is looked at: that the rest is sound, decoding will show. Raises
    ImageError (naming the file) where it is neither JPEG nor PNG, cut off, or too large.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source))
    try:
        with Path(source).open('rb') as file:
            return _read(file)
    except OSError as error:
        raise ImageError(f'{source}: {error.strerror}') from error
    except ImageError as error:
        raise ImageError(f'{source}: {error}') from None


def _read(file: IO[bytes]) -> Header:
    kind = kind_of(file.read(32))
    if kind not in ('JPEG', 'PNG'):
        what = f'a {kind} file' if kind else 'of no known kind: damaged, or no image'
        raise ImageError(f'{what}; only JPEG and PNG are read')
    header = _jpeg(file) if kind == 'JPEG' else _png(file)
    if header is None:
        raise ImageError(f'damaged {kind}: it is cut off before its size')
    check_size(header.height, header.width, MAX_PIXELS, kind)
    return header


def _jpeg(file: IO[bytes]) -> Header | None:
    """See ITU-T T.81, B.1.1.2 and B.2.2: segments of a marker and a length."""
    file.seek(2)
    orientation = 1
    for _ in range(MAX_SEGMENTS):
        if file.read(1) != b'\xff':
            return None
        while (marker := file.read(1)) == b'\xff':
            pass
        if marker == b'\x01':
            continue
        length = int.from_bytes(file.read(2), 'big')
        if length < 2 or marker in (b'\xd9', b'\xda'):
            return None
        if 0xC0 <= marker[0] <= 0xCF and marker not in (b'\xc4', b'\xc8', b'\xcc'):
            frame = file.read(5)
            height, width = (int.from_bytes(frame[k : k + 2], 'big') for k in (1, 3))
            return Header(height, width, orientation) if len(frame) == 5 else None
        if marker == b'\xe1' and orientation == 1:
            content = file.read(length - 2)
            if content.startswith(_EXIF):
                orientation = _orientation(content[len(_EXIF) :])
        else:
            file.seek(length - 2, io.SEEK_CUR)
    return None


def _png(file: IO[bytes]) -> Header | None:
    """See PNG, third edition, 5.3: chunks of a length, a name, content and a checksum."""
    file.seek(8)
    size: tuple[int, int] | None = None
    for _ in range(MAX_SEGMENTS):
        start = file.read(8)
        length, name = int.from_bytes(start[:4], 'big'), start[4:]
        if name == b'IHDR' and length == 13:
            content = file.read(length)
            size = int.from_bytes(content[4:8], 'big'), int.from_bytes(content[:4], 'big')
        elif name == b'eXIf' and size is not None and length < 1 << 20:
            return Header(*size, _orientation(file.read(length)))
        elif name in (b'IDAT', b'IEND') or len(start) < 8:
            return None if size is None else Header(*size)
        else:
            file.seek(length, io.SEEK_CUR)
        file.seek(4, io.SEEK_CUR)
    return None if size is None else Header(*size)


def _orientation(tiff: bytes) -> int:
    """Return the orientation in the first directory of EXIF's TIFF structure; 1 if it has none."""
    order = {b'II': 'little', b'MM': 'big'}.get(tiff[:2])

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    if order is None or number(2, 2) != 42:
        return 1
    start = number(4, 4)
    for entry in range(start + 2, start + 2 + 12 * number(start, 2), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
