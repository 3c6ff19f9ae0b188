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

"""Checkpoint → bundle: ONNX with scaling and decoding in the graph, compared with PyTorch."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pruned_perception import __version__
from pruned_perception.bundle import SCHEMA_VERSION, Bundle, write_bundle
from pruned_perception.errors import UserError
from pruned_perception.inference.engine import create_session
from pruned_perception.pruning import count
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.training.detector.checkpoint import PRETRAINED_KEY, SEEN
from pruned_perception.training.detector.deployment import Deployed, folded
from pruned_perception.training.detector.network import Detector, decode, grid
from pruned_perception.training.exporting import onnx_bytes

COMPARED_FRAMES = 16
TOLERANCE = 1e-3  # on scores; on distances relative to the stride, or to themselves if longer
SCORE_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS = 0.4, 0.6, 100


class ExportError(UserError):
    """The exported model does not compute what the checkpoint does."""


def to_onnx(detector: Detector, images: np.ndarray) -> bytes:
    """Return the ONNX model of `detector`, after comparing it with PyTorch on `images`.

    Args:
        detector: as trained.
        images: (K, H, W, 3) uint8 RGB at the network's input size.

    Raises:
        ExportError: ONNX Runtime's outputs differ from PyTorch's.
    """
    example = torch.from_numpy(np.array(images[:1]))
    data = onnx_bytes(Deployed(detector), (example,), ['image'], ['predictions'])
    compare(detector, data, images)
    return data


@torch.no_grad()
def compare(detector: Detector, onnx_bytes: bytes, images: np.ndarray) -> float:
    """Return the largest difference of ONNX Runtime from PyTorch (unfused) on `images`.

    Scores differ absolutely, distances relative to their cell's stride or, where they are longer,
    to themselves. Raises ExportError above TOLERANCE.
    """
    session = create_session(onnx_bytes)
    _, strides = grid(*detector.input_size, detector.strides)
    worst = 0.0
    with fed_from_cpu(detector):
        for image in images:
            (found,) = session.run(None, {'image': image[None]})
            tensor = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2).float() / 255
            wanted = decode(detector.eval()(tensor), strides).numpy()
            gap = np.abs(found - wanted)
            gap[..., :4] /= np.maximum(strides.numpy()[:, None], wanted[..., :4])
            worst = max(worst, float(gap.max()))
    if not worst <= TOLERANCE:
        raise ExportError(f'ONNX Runtime differs from PyTorch by {worst:.2g} (> {TOLERANCE:g})')
    return worst


def export_bundle(
    checkpoint: Mapping[str, Any],
    detector: Detector,
    images: np.ndarray,
    folder: str | os.PathLike[str],
    *,
    name: str,
    parent: Bundle | None,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Write the bundle of a checkpoint and return it as the robot loads it.

    Args:
        checkpoint: as read; its labels, experiment and ancestry go into the manifest.
        detector: of the checkpoint.
        images: (K, H, W, 3) uint8 on which ONNX Runtime is compared with PyTorch.
        folder: of the bundle.
        name: of the bundle.
        parent: the dense member, for a pruned one.
        provenance: data and licences.

    Raises:
        ExportError: see `to_onnx`.
    """
    onnx_bytes = to_onnx(detector, images)
    height, width = detector.input_size
    cost = count(folded(detector), (torch.zeros(1, 3, height, width),))
    ancestry = checkpoint['ancestry']
    manifest = {
        'schema_version': SCHEMA_VERSION,
        'name': name,
        'input': {
            'name': 'image',
            'shape': [1, height, width, 3],
            'dtype': 'uint8',
            'layout': 'NHWC',
            'color': 'rgb',
            'resize': 'stretch',
            'align': 'center',
            'pad_value': 114,
            'mean': [0, 0, 0],
            'std': [1, 1, 1],
        },
        'output': {
            'names': ['predictions'],
            'decoder': 'anchor_free',
            'parameters': {'strides': list(detector.strides)},
        },
        'labels': list(checkpoint['labels']),
        'thresholds': {
            'score': SCORE_THRESHOLD,
            'iou': IOU_THRESHOLD,
            'max_detections': MAX_DETECTIONS,
        },
        'cost': {'parameters': cost.parameters, 'macs': cost.macs},
        'parent': None if parent is None else {'name': parent.name, 'sha256': parent.sha256},
        'pruning': ancestry.get('plan'),
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            **provenance,
            'experiment': checkpoint['experiment'],
            'architecture': checkpoint['architecture'],
            'training': {
                'frames': checkpoint['data']['frames'],
                'annotations_sha256': checkpoint['data']['train'],
                'steps': checkpoint['steps'],
                'cpu_seconds': round(checkpoint['cpu_seconds'], 1),
                'cpu_seconds_of_parents': round(ancestry.get('cpu_seconds', 0.0), 1),
                'torch': str(torch.__version__),
            },
            **{name: ancestry[name] for name in (PRETRAINED_KEY,) if name in ancestry},
            'earlier_plans': ancestry.get('earlier_plans', []),
            SEEN: checkpoint.get(SEEN, {}),
            'seed': checkpoint['experiment']['seed'],
        },
    }
    return write_bundle(folder, onnx_bytes, manifest)
