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

"""Which cells answer for which boxes; the losses on labels and on a teacher's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pruned_perception.training.box_losses import area, generalised_iou, quality_focal_loss
from pruned_perception.training.detector.architecture import STRIDES
from pruned_perception.training.detector.augmentation import Batch
from pruned_perception.training.detector.network import distances, grid
from pruned_perception.training.processes import whole_batch

CANDIDATES = 10  # cells per box
SCORE_POWER, IOU_POWER = 0.5, 6.0
BOX_WEIGHT = 2.0
CONFIDENT = 0.1  # the teacher's best score of a cell, from which on its box is worth learning


@dataclass(frozen=True)
class Assignment:
    """For every cell: is it positive (B, N), its box (B, N, 4), its targets (B, N, C) in 0…1."""

    positive: Tensor
    boxes: Tensor
    scores: Tensor


def boxes_from(raw: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Return the boxes (B, N, 4), left, top, right, bottom in pixels, of raw outputs."""
    sides = distances(raw, strides)
    return torch.cat((centres - sides[..., :2], centres + sides[..., 2:]), dim=-1)


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, batch: Batch
) -> Assignment:
    """Choose cells by how well they do already: task-aligned assignment.

    A box's candidates are the cells whose centre it holds (the nearest cell, for a box that holds
    none); the ten with the largest score^½ · IoU⁶ become positive. Untrained outputs are boxes of
    four strides, hence the power of the IoU starts with the level that fits a box's size. Targets
    are the same quantity, scaled so that a box's best cell aims at its IoU.

    Source: Feng et al., TOOD: Task-aligned One-stage Object Detection (ICCV 2021), section 3.2.

    Args:
        scores: (B, N, C) in 0…1.
        boxes: (B, N, 4) predicted, in pixels.
        centres: (N, 2) of the cells, in pixels.
        strides: (N,) in pixels.
        batch: the truth.
    """
    truth = batch.boxes
    middle = (truth[..., :2] + truth[..., 2:]) / 2
    half = (truth[..., 2:] - truth[..., :2]) / 2
    offset = (centres - middle[:, :, None]).abs()  # (B, M, N, 2)
    reach = torch.maximum(half[:, :, None], strides[:, None] / 2)
    candidate = (offset <= reach).all(-1) & batch.valid[:, :, None]
    overlap = pairwise_iou(truth, boxes) * candidate  # (B, M, N)
    classes = batch.class_ids[:, :, None].expand(-1, -1, scores.shape[1])
    score = scores.transpose(1, 2).gather(1, classes)
    alignment = score.pow(SCORE_POWER) * overlap.pow(IOU_POWER) * candidate

    best = alignment.topk(min(CANDIDATES, alignment.shape[-1]), dim=-1)
    chosen = torch.zeros_like(candidate).scatter_(2, best.indices, best.values > 0)
    # A cell that several boxes want goes to the one it overlaps most.
    owner = (overlap * chosen).argmax(dim=1)  # (B, N)
    positive = chosen.any(dim=1)
    mine = functional.one_hot(owner, truth.shape[1]).transpose(1, 2).bool() & positive[:, None]
    alignment, overlap = alignment * mine, overlap * mine
    quality = alignment * (overlap.amax(-1) / alignment.amax(-1).clamp(min=1e-12))[..., None]
    targets = torch.zeros_like(scores)
    targets.scatter_(2, batch.class_ids.gather(1, owner)[..., None], quality.amax(1)[..., None])
    return Assignment(
        positive=positive,
        boxes=truth.gather(1, owner[..., None].expand(-1, -1, 4)),
        scores=targets,
    )


def detection_loss(
    raw: Tensor, batch: Batch, levels: Sequence[int] = STRIDES[1:]
) -> dict[str, Tensor]:
    """Return the scalars `boxes` and `classes` for raw outputs (B, N, 4 + C).

    Quality focal loss on the scores and generalised IoU (Rezatofighi et al. 2019) on the boxes,
    both relative to the sum of the targets. `levels`: the strides of the network's. In single
    precision, whatever the network's products are in.
    """
    raw = raw.float()
    height, width = batch.images.shape[-2:]
    centres, strides = grid(height, width, levels, raw.device)
    boxes = boxes_from(raw, centres, strides)
    logits = raw[..., 4:]
    found = assign(logits.detach().sigmoid(), boxes.detach(), centres, strides, batch)
    norm = whole_batch(found.scores.sum(), least=1)
    excused = ignored_cells(centres, batch) & ~found.positive
    classes = (quality_focal_loss(logits, found.scores) * ~excused[..., None]).sum()
    positive = found.positive
    weight = found.scores.sum(-1)[positive]
    gap = 1 - generalised_iou(boxes[positive], found.boxes[positive])
    classes = classes / norm
    return {'boxes': BOX_WEIGHT * (gap * weight).sum() / norm, 'classes': classes}


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    size: tuple[int, int],
    levels: Sequence[int] = STRIDES[1:],
) -> dict[str, Tensor]:
    """Return the scalars `distilled_boxes` and `distilled_classes`; both are 0 for equal outputs.

    After Yang et al., Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection (ICCV 2023), section 3: each class score is a binary classification with the
    teacher's score as its target, under the same loss as the labels' (quality focal: the more the
    two differ, the more it counts), and boxes are compared by their overlap, which needs no
    particular coding of distances. As in Zheng et al., Localization Distillation (CVPR 2022),
    boxes are compared only where the teacher finds something.

    Both are relative to the sum of the teacher's best scores in confident cells, as the losses on
    labels are relative to the sum of their targets: the two kinds have the same scale.

    Args:
        student: raw outputs (B, N, 4 + C), with gradient.
        teacher: raw outputs of the same images; no gradient reaches them.
        size: height and width of the images, pixels.
        levels: the strides of the network's levels.
    """
    centres, strides = grid(*size, levels, student.device)
    student, teacher = student.float(), teacher.detach().float()
    scores = teacher[..., 4:].sigmoid()
    confidence = scores.amax(-1)
    confident = confidence > CONFIDENT
    weight = confidence[confident]
    norm = whole_batch(weight.sum(), least=1)
    ours, theirs = (boxes_from(raw, centres, strides)[confident] for raw in (student, teacher))
    gap = 1 - generalised_iou(ours, theirs)
    return {
        'distilled_boxes': BOX_WEIGHT * (gap * weight).sum() / norm,
        'distilled_classes': quality_focal_loss(student[..., 4:], scores).sum() / norm,
    }


def ignored_cells(centres: Tensor, batch: Batch) -> Tensor:
    """Return (B, N) bool: the cells whose centre lies in an ignored box."""
    boxes = batch.boxes[:, :, None]
    inside = ((centres >= boxes[..., :2]) & (centres <= boxes[..., 2:])).all(-1)
    return (inside & batch.ignored[:, :, None]).any(1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (B, M, N) of boxes a (B, M, 4) and b (B, N, 4)."""
    a, b = a[:, :, None], b[:, None]
    shared = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared
    return shared / union.clamp(min=1e-6)
