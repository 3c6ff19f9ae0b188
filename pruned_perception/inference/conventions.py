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

"""What ONNX files of known detectors do not say: how their authors prepare images.

A decoder tells what outputs mean; the picture's colours, scaling and placement stand in no graph.
The authors' own programs fix them, and here they are by decoder, for a bundle that does not say
otherwise. A wrong guess shows at once: such a network detects next to nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

USUAL: dict[str, Any] = {
    'color': 'rgb',
    'resize': 'letterbox',
    'align': 'center',
    'pad_value': 114,
    'mean': (0.0, 0.0, 0.0),
    'std': (1.0, 1.0, 1.0),
    'score': 0.4,
    'iou': 0.6,
    'max_detections': 100,
}
"""Where neither the user nor a decoder's authors say anything."""

AUTHORS: dict[str, dict[str, Any]] = {
    'anchor_free': {'resize': 'stretch'},
    # YOLOX, demo/ONNXRuntime: bytes as they are, bgr, in the upper left corner.
    'yolox': {'color': 'bgr', 'align': 'top_left', 'score': 0.3, 'iou': 0.45},
    # NanoDet, config/nanodet-m.yml.
    'nanodet': {
        'color': 'bgr',
        'pad_value': 0,
        'mean': (103.53, 116.28, 123.675),
        'std': (57.375, 57.12, 58.395),
        'score': 0.35,
    },
    # FastestDet, test.py.
    'fastestdet': {
        'color': 'bgr',
        'resize': 'stretch',
        'std': (255.0, 255.0, 255.0),
        'score': 0.65,
        'iou': 0.45,
    },
    # Ultralytics, v8 and later.
    'yolov8': {'std': (255.0, 255.0, 255.0), 'score': 0.25, 'iou': 0.7},
    # YOLOv10, YOLO26 and Ultralytics' nms=True; YOLOv7's --end2end.
    'end_to_end': {'std': (255.0, 255.0, 255.0), 'score': 0.25},
    # YOLOv6 and YOLOv7 for TensorRT.
    'efficient_nms': {'std': (255.0, 255.0, 255.0), 'score': 0.25},
    # PP-YOLOE+ (PP-YOLOE before it took ImageNet's mean and deviation).
    'ppyoloe': {'resize': 'stretch', 'std': (255.0, 255.0, 255.0)},
    # DETR, datasets/transforms.py: ImageNet's mean and deviation.
    'detr': {
        'resize': 'stretch',
        'mean': (123.675, 116.28, 103.53),
        'std': (58.395, 57.12, 57.375),
        'iou': 1.0,
    },
}
"""Decoder → what its authors' programs do otherwise than `USUAL`."""


def preparation(
    decoder: str, given: Mapping[str, Any], whose: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return all fields of `USUAL`: as given (None: not), as the authors do, or as is usual.

    `whose` is what the authors of this very network do otherwise than others with its decoder.
    """
    said = {name: value for name, value in given.items() if value is not None}
    return {**USUAL, **AUTHORS.get(decoder, {}), **(whose or {}), **said}


def labels_in(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the labels that Ultralytics' exporter leaves in a file's metadata; None without."""
    try:
        names = ast.literal_eval(metadata['names'])
    except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(names, Mapping):
        if sorted(names) != list(range(len(names))):
            return None
        names = list(map(names.__getitem__, range(len(names))))
    whole = isinstance(names, list | tuple) and all(isinstance(each, str) for each in names)
    return tuple(names) if whole and names else None
