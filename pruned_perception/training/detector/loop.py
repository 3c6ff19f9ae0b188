"""The training loop: resumable at any moment, bounded by CPU time or steps."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import termination
from pruned_perception.training.detector.augmentation import draw_batch
from pruned_perception.training.detector.checkpoint import read_checkpoint, save_checkpoint
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.distillation import distillation_loss
from pruned_perception.training.detector.experiment import Budget, Experiment, Phase
from pruned_perception.training.detector.loss import detection_loss
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.validation import validate

CHECKPOINT_SECONDS = 120.0  # of CPU time
LOG_STEPS = 20
VALIDATIONS = 10
VALIDATION_FRAMES = 200
GRADIENT_NORM = 10.0


# Called with what goes on, the share of it that is done (0…1), and a remark.
Report = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, or interrupted (start again to resume)."""

    finished: bool
    checkpoint: Path
    cpu_seconds: float
    steps: int


def train(
    experiment: Experiment,
    model: Detector,
    frames: FrameSet,
    validation: FrameSet,
    folder: Path,
    *,
    budget: Budget,
    ancestry: dict[str, Any] | None = None,
    teacher: Detector | None = None,
    report: Report | None = None,
) -> Outcome:
    """Train `model` in place; write `last.pt`, `final.pt` and `log.jsonl` into `folder`.

    A run that was interrupted (Ctrl-C, SIGTERM, a crash) continues from `last.pt`, with
    optimiser, average and random states as they were. Only training steps count against the
    budget; validation does not.

    Args:
        experiment: what to do.
        model: initial weights; ignored where the folder holds a checkpoint.
        frames: training frames.
        validation: validation frames; the first of them are used for progress reports.
        folder: of the run; two runs in one folder are refused.
        budget: of this run.
        ancestry: kept in the checkpoints: pruning records, CPU seconds of the parents.
        teacher: for an experiment with `distill`: whose outputs are learnt from; untouched.
        report: told of the progress, every few steps.

    Raises:
        FolderError: the folder is in use or belongs to another experiment.
    """
    with locked(folder):
        run = _Run(experiment, model, frames, validation, folder, budget, ancestry or {}, teacher)
        return run.loop(report or (lambda title, share, remark: None))


class _Run:
    """State of a run between its steps: everything that a checkpoint holds."""

    def __init__(
        self,
        experiment: Experiment,
        model: Detector,
        frames: FrameSet,
        validation: FrameSet,
        folder: Path,
        budget: Budget,
        ancestry: dict[str, Any],
        teacher: Detector | None,
    ) -> None:
        self.experiment, self.frames, self.validation = experiment, frames, validation
        self.folder, self.budget, self.ancestry = folder, budget, ancestry
        self.teacher = None if teacher is None else _channels_last(folded(teacher))
        self.steps = 0
        self.cpu_seconds = 0.0
        # An iteration of pruning sees other views than the one before.
        iteration = len(ancestry.get('earlier_plans', ()))
        self.generator = np.random.default_rng([experiment.seed, iteration])
        self.order: list[int] = []
        last = folder / 'last.pt'
        content = read_checkpoint(last) if last.is_file() else None
        if content is not None:
            if content['experiment']['name'] != experiment.name:
                raise FolderError(
                    f'{folder}: holds the run {content["experiment"]["name"]!r}, not '
                    f'{experiment.name!r}; choose another folder or delete this one'
                )
            model = Detector(model.architecture)
            model.load_state_dict(content['model'])
        self.model = _channels_last(model.train())
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimiser = _optimiser(self.model, experiment)
        if content is not None:
            self.average.load_state_dict(content['weights'])
            self.optimiser.load_state_dict(content['optimiser'])
            self.steps, self.cpu_seconds = content['steps'], content['cpu_seconds']
            self.generator.bit_generator.state = content['generator']
            self.order = content['order']
            torch.set_rng_state(content['torch_generator'])
        # Both share memory with the nets; collecting them anew would cost 5 % of a step.
        self.averages = _floating(self.average)
        self.currents = _floating(self.model)

    @property
    def fraction(self) -> float:
        return self.budget.fraction(self.cpu_seconds, self.steps)

    def loop(self, report: Report) -> Outcome:
        final = self.folder / 'final.pt'
        saved = self.cpu_seconds
        sums: dict[str, float] = {}
        since, started = self.steps, self.cpu_seconds
        validated = int(self.fraction * VALIDATIONS)
        with termination() as stop:
            while self.fraction < 1 and not stop:
                for name, value in self.step().items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.steps - since == LOG_STEPS:
                    images = LOG_STEPS * self.experiment.batch
                    record = {name: value / LOG_STEPS for name, value in sums.items()}
                    record['images_per_s'] = images / (self.cpu_seconds - started)
                    self.log('step', record)
                    remark = f'loss {record["total"]:.3f}, {record["images_per_s"]:.1f} images/s'
                    report(self.experiment.name, self.fraction, remark)
                    sums, since, started = {}, self.steps, self.cpu_seconds
                if self.cpu_seconds - saved > CHECKPOINT_SECONDS:
                    self.save(self.folder / 'last.pt', resumable=True)
                    saved = self.cpu_seconds
                if int(self.fraction * VALIDATIONS) > validated and self.fraction < 1:
                    validated = int(self.fraction * VALIDATIONS)
                    self.validate()
            finished = self.fraction >= 1
            if finished and not final.is_file():
                self.validate()
                self.save(final, resumable=False)
            self.save(self.folder / 'last.pt', resumable=True)
        return Outcome(finished, final, self.cpu_seconds, self.steps)

    def step(self) -> dict[str, float]:
        """Do one step of the optimiser; return its losses."""
        began = time.process_time()
        phase = _phase(self.experiment, self.fraction)
        batch = draw_batch(
            self.frames, self.next_indices(), phase.size, phase.scale, self.generator
        )
        rate = self.experiment.optimiser.rate(self.fraction)
        for group in self.optimiser.param_groups:
            group['lr'] = rate
        raw = self.model(batch.images)
        losses = detection_loss(raw, batch)
        if self.teacher is not None:
            assert self.experiment.distill is not None
            with torch.no_grad():
                lesson = self.teacher(batch.images)
            distilled = distillation_loss(raw, lesson, phase.size)
            weight = self.experiment.distill.weight
            losses['total'] = losses['total'] + weight * sum(distilled.values())
            losses |= distilled
        self.optimiser.zero_grad(set_to_none=True)
        losses['total'].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        if torch.isfinite(norm):  # one broken batch must not end a night's run
            self.optimiser.step()
        self.steps += 1
        self.follow()
        self.cpu_seconds += time.process_time() - began
        return {name: value.item() for name, value in losses.items()} | {'rate': rate}

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average of the weights; it follows more closely while it is young."""
        decay = min(self.experiment.ema, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.averages, self.currents, 1 - decay)

    def next_indices(self) -> list[int]:
        """Return the next frames of a random order that uses each frame equally often."""
        while len(self.order) < self.experiment.batch:
            self.order += self.generator.permutation(len(self.frames)).tolist()
        chosen, self.order = (
            self.order[: self.experiment.batch],
            self.order[self.experiment.batch :],
        )
        return chosen

    def validate(self) -> None:
        accuracy = validate(self.average, self.validation, limit=VALIDATION_FRAMES)
        self.log('validation', {'ap50': accuracy.ap50, 'ap50_95': accuracy.ap50_95})

    def log(self, kind: str, values: dict[str, float]) -> None:
        record = {
            'kind': kind,
            'step': self.steps,
            'cpu_s': round(self.cpu_seconds, 1),
            'fraction': round(self.fraction, 4),
            **{name: float(f'{value:.5g}') for name, value in values.items()},
        }
        with (self.folder / 'log.jsonl').open('a', encoding='utf-8') as file:
            file.write(json.dumps(record) + '\n')

    def save(self, path: Path, *, resumable: bool) -> None:
        """Write a checkpoint: `weights` (the average) and, to resume, everything else."""
        content: dict[str, Any] = {
            'experiment': self.experiment.to_dict(),
            'architecture': self.model.architecture.to_dict(),
            'labels': list(self.frames.labels),
            'data': {'train': self.frames.digest, 'frames': len(self.frames)},
            'weights': _tensors(self.average),
            'steps': self.steps,
            'cpu_seconds': self.cpu_seconds,
            'ancestry': self.ancestry,
        }
        if resumable:
            content |= {
                'model': _tensors(self.model),
                'optimiser': self.optimiser.state_dict(),
                'generator': self.generator.bit_generator.state,
                'order': self.order,
                'torch_generator': torch.get_rng_state(),
            }
        save_checkpoint(path, content)


def _channels_last(model: Detector) -> Detector:
    """Return the model itself with its weights in the memory format that is faster on CPUs."""
    # The typed signature of Module.to lacks the argument.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def _floating(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def _phase(experiment: Experiment, fraction: float) -> Phase:
    return next(phase for phase in experiment.phases if fraction < phase.until or phase.until == 1)


def _optimiser(model: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """Return AdamW that spares norms and biases from weight decay."""
    parameters = list(model.parameters())
    groups = [
        {
            'params': [each for each in parameters if each.ndim > 1],
            'weight_decay': experiment.optimiser.weight_decay,
        },
        {'params': [each for each in parameters if each.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=experiment.optimiser.learning_rate, fused=True)
