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

"""How far a network's outputs are from its parent's: boxes and scores in one currency."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.bundle import Bundle
from pruned_perception.pruning.graph.device import CPU, device_of, moved
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.training.box_losses import generalised_iou, quality_focal_loss

CONFIDENT = 0.1  # the parent's best score of a cell, from which on its box is worth learning
BOX_WEIGHT = 2.0
OVERLAP_GAP = 0.05  # a usual one: 1 − IoU grows like |error|, at this gap as error² / gap does
LEAST = 1e-6  # of a score, so that its logit is finite
CONSTANT = 1e-3  # of a channel's size: what varies less does not vary


class Found(NamedTuple):
    """What outputs say: boxes (B, N, 4), left, top, right, bottom in pixels; scores (B, N, C)."""

    boxes: Tensor
    scores: Tensor


OutputLoss = Callable[[Sequence[Tensor], Sequence[Tensor], tuple[int, int]], dict[str, Tensor]]
"""(network's outputs, parent's outputs, height and width of the input) → losses by name, 0 where
they are the same."""


def deviations(network: nn.Module, batches: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return how far the channels of each output are from their means over the images.

    Root mean squares over images and positions, of the outputs' number of axes, on the CPU; the
    network runs where it is. What an axis is,
    nothing says: of four, the second one has the channels, as convolutions have it; of three, the
    shorter one after the images; of fewer, all elements count as one channel.
    """
    device = device_of(network)
    count, sums, squares = 0, list[Tensor](), list[Tensor]()
    for batch in batches:
        with torch.no_grad():
            found = [each.to(CPU).double() for each in tensors(network(moved(batch, device)))]
        added = [each.sum(0) for each in found], [each.square().sum(0) for each in found]
        sums, squares = (
            [a + b for a, b in zip(had, new, strict=True)] if count else new
            for had, new in zip((sums, squares), added, strict=True)
        )
        count += len(batch)
    return tuple(_deviation(a / count, b / count) for a, b in zip(sums, squares, strict=True))


def _deviation(mean: Tensor, square: Tensor) -> Tensor:
    """Return the deviation of channels, by an output's means over the images, and of its square."""
    axis = {3: 0, 2: int(mean.shape[1] < mean.shape[0])}.get(mean.ndim)
    others = [k for k in range(mean.ndim) if k != axis]
    varied = (square - mean.square()).clamp(min=0).mean(others, keepdim=True).sqrt()
    least = CONSTANT * square.mean(others, keepdim=True).sqrt()
    return varied.maximum(least).clamp(min=LEAST).float()[None]


def output_loss(bundle: Bundle, scales: Sequence[Tensor] | None = None) -> OutputLoss:
    """Return the loss for a bundle's decoder, or with scales that of raw outputs."""
    if scales is not None:
        return lambda ours, theirs, size: raw_loss(ours, theirs, scales)
    decode, parameters = DECODERS[bundle.output.decoder], bundle.output.parameters

    def loss(
        ours: Sequence[Tensor], theirs: Sequence[Tensor], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        return detection_loss(*(decode(each, parameters, size) for each in (ours, theirs)))

    return loss


def detection_loss(ours: Found, theirs: Found) -> dict[str, Tensor]:
    """Return the losses `boxes` and `scores`.

    Each score is a binary classification with the parent's score as its target (quality focal loss:
    the more the two differ, the more it counts), and boxes are compared by their overlap, where the
    parent finds something, by its confidence. Both are relative to the sum of the parent's best
    scores in confident cells: background does not drown objects.

    After Yang et al., Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object
    Detection (ICCV 2023), section 3.
    """
    targets = theirs.scores.detach().float()
    confidence = targets.amax(-1)
    confident = confidence > CONFIDENT
    weight = confidence[confident]
    norm = weight.sum().clamp(min=1)
    overlap = generalised_iou(
        ours.boxes.float()[confident], theirs.boxes.detach().float()[confident]
    )
    logits = torch.logit(ours.scores.float(), eps=LEAST)
    return {
        'boxes': BOX_WEIGHT * ((1 - overlap) * weight).sum() / norm,
        'scores': quality_focal_loss(logits, targets).sum() / norm,
    }


def raw_loss(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], scales: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the squared error of outputs, each channel relative to its scale.

    Boxes in pixels so count no more than scores in 0 … 1, which may be channels of one output.
    """
    found = [
        ((a.float() - b.detach().float()) / scale.to(a.device)).square().mean()
        for a, b, scale in zip(ours, theirs, scales, strict=True)
    ]
    return {'outputs': torch.stack(found).mean()}


def relative_error(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the squared error over the squares of `theirs` around its mean over the images."""
    theirs = theirs.detach().float()
    scale = (theirs - theirs.mean(0)).square().sum().clamp(min=1e-12)
    if len(theirs) == 1:
        scale = (theirs - theirs.mean()).square().sum().clamp(min=1e-12)
    return functional.mse_loss(ours.float(), theirs, reduction='sum') / scale


def _anchor_free(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    raw = outputs[0].float()
    centres, strides = _cells(size, parameters.get('strides', (8, 16, 32)), raw.device)
    centres = (centres + 0.5) * strides
    boxes = torch.cat((centres - raw[..., :2], centres + raw[..., 2:4]), -1)
    return Found(boxes, raw[..., 4:])


def _yolox(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    raw = outputs[0].float()
    centres, sizes = raw[..., :2], raw[..., 2:4]
    if not parameters.get('decoded', False):
        corners, strides = _cells(size, parameters.get('strides', (8, 16, 32)), raw.device)
        centres, sizes = (centres + corners) * strides, sizes.clamp(max=8).exp() * strides
    return Found(_corners(centres, sizes), raw[..., 4:5] * raw[..., 5:])


def _nanodet(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    levels = parameters.get('strides', (8, 16, 32))
    if len(outputs) == 1:
        sides = 4 * parameters.get('bins', 8)
        scores, logits = outputs[0][..., :-sides].float(), outputs[0][..., -sides:].float()
    else:
        scores = torch.cat([each.float() for each in outputs[: len(levels)]], 1)
        logits = torch.cat([each.float() for each in outputs[len(levels) :]], 1)
    corners, strides = _cells(size, levels, logits.device)
    shares = logits.unflatten(-1, (4, -1)).softmax(-1)
    gaps = (shares * torch.arange(shares.shape[-1]).to(shares)).sum(-1) * strides
    centres = (corners + parameters.get('cell_centre', 0.5)) * strides
    return Found(torch.cat((centres - gaps[..., :2], centres + gaps[..., 2:]), -1), scores)


def _fastestdet(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    height, width = outputs[0].shape[2:]
    raw = outputs[0].float().flatten(2).transpose(1, 2)
    corners = _grid(height, width).to(raw)
    cell = torch.tensor([size[1] / width, size[0] / height], device=raw.device)
    centres = (raw[..., 1:3].tanh() + corners) * cell
    sizes = raw[..., 3:5].sigmoid() * torch.tensor(size[::-1], device=raw.device)
    scores = (raw[..., :1].clamp(min=LEAST) ** 0.6) * (raw[..., 5:].clamp(min=LEAST) ** 0.4)
    return Found(_corners(centres, sizes), scores)


def _yolov8(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    raw = outputs[0].float().transpose(1, 2)
    return Found(_corners(raw[..., :2], raw[..., 2:4]), raw[..., 4:])


def _ppyoloe(
    outputs: Sequence[Tensor], parameters: Mapping[str, Any], size: tuple[int, int]
) -> Found:
    if len(outputs) == 1:
        raw = outputs[0].float()
        return Found(raw[..., :4], raw[..., 4:])
    return Found(outputs[0].float(), outputs[1].float().transpose(1, 2))


DECODERS: dict[str, Callable[[Sequence[Tensor], Mapping[str, Any], tuple[int, int]], Found]] = {
    'anchor_free': _anchor_free,
    'fastestdet': _fastestdet,
    'nanodet': _nanodet,
    'ppyoloe': _ppyoloe,
    'yolov8': _yolov8,
    'yolox': _yolox,
}
"""What `inference.decoders` decode, with gradients and without a threshold."""


def _cells(
    size: tuple[int, int], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return (column, row) of all cells (N, 2), and their strides (N, 1)."""
    corners, sizes = [], []
    for stride in strides:
        height, width = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
        corners.append(_grid(height, width))
        sizes.append(torch.full((height * width, 1), float(stride)))
    return torch.cat(corners).to(device), torch.cat(sizes).to(device)


def _grid(height: int, width: int) -> Tensor:
    """Return (column, row) of the cells of one level (height · width, 2)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    return torch.stack((columns, rows), -1).reshape(-1, 2).float()


def _corners(centres: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat((centres - sizes / 2, centres + sizes / 2), -1)


Projection = Callable[[Any, int, torch.Generator], Tensor]


def projection(bundle: Bundle, scales: Sequence[Tensor] | None = None) -> Projection:
    """Return a random projection of what outputs say, for criteria that differentiate.

    Its squared gradients are those of the Gauss–Newton approximation of `detection_loss` around the
    parent: scores count by 1/√(p (1 − p)), boxes relative to their size, by the root of the best
    score, where something is found. With scales, those of `raw_loss`.
    """
    if scales is not None:
        return lambda outputs, index, generator: torch.stack(
            [
                (each / scale.to(each.device) * _signs(each, generator)).sum()
                for each, scale in zip(tensors(outputs), scales, strict=True)
            ]
        ).sum()
    decode = DECODERS[bundle.output.decoder]
    size = (bundle.input.height, bundle.input.width)

    def project(outputs: Any, index: int, generator: torch.Generator) -> Tensor:
        found = decode(tensors(outputs), bundle.output.parameters, size)
        boxes, scores = found.boxes.detach(), found.scores.detach()
        confidence = scores.amax(-1, keepdim=True)
        weight = BOX_WEIGHT * confidence * (confidence > CONFIDENT) / OVERLAP_GAP
        sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1).repeat(1, 1, 2)
        spread = (scores * (1 - scores)).clamp(min=LEAST).sqrt()
        return (found.boxes / sides * weight.sqrt() * _signs(boxes, generator)).sum() + (
            found.scores / spread * _signs(scores, generator)
        ).sum()

    return project


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
