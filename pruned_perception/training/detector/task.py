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

"""Our detector as a task: from a checkpoint and data sets to what pruning and training take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruned_perception.datasets import read_dataset
from pruned_perception.inference import decoders
from pruned_perception.inference.decisions import match_objects
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.nms import class_wise_nms
from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.detector.augmentation import (
    Batch,
    View,
    draw_views,
    make_batch,
)
from pruned_perception.training.detector.certification import clusters_of
from pruned_perception.training.detector.checkpoint import (
    detector_from,
    plans_of,
    total_cpu_seconds,
)
from pruned_perception.training.detector.data import (
    FrameSet,
    load_frames,
)
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.experiment import recipe_of
from pruned_perception.training.detector.export import (
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
)
from pruned_perception.training.detector.loss import detection_loss, distillation_loss
from pruned_perception.training.detector.network import Detector, decode, grid
from pruned_perception.training.detector.validation import validate
from pruned_perception.training.outcomes import Figures
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task

CALIBRATION_FRAMES = 256
CALIBRATION_BATCH = 16

Folder = str | os.PathLike[str]


class FrameBatches:
    """Frames spread over a set, as batches (B, 3, H, W) that can be iterated over again."""

    def __init__(self, frames: FrameSet, count: int | None = None) -> None:
        """Take `count` of the frames, or all."""
        count = len(frames) if count is None else min(count, len(frames))
        self.frames = frames
        self.indices = np.linspace(0, len(frames) - 1, count).round().astype(int)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.indices), CALIBRATION_BATCH):
            images = self.frames.images[self.indices[start : start + CALIBRATION_BATCH]]
            yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


class RandomViews:
    """Endless batches of random views; every frame is drawn equally often."""

    def __init__(self, frames: FrameSet, recipe: Recipe, seed: tuple[int, int]) -> None:
        self.frames = frames
        self.generator = np.random.default_rng(seed)
        self.order: list[int] = []
        self.follow(recipe, 0.0)

    def follow(self, recipe: Recipe, fraction: float) -> None:
        """Draw batches as a recipe says at a fraction of the budget."""
        if recipe.batch is None or not recipe.phases:
            raise PruningError(
                "batch, phases: a detector's recipe needs both; change the task's own, with "
                '`recipe.changed`'
            )
        self.batch, self.phase = recipe.batch, recipe.phase(fraction)

    @property
    def steps_per_epoch(self) -> float:
        """How many batches show as many frames as there are."""
        return len(self.frames) / self.batch

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.make(self.draw())

    def draw(self) -> list[View]:
        """Return what the next batch is made of."""
        while len(self.order) < self.batch:
            self.order = self.order + self.generator.permutation(len(self.frames)).tolist()
        chosen, self.order = self.order[: self.batch], self.order[self.batch :]
        return draw_views(self.frames, chosen, self.phase, self.generator)

    def make(self, views: Sequence[View]) -> Batch:
        """Return the batch of some views; that depends on nothing else."""
        return make_batch(self.frames, views)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next batches depend on."""
        return {'generator': self.generator.bit_generator.state, 'order': self.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        self.generator.bit_generator.state = state['generator']
        self.order = list(state['order'])


def detector_task(
    checkpoint: Folder,
    *,
    calibration: Folder | None = None,
    train: Folder | None = None,
    validation: Folder | None = None,
    test: Folder | None = None,
    holdout: Folder | None = None,
    images: int = CALIBRATION_FRAMES,
    validation_frames: int | None = None,
) -> Task:
    """Return the task of a checkpoint; what needs a data set that is not given is left out.

    Args:
        checkpoint: of a finished run: …/final.pt.
        calibration: data set of which frames are shown without their labels.
        train: to fine-tune on, by the recipe of the checkpoint's experiment.
        validation: for choices: AP50, which counts, and AP50:95.
        test: the same, for the last look.
        holdout: for certificates; none of its frames may be in the other sets.
        images: how many of the calibration frames, spread over the set.
        validation_frames: how many of the validation frames; None for all.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.
        DataError: a data set is missing, or its labels, where they are used, not the network's.
    """
    content = read_checkpoint(checkpoint)
    model = detector_from(content, checkpoint)

    def frames(folder: Folder) -> FrameSet:
        return labelled_frames(folder, content, checkpoint)

    fields: dict[str, Any] = {}
    if train is not None:
        recipe = recipe_of(content['experiment'])
        fields |= learning(frames(train), recipe, len(plans_of(content)), model.strides)
    if validation is not None:
        fields['evaluate'] = accuracy_on(frames(validation), validation_frames)
    if test is not None:
        fields['test'] = accuracy_on(frames(test), None)
    if holdout is not None:
        fields |= _holdout(frames(holdout), holdout, model)
    return Task(
        model=model,
        example_inputs=(torch.zeros(1, 3, *model.input_size),),
        calibration=()
        if calibration is None
        else FrameBatches(load_frames(calibration, model.input_size), images),
        trained_for=TrainingBudget(cpu_minutes=max(total_cpu_seconds(content), 1e-3) / 60),
        initialise=initialise,
        teacher=folded(model),
        **fields,
    )


def labelled_frames(folder: Folder, content: Mapping[str, Any], checkpoint: Folder) -> FrameSet:
    """Return a data set as the detector of a checkpoint needs it, classes by their names.

    Raises DataError where its labels do not fit the checkpoint's, whose path is for the message.
    """
    height, width = content['architecture']['input_size']
    return load_frames(folder, (height, width), labels=content['labels'], owner=str(checkpoint))


def learning(frames: FrameSet, recipe: Recipe, cuts: int, levels: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a task that training needs.

    Args:
        frames: to train on.
        recipe: with `batch` and `phases`.
        cuts: made before, when the network's parent was made of its own: each sees other views.
        levels: the strides of the network's.
    """
    sizes = {len(grid(*phase.size, levels)[1]): phase.size for phase in recipe.phases}

    def step(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        raw = network(batch.images.float().div_(255))
        height, width = batch.images.shape[-2:]
        sizes[raw.shape[1]] = (height, width)
        return detection_loss(raw, batch, levels)

    def distil(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return distillation_loss(student, teacher, sizes[student.shape[1]], levels)

    return {
        'training': lambda seed: RandomViews(frames, recipe, (seed, cuts)),
        'step': step,
        'recipe': recipe,
        'distillation_loss': distil,
    }


def accuracy_on(frames: FrameSet, limit: int | None) -> Callable[[nn.Module], Figures]:
    """Return network → AP50, which counts, and AP50:95 on so many of the frames.

    Outcomes are of the frames' groups.
    """

    def evaluate(network: nn.Module) -> Figures:
        assert isinstance(network, Detector)
        metrics = validate(network, frames, limit=limit, outcomes=True)
        return Figures({'ap50': metrics.ap50, 'ap50_95': metrics.ap50_95}, metrics.ap50_outcomes)

    return evaluate


def initialise(network: nn.Module) -> None:
    """Make all weights of a detector random again."""
    assert isinstance(network, Detector)
    network.load_state_dict(Detector(network.architecture).state_dict())


def _holdout(frames: FrameSet, folder: Folder, model: Detector) -> dict[str, Any]:
    notes = read_dataset(folder)
    size, levels = model.input_size, model.strides
    _, strides = grid(*size, levels)

    def decide(parent: Tensor, child: Tensor) -> Mapping[str, tuple[NDArray[np.int64], ...]]:
        found = [
            match_objects(
                _detections(decode(of_parent, strides), size, levels),
                _detections(decode(of_child, strides), size, levels),
                score_threshold=SCORE_THRESHOLD,
            )
            for of_parent, of_child in zip(parent, child, strict=True)
        ]
        return {
            name: tuple(
                np.array([len(getattr(each, what)) for each in found], np.int64) for what in pair
            )
            for name, pair in (('lost', ('lost', 'shown')), ('added', ('invented', 'detected')))
        }

    return {
        'holdout': FrameBatches(frames),
        'clusters': clusters_of(notes),
        'decide': decide,
        'terms': {'objects': f'score ≥ {SCORE_THRESHOLD:g}, IoU ≥ 0.5, no dead-band'},
    }


def _detections(predictions: Tensor, size: tuple[int, int], levels: Sequence[int]) -> Detections:
    """Return the detections in the predictions (N, 4 + C) of one image."""
    candidates = decoders.get('anchor_free').decode(
        [predictions[None].numpy()], {'strides': levels}, size, SCORE_THRESHOLD
    )
    keep = class_wise_nms(*candidates, IOU_THRESHOLD, MAX_DETECTIONS)
    boxes, scores, class_ids = candidates
    return Detections(boxes[keep], scores[keep], class_ids[keep])
