"""Our own detectors: distances to the box's sides, and scores, ready from the graph.

One output float32 (1, N, 4 + C), a row per cell: left, top, right, bottom distance from the
cell's centre ((column + 0.5) · stride, (row + 0.5) · stride) in input pixels, then C scores in
0 … 1. Parameters: `strides`, in the order of the rows, e.g. [8, 16, 32].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import grid
from pruned_perception.inference.detections import Candidates


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    expected = (1, grid.cell_count(input_size, _strides(parameters)), 4 + classes)
    if tuple(shapes) != (expected,):
        raise ValueError(f'one output of shape {expected} is needed, not {list(shapes)}')


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each cell."""
    predictions = outputs[0][0]
    rows, class_ids, scores = grid.above(predictions[:, 4:], score_threshold)
    corners, strides = grid.cells(input_size, _strides(parameters))
    centres = (corners[rows] + 0.5) * strides[rows]
    distances = predictions[rows, :4]
    boxes = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
    return Candidates(boxes, scores, class_ids)


def _strides(parameters: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(parameters['strides'])
