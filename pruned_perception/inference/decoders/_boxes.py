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

"""Boxes as networks write them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.decoders import _grid

FORMATS = ('xyxy', 'yxyx', 'cxcywh')


def to_corners(boxes: NDArray[np.float32], box_format: str) -> NDArray[np.float32]:
    """Return boxes (K, 4) of one of FORMATS as x_min, y_min, x_max, y_max."""
    if box_format == 'yxyx':
        return boxes[:, [1, 0, 3, 2]]
    if box_format == 'cxcywh':
        return _grid.centres_to_boxes(boxes[:, :2], boxes[:, 2:])
    return boxes


def scale(input_size: tuple[int, int]) -> NDArray[np.float32]:
    """Return what turns corners, or centre and size, in 0 … 1 of (height, width) into pixels."""
    return np.array([input_size[1], input_size[0]] * 2, np.float32)
