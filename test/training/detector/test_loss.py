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

import pytest
import torch

from pruned_perception.training.box_losses import generalised_iou
from pruned_perception.training.detector.augmentation import Batch
from pruned_perception.training.detector.loss import (
    assign,
    boxes_from,
    detection_loss,
    ignored_cells,
    pairwise_iou,
)
from pruned_perception.training.detector.network import grid

SIZE = (64, 96)


def _batch(boxes: list, ids: list, ignored: list | None = None) -> Batch:
    skip = torch.tensor([ignored or [False] * len(ids)])
    return Batch(
        images=torch.zeros(1, 3, *SIZE),
        boxes=torch.tensor([boxes], dtype=torch.float32),
        class_ids=torch.tensor([ids]),
        valid=~skip,
        ignored=skip,
    )


def _untrained(num_classes: int = 3) -> torch.Tensor:
    centres, _ = grid(*SIZE)
    raw = torch.zeros(1, len(centres), 4 + num_classes)
    raw[..., :4] = 0.7
    raw[..., 4:] = -4.6
    return raw


def _assign(batch: Batch):
    centres, strides = grid(*SIZE)
    raw = _untrained()
    return assign(
        raw[..., 4:].sigmoid(), boxes_from(raw, centres, strides), centres, strides, batch
    )


@pytest.mark.parametrize(('side', 'stride'), [(24, 8), (60, 16)])
def test_boxes_start_on_the_level_of_their_size(side: int, stride: int) -> None:
    found = _assign(_batch([[2, 2, 2 + side, 2 + side]], [1]))
    _, strides = grid(*SIZE)
    best = found.scores[0, :, 1].argmax()
    assert strides[best] == stride
    assert 1 <= found.positive.sum() <= 10
    assert found.scores[0, :, [0, 2]].eq(0).all()


def test_a_box_between_the_centres_still_gets_a_cell() -> None:
    # No cell's centre (4, 12, 20, …) lies inside this box.
    found = _assign(_batch([[13, 13, 19, 19]], [0]))
    assert found.positive.any()


def test_targets_of_the_best_cell_are_its_overlap() -> None:
    batch = _batch([[8, 8, 40, 40]], [2])
    centres, strides = grid(*SIZE)
    raw = _untrained()
    found = _assign(batch)
    overlap = pairwise_iou(batch.boxes, boxes_from(raw, centres, strides))[0, 0]
    assert found.scores.max().item() == pytest.approx(overlap[found.positive[0]].max().item())


def test_two_boxes_never_share_a_cell() -> None:
    boxes = [[8, 8, 40, 40], [12, 12, 44, 44]]
    found = _assign(_batch(boxes, [0, 1]))
    assert ((found.scores > 0).sum(-1) <= 1).all()
    owners = {tuple(box) for box in found.boxes[found.positive].tolist()}
    assert owners == {tuple(map(float, box)) for box in boxes}


def test_images_without_boxes_give_a_finite_loss_that_lowers_scores() -> None:
    batch = _batch([[0, 0, 0, 0]], [0], [True])
    raw = _untrained().requires_grad_()
    losses = detection_loss(raw, batch)
    sum(losses.values()).backward()
    assert losses['boxes'] == 0
    assert sum(losses.values()).isfinite()
    assert (raw.grad[..., 4:] > 0).all()


def test_no_loss_in_ignored_boxes() -> None:
    batch = _batch([[0, 0, 32, 32], [60, 20, 90, 50]], [0, 1], [True, False])
    raw = _untrained().requires_grad_()
    sum(detection_loss(raw, batch).values()).backward()
    centres, _ = grid(*SIZE)
    excused = ignored_cells(centres, batch)[0]
    assert excused.sum() == ((centres <= 32).all(1)).sum()
    assert raw.grad[0, excused].eq(0).all()
    assert raw.grad[0, ~excused, 4:].ne(0).all()


def test_generalised_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2]])
    b = torch.tensor([[0.0, 0, 2, 2], [2, 0, 3, 1], [1, 0, 3, 2]])
    torch.testing.assert_close(generalised_iou(a, b), torch.tensor([1.0, -1 / 3, 1 / 3]))


def test_gradient_descent_on_the_outputs_finds_the_boxes() -> None:
    batch = _batch([[10, 6, 38, 30], [50, 20, 90, 60]], [0, 2])
    centres, strides = grid(*SIZE)
    raw = _untrained().requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        sum(detection_loss(raw, batch).values()).backward()
        optimiser.step()
    boxes = boxes_from(raw.detach(), centres, strides)[0]
    for truth, class_id in zip(batch.boxes[0], batch.class_ids[0], strict=True):
        best = raw[0, :, 4 + class_id].argmax()
        assert raw[0, best, 4 + class_id].sigmoid() > 0.7
        torch.testing.assert_close(boxes[best], truth, atol=1.0, rtol=0)
