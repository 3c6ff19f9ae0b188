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

"""Networks that suppress overlaps themselves: a row per object, its columns in some order.

One output (N, K), (1, N, K) or (1, 1, N, K); after it, where there is one, the number of rows that
count. Parameters:

* `columns`: names of the K columns: x0, y0, x1, y1 (corners), score, class, and maybe batch.
  YOLOv10, YOLO26 and Ultralytics' `nms=True`: the default. YOLOv7's `--end2end`:
  'batch x0 y0 x1 y1 class score'. YOLO-NAS, flat: 'batch x0 y0 x1 y1 score class'. PaddleDetection
  (PP-YOLOE with its suppression; the second output counts): 'class score x0 y0 x1 y1'.
  SSD of Caffe and OpenVINO: 'batch class score x0 y0 x1 y1', normalized;
* `normalized`: corners in 0 … 1 of the input instead of pixels;
* `first_label`: class of the bundle's first label; rows of lower classes (−1: no object) are left
  out, and so are those of other images than the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _boxes, _options
from pruned_perception.inference.detections import Candidates

DEFAULTS = {'columns': 'x0 y0 x1 y1 score class', 'normalized': False, 'first_label': 0}

NEEDED = ('x0', 'y0', 'x1', 'y1', 'score', 'class')


def check(
    shapes: Sequence[tuple[int, ...]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    classes: int,
) -> None:
    """Raise ValueError where the outputs do not fit; see `decoders.Decoder`."""
    merged = _options.merge(DEFAULTS, parameters)
    _options.first_label(merged)
    columns = merged['columns'].split()
    if sorted(set(columns) | {'batch'}) != sorted({*NEEDED, 'batch'}) or len(columns) != len(
        set(columns)
    ):
        raise ValueError(
            f"parameter 'columns' must name {', '.join(NEEDED)}, each once, and maybe batch: "
            f'{merged["columns"]!r}'
        )
    rows, *count = shapes
    fits = len(rows) in (2, 3, 4) and rows[-1] == len(columns) and set(rows[:-2]) <= {1}
    if not fits or count not in ([], [(1,)], [(1, 1)]):
        raise ValueError(
            f'an output (N, {len(columns)}), (1, N, {len(columns)}) or (1, 1, N, {len(columns)}) '
            f'is needed, and maybe one (1,), not {", ".join(map(str, shapes))}'
        )


def decode(
    outputs: Sequence[NDArray[Any]],
    parameters: Mapping[str, Any],
    input_size: tuple[int, int],
    score_threshold: float,
) -> Candidates:
    """Return the objects above the threshold."""
    merged = _options.merge(DEFAULTS, parameters)
    at = {name: place for place, name in enumerate(merged['columns'].split())}
    table = outputs[0].reshape(-1, len(at))
    if len(outputs) == 2:
        table = table[: int(outputs[1].ravel()[0])]
    here = table[:, at['score']] >= score_threshold
    here &= table[:, at['class']] >= merged['first_label']
    if 'batch' in at:
        here &= table[:, at['batch']] == 0
    rows = table[here]
    boxes = rows[:, [at[name] for name in ('x0', 'y0', 'x1', 'y1')]].astype(np.float32)
    class_ids = np.rint(rows[:, at['class']]).astype(np.int64) - merged['first_label']
    scale = _boxes.scale(input_size) if merged['normalized'] else np.float32(1)
    return Candidates(boxes * scale, rows[:, at['score']].astype(np.float32), class_ids)
