"""Our detector as a task of `pruning`: from a checkpoint and data sets to what its steps take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruned_perception.datasets import read_dataset
from pruned_perception.inference import decoders
from pruned_perception.inference.decisions import match_decisions
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.nms import class_wise_nms
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.detector.architecture import STRIDES
from pruned_perception.training.detector.augmentation import Batch, draw_batch
from pruned_perception.training.detector.certification import (
    DEAD_BAND,
    clusters_of,
    declared_slices,
)
from pruned_perception.training.detector.checkpoint import detector_from, read_checkpoint
from pruned_perception.training.detector.data import (
    FrameSet,
    load_frames,
)
from pruned_perception.training.detector.distillation import distillation_loss
from pruned_perception.training.detector.experiment import Phase, recorded_experiment
from pruned_perception.training.detector.export import (
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
)
from pruned_perception.training.detector.loss import detection_loss
from pruned_perception.training.detector.network import Detector, decode, grid
from pruned_perception.training.detector.runs import (
    CALIBRATION_BATCH,
    CALIBRATION_FRAMES,
    total_cpu_seconds,
)
from pruned_perception.training.detector.validation import validate
from pruned_perception.training.distillation import DistillationLoss
from pruned_perception.training.task import Task

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
        train: to fine-tune on; views are drawn from the phases of the checkpoint's experiment.
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

    def frames(folder: Folder, *, labelled: bool = True) -> FrameSet:
        labels = content['labels'] if labelled else None
        return load_frames(
            folder, model.input_size, labelled=labelled, labels=labels, owner=str(checkpoint)
        )

    fields: dict[str, Any] = {}
    if train is not None:
        phases = recorded_experiment(content['experiment']).phases
        size = content['experiment'].get('batch', CALIBRATION_BATCH)
        fields |= {
            'training': _batches(frames(train), phases, size),
            'step': lambda network, batch: detection_loss(network(batch.images), batch)['total'],
            'optimiser': _adamw,
            'distillation_loss': _distillation([each.size for each in phases]),
        }
    if validation is not None:
        fields['evaluate'] = _accuracy(frames(validation), validation_frames)
    if test is not None:
        fields['test'] = _accuracy(frames(test), None)
    if holdout is not None:
        fields |= _holdout(frames(holdout), holdout, model.input_size)
    return Task(
        model=model,
        example_inputs=(torch.zeros(1, 3, *model.input_size),),
        calibration=()
        if calibration is None
        else FrameBatches(frames(calibration, labelled=False), images),
        trained_for=TrainingBudget(cpu_minutes=max(total_cpu_seconds(content), 1e-3) / 60),
        initialise=_initialise,
        **fields,
    )


def _batches(
    frames: FrameSet, phases: Sequence[Phase], size: int
) -> Callable[[int], Iterator[Batch]]:
    """Return seed → endless batches; each is of a phase, as often as the phase is long."""
    spans = np.diff([0.0, *(phase.until for phase in phases)])

    def training(seed: int) -> Iterator[Batch]:
        generator = np.random.default_rng(seed)
        order: list[int] = []
        while True:
            while len(order) < size:
                order += generator.permutation(len(frames)).tolist()
            chosen, order = order[:size], order[size:]
            phase = phases[generator.choice(len(phases), p=spans / spans.sum())]
            yield draw_batch(frames, chosen, phase.size, phase.scale, generator)

    return training


def _adamw(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Return AdamW that spares norms and biases from weight decay."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {'params': [each for each in parameters if each.ndim > 1], 'weight_decay': 0.02},
        {'params': [each for each in parameters if each.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate)


def _distillation(sizes: Sequence[tuple[int, int]]) -> DistillationLoss:
    """Return the loss of raw outputs (B, N, 4 + C); N tells the images' size."""
    by_cells = {len(grid(*size)[1]): size for size in sizes}

    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        parts = distillation_loss(student, teacher, by_cells[student.shape[1]])
        return torch.stack(list(parts.values())).sum()

    return loss


def _accuracy(frames: FrameSet, limit: int | None) -> Callable[[nn.Module], Mapping[str, float]]:
    def evaluate(network: nn.Module) -> Mapping[str, float]:
        assert isinstance(network, Detector)
        metrics = validate(network, frames, limit=limit)
        return {'ap50': float(metrics.ap50), 'ap50_95': float(metrics.ap50_95)}

    return evaluate


def _initialise(network: nn.Module) -> None:
    assert isinstance(network, Detector)
    network.load_state_dict(Detector(network.architecture).state_dict())


def _holdout(frames: FrameSet, folder: Folder, size: tuple[int, int]) -> dict[str, Any]:
    notes = read_dataset(folder)
    brightness = [float(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).mean()) for each in frames.images]
    slices = declared_slices(notes, np.array(brightness))
    _, strides = grid(*size)

    def decide(parent: Tensor, child: Tensor) -> NDArray[np.bool_]:
        return np.array(
            [
                match_decisions(
                    *(_detections(decode(raw, strides), size) for raw in pair),
                    score_threshold=SCORE_THRESHOLD,
                    dead_band=DEAD_BAND,
                ).changed
                for pair in zip(parent, child, strict=True)
            ],
            bool,
        )

    return {
        'holdout': FrameBatches(frames),
        'clusters': clusters_of(notes),
        'slices': {name: chosen for name, chosen in slices.items() if chosen.any()},
        'decide': decide,
    }


def _detections(predictions: Tensor, size: tuple[int, int]) -> Detections:
    """Return the detections in the predictions (N, 4 + C) of one image, below the threshold too."""
    candidates = decoders.get('anchor_free').decode(
        [predictions[None].numpy()], {'strides': STRIDES}, size, SCORE_THRESHOLD - DEAD_BAND
    )
    keep = class_wise_nms(*candidates, IOU_THRESHOLD, MAX_DETECTIONS)
    boxes, scores, class_ids = candidates
    return Detections(boxes[keep], scores[keep], class_ids[keep])
