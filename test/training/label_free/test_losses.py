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

"""Outputs say the same with gradients as they do to the robot; losses are 0 where they agree."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception.training.label_free.losses import (  # noqa: E402
    DECODERS,
    Found,
    detection_loss,
    deviations,
    raw_loss,
)

SIZE, CLASSES = (64, 96), 3
CELLS = sum((64 // s) * (96 // s) for s in (8, 16, 32))


def outputs(name: str) -> list[torch.Tensor]:
    """Return outputs of two images, of the decoder's form."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(2, *shape, generator=generator)

    if name == 'anchor_free':
        return [torch.cat((40 * uniform(CELLS, 4), uniform(CELLS, CLASSES)), -1)]
    if name == 'yolox':
        return [torch.cat((4 * uniform(CELLS, 4) - 2, uniform(CELLS, 1 + CLASSES)), -1)]
    if name == 'ppyoloe':
        corners = 60 * uniform(CELLS, 2)
        boxes = torch.cat((corners, corners + 20 + 20 * uniform(CELLS, 2)), -1)
        return [boxes, uniform(CLASSES, CELLS)]
    if name == 'yolov8':
        return [torch.cat((60 * uniform(4, CELLS), uniform(CLASSES, CELLS)), 1)]
    if name == 'fastestdet':
        return [torch.cat((uniform(1, 4, 6), uniform(4, 4, 6) - 0.5, uniform(CLASSES, 4, 6)), 1)]
    levels = [(64 // s) * (96 // s) for s in (8, 16, 32)]
    scores = [uniform(cells, CLASSES) for cells in levels]
    return [*scores, *(4 * uniform(cells, 4 * 8) for cells in levels)]


@pytest.mark.parametrize('name', DECODERS)
def test_boxes_and_scores_are_those_of_the_robots_decoder(name: str) -> None:
    decoder: Any = importlib.import_module(f'pruned_perception.inference.decoders.{name}')
    raw = outputs(name)
    found = DECODERS[name](raw, {}, SIZE)
    for image in range(2):
        wanted = decoder.decode([each[image : image + 1].numpy() for each in raw], {}, SIZE, 0.0)
        best = found.scores[image].max(-1)
        np.testing.assert_allclose(best.values.numpy(), wanted.scores, rtol=1e-4)
        np.testing.assert_array_equal(best.indices.numpy(), wanted.class_ids)
        np.testing.assert_allclose(found.boxes[image].numpy(), wanted.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('name', DECODERS)
def test_the_loss_is_zero_for_equal_outputs_and_falls_along_its_gradient(name: str) -> None:
    raw = outputs(name)
    theirs = DECODERS[name](raw, {}, SIZE)
    same = detection_loss(theirs, theirs)
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in same.values())
    other = [(each + 0.05 * torch.rand_like(each)).requires_grad_() for each in raw]
    total = sum(detection_loss(DECODERS[name](other, {}, SIZE), theirs).values())
    gradients = torch.autograd.grad(total, other)
    assert all(torch.isfinite(each).all() for each in gradients)
    moved = [each - 1e-4 * g / g.abs().max() for each, g in zip(other, gradients, strict=True)]
    assert sum(detection_loss(DECODERS[name](moved, {}, SIZE), theirs).values()) < total


def test_background_does_not_drown_an_object() -> None:
    """As wrong on one found object as on a thousand empty cells: the object counts more."""
    boxes = torch.tensor([10.0, 10, 30, 30]).expand(1, 1001, 4).clone()
    scores = torch.full((1, 1001, 1), 0.001)
    scores[0, 0] = 0.9
    theirs = Found(boxes, scores)
    missed, noisy = scores.clone(), scores.clone()
    missed[0, 0] = 0.1
    noisy[0, 1:] = 0.01
    on_object = sum(detection_loss(Found(boxes, missed), theirs).values())
    on_background = sum(detection_loss(Found(boxes, noisy), theirs).values())
    assert on_object > 10 * on_background


def test_boxes_count_only_where_the_parent_finds_something() -> None:
    boxes = torch.tensor([10.0, 10, 30, 30]).expand(1, 2, 4).clone()
    theirs = Found(boxes, torch.tensor([[[0.9], [0.01]]]))
    moved = boxes.clone()
    moved[0, 1] += 15
    assert float(detection_loss(Found(moved, theirs.scores), theirs)['boxes']) == pytest.approx(0)
    moved[0, 0] += 15
    assert float(detection_loss(Found(moved, theirs.scores), theirs)['boxes']) > 0.5


def test_one_output_of_nanodet_says_what_its_several_do() -> None:
    several = outputs('nanodet')
    scores, sides = (torch.cat(each, 1) for each in (several[:3], several[3:]))
    found = DECODERS['nanodet'](several, {}, SIZE)
    again = DECODERS['nanodet']([torch.cat((scores, sides), -1)], {'bins': 8}, SIZE)
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize('shape', [(20, 6), (6, 20), (6, 4, 5)])
def test_raw_outputs_are_relative_to_how_much_each_channel_varies(shape: tuple[int, ...]) -> None:
    """Whatever the units of a channel: boxes in pixels do not drown scores."""
    generator = torch.Generator().manual_seed(0)
    theirs = 5 + torch.randn(8, *shape, generator=generator)
    ours = theirs + 0.1 * torch.randn(8, *shape, generator=generator)
    axis = shape.index(6)
    units = torch.logspace(-2, 3, 6).reshape([6 if k == axis else 1 for k in range(len(shape))])

    def loss(units: torch.Tensor) -> torch.Tensor:
        scales = deviations(torch.nn.Identity(), (theirs * units).split(4))
        torch.testing.assert_close(scales[0], units[None], rtol=0.5, atol=0)
        return raw_loss([ours * units], [theirs * units], scales)['outputs']

    torch.testing.assert_close(loss(units), loss(torch.ones_like(units)), rtol=1e-3, atol=0)
    scales = deviations(torch.nn.Identity(), [theirs])
    assert float(raw_loss([theirs], [theirs], scales)['outputs']) == 0


def test_channels_that_do_not_vary_have_a_scale_all_the_same() -> None:
    constant = torch.full((4, 30, 2), 100.0)
    constant[..., 1] = 0
    (scale,) = deviations(torch.nn.Identity(), [constant])
    assert scale.shape == (1, 1, 2)
    torch.testing.assert_close(scale.flatten(), torch.tensor([0.1, 1e-6]))
