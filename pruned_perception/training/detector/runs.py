"""From an experiment's file to a trained checkpoint: data, initial net, budget, training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from pruned_perception.training.detector.checkpoint import detector_from, read_checkpoint
from pruned_perception.training.detector.data import FrameSet, load_frames
from pruned_perception.training.detector.experiment import (
    Budget,
    Experiment,
    ExperimentError,
    read_experiment,
)
from pruned_perception.training.detector.loop import Outcome, Report, train
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.method import pruned
from pruned_perception.training.pipeline import _step_budget
from pruned_perception.training.task import Task

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

    Pruning in several iterations is a chain of runs: the last is in the experiment's folder, the
    earlier ones are in its sub-folders `1`, `2`, …; each has its part of the budget, and counts
    those before it among its parents. The outcome is that of the last run there was time for.

    Args:
        experiment: as read from its file.
        folders: where data and former runs are.
        budget: instead of the experiment's own.
        report: told of the progress.

    Raises:
        UserError: data or a parent's checkpoint are missing, or the folder is in use.
    """
    folder = folders.runs / experiment.name
    if (finished := _finished(folder)) is not None:
        return finished
    source = experiment.parent or experiment.control_of
    origin = {} if source is None else read_checkpoint(folders.final(source))
    ancestor = detector_from(origin, folders.final(source)) if source else None
    frames, validation = _data(experiment, ancestor, folders, report)
    # A control has all the time that the other had.
    budget = budget or experiment.budget or Budget(cpu_minutes=total_cpu_seconds(origin) / 60)
    method = None if experiment.prune is None else experiment.prune.method
    earlier = 0 if method is None else method.iterations - 1
    stages = [*(folder / str(number + 1) for number in range(earlier)), folder]
    parts = len(stages) if method is not None and method.schedule == 'cascade' else 1
    for iteration, stage in enumerate(stages, start=1):
        outcome = _finished(stage)
        if outcome is None:
            model, ancestry = _initial(experiment, ancestor, origin, iteration, stage, frames)
            outcome = train(
                experiment,
                model,
                frames,
                validation,
                stage,
                budget=budget.divided(parts),
                ancestry=ancestry,
                teacher=ancestor if experiment.distill else None,
                report=report,
            )
        if not outcome.finished:
            break
        origin = read_checkpoint(outcome.checkpoint)
    assert outcome is not None
    return outcome


def calibration_batches(frames: FrameSet) -> Iterator[Tensor]:
    """Yield batches (B, 3, H, W) of frames spread over the set, not augmented."""
    count = min(CALIBRATION_FRAMES, len(frames))
    indices = np.linspace(0, len(frames) - 1, count).round().astype(int)
    for start in range(0, count, CALIBRATION_BATCH):
        images = frames.images[indices[start : start + CALIBRATION_BATCH]]
        yield torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def total_cpu_seconds(content: Mapping[str, Any]) -> float:
    """Return the CPU time of a checkpoint's training and of its whole ancestry."""
    return content['cpu_seconds'] + content['ancestry'].get('cpu_seconds', 0.0)


def _finished(folder: Path) -> Outcome | None:
    final = folder / 'final.pt'
    if not final.is_file():
        return None
    content = read_checkpoint(final)
    return Outcome(True, final, content['cpu_seconds'], content['steps'])


def _data(
    experiment: Experiment, ancestor: Detector | None, folders: Folders, report: Report | None
) -> tuple[FrameSet, FrameSet]:
    """Return the frames for training and validation, at the size and with the classes of the net.

    Those of the `ancestor`, where there is one.
    """
    architecture = experiment.architecture if ancestor is None else ancestor.architecture
    assert architecture is not None

    def progress(done: int, total: int) -> None:
        if report is not None:
            report(f'{experiment.name}: caching frames', done / total, '')

    validation, frames = (
        load_frames(
            folders.data / experiment.data[name], architecture.input_size, progress=progress
        )
        for name in ('validation', 'train')
    )
    if frames.labels != validation.labels or len(frames.labels) != architecture.num_classes:
        raise ExperimentError(
            f'{experiment.name}: the net has {architecture.num_classes} classes; training '
            f'data: {", ".join(frames.labels)}; validation data: {", ".join(validation.labels)}'
        )
    return frames, validation


def _initial(
    experiment: Experiment,
    ancestor: Detector | None,
    origin: dict[str, Any],
    iteration: int,
    stage: Path,
    frames: FrameSet,
) -> tuple[Detector, dict[str, Any]]:
    """Return the net that the run in the folder `stage` starts from or resumes, and its ancestry.

    Args:
        experiment: what to do.
        ancestor: the net of the experiment's parent, or of the one that it controls.
        origin: the checkpoint of the parent, or of the iteration before.
        iteration: of pruning, from 1.
        stage: folder of the run.
        frames: training frames.
    """
    last = stage / 'last.pt'
    if last.is_file():  # whatever a plan would be now
        content = read_checkpoint(last)
        return detector_from(content, last), content['ancestry']
    torch.manual_seed(experiment.seed)
    if experiment.prune is None:
        architecture = experiment.architecture if ancestor is None else ancestor.architecture
        assert architecture is not None
        control = {} if ancestor is None else {'control_of': experiment.control_of}
        return Detector(architecture), control
    assert ancestor is not None
    method, budget = experiment.prune.method, experiment.prune.budget
    current, calibration = detector_from(origin), list(calibration_batches(frames))
    example = (torch.zeros(1, 3, *current.input_size),)
    target = _step_budget(Task(ancestor, example, ()), current, method, budget, iteration)
    task = Task(current, example, calibration)
    small, record = pruned(task, method.cut(iteration), target, experiment.seed)
    assert isinstance(small, Detector)
    assert record.plan is not None
    former = origin['ancestry']
    former_plans = [*former.get('earlier_plans', ()), former.get('plan')]
    ancestry = {
        'plan': record.plan.to_dict(),
        'earlier_plans': [each for each in former_plans if each is not None],
        'cpu_seconds': total_cpu_seconds(origin),
    }
    return small, ancestry
