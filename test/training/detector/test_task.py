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

"""Our detector as a task: what the functions of pruning take, from a checkpoint and data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapes
import tiny
import torch

from pruned_perception.datasets import DataError
from pruned_perception.pruning import Macs, make_plan
from pruned_perception.pruning.certificate import certify
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import save_checkpoint
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.task import FrameBatches, detector_task
from pruned_perception.training.detector.validation import validate
from pruned_perception.training.loop import finetune
from pruned_perception.training.losses import total
from pruned_perception.training.task import Task


@pytest.fixture(scope='module')
def checkpoint(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a detector of shapes that was trained for two CPU minutes."""
    path = tmp_path_factory.mktemp('task') / 'final.pt'
    content = {
        'experiment': tiny.experiment(
            phases=[
                {'until': 0.75, 'size': [64, 96], 'scale': [0.8, 1.25]},
                {'until': 1, 'size': list(tiny.SIZE), 'scale': [0.9, 1.1]},
            ]
        ).to_dict(),
        'architecture': detector.architecture.to_dict(),
        'labels': list(shapes.LABELS),
        'data': {'train': 'abc', 'frames': 1},
        'weights': detector.state_dict(),
        'steps': 3,
        'cpu_seconds': 90.0,
        'ancestry': {'cpu_seconds': 30.0},
    }
    save_checkpoint(path, content)
    return path


@pytest.fixture(scope='module')
def task(checkpoint: Path, shapes_data: Path) -> Task:
    """Return the task with all its data."""
    return detector_task(
        checkpoint,
        calibration=shapes_data / 'validation',
        train=shapes_data / 'train',
        validation=shapes_data / 'validation',
        holdout=shapes_data / 'validation',
        images=20,
        validation_frames=10,
    )


def test_calibration_is_spread_over_the_set_and_can_be_repeated(
    task: Task, shapes_data: Path
) -> None:
    frames = load_frames(shapes_data / 'validation', tiny.SIZE)
    for _ in range(2):
        batches = list(task.calibration)
        assert [len(each) for each in batches] == [16, 4]
        images = (255 * torch.cat(list(batches))).permute(0, 2, 3, 1).round().numpy()
        indices = np.linspace(0, 39, 20).round().astype(int)
        assert (images == frames.images[indices]).all()
    assert len(torch.cat(list(FrameBatches(frames)))) == 40
    assert len(torch.cat(list(FrameBatches(frames, 99)))) == 40


def test_a_task_without_data_sets_can_still_be_pruned(checkpoint: Path) -> None:
    bare = detector_task(checkpoint)
    assert bare.training is None
    assert bare.evaluate is None
    assert bare.holdout is None
    plan = make_plan(bare.model, bare.example_inputs, budget=Macs(0.6))
    small = plan.apply(bare.model)
    assert isinstance(small, Detector)
    assert small(*bare.example_inputs).shape == bare.model(*bare.example_inputs).shape


def test_batches_follow_the_phases_and_the_seed(task: Task) -> None:
    assert task.training is not None

    def sizes(seed: int) -> list[tuple[int, ...]]:
        batches = task.training(seed)  # type: ignore[misc]
        found = []
        for step in range(8):
            batches.follow(task.recipe, step / 8)
            found.append(tuple(next(batches).images.shape))
        return found

    assert sizes(0) == [(4, 3, 64, 96)] * 6 + [(4, 3, *tiny.SIZE)] * 2
    one, same, other = (next(task.training(seed)).images for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_batches_can_be_put_back_to_their_place(task: Task) -> None:
    assert task.training is not None
    batches, again = task.training(1), task.training(2)
    for _ in range(31):  # past the end of the first permutation of 120 frames
        next(batches)
    again.load_state_dict(batches.state_dict())  # type: ignore[attr-defined]
    for one, other in ((next(batches), next(again)) for _ in range(3)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.boxes, other.boxes)


def test_every_frame_is_drawn_equally_often(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pruned_perception.training.detector import task as module

    shapes.write_shapes(tmp_path / 'six', 6, seed=3)
    drawn: list[int] = []
    monkeypatch.setattr(
        module, 'draw_views', lambda frames, indices, *rest: drawn.extend(indices) or drawn
    )
    monkeypatch.setattr(module, 'make_batch', lambda frames, views: len(views))
    few = detector_task(checkpoint, train=tmp_path / 'six')
    assert few.training is not None
    batches = few.training(0)
    while next(batches) < 24:
        pass
    assert sorted(drawn) == sorted(list(range(6)) * 4)


def test_fine_tuning_with_a_teacher_lowers_the_loss(task: Task) -> None:
    assert task.training is not None
    assert task.step is not None
    torch.manual_seed(0)
    untrained = Detector(tiny.ARCHITECTURE)
    tuned = finetune(
        untrained,
        task,
        TrainingBudget(steps=15),
        recipe=task.recipe.changed({'learning_rate': 5e-3, 'ema': None}),
        teacher=task.teacher,
    )
    unseen = next(task.training(99))
    before, after = (
        float(total(task.step(net.train(), unseen)).detach()) for net in (untrained, tuned)
    )
    assert after < 0.95 * before


def test_distillation_is_nothing_between_equal_outputs(task: Task) -> None:
    assert task.distillation_loss is not None
    assert task.training is not None
    batches = task.training(0)
    for batch in (next(batches) for _ in range(8)):
        with torch.no_grad():
            raw = task.model(batch.images.float() / 255)
            assert float(total(task.distillation_loss(raw, raw))) == pytest.approx(0, abs=1e-6)
            assert float(total(task.distillation_loss(raw + 1, raw))) > 0.01


def test_figures_are_those_of_validation(task: Task, shapes_data: Path) -> None:
    assert task.evaluate is not None
    frames = load_frames(shapes_data / 'validation', tiny.SIZE)
    assert isinstance(task.model, Detector)
    metrics = validate(task.model, frames, limit=10)
    assert task.evaluate(task.model) == {'ap50': metrics.ap50, 'ap50_95': metrics.ap50_95}


def test_a_control_starts_anew_with_priors_and_has_the_parents_whole_time(task: Task) -> None:
    assert task.initialise is not None
    assert task.trained_for == TrainingBudget(cpu_minutes=2.0)
    network = Detector(tiny.ARCHITECTURE)
    network.load_state_dict(task.model.state_dict())
    task.initialise(network)
    assert isinstance(task.model, Detector)
    stem, parents = (each.get_submodule('backbone.0.0.conv') for each in (network, task.model))
    assert not torch.equal(stem.weight, parents.weight)
    prior = torch.tensor(0.01)
    bias = network.get_submodule('heads.0.class_output').bias
    assert torch.allclose(bias.sigmoid(), prior)  # type: ignore[operator]


def test_the_certificate_counts_detections_by_scenes(task: Task) -> None:
    assert task.holdout is not None
    assert task.decide is not None
    blind = Detector(tiny.ARCHITECTURE)
    blind.load_state_dict(task.model.state_dict())
    eager = Detector(tiny.ARCHITECTURE)
    eager.load_state_dict(task.model.state_dict())
    for network, bias in ((blind, -20.0), (eager, 20.0)):
        for level in range(3):
            torch.nn.init.constant_(network.get_submodule(f'heads.{level}.class_output').bias, bias)  # type: ignore[arg-type]
    options = {
        'decide': task.decide, 'clusters': task.clusters, 'unit': 'layout', 'terms': task.terms,
        'longest': {'frames': 4, 'detections': 400}, 'used': {'the calibration set': []},
    }  # fmt: skip
    same = certify(eager, eager, task.holdout, **options)
    assert (same.frames, len(same.drives), same.headline.rate) == (40, 10, 0.0)
    assert same.statements['added'].rate == 0.0
    other = certify(eager, blind, task.holdout, **options)
    assert other.headline.rate == 1.0
    assert 'does not show at most 100.0% of the detections of the dense network' in (
        other.to_text().lower()
    )
    assert other.statements['added'].rate is None


def test_labels_of_another_network_are_refused_where_they_count(
    checkpoint: Path, shapes_data: Path, tmp_path: Path
) -> None:
    shapes.write_shapes(tmp_path / 'other', 2, seed=0)
    file = tmp_path / 'other' / 'annotations.json'
    file.write_text(file.read_text().replace('"triangle"', '"hexagon"'))
    with pytest.raises(DataError, match=r'hexagon.*are not those of .*final\.pt'):
        detector_task(checkpoint, train=tmp_path / 'other')
    assert list(detector_task(checkpoint, calibration=tmp_path / 'other').calibration)
