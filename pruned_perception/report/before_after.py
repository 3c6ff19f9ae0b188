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


"""Pictures of the same frames before pruning and after, where both differ most."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception._pages import data_uri
from pruned_perception.bundle import Bundle
from pruned_perception.inference.decisions import match_objects
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.drawing import draw
from pruned_perception.inference.sources import Frame, UnreadableFrame

MOST = 200  # frames that are looked at
_WIDTH, _GAP = 640, 8  # pixels, of each half and between them


@dataclass(frozen=True)
class Pair:
    """One frame through both networks."""

    name: str
    lost: int
    """Detections of the dense network that the pruned one has not."""
    gained: int
    """Detections of the pruned network that the dense one has not."""
    address: str
    """The picture, dense left and pruned right, as an address that holds it."""


def most_different(
    dense: Bundle, pruned: Bundle, frames: Iterable[Frame | UnreadableFrame], count: int = 4
) -> tuple[Pair, ...]:
    """Return the frames on which detections differ most, the most different first.

    Detections are those at the dense bundle's threshold; they are the same where class and place
    (IoU ≥ 0.5) are. Of frames that differ alike, the earlier one is taken. At most MOST are read.
    """
    before, after = Detector(dense), Detector(pruned)
    threshold = before.settings.score_threshold
    kept: list[tuple[int, int, Pair]] = []
    for number, frame in enumerate(frames):
        if number >= MOST:
            break
        if isinstance(frame, UnreadableFrame):
            continue
        first, _ = before.detect(frame.image, frame.order)
        second, _ = after.detect(frame.image, frame.order)
        found = match_objects(first, second, score_threshold=threshold)
        lost, gained = len(found.lost), len(found.invented)
        if len(kept) == count and (lost + gained, -number) < kept[0][:2]:
            continue
        halves = [draw(frame.image, each, dense.labels, frame.order) for each in (first, second)]
        name = f'{Path(frame.source).name} #{frame.index}'
        pair = Pair(name, lost, gained, _beside(halves, frame.order))
        heapq.heappush(kept, (lost + gained, -number, pair))
        if len(kept) > count:
            heapq.heappop(kept)
    return tuple(pair for *_, pair in sorted(kept, reverse=True))


def _beside(halves: Iterable[NDArray[np.uint8]], order: str) -> str:
    parts: list[NDArray[np.uint8]] = []
    for image in halves:
        scale = _WIDTH / image.shape[1]
        size = (_WIDTH, max(1, round(image.shape[0] * scale)))
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        parts += [small, np.full((size[1], _GAP, 3), 255, np.uint8)]
    picture = np.hstack(parts[:-1])
    if order == 'rgb':
        picture = picture[..., ::-1]
    done, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done
    return data_uri(data.tobytes(), 'jpeg')
