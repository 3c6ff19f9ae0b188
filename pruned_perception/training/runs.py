"""From an experiment's file to a trained checkpoint: data, initial net, budget, training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from pruned_perception.pruning import Plan, make_plan, prune, recalibrate
from pruned_perception.training.checkpoint import detector_from, read_checkpoint
from pruned_perception.training.data import FrameSet, load_frames
from pruned_perception.training.detector import Detector
from pruned_perception.training.experiment import (
    Budget,
    Experiment,
    ExperimentError,
    Pruning,
    read_experiment,
)
from pruned_perception.training.loop import Outcome, Report, train

CALIBRATION_FRAMES = 256
CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Folders:
    """Where things lie: `experiments` YAML files, `data` sets, `runs` one folder per experiment."""

    experiments: Path
    data: Path
    runs: Path

    def experiment(self, name: str) -> Experiment:
        """Read the experiment called `name`."""
        experiment = read_experiment(self.experiments / f'{name}.yaml')
        if experiment.name != name:
            raise ExperimentError(f'{self.experiments / name}.yaml: field name: must be {name!r}')
        return experiment

    def final(self, name: str) -> Path:
        """Return the path of the experiment's result."""
        return self.runs / name / 'final.pt'


def use_one_thread(threads: int = 1) -> None:
    """Prepare this process for training beside others.

    One thread: a small net gains little from more, and CPU time is what is counted. Denormal
    numbers are flushed to zero; they slow every product that they are part of.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)


def run_experiment(
    experiment: Experiment,
    folders: Folders,
    *,
    budget: Budget | None = None,
    report: Report | None = None,
) -> Outcome:
    """Train what `experiment` describes, or resume it; return at once if it is finished.

    Args:
        experiment: as read from its file.
        folders: where data and former runs are.
        budget: instead of the experiment's own.
        report: told of the progress.

    Raises:
        UserError: data or a parent's checkpoint are missing, or the folder is in use.
    """
    final = folders.final(experiment.name)
    if final.is_file():
        content = read_checkpoint(final)
        return Outcome(True, final, content['cpu_seconds'], content['steps'])
    torch.manual_seed(experiment.seed)
    budget, ancestry, model = _start(experiment, folders, budget)
    size = model.input_size
    title = f'{experiment.name}: caching frames'

    def progress(done: int, total: int) -> None:
        if report is not None:
            report(title, done / total, '')

    validation = load_frames(folders.data / experiment.data['validation'], size, progress=progress)
    frames = load_frames(folders.data / experiment.data['train'], size, progress=progress)
    if frames.labels != validation.labels or len(frames.labels) != model.architecture.num_classes:
        raise ExperimentError(
            f'{experiment.name}: the net has {model.architecture.num_classes} classes; training '
            f'data: {", ".join(frames.labels)}; validation data: {", ".join(validation.labels)}'
        )
    if experiment.parent is not None:
        model = recalibrate(model, calibration_batches(frames))
    return train(
        experiment,
        model,
        frames,
        validation,
        folders.runs / experiment.name,
        budget=budget,
        ancestry=ancestry,
        report=report,
    )


def pruned_detector(
    detector: Detector, pruning: Pruning, *, seed: int, widths: dict[str, int] | None = None
) -> tuple[Detector, Plan]:
    """Return the detector pruned as asked (or to given widths), and the plan."""
    example = (torch.zeros(1, 3, *detector.input_size),)
    wishes = {name: value for name, value in asdict(pruning).items() if value is not None}
    if widths is not None:
        wishes = {**wishes, 'macs': None, 'widths': widths}
    plan = make_plan(detector, example, seed=seed, **wishes)
    small = prune(detector, plan, example)
    assert isinstance(small, Detector)
    return small, plan


def calibration_batches(frames: FrameSet) -> Iterator[Tensor]:
    """Yield batches (B, 3, H, W) of frames spread over the set, not augmented."""
    count = min(CALIBRATION_FRAMES, len(frames))
    indices = np.linspace(0, len(frames) - 1, count).round().astype(int)
    for start in range(0, count, CALIBRATION_BATCH):
        images = frames.images[indices[start : start + CALIBRATION_BATCH]]
        yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _start(
    experiment: Experiment, folders: Folders, budget: Budget | None
) -> tuple[Budget, dict[str, Any], Detector]:
    """Return the budget, the ancestry and the initial net."""
    if experiment.architecture is not None:
        assert experiment.budget is not None
        return budget or experiment.budget, {}, Detector(experiment.architecture)
    source = experiment.parent or experiment.control_of
    assert source is not None
    content = read_checkpoint(folders.final(source))
    spent = content['cpu_seconds'] + content['ancestry'].get('cpu_seconds', 0.0)
    model = detector_from(content, folders.final(source))
    if experiment.control_of is not None:
        # The same widths, nothing of the weights, and all the time that the other had.
        total = Budget(cpu_minutes=spent / 60)
        return budget or total, {'control_of': source}, Detector(model.architecture)
    assert experiment.prune is not None
    assert experiment.budget is not None
    small, plan = pruned_detector(model, experiment.prune, seed=experiment.seed)
    return budget or experiment.budget, {'plan': plan.to_dict(), 'cpu_seconds': spent}, small
