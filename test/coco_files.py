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

"""A sound COCO data set of the tiny detector's coloured squares, and ways to change it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from tiny_detector import LABELS, square_image

HEIGHT, WIDTH = 480, 640
CONTENT: dict[str, Any] = {
    'images': [
        {'id': 7, 'file_name': '0.png', 'height': HEIGHT, 'width': WIDTH, 'layout': 3},
        {'id': 8, 'file_name': '1.png', 'height': HEIGHT, 'width': WIDTH, 'layout': 3},
        {'id': 9, 'file_name': '2.png', 'height': HEIGHT, 'width': WIDTH, 'layout': 4},
    ],
    'annotations': [
        {'id': 11, 'image_id': 7, 'category_id': 0, 'bbox': [40, 80, 120, 120], 'iscrowd': 0},
        {'id': 12, 'image_id': 8, 'category_id': 1, 'bbox': [80, 80, 120, 120]},
        {'id': 13, 'image_id': 9, 'category_id': 2, 'bbox': [120, 80, 120, 120]},
        {'id': 14, 'image_id': 9, 'category_id': 0, 'bbox': [400, 300, 50, 20], 'iscrowd': 1},
    ],
    'categories': [{'id': k, 'name': name} for k, name in enumerate(LABELS)],
}

Change = Callable[[dict[str, Any]], object]


def write_set(folder: Path, change: Change | None = None) -> Path:
    """Write the data set with a changed content and return its folder."""
    (folder / 'images').mkdir(parents=True)
    for index, label in enumerate(LABELS):
        image = square_image(label, left=40 * (index + 1), top=80, side=120)
        cv2.imwrite(str(folder / 'images' / f'{index}.png'), image[..., ::-1])
    content = copy.deepcopy(CONTENT)
    if change is not None:
        change(content)
    (folder / 'annotations.json').write_text(json.dumps(content))
    return folder
