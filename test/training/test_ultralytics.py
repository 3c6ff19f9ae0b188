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

"""Ultralytics of the user's own installation: pruned, exported, bundled, the same boxes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
tasks: Any = pytest.importorskip(
    'ultralytics.nn.tasks', reason='Ultralytics is AGPL-3.0, and no dependency: install it yourself'
)

from tiny_detector import tiny_manifest  # noqa: E402

from pruned_perception.bundle import write_bundle  # noqa: E402
from pruned_perception.inference.decoders import yolov8  # noqa: E402
from pruned_perception.inference.detector import Detector  # noqa: E402
from pruned_perception.inference.nms import class_wise_nms  # noqa: E402
from pruned_perception.pruning import Macs, make_plan, recalibrate  # noqa: E402
from pruned_perception.training.exporting import onnx_bytes  # noqa: E402

SIZE, CLASSES = 128, 80


def detector(name: str) -> Any:
    """Return a network of its definition, random weights, as docs/detectors.md prepares it."""
    torch.manual_seed(0)
    network = tasks.DetectionModel(f'{name}.yaml', verbose=False).float().eval()
    head = network.model[-1]
    head.export, head.format = True, 'onnx'
    with contextlib.suppress(AttributeError):  # only YOLO26 has two ways to put out its boxes
        head.end2end = False
    return network


@torch.no_grad()
def with_scores_that_differ(network: Any, images: Any) -> Any:
    """Return a network whose class scores are about 0.5, and others from place to place."""

    def scale(layer: Any, x: Any, y: Any) -> None:
        layer.weight /= y.std()

    for branch in network.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
        handle = branch[-1].register_forward_hook(scale)
        network(images)
        handle.remove()
    return network


@pytest.mark.parametrize('name', ['yolov8n', 'yolo11n', 'yolo26n'])
def test_the_bundle_finds_the_boxes_of_the_pruned_module_to_a_pixel(
    name: str, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(1)
    network, example = detector(name), (torch.zeros(1, 3, SIZE, SIZE),)
    batches = [torch.rand(4, 3, SIZE, SIZE, generator=generator)]
    network = with_scores_that_differ(recalibrate(network, batches), batches[0])
    plan = make_plan(
        network, example, budget=Macs(0.5), criterion='filter_l2', allocation='uniform', round_to=8
    )
    small = with_scores_that_differ(plan.apply(network, batches), batches[0])
    assert 0.3 * plan.dense_macs < plan.macs <= 0.5 * plan.dense_macs

    picture = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    inputs = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        outputs = small(inputs)
    found = (outputs[0] if isinstance(outputs, tuple | list) else outputs).numpy()
    best = np.sort(found[0, 4:].max(0))[::-1]
    threshold = float(best[40] + best[41]) / 2
    wanted = yolov8.decode([found], {}, (SIZE, SIZE), threshold)
    kept = class_wise_nms(wanted.boxes, wanted.scores, wanted.class_ids, 0.7, 100)

    spec = {
        'name': 'images', 'shape': [1, 3, SIZE, SIZE], 'dtype': 'float32', 'layout': 'NCHW',
        'color': 'rgb', 'resize': 'letterbox', 'align': 'center', 'pad_value': 114,
        'mean': [0, 0, 0], 'std': [255, 255, 255],
    }  # fmt: skip
    bundle = write_bundle(
        tmp_path,
        onnx_bytes(small, example, ['images'], ['output']),
        tiny_manifest(
            name=name,
            input=spec,
            output={'names': ['output'], 'decoder': 'yolov8', 'parameters': {}},
            labels=[f'class {k}' for k in range(CLASSES)],
            thresholds={'score': threshold, 'iou': 0.7, 'max_detections': 100},
        ),
    )
    detected = Detector(bundle).detect(picture, 'rgb')[0]
    assert len(kept) >= 5
    np.testing.assert_array_equal(detected.class_ids, wanted.class_ids[kept])
    np.testing.assert_allclose(detected.scores, wanted.scores[kept], atol=1e-4)
    limit = np.clip(wanted.boxes[kept], 0, SIZE)  # boxes end where the picture does
    assert np.abs(detected.boxes - limit).max() < 1
