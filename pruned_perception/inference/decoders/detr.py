"""DETR style: a set of queries (Carion et al. 2020, arXiv 2005.12872).

Outputs in the manifest, in this order: logits (1, Q, K) and boxes (1, Q, 4), centre and size in
0 … 1 of the input. Parameter `activation`: 'softmax' (DETR; K = C + 1, the last is "no object")
or 'sigmoid' (Deformable DETR, RT-DETR; K = C). Queries do not overlap by construction, so a
bundle's threshold `iou` is usually 1, which suppresses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'activation': 'softmax'}

ACTIVATIONS = ('softmax', 'sigmoid')


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    activation = _options.merge(DEFAULTS, parameters)['activation']
    _options.choice('activation', activation, ACTIVATIONS)
    queries = shapes[0][1] if len(shapes[0]) == 3 else -1
    columns = classes + (activation == 'softmax')
    _grid.check_shapes(shapes, [(1, queries, columns), (1, queries, 4)])


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the boxes above the threshold, the best class of each query."""
    logits, boxes = outputs[0][0], outputs[1][0]
    if _options.merge(DEFAULTS, parameters)['activation'] == 'softmax':
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (weights / weights.sum(axis=1, keepdims=True))[:, :-1]
    else:
        scores = 1 / (1 + np.exp(-logits))
    rows, class_ids, best = _grid.best_above(scores, score_threshold)
    few = boxes[rows] * np.array([input_size[1], input_size[0]] * 2, np.float32)
    return Candidates(_grid.centres_to_boxes(few[:, :2], few[:, 2:]), best, class_ids)
