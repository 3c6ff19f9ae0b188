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

"""A detector without ROS, at a camera's pace: what it takes in a program of one's own.

Paced, since what a frame needs grows cold between two of them: the same calls in a loop take less.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.frame_source import MAX
from pruned_perception.inference import Detector, FrameTimes
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.inference.latency import NS_PER_MS

_MAX_PIXELS = 67_000_000
_WARM_UP = 5


def detect_at(
    detector: Detector, messages: Sequence[Any], rate: float, seconds: float
) -> NDArray[np.float64]:
    """Return the milliseconds of each frame, from the message to the boxes.

    `messages` are images as a node receives them, again and again; `rate` in Hz, or `MAX`. The
    first five frames are left out.
    """
    taken = []
    start = time.monotonic()
    for number, message in enumerate(itertools.cycle(messages)):
        if rate != MAX:
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
        if time.monotonic() > start + seconds and number > 2 * _WARM_UP:
            break
        times = FrameTimes(t_start=time.monotonic_ns())
        image, order = image_from_message(message, _MAX_PIXELS)
        detector.detect(image, order, times=times)
        taken.append((times.t_post - times.t_start) / NS_PER_MS)
    return np.array(taken[_WARM_UP:])
