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
