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

"""Coloured shapes on noisy backgrounds: a data set that a small net learns within seconds."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

LABELS = ('disc', 'square', 'triangle')


def write_shapes(
    folder: Path, count: int, *, seed: int, size: tuple[int, int] = (240, 320)
) -> None:
    """Write `count` frames with two to six shapes each as a COCO data set."""
    generator = np.random.default_rng(seed)
    height, width = size
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        image = generator.integers(60, 120) + generator.normal(0, 8, (height, width, 3))
        image = np.clip(image, 0, 255).astype(np.uint8)
        for _ in range(generator.integers(2, 7)):
            kind = int(generator.integers(len(LABELS)))
            side = int(generator.integers(14, 90))
            left = int(generator.integers(0, width - side))
            top = int(generator.integers(0, height - side))
            colour = [int(value) for value in generator.integers(130, 256, 3)]
            _draw(image, kind, left, top, side, colour)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index,
                    'category_id': kind,
                    'bbox': [left, top, side, side],
                    'area': side * side,
                    'iscrowd': 0,
                }
            )
        name = f'{index:06d}.png'
        cv2.imwrite(str(folder / 'images' / name), image)
        images.append(
            {
                'id': index,
                'file_name': f'images/{name}',
                'height': height,
                'width': width,
                'layout': index // 4,
            }
        )
    categories = [{'id': k, 'name': name} for k, name in enumerate(LABELS)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content))


def _draw(image: np.ndarray, kind: int, left: int, top: int, side: int, colour: list[int]) -> None:
    if kind == 0:
        radius = side // 2
        cv2.circle(image, (left + radius, top + radius), radius, colour, -1)
    elif kind == 1:
        cv2.rectangle(image, (left, top), (left + side, top + side), colour, -1)
    else:
        corners = [[left, top + side], [left + side, top + side], [left + side // 2, top]]
        cv2.fillPoly(image, [np.array(corners)], colour)
