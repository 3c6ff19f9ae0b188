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

"""Losses of boxes and scores that every dense detector shares."""

from __future__ import annotations

from torch import Tensor, maximum, minimum
from torch.nn import functional

FOCUS = 1.0  # the paper has 2, with which short trainings learn more slowly


def quality_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the quality focal loss of each logit for its target in 0…1: 0 where they agree.

    Source: Li et al., Generalized Focal Loss (NeurIPS 2020), section 3.1.
    """
    focus = (targets - logits.detach().sigmoid()).abs().pow(FOCUS)
    return functional.binary_cross_entropy_with_logits(
        logits, targets, weight=focus, reduction='none'
    )


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (K,) in −1…1 of boxes a and b (K, 4), row by row."""
    shared = area(maximum(a[:, :2], b[:, :2]), minimum(a[:, 2:], b[:, 2:]))
    union = area(a[:, :2], a[:, 2:]) + area(b[:, :2], b[:, 2:]) - shared
    hull = area(minimum(a[:, :2], b[:, :2]), maximum(a[:, 2:], b[:, 2:]))
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def area(corner: Tensor, opposite: Tensor) -> Tensor:
    """Return the areas (…) of boxes between two corners (…, 2); 0 where there is none."""
    return (opposite - corner).clamp(min=0).prod(-1)
