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

"""Detections drawn on images: for `detect --annotate`, the node's annotated topic, the report."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.inference.detections import Detections

_GOLDEN_RATIO = 0.618034


def class_color(class_id: int) -> tuple[int, int, int]:
    """Return a colour (r, g, b) in 0 … 255, the same for a class wherever it is drawn."""
    hue = (class_id * _GOLDEN_RATIO) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def draw(
    image: NDArray[np.uint8], detections: Detections, labels: Sequence[str], order: str = 'bgr'
) -> NDArray[np.uint8]:
    """Return a copy of `image` with boxes, labels and scores.

    `image` is uint8 (H, W, 3) with `order` 'rgb' or 'bgr', or (H, W) with 'gray'; the copy is
    always (H, W, 3), in the same order ('bgr' for gray).
    """
    texts = [
        f'{labels[int(class_id)]} {score:.2f}'
        for class_id, score in zip(detections.class_ids, detections.scores, strict=True)
    ]
    return draw_boxes(image, detections.boxes, detections.class_ids, texts, order)


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    class_ids: Sequence[int] | NDArray[np.integer],
    texts: Sequence[str],
    order: str = 'bgr',
) -> NDArray[np.uint8]:
    """Return a copy of `image`, as `draw` does, with `boxes` (K, 4), xyxy, and a text at each."""
    canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if order == 'gray' else image.copy()
    scale = max(canvas.shape[:2]) / 640
    thickness = max(1, round(2 * scale))
    font, font_scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, 0.5 * scale)
    font_thickness = max(1, round(scale))
    for box, class_id, text in zip(boxes, class_ids, texts, strict=True):
        color = class_color(int(class_id))
        if order != 'rgb':
            color = color[::-1]
        left, top, right, bottom = (round(float(value)) for value in box)
        cv2.rectangle(canvas, (left, top), (right, bottom), color, thickness)
        (width, height), below = cv2.getTextSize(text, font, font_scale, font_thickness)
        # Above the box, or inside it where the image ends.
        base = top - below if top - height - 2 * below >= 0 else top + height + below
        cv2.rectangle(
            canvas, (left, base - height - below), (left + width, base + below), color, -1
        )
        dark = sum(color) > 380
        ink = (0, 0, 0) if dark else (255, 255, 255)
        cv2.putText(canvas, text, (left, base), font, font_scale, ink, font_thickness, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def draw_dashed(canvas: NDArray[np.uint8], box: Sequence[int], dash: int = 6) -> None:
    """Draw a box (left, top, right, bottom) in black and white into `canvas`."""
    left, top, right, bottom = box
    white, black = (255, 255, 255), (0, 0, 0)
    thickness = 2 if min(right - left, bottom - top) >= 24 else 1
    for start, end in (
        ((left, top), (right, top)),
        ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)),
        ((left, bottom), (left, top)),
    ):
        a, b = np.array(start, float), np.array(end, float)
        length = float(np.abs(b - a).max())
        pieces = max(1, round(length / dash))
        for piece in range(pieces):
            p, q = (a + (b - a) * (piece + k) / pieces for k in (0, 1))
            color = white if piece % 2 else black
            cv2.line(
                canvas,
                tuple(p.astype(int).tolist()),
                tuple(q.astype(int).tolist()),
                color,
                thickness,
            )
