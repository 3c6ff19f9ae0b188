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

"""Accuracy of a net still in PyTorch, through the robot's own decoding and suppression."""

from __future__ import annotations

import numpy as np
import torch

from pruned_perception.inference import decoders
from pruned_perception.inference.coco_metrics import Boxes, Metrics, coco_metrics
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.nms import class_wise_nms
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.network import Detector, decode, grid
from pruned_perception.training.processes import in_parts

MIN_SCORE = 0.02
IOU_THRESHOLD = 0.6
MAX_DETECTIONS = 100


@torch.no_grad()
def validate(
    model: Detector, frames: FrameSet, *, limit: int | None = None, outcomes: bool = False
) -> Metrics:
    """Return the COCO accuracy of `model` (in eval mode) on frames spread over the set.

    For progress during training; what is published comes from the exported model (`accuracy`).
    `outcomes`: with the pseudo-values of its groups.
    """
    count = len(frames) if limit is None else min(limit, len(frames))
    indices = np.linspace(0, len(frames) - 1, count).round().astype(int)
    height, width = frames.images.shape[1:3]
    size = height, width
    _, strides = grid(height, width, model.strides)
    decoder = decoders.get('anchor_free')

    def detections(index: int) -> Detections:
        image = torch.from_numpy(np.array(frames.images[index]))[None].permute(0, 3, 1, 2)
        predictions = decode(model(image.float() / 255), strides).numpy()
        candidates = decoder.decode([predictions], {'strides': model.strides}, size, MIN_SCORE)
        keep = class_wise_nms(*candidates, IOU_THRESHOLD, MAX_DETECTIONS)
        boxes, scores, class_ids = candidates
        return Detections(boxes[keep], scores[keep], class_ids[keep])

    found = in_parts(indices.tolist(), detections)
    truth = [
        Boxes(frames.boxes[index], frames.class_ids[index], frames.crowd[index])
        for index in indices
    ]
    groups = [frames.groups[index] for index in indices]
    return coco_metrics(truth, found, frames.labels, groups=groups, outcomes=outcomes)
