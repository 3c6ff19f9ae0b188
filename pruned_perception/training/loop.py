"""Training any network with the user's own step function: fine-tuning, or from scratch.

SGD with warm-up and cosine by default. Learning-rate rewinding (Renda et al., Comparing rewinding
and fine-tuning in neural network pruning, ICLR 2020) needs nothing more: the schedule starts again
with each call.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import Interrupted, termination
from pruned_perception.pruning.calibration import update_fingerprint
from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.budget import Schedule, TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint
from pruned_perception.training.distillation import Distillation, calls_of, teach
from pruned_perception.training.random_state import random_numbers, random_state, set_random_state
from pruned_perception.training.task import Task

CHECKPOINT = 'training.pt'
CHECKPOINT_SECONDS = 60.0  # of CPU time
REPORT_STEPS = 20
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class Progress:
    """How far a training is: share of the budget, steps, their CPU time, mean loss of the last."""

    fraction: float
    steps: int
    cpu_seconds: float
    loss: float


def finetune(
    model: nn.Module,
    task: Task,
    budget: TrainingBudget,
    *,
    schedule: Schedule | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    masks: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> nn.Module:
    """Return a trained copy of `model`, in evaluation mode; the original is untouched.

    With a folder, a call that was interrupted (Ctrl-C, SIGTERM, a crash) goes on where it was when
    it is made again: the same batches, the same random numbers. It skips the batches it has had,
    so that any iterator will do. A call that was finished returns its result at once.

    Args:
        model: the initial weights; frozen parameters stay as they are.
        task: its `training`, `step`, `optimiser` and `distillation_loss` are used.
        budget: when to end.
        schedule: of the learning rate, over the budget.
        teacher: a network to learn from beside the labels, for example the parent; untouched.
        distillation: how much the teacher counts.
        masks: parameter → bool of its shape: where it is False, the value stays zero.
        seed: of the batches and of all global random numbers, which are as before afterwards.
        folder: for what an interrupted call needs to go on.
        report: told of the progress every few steps, and at the end.

    Raises:
        PruningError: the task cannot train, nothing can be trained, the data end, or the loss is
            not finite.
        FolderError: the folder is in use, or holds another training.
        Interrupted: after SIGTERM or Ctrl-C, all saved; only with a folder.
    """
    if task.training is None or task.step is None:
        raise PruningError('fine-tuning: the task needs `training` (batches) and `step` (loss)')
    hold = locked(folder) if folder else contextlib.nullcontext()
    with hold, random_numbers(seed):
        run = _Run(
            model, task, budget, schedule or Schedule(), teacher, distillation or Distillation(),
            masks or {}, seed, folder,
        )  # fmt: skip
        return run.loop(report or (lambda progress: None))


class _Run:
    """State of a training between its steps."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        budget: TrainingBudget,
        schedule: Schedule,
        teacher: nn.Module | None,
        distillation: Distillation,
        masks: Mapping[str, Tensor],
        seed: int,
        folder: Path | None,
    ) -> None:
        self.task, self.budget, self.schedule, self.folder = task, budget, schedule, folder
        self.distillation, self.masks = distillation, masks
        self.network = copy.deepcopy(model).train()
        self.teacher = teacher and copy.deepcopy(teacher).eval().requires_grad_(False)
        if not any(each.requires_grad for each in self.network.parameters()):
            raise PruningError('fine-tuning: every parameter is frozen (requires_grad=False)')
        self.identity = {
            'initial': weights_digest(model),
            'budget': budget.to_dict(),
            'schedule': schedule.to_dict(),
            'seed': seed,
            'distillation': distillation.to_dict() if teacher else None,
            'masked': sorted(masks),
        }
        self.parameters = dict(self.network.named_parameters())
        if unknown := set(masks) - set(self.parameters):
            raise PruningError(f'masks: {sorted(unknown)[0]!r} is no parameter of the network')
        assert task.training is not None
        self.batches = task.training(seed)
        self.optimiser = (task.optimiser or sgd)(self.network, schedule.learning_rate)
        self.rates = [group['lr'] / schedule.learning_rate for group in self.optimiser.param_groups]
        self.steps, self.cpu_seconds, self.finished = 0, 0.0, False
        if folder is not None and (folder / CHECKPOINT).is_file():
            self.restore(folder / CHECKPOINT)

    @property
    def fraction(self) -> float:
        return self.budget.fraction(self.cpu_seconds, self.steps)

    def loop(self, report: Callable[[Progress], None]) -> nn.Module:
        saved, loss = self.cpu_seconds, math.nan
        losses: list[float] = []
        stoppable = termination() if self.folder else contextlib.nullcontext(list[int]())
        with stoppable as stop:
            while self.fraction < 1 and not stop:
                losses.append(self.step())
                if len(losses) == REPORT_STEPS:
                    loss = sum(losses) / len(losses)
                    losses = []
                    report(Progress(self.fraction, self.steps, self.cpu_seconds, loss))
                if self.cpu_seconds - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = self.cpu_seconds
            if not self.finished:
                self.finished = self.fraction >= 1
                if self.finished:
                    self.check()
                self.save()
        if not self.finished:
            raise Interrupted
        loss = sum(losses) / len(losses) if losses else loss
        report(Progress(1.0, self.steps, self.cpu_seconds, loss))
        self.network.zero_grad(set_to_none=True)
        return self.network.eval()

    def step(self) -> float:
        """Do one step of the optimiser; return its loss."""
        began = time.process_time()
        rate = self.schedule.rate(self.fraction)
        for group, relative in zip(self.optimiser.param_groups, self.rates, strict=True):
            group['lr'] = rate * relative
        batch = self.next_batch()
        assert self.task.step is not None
        with calls_of(self.network) as calls:
            loss = self.task.step(self.network, batch)
        if self.teacher is not None:
            lesson = teach(
                self.teacher, calls, self.task.distillation_loss, self.distillation.temperature
            )
            loss = loss + self.distillation.weight * lesson
        value = loss.item()
        if not math.isfinite(value):
            raise PruningError(
                f'fine-tuning: the loss is {value} at step {self.steps + 1}, at a learning rate of '
                f'{rate:.3g}; lower it, or look at the data of that step'
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.parameters[name].mul_(mask)
        self.steps += 1
        self.cpu_seconds += time.process_time() - began
        return value

    def next_batch(self) -> Any:
        try:
            return next(self.batches)
        except StopIteration:
            raise PruningError(
                'fine-tuning: the training data ended; `training` must go on for ever, epoch '
                'after epoch'
            ) from None

    def check(self) -> None:
        for name, value in self.network.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise PruningError(
                    f'fine-tuning: {name} is not finite after step {self.steps}; lower the '
                    'learning rate'
                )

    def save(self) -> None:
        """Write the weights and, unless finished, everything else that a step depends on."""
        if self.folder is None:
            return
        content: dict[str, Any] = {
            'identity': self.identity,
            'finished': self.finished,
            'steps': self.steps,
            'cpu_seconds': self.cpu_seconds,
            'model': self.network.state_dict(),
        }
        if not self.finished:
            content |= {'optimiser': self.optimiser.state_dict(), 'random': random_state()}
        save_checkpoint(self.folder / CHECKPOINT, content)

    def restore(self, path: Path) -> None:
        """Take up what `save` wrote: weights, optimiser, place in the data, random numbers."""
        content = read_checkpoint(path)
        if content['identity'] != self.identity:
            differing = [k for k, v in self.identity.items() if content['identity'].get(k) != v]
            raise FolderError(
                f'{path.parent}: holds another training (its {", ".join(differing)} differ); '
                'choose another folder, or delete this one'
            )
        self.network.load_state_dict(content['model'])
        self.steps, self.cpu_seconds = content['steps'], content['cpu_seconds']
        self.finished = content['finished']
        if not self.finished:
            self.optimiser.load_state_dict(content['optimiser'])
            for _ in range(self.steps):
                self.next_batch()
            set_random_state(content['random'])


def sgd(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Return the default optimiser of everything that is not frozen."""
    trainable = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.SGD(
        trainable, lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f'{name}{value.dtype}{tuple(value.shape)}'.encode())
        update_fingerprint(digest, value)
    return digest.hexdigest()
