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

"""The pipeline of `perception_node`: a bundle's detector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pruned_perception.bundle import Bundle
from pruned_perception.errors import UserError
from pruned_perception.inference import Detector, FrameTimes, Settings
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.nodes import malloc
from pruned_perception.nodes.diagnostics import Filters, Watch
from pruned_perception.nodes.image_node import Result
from pruned_perception.nodes.parameters import class_ids

if TYPE_CHECKING:
    from pruned_perception.nodes.shadow import Shadow


def settings(bundle: Bundle, values: Mapping[str, Any]) -> Settings:
    """Return the detector's settings: the parameters, and the manifest's where they say so.

    Raises ParameterError for a class that the bundle does not have.
    """
    score, iou = values['score_threshold'], values['iou_threshold']
    return Settings(
        score_threshold=bundle.thresholds.score if score < 0 else score,
        iou_threshold=bundle.thresholds.iou if iou < 0 else iou,
        max_detections=values['max_detections'] or bundle.thresholds.max_detections,
        classes=class_ids(values['classes'], bundle.labels),
    )


def _max_pixels(values: Mapping[str, Any]) -> int:
    return round(values['max_megapixels'] * 1e6)


class DetectorPipeline:
    """Decode the message, run the detector; see `image_node.Pipeline`."""

    def __init__(
        self, bundle: Bundle, values: Mapping[str, Any], trusted_keys: Sequence[str] = ()
    ) -> None:
        # The node watches over its own limits, which may change.
        self._detector = Detector(bundle, threads=values['threads'], time_limit_s=math.inf)
        # The session has its own copy of the weights.
        bundle = self._detector.bundle = replace(bundle, onnx_bytes=b'')
        self._settings = self._detector.settings
        self._max_pixels = _max_pixels(values)
        self.labels = bundle.labels
        self.description = {'model': bundle.name, 'sha256': bundle.sha256}
        self.remark = (
            ''
            if values['trusted_keys']
            else 'trusted_keys is not set: a model is loaded whoever made it, signed or not'
        )
        self._shadow: Shadow | None = None
        self._unwatched = ''
        if values['watch_share']:
            self._watch(values, trusted_keys)

    def _watch(self, values: Mapping[str, Any], trusted_keys: Sequence[str]) -> None:
        from pruned_perception.nodes.shadow import Shadow  # not for a start without it

        try:
            self._shadow = Shadow(
                self._detector.bundle, values['watch_share'], values['watch_file'], trusted_keys
            )
        except UserError as error:  # said, see `watch`: the robot sees nevertheless
            self._unwatched = str(error)

    @property
    def watch(self) -> Watch | None:
        """How the certificate stands; None where it is not watched."""
        if self._shadow is not None:
            return self._shadow.state()
        return Watch(None, trouble=self._unwatched) if self._unwatched else None

    def start(self) -> None:
        """Get ready to watch."""
        if self._shadow is not None:
            self._shadow.start()

    def stop(self) -> None:
        """End watching until `start`, and write what it found."""
        if self._shadow is not None:
            self._shadow.stop()

    def published(self, result: Result, hurried: bool) -> None:
        """Let the dense net see the frame, perhaps."""
        if self._shadow is not None and result.image is not None:
            self._shadow.offer(result.image, result.order, result.detections, self._used, hurried)

    @property
    def score_threshold(self) -> float:
        """The score threshold in use."""
        return self._settings.score_threshold

    @property
    def filters(self) -> Filters:
        """What detections have to pass."""
        now, classes = self._settings, self._settings.classes
        labels = () if classes is None else tuple(self.labels[i] for i in sorted(classes))
        return Filters(now.score_threshold, now.iou_threshold, now.max_detections, labels)

    def warm_up(self) -> None:
        """Run once, and give back the memory that loading took; raises InferenceError."""
        self._detector.warm_up(1)
        malloc.give_back_unused()

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise ParameterError where a class is none of the model's."""
        settings(self._detector.bundle, values)

    def apply(self, values: Mapping[str, Any]) -> None:
        """Use the limits, thresholds and classes of `values` from the next frame on."""
        self._settings = settings(self._detector.bundle, values)
        self._max_pixels = _max_pixels(values)

    def run(self, message: Any, times: FrameTimes) -> Result:
        """Detect in one image; raises ImageError or InferenceError."""
        image, order = image_from_message(message, self._max_pixels)
        self._used = self._settings
        detections, _ = self._detector.detect(image, order, self._used, times)
        return Result(detections, image, order)
