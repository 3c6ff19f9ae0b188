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

"""The one place where compressed images become pixels: checked, decoded, nothing left unsaid.

OpenCV takes libjpeg's warnings, such as data that end early, for success: the rest of the picture
is grey then. libjpeg writes them to the process's standard error, in every version of OpenCV, so
there they are read; what else is written meanwhile goes on to where it was going.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.images.checks import MAX_PIXELS, checked
from pruned_perception.images.errors import ImageError

# The first words of the warnings in libjpeg's table of messages, and libpng's two.
_WARNING = re.compile(
    rb'(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS|'
    rb'Unsupported marker|Unknown Adobe|Warning: unknown JFIF|Application transferred|'
    rb'libpng (?:error|warning))[^\n]*'
)
_STDERR = 2
_decoding = threading.Lock()


def decode_image(
    data: Any, *, gray: bool = False, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG or PNG as they are stored: uint8 (H, W, 3) BGR, or (H, W) gray.

    `data` is any buffer of bytes. An orientation in the metadata (EXIF) turns nothing. Raises
    ImageError where the image is damaged, incomplete, of another kind or depth, or has more than
    `max_pixels` (a PNG, or a JPEG of several scans: half of that).
    """
    image = checked(data, max_pixels)
    if image.kind == 'JPEG' and not _warnings_arrive():
        raise ImageError(
            'this build of OpenCV does not report damaged JPEG data, so no JPEG is taken; install '
            'opencv-python-headless, or use PNG or raw images'
        )
    pixels, warnings = _decode(b''.join(image.parts), gray)
    if pixels is None or warnings:
        why = '; '.join(warnings) or 'OpenCV does not decode it'
        raise ImageError(f'damaged {image.kind}: {why}')
    if pixels.dtype != np.uint8 or pixels.shape[:2] != (image.height, image.width):
        raise ImageError(f'damaged {image.kind}: decoded to {pixels.dtype} {pixels.shape}')
    return pixels


def read_image(
    path: str | os.PathLike[str], *, gray: bool = False, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return the pixels of an image file, as `decode_image` does; ImageError names the file."""
    try:
        return decode_image(Path(path).read_bytes(), gray=gray, max_pixels=max_pixels)
    except OSError as error:
        raise ImageError(f'{path}: {error.strerror}') from error
    except ImageError as error:
        raise ImageError(f'{path}: {error}') from None


def _decode(data: bytes, gray: bool = False) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Return what OpenCV makes of `data`, and what its libraries complained of."""
    colour = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    pixels: Any = None
    said: list[bytes] = []
    with _decoding, _standard_error(said):
        try:
            buffer = np.frombuffer(data, np.uint8)
            pixels = cv2.imdecode(buffer, colour | cv2.IMREAD_IGNORE_ORIENTATION)
        except (cv2.error, MemoryError) as error:
            return None, [str(error)]
    text = b''.join(said)
    warnings = [match.group().decode(errors='replace') for match in _WARNING.finditer(text)]
    if rest := _WARNING.sub(b'', text).strip(b'\n'):
        with contextlib.suppress(OSError):
            os.write(_STDERR, rest + b'\n')
    return pixels, warnings


@contextlib.contextmanager
def _standard_error(said: list[bytes]) -> Iterator[None]:
    """Collect in `said` what the process writes to its standard error within the block.

    A file rather than a pipe: whoever writes much, such as another thread, is never held up.
    """
    target = _scratch_file(os.getpid())
    try:
        own = os.dup(_STDERR)
    except OSError:  # closed: whatever is written to it fails, and so did libjpeg's warnings
        own = -1
    os.dup2(target, _STDERR)
    try:
        yield
    finally:
        if own < 0:
            os.close(_STDERR)
        else:
            os.dup2(own, _STDERR)
            os.close(own)
        if size := os.lseek(target, 0, os.SEEK_CUR):
            said.append(os.pread(target, size, 0))
            os.lseek(target, 0, os.SEEK_SET)
            os.ftruncate(target, 0)


@cache
def _scratch_file(_process: int) -> int:
    """Return a file of this process for its standard error, in memory where the system has that.

    Not of its parent, whose position in the file a forked process would share.
    """
    if hasattr(os, 'memfd_create'):
        file = os.memfd_create('decoder_warnings')
    else:
        import tempfile

        file, name = tempfile.mkstemp()
        os.unlink(name)  # noqa: PTH108
    # Never 0 to 2, even where one of them is closed.
    number = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    os.close(file)
    return number


@cache
def _warnings_arrive() -> bool:
    """Tell whether this OpenCV reports a JPEG whose data end early, or refuses it."""
    noise = np.arange(64 * 64, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(24)
    done, whole = cv2.imencode('.jpg', noise.astype(np.uint8).reshape(64, 64))
    if not done:
        return False
    damaged = whole.tobytes()[: len(whole) * 3 // 4].rstrip(b'\xff') + b'\xff\xd9'
    pixels, warnings = _decode(damaged)
    return pixels is None or bool(warnings)
