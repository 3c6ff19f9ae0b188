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


"""Annotated frames as a video file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.errors import UserError

LEARN = 10  # frames whose stamps say how many there are in a second
STILLS = 2.0  # a second, where frames are pictures without stamps
SLOWEST, FASTEST = 1.0, 120.0


class AnnotatedVideo:
    """An MP4 file (MPEG-4), at the pace of its frames' stamps; the size is that of the first one.

    Frames of another size are scaled into it, with bars.
    """

    def __init__(self, path: Path) -> None:
        """Take the file, which is written once there are frames."""
        self.path = path
        self._writer: Any = None
        self._size = (0, 0)
        self._waiting: list[tuple[NDArray[np.uint8], float | None]] = []

    def __enter__(self) -> AnnotatedVideo:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Finish the file."""
        self._begin()
        if self._writer is not None:
            self._writer.release()

    def write(self, image: NDArray[np.uint8], stamp: float | None) -> None:
        """Append a frame, (H, W, 3) bgr; its stamp in seconds, None for pictures."""
        if self._writer is not None:
            self._writer.write(self._fitted(image))
            return
        self._waiting.append((image.copy(), stamp))
        if len(self._waiting) == LEARN or stamp is None:
            self._begin()

    def _begin(self) -> None:
        if not self._waiting or self._writer is not None:
            return
        height, width = self._waiting[0][0].shape[:2]
        self._size = (width - width % 2, height - height % 2)  # as codecs want them
        rate = frames_a_second([stamp for _, stamp in self._waiting if stamp is not None])
        code = cv2.VideoWriter.fourcc(*'mp4v')
        self._writer = cv2.VideoWriter(str(self.path), code, rate, self._size)
        if not self._writer.isOpened():
            raise UserError(f'--video {self.path}: cannot be written')
        for image, _ in self._waiting:
            self._writer.write(self._fitted(image))
        self._waiting.clear()

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self._size
        scale = min(width / image.shape[1], height / image.shape[0])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        canvas = np.zeros((height, width, 3), np.uint8)
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        if size == image.shape[1::-1]:
            part = image
        else:
            part = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        canvas[top : top + size[1], left : left + size[0]] = part
        return canvas


def frames_a_second(stamps: list[float]) -> float:
    """Return the rate that stamps (s) show, by the median of their steps.

    >>> frames_a_second([0.0, 0.1, 0.2, 0.9]), frames_a_second([5.0])
    (10.0, 2.0)
    """
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    if not len(steps):
        return STILLS
    return float(np.clip(round(1 / float(np.median(steps)), 3), SLOWEST, FASTEST))
