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

"""Views are the frames', moved and coloured, and the same again from any place in the stream."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from tiny_parent import pictures, write_parent  # noqa: E402

from pruned_perception.bundle import InputSpec  # noqa: E402
from pruned_perception.training.label_free import LabelFree  # noqa: E402
from pruned_perception.training.label_free.views import (  # noqa: E402
    Views,
    inputs_of,
    random_affine,
)
from pruned_perception.training.recipe import Phase, Recipe  # noqa: E402

FRAMES = pictures(5, seed=0)
PLAIN = LabelFree(batch=2, scale=(1.0, 1.0), mirrored=0.0, colours=0.0)


@pytest.fixture(scope='module')
def spec(tmp_path_factory: pytest.TempPathFactory) -> InputSpec:
    folder: Path = tmp_path_factory.mktemp('parent')
    return write_parent(folder).input


def test_a_stream_goes_on_from_any_place(spec: InputSpec) -> None:
    recipe = LabelFree(batch=3)
    whole = list(itertools.islice(Views(spec, FRAMES, recipe, 7), 6))
    first = Views(spec, FRAMES, recipe, 7)
    list(itertools.islice(first, 4))
    again = Views(spec, FRAMES, recipe, 7)
    again.load_state_dict(first.state_dict())
    for wanted, found in zip(whole[4:], again, strict=False):
        assert wanted.number == found.number
        assert torch.equal(wanted.inputs, found.inputs)
    assert not torch.equal(next(Views(spec, FRAMES, recipe, 8)).inputs, whole[0].inputs)


def test_an_epoch_shows_every_frame_once(spec: InputSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pruned_perception.training.label_free.views.STRETCH', 0.0)
    views = Views(spec, FRAMES, dataclasses.replace(PLAIN, batch=5), 0)
    plain = torch.cat(inputs_of(spec, FRAMES, 5, 5)).int()
    for _ in range(2):
        seen = next(views).inputs.int()
        # Both resize linearly; rounding differs by a grey level or two.
        nearest = [int((plain - each).abs().sum((1, 2, 3)).argmin()) for each in seen]
        assert sorted(nearest) == [0, 1, 2, 3, 4]
        assert int((plain[nearest] - seen).abs().max()) <= 2


def test_magnified_views_lie_within_the_image_and_others_around_it() -> None:
    rng = np.random.default_rng(0)
    size = (60, 40)
    for scale, mirrored in itertools.product((0.6, 1.7), (0.0, 1.0)):
        for _ in range(20):
            matrix = random_affine(size, (scale, scale), mirrored, rng)
            corners = matrix @ np.array([[0, size[0]], [0, size[1]], [1, 1]], float)
            low, high = corners[:2].min(1), corners[:2].max(1)
            inside = (low >= -1e-9).all() and (high <= np.array(size) + 1e-9).all()
            around = (low <= 1e-9).all() and (high >= np.array(size) - 1e-9).all()
            assert inside if scale < 1 else around


def test_parts_of_a_frame_have_what_they_are_around_in_them() -> None:
    rng = np.random.default_rng(0)
    size, part = (60, 40), (30, 20)
    for scale, mirrored in itertools.product((0.6, 1.7), (0.0, 1.0)):
        for _ in range(50):
            thing = rng.random(2) * size
            matrix = random_affine(size, (scale, scale), mirrored, rng, part=part, around=thing)
            x, y = (matrix @ [*thing, 1])[:2]
            assert 0 <= x <= part[0]
            assert 0 <= y <= part[1]
            corners = matrix @ np.array([[0, size[0]], [0, size[1]], [1, 1]], float)
            covered = np.sort(corners[:2], 1)
            assert (covered[:, 0] <= 1e-9).all()  # no edge of the frame within a part of it
            assert (covered[:, 1] >= np.array(part) - 1e-9).all()


def test_phases_look_at_parts_and_then_at_whole_frames(spec: InputSpec) -> None:
    views = Views(spec, FRAMES, LabelFree(batch=3), 7, [np.full((1, 2), 20.0)] * len(FRAMES))
    recipe = Recipe(phases=(Phase(0.5, (16, 24), (1, 1)), Phase(1.0, (32, 32), (1, 1))))
    shapes = []
    for fraction in (0.0, 0.4, 0.5, 1.0):
        views.follow(recipe, fraction)
        shapes.append(tuple(next(views).inputs.shape))
    assert shapes == [(3, 16, 24, 3)] * 2 + [(3, 32, 32, 3)] * 2
