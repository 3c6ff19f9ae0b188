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

"""What a step of teaching looks at: all layers by turns, parts where the network takes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from tiny_parent import SIDE, pictures, write_parent  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pruned_perception.bundle import Bundle  # noqa: E402
from pruned_perception.inference.detector import Detector  # noqa: E402
from pruned_perception.pruning import Macs, allocate, make_plan, score  # noqa: E402
from pruned_perception.pruning.lowrank.factorisation import factorised  # noqa: E402
from pruned_perception.pruning.tracing import trace  # noqa: E402
from pruned_perception.training.label_free import LabelFree, teaching  # noqa: E402
from pruned_perception.training.onnx_import import folded, with_batch_norms  # noqa: E402
from pruned_perception.training.onnx_import.task import import_bundle_network  # noqa: E402
from pruned_perception.training.task import Task  # noqa: E402

FRAMES = pictures(6, seed=0)


@pytest.fixture(scope='module')
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_parent(tmp_path_factory.mktemp('parent'))


def task_of(parent: Bundle, recipe: LabelFree) -> tuple[Task, list[str]]:
    network = import_bundle_network(parent)
    plan = make_plan(
        network.module, network.example_inputs, budget=Macs(0.7), criterion='filter_l2', round_to=1
    )
    images = torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8)
    normed = with_batch_norms(plan.apply(network.module), [images])
    structure = trace(network.module, network.example_inputs)
    pairs = teaching.layer_pairs(network.module, structure, plan, normed)
    return teaching.teaching_task(parent, network, normed, pairs, FRAMES, recipe), list(pairs)


def test_every_layer_has_its_turn(parent: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def error(ours: Tensor, theirs: Tensor) -> Tensor:
        compared.append(ours.shape[1])
        return (ours * 0).sum()

    monkeypatch.setattr(teaching, 'relative_error', error)
    task, layers = task_of(parent, LabelFree(batch=2, turns=3))
    assert task.training is not None
    assert task.step is not None
    batches = task.training(0)
    counts = []
    for _ in range(3):
        before = len(compared)
        task.step(task.model.train(), next(batches))
        counts.append(len(compared) - before)
    assert sum(counts) == len(layers)
    assert max(counts) - min(counts) <= 1


def test_parts_are_seen_where_the_network_takes_them_and_around_what_the_parent_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = write_parent(tmp_path, score=0.2)
    monkeypatch.setattr(teaching, 'part_of', lambda spec: (16, 24))
    phases = task_of(parent, LabelFree(close=0.5))[0].recipe.phases
    assert [(each.until, each.size) for each in phases] == [(0.5, (16, 24)), (1.0, (SIDE, SIDE))]
    assert len(task_of(parent, LabelFree(close=0.0))[0].recipe.phases) == 1
    middles = teaching.found_in(parent, FRAMES)
    for frame, found in zip(FRAMES, middles, strict=True):
        boxes = Detector(parent).detect(frame)[0].boxes
        assert len(found) == len(boxes)
        assert ((boxes[:, :2] <= found) & (found <= boxes[:, 2:])).all()
    assert sum(map(len, middles))


def test_a_layer_that_became_two_has_its_norms_and_is_compared_behind_the_second(
    parent: Bundle,
) -> None:
    network = import_bundle_network(parent)
    structure = trace(network.module, network.example_inputs)
    plan = allocate(score(network.module, 'filter_l2', example_inputs=network.example_inputs),
                    widths=structure.channels)  # fmt: skip
    name = next(term.layer for term in structure.terms if term.layer.endswith('deep'))
    small = factorised(network.module, {name: 4})
    images = torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8)
    normed = with_batch_norms(small, [images])
    assert {f'{name}.0_norm', f'{name}.1_norm'} <= dict(normed.named_modules()).keys()
    pairs = teaching.layer_pairs(network.module, structure, plan, normed)
    assert pairs[name] == (f'{name}.1_norm', None)
    again = folded(normed)
    torch.testing.assert_close(again(images), small(images), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in again.modules())


class OneSize(nn.Module):
    """Adds a constant map: its graph is bound to one size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('grid', torch.zeros(1, SIDE, SIDE, 3))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.grid


def test_a_network_of_one_size_sees_whole_frames(parent: Bundle) -> None:
    assert not teaching._takes(OneSize(), parent.input, (16, 24), 2)
    assert teaching._takes(import_bundle_network(parent).module, parent.input, (16, 24), 2)
    fixed = nn.AdaptiveAvgPool2d(4)  # outputs that do not follow the size say nothing of parts
    spec = dataclasses.replace(
        parent.input, shape=(1, 3, SIDE, SIDE), layout='NCHW', dtype='float32'
    )
    assert not teaching._takes(fixed, spec, (16, 24), 2)
