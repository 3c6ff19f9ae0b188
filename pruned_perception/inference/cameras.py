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


"""Frames of a camera: a webcam, a video device, or a camera of the network (RTSP)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.sources import Frame, Source, SourceError

SCHEMES = ('rtsp', 'rtsps')
_DEVICE = re.compile(r'\d{1,3}|/dev/video\d+')
_OPENING_S = 5.0


def is_camera(source: str) -> bool:
    """Whether a source is no file: an index of a webcam, a video device, or an RTSP address."""
    return bool(_DEVICE.fullmatch(source)) or host_of(source) is not None


def host_of(source: str) -> str | None:
    """Return the host that an address connects to; None for what is no RTSP address."""
    address = urlsplit(source)
    return (address.hostname or '') if address.scheme.lower() in SCHEMES else None


def public(source: str) -> str:
    """Return an address without the password in it."""
    address = urlsplit(source)
    if address.password is None:
        return source
    return address._replace(netloc=address.netloc.rpartition('@')[2]).geturl()


def open_camera(source: str) -> Source:
    """Open a camera; its newest frames, as they are asked for, until it ends.

    A frame that comes while the one before is still in use takes the place of one that waits, so
    that frames never queue up. Their stamps are the times of receipt, seconds since the epoch.

    Raises:
        SourceError: there is no such camera, or it gives no frame.
    """
    name = public(source)
    number = source.removeprefix('/dev/video') if host_of(source) is None else None
    if number is not None and not Path(f'/dev/video{number}').exists():
        others = ', '.join(sorted(map(str, Path('/dev').glob('video*'))))
        raise SourceError(f'{name}: no such camera; there is {others or "no video device at all"}')
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * _OPENING_S)]
    capture = (
        cv2.VideoCapture(int(number), cv2.CAP_V4L2)
        if number is not None
        else cv2.VideoCapture(source, cv2.CAP_FFMPEG, options)
    )
    there, image = capture.read() if capture.isOpened() else (False, None)
    if not there:
        capture.release()
        raise SourceError(
            f'{name}: gives no picture: is the camera on, in use by another program, or may this '
            'user read it (group video)?'
            if number is not None
            else f'{name}: no picture within {_OPENING_S:g} s: address, password, network?'
        )
    return Source(_frames(name, capture, np.asarray(image, np.uint8)), None, live=True)


def _frames(name: str, capture: Any, first: NDArray[np.uint8]) -> Iterator[Frame]:
    newest: list[tuple[float, NDArray[np.uint8]]] = [(time.time(), first)]
    changed, ended = threading.Condition(), threading.Event()

    def read() -> None:
        while not ended.is_set():
            there, image = capture.read()
            with changed:
                if not there:
                    ended.set()
                else:
                    newest[:] = [(time.time(), np.asarray(image, np.uint8))]
                changed.notify()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    index = 0
    try:
        while True:
            with changed:
                changed.wait_for(lambda: newest or ended.is_set())
                if not newest:
                    return
                stamp, image = newest.pop()
            yield Frame(name, index, stamp, image, 'bgr')
            index += 1
    finally:
        ended.set()
        reader.join(_OPENING_S)
        capture.release()
