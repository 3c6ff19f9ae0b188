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

"""The pipeline of `echo_node`: no network, the same boxes for every image.

The node measures what everything but the network costs; see docs/node.md, "Overhead".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pruned_perception.inference.detections import Detections
from pruned_perception.inference.frame_times import FrameTimes
from pruned_perception.nodes.image_node import Result


class EchoPipeline:
    """Return as many boxes as the parameter `boxes` says; see `image_node.Pipeline`."""

    labels = ('echo',)
    description: Mapping[str, str] = {'model': 'echo', 'sha256': ''}
    score_threshold = 0.0
    remark = ''
    warnings = ()
    filters = None
    watch = None
    contract = None

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.apply(values)

    def warm_up(self) -> None:
        """Do nothing: there is no network."""

    def self_check(self) -> None:
        """Do nothing."""

    def lost(self) -> None:
        """Do nothing."""

    def hurry(self) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing: nothing is watched."""

    def stop(self) -> None:
        """Do nothing."""

    def published(self, result: Result, times: FrameTimes, hurried: Callable[[], bool]) -> None:
        """Do nothing."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Take everything."""

    def apply(self, values: Mapping[str, Any]) -> None:
        """Publish `boxes` detections from the next frame on."""
        corners = np.arange(values['boxes'], dtype=np.float32)[:, None]
        self._detections = Detections(
            boxes=np.hstack([corners, corners, corners + 32, corners + 32]),
            scores=np.full(len(corners), 0.5, np.float32),
            class_ids=np.zeros(len(corners), np.int64),
        )

    def run(self, message: Any, times: FrameTimes) -> Result:
        """Return the boxes, having looked at nothing."""
        times.t_pre = times.t_inf = times.t_post = time.monotonic_ns()
        return Result(self._detections, self.description)
