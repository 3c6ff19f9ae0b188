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


"""What a detector finds in some pictures, prepared as its bundle says and otherwise.

Colour order, scale and mean stand in no graph, and a network runs with wrong ones all the same: it
finds less, or other things. High scores alone tell nothing: inputs on too large a scale saturate a
network, which is then sure of anything. What it finds again in the mirrored picture tells more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import Bundle
from pruned_perception.bundle.manifest import InputSpec
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.nms import iou_matrix

Pictures = Sequence[tuple[NDArray[np.uint8], str]]
"""Images, and the order of their colours."""
MOST = 8  # pictures that are looked at
ENOUGH = 4  # pictures from which on a warning is seldom wrong: `studies.picture_check`
# Named scales, as (mean, std) of values 0 … 255 in the order red, green, blue.
SCALES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    '--mean 0 0 0 --std 1 1 1': ((0.0,) * 3, (1.0,) * 3),
    '--mean 0 0 0 --std 255 255 255': ((0.0,) * 3, (255.0,) * 3),
    '--mean 127.5 127.5 127.5 --std 127.5 127.5 127.5': ((127.5,) * 3, (127.5,) * 3),
    "ImageNet's mean and deviation": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
TIMES, MORE = 1.5, 0.3
"""How many times, and by how much a picture at least, an alternative must be better to be named."""


@dataclass(frozen=True)
class Trial:
    """What is found under one way of preparing pictures."""

    options: str
    """How it differs from the bundle, as options of `bundle create`; '' for the bundle's own."""
    pictures: int
    detections: int
    scores: float
    """Sum of the scores that reach the bundle's threshold."""
    again: float
    """Sum of those of detections that are found again in the mirrored picture."""
    best: tuple[tuple[int, float], ...]
    """Class and score of the surest detections."""

    @property
    def share(self) -> float:
        """Which share of the scores is found again."""
        return self.again / self.scores if self.scores > 0 else 0.0

    @property
    def quality(self) -> float:
        """Scores that are found again, a picture, weighted by their share."""
        return self.share * self.again / self.pictures

    def clearly_better(self, other: Trial) -> bool:
        """Say whether this way of preparing pictures is to be believed rather than another."""
        enough = max(TIMES * other.quality, other.quality + MORE)
        return self.quality >= enough and self.share >= other.share


def trials(bundle: Bundle, pictures: Pictures) -> tuple[Trial, ...]:
    """Return what is found as the bundle says, and under each alternative, one change at a time."""
    found = []
    for options, changes in (('', {}), *_alternatives(bundle.input)):
        changed = replace(bundle, input=replace(bundle.input, **changes))
        found.append(_trial(options, Detector(changed), pictures))
    return tuple(found)


def doubt(found: Sequence[Trial]) -> str | None:
    """Return a warning where an alternative is clearly better; None where none is."""
    own, *others = found
    better = [each for each in others if each.clearly_better(own)]
    if not better:
        return None
    best = max(better, key=lambda each: each.quality)
    few = '' if own.pictures >= ENOUGH else ' (few pictures say little: give a folder of eight)'
    return (
        f'with {best.options}, scores of {best.again:.2f} are found again in the mirrored '
        f'pictures, as the bundle is {own.again:.2f}: are they prepared as its authors do?{few}'
    )


def _trial(options: str, detector: Detector, pictures: Pictures) -> Trial:
    count, scores, again = 0, 0.0, 0.0
    best: list[tuple[int, float]] = []
    for image, order in pictures:
        one, _ = detector.detect(image, order)
        other, _ = detector.detect(np.ascontiguousarray(image[:, ::-1]), order)
        count += len(one.scores)
        scores += float(one.scores.sum())
        again += _found_again(one, other, image.shape[1])
        best += zip(one.class_ids.tolist(), one.scores.tolist(), strict=True)
    surest = sorted(best, key=lambda each: -each[1])[:3]
    return Trial(options, len(pictures), count, scores, again, tuple(surest))


def _found_again(one: Detections, other: Detections, width: int) -> float:
    """Return the sum of the scores, the lower of both, that `other` has at mirrored places."""
    if not len(one.scores) or not len(other.scores):
        return 0.0
    mirrored = other.boxes.copy()
    mirrored[:, [0, 2]] = width - other.boxes[:, [2, 0]]
    same = np.equal.outer(one.class_ids, other.class_ids)
    same &= iou_matrix(one.boxes, mirrored) >= 0.5
    lower = np.minimum.outer(one.scores, other.scores)
    return float(np.where(same, lower, 0).max(axis=1).sum())


def _alternatives(spec: InputSpec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    other = 'bgr' if spec.color == 'rgb' else 'rgb'
    # Mean and deviation stay with their colours.
    turned = {'color': other, 'mean': spec.mean[::-1], 'std': spec.std[::-1]}
    yield f'--color {other}', turned
    resize = 'stretch' if spec.resize == 'letterbox' else 'letterbox'
    yield f'--resize {resize}', {'resize': resize}
    if spec.dtype == 'uint8':  # such a graph scales by itself
        return
    for options, (mean, std) in SCALES.items():
        step = 1 if spec.color == 'rgb' else -1
        if (mean[::step], std[::step]) != (tuple(spec.mean), tuple(spec.std)):
            yield options, {'mean': mean[::step], 'std': std[::step]}
