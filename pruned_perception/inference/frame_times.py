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

"""The moments of one frame: stamped once each, and which duration lies between which two."""

from __future__ import annotations

from dataclasses import dataclass

DETECTOR_STAGES = ('preprocess', 'inference', 'postprocess')
STAGES = ('queue_age', *DETECTOR_STAGES, 'publish')
"""Disjoint, in order: their sum is t_pub − t_rx."""

AGES = ('age_at_receipt', 'e2e_publish')
FRAME_QUANTITIES = (AGES[0], *STAGES, AGES[1])
"""What is measured of every published frame, in the order of its way through the node."""


@dataclass
class FrameTimes:
    """The moments of one frame, set as it passes them, and what lies between them; nanoseconds.

    `t_…` are of the monotonic clock: `nodes/image_node.py` sets t_rx, t_start and t_pub, and
    `Detector.detect`, for every user of a detector, t_pre, t_inf and t_post. A duration means
    something once both its ends are set. Ages compare the node's clock with the header stamp; the
    two kinds are never mixed.
    """

    t_rx: int = 0
    """The callback is entered."""
    t_start: int = 0
    """The worker takes the frame."""
    t_pre: int = 0
    """The tensor is ready."""
    t_inf: int = 0
    """The engine's run is over."""
    t_post: int = 0
    """The detections are there."""
    t_pub: int = 0
    """`publish()` has returned."""
    stamp: int = 0
    """Of the header; 0 = none."""
    clock_rx: int = 0
    """The node's clock at t_rx."""
    clock_pub: int = 0
    """The node's clock at t_pub."""

    @property
    def queue_age(self) -> int:
        """Wait for the worker."""
        return self.t_start - self.t_rx

    @property
    def preprocess(self) -> int:
        """From the message to the tensor: decoding, resizing."""
        return self.t_pre - self.t_start

    @property
    def inference(self) -> int:
        """The engine's run only."""
        return self.t_inf - self.t_pre

    @property
    def postprocess(self) -> int:
        """From the outputs to the detections: decoding, non-maximum suppression."""
        return self.t_post - self.t_inf

    @property
    def publish(self) -> int:
        """Making and publishing the message."""
        return self.t_pub - self.t_post

    @property
    def processing(self) -> int:
        """The worker's time for the frame."""
        return self.t_pub - self.t_start

    @property
    def age_at_receipt(self) -> int | None:
        """Age of the stamp at t_rx; None where it is invalid."""
        return age_ns(self.stamp, self.clock_rx)

    @property
    def e2e_publish(self) -> int | None:
        """Age of the stamp at t_pub; None where it is invalid."""
        return age_ns(self.stamp, self.clock_pub)


def age_ns(stamp: int, clock: int) -> int | None:
    """Return clock − stamp; None where there is no stamp or clock, or the stamp is ahead."""
    return clock - stamp if stamp > 0 and 0 < clock >= stamp else None
