"""Learning from the parent's outputs: what a teacher says about every cell of a batch.

After Yang et al., Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
Detection (ICCV 2023), section 3: each class score is a binary classification with the
teacher's score as its target, under the same loss as the labels' (quality focal: the more the two
differ, the more it counts), and boxes are compared by their overlap, which needs no particular
coding of distances. As in Zheng et al., Localization Distillation (CVPR 2022), boxes are compared
only where the teacher finds something.
"""

from __future__ import annotations

from torch import Tensor

from pruned_perception.training.detector.loss import (
    BOX_WEIGHT,
    boxes_from,
    generalised_iou,
    quality_focal_loss,
)
from pruned_perception.training.detector.network import grid

CONFIDENT = 0.1  # the teacher's best score of a cell, from which on its box is worth learning


def distillation_loss(student: Tensor, teacher: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the scalars `distilled_boxes` and `distilled_classes`; both are 0 for equal outputs.

    Both are relative to the sum of the teacher's best scores in confident cells, as the losses on
    labels are relative to the sum of their targets: the two kinds have the same scale.

    Args:
        student: raw outputs (B, N, 4 + C), with gradient.
        teacher: raw outputs of the same images; no gradient reaches them.
        size: height and width of the images, pixels.
    """
    centres, strides = grid(*size)
    teacher = teacher.detach()
    scores = teacher[..., 4:].sigmoid()
    confidence = scores.amax(-1)
    confident = confidence > CONFIDENT
    weight = confidence[confident]
    norm = weight.sum().clamp(min=1)
    ours, theirs = (boxes_from(raw, centres, strides)[confident] for raw in (student, teacher))
    gap = 1 - generalised_iou(ours, theirs)
    return {
        'distilled_boxes': BOX_WEIGHT * (gap * weight).sum() / norm,
        'distilled_classes': quality_focal_loss(student[..., 4:], scores).sum() / norm,
    }
