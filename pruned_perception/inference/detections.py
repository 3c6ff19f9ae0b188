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

"""Boxes with scores and classes: before and after non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
Scores = NDArray[np.float32]
ClassIds = NDArray[np.int64]


class Candidates(NamedTuple):
    """What a decoder returns: boxes above the score threshold, unsorted and overlapping."""

    boxes: Boxes
    """(K, 4) x_min, y_min, x_max, y_max in pixels of the network's input."""
    scores: Scores
    """(K,)"""
    class_ids: ClassIds
    """(K,) indices into the bundle's labels."""


@dataclass(frozen=True)
class Detections:
    """Detected objects of one image, sorted by score, highest first."""

    boxes: Boxes
    """(K, 4) x_min, y_min, x_max, y_max in pixels of the source image, inside it."""
    scores: Scores
    """(K,) in 0 … 1."""
    class_ids: ClassIds
    """(K,) indices into the bundle's labels."""
    left_out: int = 0
    """Candidates above the score threshold that were too many to be looked at."""

    def __len__(self) -> int:
        return len(self.scores)
