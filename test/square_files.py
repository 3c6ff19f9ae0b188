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

"""The sound set of coloured squares as YOLO and as Pascal VOC write it, and EXIF in a JPEG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from tiny_detector import LABELS, square_image

HEIGHT, WIDTH = 480, 640
BOXES = [(40 * (index + 1), 80, 120, 120) for index in range(len(LABELS))]
"""Left, top, width, height of the one square of each picture; its class is the picture's number."""


def picture(index: int) -> np.ndarray:
    left, top, side, _ = BOXES[index]
    return square_image(LABELS[index], left=left, top=top, side=side)[..., ::-1]


def yolo_line(index: int) -> str:
    left, top, width, height = BOXES[index]
    shares = ((left + width / 2) / WIDTH, (top + height / 2) / HEIGHT, width / WIDTH,
              height / HEIGHT)  # fmt: skip
    return ' '.join([str(index), *(f'{share:.6f}' for share in shares)])


def write_yolo(folder: Path, data: Mapping[str, Any] | None = None, place: str = 'images') -> Path:
    """Write pictures into `place` and labels where they belong, and data.yaml unless it is {}."""
    data = {'train': place, 'names': list(LABELS)} if data is None else data
    (folder / place).mkdir(parents=True)
    for index in range(len(LABELS)):
        file = folder / place / f'{index}.png'
        cv2.imwrite(str(file), picture(index))
        labels = Path(*('labels' if part == 'images' else part for part in Path(place).parts))
        (folder / labels).mkdir(parents=True, exist_ok=True)
        (folder / labels / f'{index}.txt').write_text(yolo_line(index) + '\n')
    if data:
        (folder / 'data.yaml').write_text(yaml.safe_dump(dict(data), sort_keys=False))
    return folder


def voc_text(index: int, **changes: str) -> str:
    """Return an annotation; `changes` replace the text of elements by their names."""
    left, top, width, height = BOXES[index]
    values = {
        'folder': 'images',
        'filename': f'{index}.png',
        'path': f'C:\\Users\\somebody\\images\\{index}.png',
        'width': str(WIDTH),
        'height': str(HEIGHT),
        'name': LABELS[index],
        'xmin': str(left),
        'ymin': str(top),
        'xmax': str(left + width),
        'ymax': str(top + height),
        **changes,
    }
    return (
        '<annotation><folder>{folder}</folder><filename>{filename}</filename><path>{path}</path>'
        '<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
        '<object><name>{name}</name><pose>Unspecified</pose><bndbox><xmin>{xmin}</xmin>'
        '<ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object></annotation>'
    ).format(**values)


def write_voc(folder: Path) -> Path:
    for name in ('Annotations', 'JPEGImages'):
        (folder / name).mkdir(parents=True)
    for index in range(len(LABELS)):
        cv2.imwrite(str(folder / 'JPEGImages' / f'{index}.png'), picture(index))
        (folder / 'Annotations' / f'{index}.xml').write_text(voc_text(index))
    return folder


def jpeg(image: np.ndarray, orientation: int | None = None, quality: int = 95) -> bytes:
    """Return a JPEG with that orientation in its EXIF."""
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    if orientation is None:
        return data
    tiff = b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0' + bytes([orientation]) + bytes(6)
    segment = b'Exif\0\0' + tiff
    return data[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + data[2:]
