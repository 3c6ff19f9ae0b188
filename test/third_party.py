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

"""Bundles of the third-party detectors of the shared data, and its COCO images with labels.

`python test/third_party.py DATA` prints their accuracy on the 128 images of `DATA/coco128_train`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pruned_perception.bundle import Bundle, write_bundle
from pruned_perception.inference.coco_metrics import Boxes, Metrics, coco_metrics
from pruned_perception.inference.detector import Detector, Settings

# name → file, and what differs from the defaults in the manifest's sections.
DETECTORS: dict[str, dict[str, Any]] = {
    'yolox': {
        'file': 'yolox_nano/yolox_nano.onnx',
        'input': {'name': 'images', 'size': 416, 'resize': 'letterbox', 'align': 'top_left'},
        'outputs': ['output'],
        'thresholds': {'score': 0.3, 'iou': 0.45, 'max_detections': 100},
    },
    'nanodet': {
        'file': 'nanodet_m/nanodet_m_320.onnx',
        'input': {
            'name': 'input.1',
            'size': 320,
            'resize': 'letterbox',
            'pad_value': 0,
            'mean': [103.53, 116.28, 123.675],
            'std': [57.375, 57.12, 58.395],
        },
        'outputs': [f'{kind}_pred_stride_{s}' for kind in ('cls', 'dis') for s in (8, 16, 32)],
        'thresholds': {'score': 0.35, 'iou': 0.6, 'max_detections': 100},
    },
    'fastestdet': {
        'file': 'fastestdet/FastestDet.onnx',
        'input': {'name': 'input.1', 'size': 352, 'std': [255, 255, 255]},
        'outputs': ['758'],
        'thresholds': {'score': 0.65, 'iou': 0.45, 'max_detections': 100},
    },
}


def coco_labels(data: Path) -> list[str]:
    """Return the 80 class names."""
    return (data / 'coco128_train' / 'coco.names').read_text().split('\n')[:80]


def write_third_party(name: str, data: Path, folder: Path, **changes: Any) -> Bundle:
    """Write the bundle of one of DETECTORS; `changes` go to the section `input`."""
    facts = DETECTORS[name]
    given = {**facts['input'], **changes}
    size = given.pop('size')
    spec = {
        'shape': [1, 3, size, size],
        'dtype': 'float32',
        'layout': 'NCHW',
        'color': 'bgr',
        'resize': 'stretch',
        'align': 'center',
        'pad_value': 114,
        'mean': [0, 0, 0],
        'std': [1, 1, 1],
        **given,
    }
    manifest = {
        'schema_version': 1,
        'name': name,
        'input': spec,
        'output': {'names': facts['outputs'], 'decoder': name, 'parameters': {}},
        'labels': coco_labels(data),
        'thresholds': facts['thresholds'],
        'cost': {'parameters': 0, 'macs': 0},
        'parent': None,
        'pruning': None,
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {'created': '2025-01-01T00:00:00Z', 'tool': 'test'},
    }
    return write_bundle(folder, (data / 'detectors' / facts['file']).read_bytes(), manifest)


def coco_images(data: Path, count: int) -> list[tuple[np.ndarray, Boxes]]:
    """Return the first `count` images (bgr) with their boxes."""
    folder = data / 'coco128_train'
    found = []
    for file in sorted((folder / 'images').glob('*.jpg'))[:count]:
        image = cv2.imread(str(file))
        height, width = image.shape[:2]
        label_file = folder / 'labels' / f'{file.stem}.txt'
        text = label_file.read_text() if label_file.is_file() else ''
        rows = np.array([line.split() for line in text.splitlines()], np.float64).reshape(-1, 5)
        centre, half = rows[:, 1:3], rows[:, 3:5] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * np.array(
            [width, height] * 2
        )
        found.append((image, Boxes(boxes, rows[:, 0].astype(np.int64))))
    return found


def evaluate(bundle: Bundle, images: list[tuple[np.ndarray, Boxes]]) -> Metrics:
    """Return COCO metrics at the usual low threshold."""
    detector = Detector(bundle)
    settings = Settings(0.01, bundle.thresholds.iou, 100)
    detections = [detector.detect(image, settings=settings)[0] for image, _ in images]
    return coco_metrics(
        [boxes for _, boxes in images],
        detections,
        bundle.labels,
        score_threshold=bundle.thresholds.score,
    )


def main(data: Path) -> None:
    """Print a line per detector."""
    images = coco_images(data, 128)
    for name in DETECTORS:
        with tempfile.TemporaryDirectory() as folder:
            metrics = evaluate(write_third_party(name, data, Path(folder)), images)
        print(
            f'{name:12} AP50 {metrics.ap50:.3f}  AP50:95 {metrics.ap50_95:.3f}  '
            f'recall {metrics.overall.recall:.3f}  precision {metrics.overall.precision:.3f}'
        )


if __name__ == '__main__':
    main(Path(sys.argv[1]))
