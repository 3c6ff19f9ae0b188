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

"""Training any network with the user's own step function: fine-tuning, or from scratch.

The one loop of the package. Learning-rate rewinding (Renda et al., Comparing rewinding and
fine-tuning in neural network pruning, ICLR 2020) needs nothing more: the rate starts again with
each call.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception._io import FolderError, errors_of_writing, locked
from pruned_perception._processes import Interrupted, termination
from pruned_perception.pruning.calibration import update_fingerprint
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import device_of, moved
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import (
    FORMAT,
    read_checkpoint,
    save_checkpoint,
    weights_of,
)
from pruned_perception.training.compute import Compute
from pruned_perception.training.distillation import Call, Distillation, calls_of, teach
from pruned_perception.training.feed import Feed, Part
from pruned_perception.training.losses import named, total
from pruned_perception.training.memory import examples, largest_that_fits
from pruned_perception.training.random_state import random_numbers, random_state, set_random_state
from pruned_perception.training.recipe import Recipe, make_optimiser
from pruned_perception.training.task import Task, figures_of

CHECKPOINT = 'training.pt'
LOG = 'log.jsonl'
CHECKPOINT_SECONDS = 60.0  # of CPU time
LOG_STEPS = 20

OnProgress = Callable[[str, float, str], None]
"""Told what goes on, the share of it that is done (0…1), and a remark."""


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, what it took, and its last figures, if validated."""

    network: nn.Module
    steps: int
    cpu_seconds: float
    figures: dict[str, float] = field(default_factory=dict)


def finetune(model: nn.Module, task: Task, budget: TrainingBudget, **options: Any) -> nn.Module:
    """Return a trained copy of `model`, in evaluation mode: `train` with the same options."""
    return train(model, task, budget, **options).network


def train(
    model: nn.Module,
    task: Task,
    budget: TrainingBudget,
    *,
    recipe: Recipe | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    masks: Mapping[str, Tensor] | None = None,
    validations: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    report: OnProgress | None = None,
    title: str = 'training',
    compute: Compute | None = None,
) -> Trained:
    """Return a trained copy of `model`, or the average of its weights; the original is untouched.

    With a folder, a call that was interrupted (Ctrl-C, SIGTERM, a crash) goes on where it was when
    it is made again, with the same batches and random numbers, and ends with the same weights; it
    may be given another budget then. A call that was finished returns its result at once. Only
    training steps count against the budget; validation does not.

    Args:
        model: the initial weights; frozen parameters stay as they are.
        task: its `training`, `step`, `optimiser` and `distillation_loss` are used, and `evaluate`
            for validation.
        budget: when to end.
        recipe: how to train; the task's own by default.
        teacher: a network to learn from beside the labels, for example the parent; untouched.
        distillation: how much the teacher counts.
        masks: parameter → bool of its shape: where it is False, the value stays zero.
        validations: how often, at equal parts of the budget, `evaluate` says in the log how good
            the result would be; the last one is at the end.
        seed: of the batches and of all global random numbers, which are as before afterwards.
        folder: for what an interrupted call needs to go on, and the log, `log.jsonl`.
        report: told of the progress every few steps, and at the end.
        title: what the report calls it.
        compute: where, how precisely and with which other processes to compute; by default where
            the model is. The result is where the model is. Of several processes each must make
            the same call, and has the same result; the first one writes.

    Raises:
        PruningError: the task cannot train as the recipe says, nothing can be trained, the data
            end, loss or weights are not finite, or a device's memory is too small for a batch: how
            many examples would fit is said.
        FolderError: the folder is in use, or holds another training.
        Interrupted: after SIGTERM or Ctrl-C, all saved; only with a folder.
    """
    if task.training is None or task.step is None:
        raise PruningError('training: the task needs `training` (batches) and `step` (loss)')
    compute = compute or Compute()
    processes = compute.processes
    with contextlib.ExitStack() as stack:
        if folder is not None:
            hold = locked(folder)
            processes.first(lambda: stack.enter_context(hold))
        stack.enter_context(random_numbers(processes.seed(seed)))
        stack.enter_context(torch.inference_mode(False))
        run = _Run(
            model, task, budget, recipe or task.recipe, teacher, distillation or Distillation(),
            masks or {}, validations, seed, folder, compute,
        )  # fmt: skip
        stack.callback(run.feed.close)
        return run.loop(lambda share, remark: report and report(title, share, remark))


class _Run:
    """State of a training between its steps."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        budget: TrainingBudget,
        recipe: Recipe,
        teacher: nn.Module | None,
        distillation: Distillation,
        masks: Mapping[str, Tensor],
        validations: int,
        seed: int,
        folder: Path | None,
        compute: Compute,
    ) -> None:
        assert task.training is not None
        self.task, self.budget, self.recipe, self.folder = task, budget, recipe, folder
        self.distillation, self.validations, self.compute = distillation, validations, compute
        self.home = device_of(model)
        self.network = self.placed(model).train()
        self.teacher = None
        if teacher is not None:
            there = self.placed(teacher).to(device_of(self.network))
            self.teacher = there.eval().requires_grad_(False)
        if not any(each.requires_grad for each in self.network.parameters()):
            raise PruningError('training: every parameter is frozen (requires_grad=False)')
        if task.distillation_loss is not None and distillation.temperature is not None:
            raise PruningError('distill.temperature: the task has a distillation loss of its own')
        self.identity = {
            'initial': weights_digest(model),
            'budget': budget.to_dict(),
            'recipe': recipe.to_dict(),
            'seed': seed,
            'distillation': None if teacher is None else distillation.to_dict(),
            'masked': sorted(masks),
        }
        parameters = dict(self.network.named_parameters())
        if unknown := set(masks) - set(parameters):
            raise PruningError(f'masks: {sorted(unknown)[0]!r} is no parameter of the network')
        self.masked = [
            (parameters[name], moved(mask, parameters[name].device)) for name, mask in masks.items()
        ]
        self.keep_masked()
        self.average = self.network
        if recipe.ema is not None:
            self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        # Both share memory with the networks; collecting them anew would cost 5 % of a step.
        self.averages, self.currents = _floating(self.average), _floating(self.network)
        batches = task.training(seed)
        self.processes, self.scaler = compute.processes, compute.scaler()
        self.optimiser = _optimiser(self.network, task, recipe)
        self.rates = [group['lr'] / recipe.learning_rate for group in self.optimiser.param_groups]
        self.feed = Feed(
            batches,
            recipe,
            self.fraction_after,
            self.processes,
            workers=compute.workers,
            pinned=device_of(self.network).type == 'cuda',
        )
        self.epoch = getattr(batches, 'steps_per_epoch', None)
        if budget.epochs is not None and self.epoch is None:
            raise PruningError(
                'training budget: of epochs, but what `training` of the task returns has no '
                '`steps_per_epoch`; give steps'
            )
        self.steps, self.cpu_seconds, self.wall_seconds, self.finished = 0, 0.0, 0.0, False
        self.waited, self.stopped = 0.0, False
        self.figures: dict[str, float] = {}
        self.check_others()
        if folder is not None:
            path = folder / CHECKPOINT
            found = self.processes.first(lambda: read_checkpoint(path) if path.is_file() else None)
            if found is not None:
                self.restore(path, found)

    def placed(self, model: nn.Module) -> nn.Module:
        """Return a copy where it is to compute."""
        network = self.compute.copy(model)
        if self.recipe.channels_last or self.compute.channels_last:
            # The typed signature of Module.to lacks the argument.
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def check_others(self) -> None:
        """Raise PruningError where the processes have been given different things."""
        theirs = self.processes.first(lambda: self.identity)
        differing = [key for key, value in self.identity.items() if theirs[key] != value]
        if differing:
            raise PruningError(f'several processes: their {", ".join(differing)} differ')

    @property
    def fraction(self) -> float:
        """The share of the budget that is used up."""
        return self.fraction_after(self.steps)

    def fraction_after(self, steps: int) -> float:
        """Return what it is after so many steps; of a budget of time, what it is now."""
        epochs = 0.0 if self.epoch is None else steps / self.epoch
        return self.budget.fraction(self.cpu_seconds, steps, self.wall_seconds, epochs)

    def loop(self, report: Callable[[float, str], Any]) -> Trained:
        saved = self.cpu_seconds
        validated = int(self.fraction * self.validations)
        log = _Log(self)
        stoppable = termination() if self.folder else contextlib.nullcontext(list[int]())
        with stoppable as stop:
            while self.fraction < 1 and not self.stopped:
                log.add(self.step(stop))
                if log.steps == LOG_STEPS:
                    report(self.fraction, log.write())
                if int(self.fraction * self.validations) > validated and self.fraction < 1:
                    validated = int(self.fraction * self.validations)
                    self.validate(log)
                if self.cpu_seconds - saved > CHECKPOINT_SECONDS:
                    self.save()
                    saved = self.cpu_seconds
            if not self.finished:
                self.finished = self.fraction >= 1
                if self.finished:
                    self.check()
                    self.validate(log)
                self.save()
        if stop or self.stopped or not self.finished:  # all is saved; who goes on has to be told
            raise Interrupted(f'after {self.steps} steps, {self.cpu_seconds / 60:.1f} CPU minutes')
        report(1.0, log.remark())
        self.average.zero_grad(set_to_none=True)
        for parameter, other in zip(
            self.average.parameters(), self.network.parameters(), strict=True
        ):
            parameter.requires_grad_(other.requires_grad)
        trained = self.average.to(self.home).eval()
        return Trained(trained, self.steps, self.cpu_seconds, self.figures)

    def step(self, stop: list[int]) -> dict[str, float]:
        """Do one step of the optimiser; return its losses, and the learning rate.

        All processes count the same time: CPU time of all together, wall time of the first one. A
        signal to one of them stops them all.
        """
        began, wall = time.process_time(), time.perf_counter()
        rate = self.recipe.rate(self.fraction)
        for group, relative in zip(self.optimiser.param_groups, self.rates, strict=True):
            group['lr'] = rate * relative
        part = self.feed.next()
        waited = time.perf_counter() - wall
        losses: dict[str, Tensor] = {}
        with contextlib.suppress(torch.OutOfMemoryError):
            losses = self.learn(part, rate)
        if not losses:  # here, where what that step allocated is free again
            raise self.too_large(part.batch)
        self.keep_masked()
        self.steps += 1
        self.follow()
        means = [value.item() * part.share for value in losses.values()]
        first = self.processes.rank == 0
        cpu, wall, waited, stopped, *means = self.processes.total(
            [
                time.process_time() - began + part.cpu_seconds,
                first * (time.perf_counter() - wall),
                first * waited,
                float(bool(stop)),
                *means,
            ]
        )
        self.cpu_seconds += cpu
        self.wall_seconds += wall
        self.waited += waited
        self.stopped = stopped > 0
        return dict(zip(losses, means, strict=True)) | {'rate': rate}

    def learn(self, part: Part, rate: float) -> dict[str, Tensor]:
        """Move the weights by what a batch says; return its losses."""
        losses = self.losses(part)
        if self.scaler is not None and not self.all_finite(losses['total']):
            self.compute, self.scaler = self.compute.safer, None
            warnings.warn(
                f'training: the loss of step {self.steps + 1} is too large for float16; it goes on '
                f'in {str(self.compute.precision).removeprefix("torch.")}',
                stacklevel=2,
            )
            losses = self.losses(part)
        loss = losses['total']
        if self.recipe.clip is None and not math.isfinite(value := loss.item()):
            raise PruningError(
                f'training: the loss is {value} at step {self.steps + 1}, at a learning rate of '
                f'{rate:.3g}; lower it, or look at the data of that step'
            )
        self.optimiser.zero_grad(set_to_none=True)
        if part.share != 1:
            loss = loss * part.share
        self.compute.backward(loss if self.scaler is None else self.scaler.scale(loss))
        self.processes.add_gradients(self.network)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimiser)
        if self.recipe.clip is None or torch.isfinite(
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        ):  # one broken batch must not end a night's run
            (self.optimiser.step if self.scaler is None else self.move_scaled)()
        if self.scaler is not None:
            self.scaler.update()
        return losses

    def move_scaled(self) -> None:
        """Move the weights, unless a gradient was too large for its scale, which is halved then."""
        assert self.scaler is not None
        self.scaler.step(self.optimiser)

    def all_finite(self, loss: Tensor) -> bool:
        """Return whether the losses of all processes are."""
        return self.processes.total([not math.isfinite(loss.item())]) == [0]

    def too_large(self, batch: Any) -> PruningError:
        """Return what to say of a batch that there is no memory for: how many would fit."""
        self.optimiser.zero_grad(set_to_none=True)
        self.compute = self.compute.alone  # the others wait elsewhere, or have no memory, either
        self.processes = self.compute.processes
        size = largest_that_fits(
            batch, lambda some: self.compute.backward(self.losses(Part(some))['total'])
        )
        fits = f'batches of {size} fit' if size else 'no part of it fits'
        return PruningError(
            f'training: {device_of(self.network)} has too little memory for the batch of step '
            f'{self.steps + 1} ({examples(batch) or "?"} examples); {fits}. What was saved before '
            'is untouched; another size of batches is another training, in another folder'
        )

    def losses(self, part: Part) -> dict[str, Tensor]:
        """Return the losses of a batch, or a part of one, and the `total` that is minimised."""
        assert self.task.step is not None
        batch = self.compute.batch(part.batch, self.network)
        listen: contextlib.AbstractContextManager[list[Call]] = contextlib.nullcontext([])
        if self.teacher is not None:
            listen = calls_of(self.network)
        with self.processes.forward(part.share), self.compute.forward(), listen as calls:
            found = named(self.task.step(self.network, batch), 'loss')
            loss = total(found)
            if self.teacher is not None:
                loss_of = self.task.distillation_loss
                lessons = teach(self.teacher, calls, loss_of, self.distillation)
                loss = loss + self.distillation.weight * total(lessons)
                found |= lessons
        return {**found, 'total': loss}

    @torch.no_grad()
    def keep_masked(self) -> None:
        for parameter, mask in self.masked:
            parameter.mul_(mask)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average of the weights; it follows more closely while it is young."""
        if self.recipe.ema is not None:
            decay = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self.averages, self.currents, 1 - decay)

    def validate(self, log: _Log) -> None:
        """Ask the task how good the result would be; the training's random numbers stay."""
        if not self.validations:
            return
        if self.task.evaluate is None:
            raise PruningError('validation: the task needs `evaluate`')
        before = random_state()
        self.figures = self.processes.gathered(figures_of(self.task.evaluate, self.average))[0]
        set_random_state(before)
        log.record('validation', self.figures)

    def check(self) -> None:
        for name, value in self.average.state_dict().items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise PruningError(
                    f'training: {name} is not finite after step {self.steps}; lower the '
                    'learning rate'
                )

    def save(self) -> None:
        """Write the weights and, unless finished, everything else that a step depends on."""
        if self.folder is None:
            return
        path = self.folder / CHECKPOINT
        content: dict[str, Any] = {
            'weights': weights_of(self.average),
            'steps': self.steps,
            'cpu_seconds': self.cpu_seconds,
            'wall_seconds': self.wall_seconds,
            'identity': self.identity,
            'finished': self.finished,
            'figures': dict(self.figures),
        }
        if not self.finished:
            own, *others = self.processes.gathered(random_state())
            content['resume'] = {
                'network': None if self.recipe.ema is None else weights_of(self.network),
                'optimiser': self.optimiser.state_dict(),
                'batches': self.feed.state_dict(),
                'random': own,
                'others': others,
                'scaler': None if self.scaler is None else self.scaler.state_dict(),
            }
        self.processes.first(lambda: save_checkpoint(path, content))

    def restore(self, path: Path, content: Mapping[str, Any]) -> None:
        """Take up what `save` wrote: weights, optimiser, place in the data, random numbers.

        With another number of processes, each but the first one draws random numbers of its own
        anew; batches are the same.
        """
        if content['format'] != FORMAT or 'identity' not in content:
            raise FolderError(
                f'{path}: was not written by this version, which cannot go on with it; choose '
                'another folder, or delete this one'
            )
        identity = content['identity']
        differing = [key for key, value in self.identity.items() if identity.get(key) != value]
        if differing == ['budget'] and not content['finished']:
            differing = []
        if differing:
            raise FolderError(
                f'{path.parent}: holds another training (its {", ".join(differing)} differ); '
                'choose another folder, or delete this one'
            )
        self.average.load_state_dict(content['weights'])
        self.steps, self.cpu_seconds = content['steps'], content['cpu_seconds']
        self.wall_seconds = content.get('wall_seconds', 0.0)  # missing in earlier versions'
        self.finished = content['finished']
        if self.finished:
            self.figures = content['figures']
            return
        resume = content['resume']
        if resume['network'] is not None:
            self.network.load_state_dict(resume['network'])
        self.optimiser.load_state_dict(resume['optimiser'])
        self.feed.load_state_dict(resume['batches'], self.steps)
        if (scaler := resume.get('scaler')) is not None and self.scaler is not None:
            self.scaler.load_state_dict(scaler)
        states = [resume['random'], *resume.get('others', ())]
        if self.processes.count == len(states) or self.processes.rank == 0:
            set_random_state(states[self.processes.rank])


class _Log:
    """Mean losses of the last steps, for the log file and for a remark."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.sums: dict[str, float] = {}
        self.steps, self.began, self.waited = 0, run.wall_seconds, run.waited
        self.loss = math.nan

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1

    def write(self) -> str:
        """Write the means of the steps since the last time; return a remark.

        Speed is per second of wall time; `waiting` is the share of it in which the next batch was
        not there yet.
        """
        means = {name: value / self.steps for name, value in self.sums.items()}
        self.loss = means['total']
        seconds = max(self.run.wall_seconds - self.began, 1e-9)
        waiting = (self.run.waited - self.waited) / seconds
        unit, speed = 'steps', self.steps / seconds
        if (batch := self.run.recipe.batch) is not None:
            unit, speed = 'images', speed * batch
        self.record('step', means | {f'{unit}_per_s': speed, 'waiting': waiting})
        self.sums, self.steps = {}, 0
        self.began, self.waited = self.run.wall_seconds, self.run.waited
        return f'{self.remark()}, {speed:.1f} {unit}/s, {waiting:.0%} of it waiting for data'

    def remark(self) -> str:
        if self.steps:
            self.loss = self.sums['total'] / self.steps
        return f'step {self.run.steps}, loss {self.loss:.4g}'

    def record(self, kind: str, values: Mapping[str, float]) -> None:
        if self.run.folder is None or self.run.processes.rank:
            return
        line = {
            'kind': kind,
            'step': self.run.steps,
            'cpu_s': round(self.run.cpu_seconds, 1),
            'fraction': round(self.run.fraction, 4),
            **{name: float(f'{value:.5g}') for name, value in values.items()},
        }
        log = self.run.folder / LOG
        with errors_of_writing(log), log.open('a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f'{name}{value.dtype}{tuple(value.shape)}'.encode())
        update_fingerprint(digest, value)
    return digest.hexdigest()


def _optimiser(network: nn.Module, task: Task, recipe: Recipe) -> torch.optim.Optimizer:
    if task.optimiser is None:
        return make_optimiser(network, recipe)
    own = (recipe.optimiser, recipe.weight_decay)
    if own != (task.recipe.optimiser, task.recipe.weight_decay):
        raise PruningError('optimiser, weight_decay: the task has an `optimiser` of its own')
    return task.optimiser(network, recipe.learning_rate)


def _floating(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.is_floating_point()]
