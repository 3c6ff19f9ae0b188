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

"""From an experiment's file to a trained checkpoint: data, initial net, budget, training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pruned_perception.datasets.fingerprints import check_apart
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint, weights_of
from pruned_perception.training.compute import CPU, Compute, has_bfloat16
from pruned_perception.training.detector.checkpoint import (
    SEEN,
    descent,
    detector_from,
    plans_of,
    seen,
    total_cpu_seconds,
)
from pruned_perception.training.detector.data import FrameSet, load_frames
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.experiment import (
    Experiment,
    ExperimentError,
    read_experiment,
)
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.pretrained import start_from
from pruned_perception.training.detector.task import (
    CALIBRATION_FRAMES,
    FrameBatches,
    accuracy_on,
    learning,
)
from pruned_perception.training.loop import OnProgress, train
from pruned_perception.training.pipeline import prune_and_finetune
from pruned_perception.training.random_state import random_numbers
from pruned_perception.training.task import Task

VALIDATIONS = 10
VALIDATION_FRAMES = 200


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to: where its result is, and what its last training took."""

    checkpoint: Path
    cpu_seconds: float
    steps: int


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


def run_experiment(
    experiment: Experiment,
    folders: Folders,
    *,
    budget: TrainingBudget | None = None,
    report: OnProgress | None = None,
    compute: Compute | None = None,
) -> Outcome:
    """Train what `experiment` describes, or resume it; return at once if it is finished.

    Args:
        experiment: as read from its file.
        folders: where data and former runs are.
        budget: instead of the experiment's own.
        report: told of the progress.
        compute: where to train and to validate, and with which other processes; by default the
            CPU, alone.

    Raises:
        UserError: data or a parent's checkpoint are missing, or the folder is in use or holds
            another training.
        Interrupted: after SIGTERM or Ctrl-C; the same call goes on.
    """
    final = folders.final(experiment.name)
    compute = compute or Compute()
    if experiment.precision is not None:
        compute = compute.in_precision(experiment.precision)
        if compute.precision == torch.bfloat16 and not has_bfloat16(compute.device or CPU):
            warnings.warn(
                f'{experiment.name}: field precision: no instructions for bfloat16 here, so that a '
                'step may well take longer than in float32',
                stacklevel=2,
            )
    first = compute.processes.first
    if (outcome := first(lambda: _outcome(final) if final.is_file() else None)) is not None:
        return outcome
    source = experiment.parent or experiment.control_of
    origin = {} if source is None else read_checkpoint(folders.final(source))
    ancestor = detector_from(origin, folders.final(source)) if source else None
    frames, validation = _data(experiment, ancestor, folders, report)
    # A control has all the time that the other had.
    budget = (
        budget or experiment.budget or TrainingBudget(cpu_minutes=total_cpu_seconds(origin) / 60)
    )
    options: dict[str, Any] = {
        'seed': experiment.seed,
        'validations': VALIDATIONS,
        'folder': final.parent,
        'compute': compute,
        'report': report
        and (lambda title, share, remark: report(f'{experiment.name}: {title}', share, remark)),
    }
    if experiment.prune is None:
        fresh, origins = _fresh(experiment, ancestor, frames)
        before = {SEEN: origins.pop(SEEN)} if SEEN in origins else origin
        task = _task(experiment, fresh, frames, validation, cuts=0)
        trained = train(task.model, task, budget, **options)
        network = trained.network
        content: dict[str, Any] = {
            'steps': trained.steps,
            'cpu_seconds': trained.cpu_seconds,
            'ancestry': origins,
        }
    else:
        assert ancestor is not None
        before = origin
        task = _task(experiment, ancestor, frames, validation, cuts=len(plans_of(origin)))
        network, record = prune_and_finetune(
            task,
            replace(experiment.prune.method, distill=experiment.distill),
            experiment.prune.budget,
            training=budget,
            **options,
        )
        content = origin
        for stage in record.stages:
            assert stage.pruning.plan is not None
            content = {
                'steps': stage.steps,
                'cpu_seconds': stage.cpu_seconds,
                'ancestry': descent(content, stage.pruning.plan.to_dict()),
            }
    assert isinstance(network, Detector)
    content = {
        'experiment': experiment.to_dict(),
        'architecture': network.architecture.to_dict(),
        'labels': list(frames.labels),
        'data': {'train': frames.digest, 'frames': len(frames)},
        'weights': weights_of(network),
        SEEN: seen(before, training=frames.notes, validation=validation.notes),
        **content,
    }
    first(lambda: save_checkpoint(final, content))
    return first(lambda: _outcome(final))


def _outcome(final: Path) -> Outcome:
    content = read_checkpoint(final)
    return Outcome(final, content['cpu_seconds'], content['steps'])


def _fresh(
    experiment: Experiment, ancestor: Detector | None, frames: FrameSet
) -> tuple[Detector, dict[str, Any]]:
    """Return an untrained net, the experiment's or of the widths of the one that it controls.

    Beside it, what of its ancestry is known.
    """
    architecture = experiment.architecture if ancestor is None else ancestor.architecture
    assert architecture is not None
    with random_numbers(experiment.seed):
        detector = Detector(architecture)
    if ancestor is not None:
        return detector, {'control_of': experiment.control_of}
    if experiment.pretrained is None:
        return detector, {}
    origins = start_from(detector, experiment.pretrained, frames)
    detector.backbone[: experiment.freeze].requires_grad_(False)
    return detector, origins


def _task(
    experiment: Experiment, model: Detector, frames: FrameSet, validation: FrameSet, *, cuts: int
) -> Task:
    return Task(
        model=model,
        example_inputs=(torch.zeros(1, 3, *model.input_size),),
        calibration=FrameBatches(frames, CALIBRATION_FRAMES),
        evaluate=accuracy_on(validation, VALIDATION_FRAMES),
        teacher=folded(model),
        **learning(frames, experiment.recipe, cuts, model.strides),
    )


def _data(
    experiment: Experiment, ancestor: Detector | None, folders: Folders, report: OnProgress | None
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
    check_apart(frames.notes, validation.notes)
    return frames, validation
