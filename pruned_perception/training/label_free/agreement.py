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

"""How like its parent a network is, on frames that nothing is fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from pruned_perception.bundle import Bundle
from pruned_perception.inference.accuracy import MIN_SCORE
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.decisions import match_objects
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.errors import InferenceError
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record
from pruned_perception.training.onnx_import import OnnxNetwork, export_onnx

Picture = NDArray[np.uint8]
WORST = 1e6


@dataclass(frozen=True)
class Likeness(Record):
    """`agreement`: 2 · matched / (parent's + child's detections), at the operating threshold.

    `ap50`: with the parent's detections there as the truth, mean over the classes that it finds;
    the child's count at any score, so that what fell below the threshold is not lost, and classes
    alike, so that the usual one does not hide what became of the others.

    `error`: root of the squared error of the outputs, relative to their squares around their mean
    over the frames; of several outputs the mean. Where outputs are not finite: 0, 0, and `WORST`.
    """

    agreement: float
    ap50: float
    error: float


class HeldOut:
    """The parent on held-out frames, to compare its children with: all in ONNX Runtime."""

    def __init__(self, bundle: Bundle, network: OnnxNetwork, frames: Sequence[Picture]) -> None:
        """Run the parent.

        Args:
            bundle: the parent.
            network: its network.
            frames: BGR pictures.

        Raises:
            PruningError: there are none, or the parent finds nothing on them.
        """
        if not len(frames):
            raise PruningError('held-out frames: there are none to judge by')
        self.bundle, self.network, self.frames = bundle, network, frames
        self.outputs, self.detections = _run(bundle, frames)
        score = bundle.thresholds.score
        self.truth = [_shown(each, score) for each in self.detections]
        if not any(len(each.class_ids) for each in self.truth):
            raise PruningError(
                f'held-out frames: {bundle.name} finds nothing on any of the {len(frames)} at its '
                f'threshold of {score:g}: they are of another domain than it was trained for, or '
                'its bundle says wrongly how images become inputs'
            )
        self.means = [sum(each) / len(frames) for each in zip(*self.outputs, strict=True)]

    def likeness(self, module: fx.GraphModule) -> Likeness:
        """Compare a network made of the parent's."""
        child = dataclasses.replace(self.bundle, onnx_bytes=export_onnx(self.network, module))
        try:
            outputs, detections = _run(child, self.frames)
        except InferenceError:  # what has run away in training
            return Likeness(0.0, 0.0, WORST)
        score = self.bundle.thresholds.score
        lost = invented = total = 0
        for parent, other in zip(self.detections, detections, strict=True):
            decided = match_objects(parent, other, score_threshold=score)
            lost, invented = lost + len(decided.lost), invented + len(decided.invented)
            total += len(decided.shown) + len(decided.detected)
        found = coco_metrics(self.truth, detections, self.bundle.labels, score_threshold=score)
        return Likeness(1 - (lost + invented) / total, found.ap50, self._error(outputs))

    def _error(self, outputs: Sequence[Sequence[NDArray[Any]]]) -> float:
        wrong = np.zeros(len(self.means))
        scale = np.zeros(len(self.means))
        for ours, theirs in zip(outputs, self.outputs, strict=True):
            for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                wrong[index] += np.square(a - b, dtype=np.float64).sum()
                scale[index] += np.square(b - self.means[index], dtype=np.float64).sum()
        return min(WORST, float(np.sqrt(wrong / scale.clip(1e-30)).mean()))


def _shown(detections: Detections, score: float) -> Boxes:
    sure = detections.scores >= score
    return Boxes(detections.boxes[sure], detections.class_ids[sure])


def _run(
    bundle: Bundle, frames: Sequence[Picture]
) -> tuple[list[list[NDArray[Any]]], list[Detections]]:
    """Return outputs and detections; these down to a low score, which AP needs."""
    detector = Detector(bundle)
    settings = dataclasses.replace(detector.settings, score_threshold=MIN_SCORE)
    outputs, detections = [], []
    for frame in frames:
        outputs.append([each.copy() for each in detector.outputs(frame)])
        detections.append(detector.detect(frame, settings=settings)[0])
    return outputs, detections
