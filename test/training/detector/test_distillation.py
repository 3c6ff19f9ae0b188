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

from pruned_perception.training.detector.loss import CONFIDENT, boxes_from, distillation_loss
from pruned_perception.training.detector.network import grid

SIZE = (64, 96)
CENTRES, STRIDES = grid(*SIZE)


def _outputs(seed: int, examples: int = 2, num_classes: int = 3) -> torch.Tensor:
    """Return raw outputs of which about one cell in ten is confident."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(examples, len(CENTRES), 4 + num_classes, generator=generator)
    raw[..., :4] = 0.7 + 0.3 * raw[..., :4]
    raw[..., 4:] = 1.5 * raw[..., 4:] - 5
    return raw


def _confident(raw: torch.Tensor) -> torch.Tensor:
    return raw[..., 4:].sigmoid().amax(-1) > CONFIDENT


def test_nothing_is_learnt_from_equal_outputs() -> None:
    teacher = _outputs(0)
    student = teacher.clone().requires_grad_()
    losses = distillation_loss(student, teacher, SIZE)
    sum(losses.values()).backward()
    assert 0.02 < _confident(teacher).float().mean() < 0.3
    for name, value in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-6), name
    assert student.grad[..., 4:].abs().max() == 0


def test_gradient_reaches_the_student_only() -> None:
    student, teacher = (_outputs(seed).requires_grad_() for seed in (0, 1))
    for value in distillation_loss(student, teacher, SIZE).values():
        assert value > 0.01
        value.backward(retain_graph=True)
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_all_scores_but_only_confident_boxes_are_compared() -> None:
    student, teacher = _outputs(0).requires_grad_(), _outputs(1)
    sum(distillation_loss(student, teacher, SIZE).values()).backward()
    confident = _confident(teacher)
    assert student.grad[..., 4:].ne(0).all()
    assert student.grad[~confident][:, :4].eq(0).all()
    assert student.grad[confident][:, :4].ne(0).any(-1).all()


def test_losses_do_not_depend_on_the_number_of_images() -> None:
    student, teacher = _outputs(0), _outputs(1)
    once = distillation_loss(student, teacher, SIZE)
    twice = distillation_loss(student.repeat(2, 1, 1), teacher.repeat(2, 1, 1), SIZE)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value)


def test_a_teacher_that_finds_nothing_lowers_scores_and_leaves_boxes_alone() -> None:
    teacher = _outputs(1)
    teacher[..., 4:] = -20
    student = _outputs(0).requires_grad_()
    losses = distillation_loss(student, teacher, SIZE)
    sum(losses.values()).backward()
    assert losses['distilled_boxes'] == 0
    assert losses['distilled_classes'].isfinite()
    assert student.grad[..., 4:].gt(0).all()


def test_gradient_descent_on_the_outputs_finds_the_teachers() -> None:
    teacher, student = _outputs(1, examples=1), _outputs(0, examples=1).requires_grad_()
    optimiser = torch.optim.Adam([student], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        sum(distillation_loss(student, teacher, SIZE).values()).backward()
        optimiser.step()
    confident = _confident(teacher)
    scores, wanted = (raw[..., 4:].sigmoid() for raw in (student, teacher))
    assert (scores - wanted).abs().max() < 0.05
    boxes, wanted = (boxes_from(raw, CENTRES, STRIDES)[confident] for raw in (student, teacher))
    assert (boxes - wanted).abs().median() < 0.5
