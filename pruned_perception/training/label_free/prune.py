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

"""A detector pruned without labels: small cuts, each refitted and taught before the next."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruned_perception._io import FolderError, locked, read_json, write_json
from pruned_perception.bundle import Bundle
from pruned_perception.pruning.budget import Budget, Latency, Macs, Params
from pruned_perception.pruning.calibration import fingerprint
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.latency import latency_of
from pruned_perception.pruning.plan import Plan, composed, make_plan
from pruned_perception.pruning.recalibration import recalibrate
from pruned_perception.pruning.records import from_dict, to_dict
from pruned_perception.pruning.refit import refit
from pruned_perception.pruning.tracing import trace
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint, weights_of
from pruned_perception.training.compute import Compute, fastest
from pruned_perception.training.label_free.agreement import HeldOut, Likeness, Picture
from pruned_perception.training.label_free.losses import DECODERS, deviations, projection
from pruned_perception.training.label_free.recipe import LabelFree
from pruned_perception.training.label_free.record import (
    PARENT,
    LabelFreeRecord,
    LabelFreeResult,
    LabelFreeStage,
)
from pruned_perception.training.label_free.teaching import layer_pairs, teaching_task
from pruned_perception.training.label_free.views import inputs_of
from pruned_perception.training.loop import OnProgress, train
from pruned_perception.training.onnx_import import OnnxNetwork, folded, with_batch_norms
from pruned_perception.training.onnx_import.task import import_bundle_network
from pruned_perception.training.scratch import reinitialised
from pruned_perception.training.task import Task

Lessons = Callable[[nn.Module], Task]
"""(network, cut and fitted, with batch norms, of the outputs that its ONNX file has) → its task, of
which `training`, `step`, `recipe` and `optimiser` are used."""
TIMED_STEPS = 4
_CONTIGUOUS = torch.contiguous_format


def prune_label_free(
    bundle: Bundle,
    frames: Sequence[Picture],
    budget: Budget,
    *,
    recipe: LabelFree,
    training: TrainingBudget | None,
    held_out: Sequence[Picture],
    lessons: Lessons | None = None,
    seed: int = 0,
    folder: Path | None = None,
    report: OnProgress | None = None,
    compute: Compute | None = None,
) -> LabelFreeResult:
    """Return a detector's network cut to a budget, refitted and taught without any label.

    What is returned of each stage is what is most like the parent on `held_out`, by AP50 against
    what that finds: the network as it was cut, refitted or taught.

    Args:
        bundle: the parent, of any detector that imports.
        frames: BGR pictures (H, W, 3) uint8, in any order, of any sizes; read many times.
        budget: `Macs`, `Params` or `Latency`, by the table of the machine that it is for.
        recipe: how.
        training: of all cuts together; None for no teaching. CPU minutes are turned into steps when
            the teaching of a cut starts, so that what an interrupted call ends with is the same.
        held_out: BGR pictures that steer and nothing is fitted on; of another drive, best.
        lessons: somebody's own training in place of the parent's teaching, perhaps with labels;
            what it made is what is returned of a stage then, however like the parent it is.
        seed: of everything random.
        folder: for what an interrupted call needs to go on.
        report: told what goes on, the share of it that is done, and a remark.
        compute: where the networks run, are fitted and taught, and how; by default `fastest()`, on
            the CPU. The result is on the CPU.

    Raises:
        PruningError: frames that are none, all alike or among the held-out ones, a parent that
            finds nothing on them, fields of the recipe.
        BudgetError: the budget cannot be met.
        OnnxImportError, FolderError, Interrupted: see `import_onnx` and `train`.
    """
    if not isinstance(budget, Macs | Params | Latency):
        raise PruningError(
            f'budget: must be of MACs, parameters or milliseconds without labels, got {budget}'
        )
    _check_apart(frames, held_out)
    compute = compute or fastest()
    network = import_bundle_network(bundle)
    network = dataclasses.replace(network, module=compute.placed(network.module))
    size = 1 if network.one_batch else recipe.batch
    if network.one_batch and recipe.batch > 1:
        recipe = dataclasses.replace(recipe, batch=1)
    calibration = inputs_of(bundle.input, frames, recipe.images, size)
    work = _Work(
        bundle, network, frames, calibration, HeldOut(bundle, network, held_out), budget, recipe,
        lessons, seed, report or (lambda title, share, remark: None), compute,
    )  # fmt: skip
    with locked(folder) if folder else contextlib.nullcontext():
        if folder:
            work.claim(folder, training)
        parts = _parts(training, recipe)
        for number, part in enumerate(parts, 1):
            work.stage(number, part, folder and folder / str(number))
    dense = count(network.module, network.example_inputs)
    record = LabelFreeRecord(
        recipe, str(budget), seed, len(frames), len(held_out), dense.macs, dense.parameters,
        tuple(work.stages), PARENT if lessons is None else _name(lessons),
    )  # fmt: skip
    return LabelFreeResult(work.current.to(CPU), tuple(work.plans), record)


class _Work:
    """The network as it is between the cuts."""

    def __init__(
        self,
        bundle: Bundle,
        network: OnnxNetwork,
        frames: Sequence[Picture],
        calibration: list[Tensor],
        held_out: HeldOut,
        budget: Budget,
        recipe: LabelFree,
        lessons: Lessons | None,
        seed: int,
        report: OnProgress,
        compute: Compute,
    ) -> None:
        self.bundle, self.network, self.frames = bundle, network, frames
        self.calibration, self.held_out, self.budget = calibration, held_out, budget
        self.recipe, self.lessons, self.seed = recipe, lessons, seed
        self.report, self.compute = report, compute
        self.scales: tuple[Tensor, ...] | None = None
        if recipe.raw or bundle.output.decoder not in DECODERS:
            self.scales = deviations(network.module, calibration)
        self.current: fx.GraphModule = network.module
        self.plans: list[Plan] = []
        self.stages: list[LabelFreeStage] = []

    def claim(self, folder: Path, training: TrainingBudget | None) -> None:
        """Write what the folder's work is of; raise FolderError where it is of something else."""
        identity = {
            'parent': self.bundle.sha256,
            'frames': fingerprint(self.calibration),
            'held_out': _digest(self.held_out.frames),
            'budget': _identity(self.budget),
            'training': None if training is None else training.to_dict(),
            'recipe': self.recipe.to_dict(),
            'lessons': self.lessons and _name(self.lessons),
            'seed': self.seed,
        }
        file = folder / 'work.json'
        if file.is_file():
            found = read_json(file)
            if differing := [key for key in identity if found.get(key) != identity[key]]:
                raise FolderError(
                    f'{folder}: holds the work on something else (its {", ".join(differing)} '
                    'differ); choose another folder, or delete this one'
                )
        else:
            write_json(file, json.loads(json.dumps(identity)))

    def stage(self, number: int, part: TrainingBudget | None, folder: Path | None) -> None:
        """Cut, refit and teach the current network; what the folder has is not done again."""
        title = f'cut {number} of {self.recipe.cuts}'
        done = folder / 'stage.pt' if folder else None
        if done and done.is_file():
            content = read_checkpoint(done)
            self.plans.append(from_dict(Plan, json.loads(content['plan'])))
            self._adopt(self.plans[-1].apply(self.current), content['weights'])
            self.stages.append(from_dict(LabelFreeStage, json.loads(content['stage'])))
            return
        plan, candidates, seconds = self._cut(number, title, folder)
        steps = 0
        if part is not None:
            best = max(candidates.items(), key=lambda each: _rank(each[1][1]))[1][0]
            taught, steps, spent = self._teach(best, plan, part, number, title, folder)
            candidates['taught'] = taught, self.held_out.likeness(taught)
            seconds += spent
        kept = max(candidates.items(), key=lambda each: _rank(each[1][1]))[0]
        if (self.recipe.fresh or self.lessons) and part is not None:  # being alike is not its aim
            kept = 'taught'
        cost = count(candidates[kept][0], self.network.example_inputs)
        found = {name: likeness for name, (_, likeness) in candidates.items()}
        stage = LabelFreeStage(
            cost.macs, cost.parameters, found['cut'], found.get('refitted'), found.get('taught'),
            kept, steps, seconds,
        )  # fmt: skip
        self.plans.append(plan)
        self.current = candidates[kept][0]
        self.stages.append(stage)
        if done:
            content = {
                'plan': json.dumps(plan.to_dict()),
                'stage': json.dumps(to_dict(stage)),
                'weights': weights_of(self.current),
            }
            save_checkpoint(done, content)

    def _adopt(self, network: Any, weights: Any) -> None:
        network.load_state_dict(weights)
        self.current = network

    def _cut(
        self, number: int, title: str, folder: Path | None
    ) -> tuple[Plan, dict[str, tuple[fx.GraphModule, Likeness]], float]:
        """Return the plan, what the cut and the refit made with its likeness, and CPU seconds."""
        file = folder / 'cut.pt' if folder else None
        if file and file.is_file():
            content = read_checkpoint(file)
            plan = from_dict(Plan, json.loads(content['plan']))
            found = {}
            for name, likeness in json.loads(content['likeness']).items():
                network: Any = plan.apply(self.current)
                network.load_state_dict(content['weights'][name])
                found[name] = network, from_dict(Likeness, likeness)
            return plan, found, content['cpu_seconds']
        began = time.process_time()
        self.report(title, 0.0, 'choosing what goes')
        recipe = self.recipe
        loss = projection(self.bundle, self.scales)
        plan = make_plan(
            self.current,
            self.network.example_inputs,
            budget=self._budget(number),
            criterion=recipe.criterion,
            allocation=recipe.allocation,
            allocation_by=recipe.allocation_by,
            round_to=recipe.round_to,
            ranks=recipe.ranks,
            calibration=self.calibration,
            loss=loss,
            seed=self.seed,
        )
        small: Any = recalibrate(plan.apply(self.current), self.calibration)
        networks = {'cut': small}
        if recipe.refit:
            self.report(title, 0.0, 'fitting layers')
            # To what was taught before, not to the parent: what teaching made up for would be lost.
            fitted: Any = refit(
                self.current, small, plan, self.calibration, seed=self.seed, loss=loss
            )
            networks['refitted'] = recalibrate(fitted, self.calibration)
        seconds = time.process_time() - began
        found = {name: (each, self.held_out.likeness(each)) for name, each in networks.items()}
        if file:
            content = {
                'plan': json.dumps(plan.to_dict()),
                'likeness': json.dumps({name: to_dict(each) for name, (_, each) in found.items()}),
                'weights': {name: weights_of(each) for name, each in networks.items()},
                'cpu_seconds': seconds,
            }
            save_checkpoint(file, content)
        return plan, found, seconds

    def _teach(
        self,
        small: fx.GraphModule,
        plan: Plan,
        part: TrainingBudget,
        number: int,
        title: str,
        folder: Path | None,
    ) -> tuple[fx.GraphModule, int, float]:
        """Return the network as it was taught, the steps, and CPU seconds."""
        normed = with_batch_norms(small, self.calibration)
        if self.recipe.fresh:
            untaught: Any = reinitialised(normed, seed=self.seed, initialise=_forget)
            normed = untaught
        task = self._task(normed, plan)
        seed = self.seed + 1000 * number
        steps = self._steps(task, part, folder)
        trained = train(
            normed,
            task,
            TrainingBudget(steps=steps),
            seed=seed,
            folder=folder,
            report=self.report,
            title=title,
            compute=self.compute,
        )
        network: Any = trained.network.to(memory_format=_CONTIGUOUS)  # type: ignore[call-overload]
        return folded(network), trained.steps, trained.cpu_seconds

    def _task(self, normed: fx.GraphModule, plan: Plan) -> Task:
        """Return how to teach a network with batch norms."""
        if self.lessons is not None:
            return _own(self.lessons, normed)
        parent = self.network.module
        structure = trace(parent, self.network.example_inputs)
        pairs = layer_pairs(parent, structure, composed([*self.plans, plan]), normed)
        return teaching_task(
            self.bundle, self.network, normed, pairs, self.frames, self.recipe, self.scales
        )

    def _steps(self, task: Task, part: TrainingBudget, folder: Path | None) -> int:
        """Return how many steps a part of the training is; CPU minutes are measured once."""
        if part.steps is not None:
            return part.steps
        assert part.cpu_minutes is not None
        file = folder / 'steps.json' if folder else None
        if file and file.is_file():
            return int(read_json(file)['steps'])
        for count_ in (1, TIMED_STEPS):  # the first one makes ready what later ones find
            timed = train(task.model, task, TrainingBudget(steps=count_), compute=self.compute)
        steps = max(1, round(60 * part.cpu_minutes / (timed.cpu_seconds / TIMED_STEPS)))
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {'steps': steps})
        return steps

    def _budget(self, number: int) -> Budget:
        """Return what may remain of the current network after cut `number`."""
        part = number / self.recipe.cuts
        if isinstance(self.budget, Latency):
            structure = trace(self.network.module, self.network.example_inputs)
            whole = latency_of(structure, self.budget.table)({})
            ms = whole * (self.budget.ms / whole) ** part if part < 1 else self.budget.ms
            return dataclasses.replace(self.budget, ms=ms)
        assert isinstance(self.budget, Macs | Params)
        share = self.budget.share**part
        dense, now = (
            count(each, self.network.example_inputs) for each in (self.network.module, self.current)
        )
        if isinstance(self.budget, Macs):
            return Macs(min(1.0, share * dense.macs / now.macs))
        return type(self.budget)(min(1.0, share * dense.parameters / now.parameters))


@torch.no_grad()
def _forget(network: nn.Module) -> None:
    """Make the convolutions random; batch norms stay, and say the sizes that outputs have.

    Layers without one, the last, begin with small weights and keep their biases, which say how rare
    objects are (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4.1).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            if layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)


def _own(lessons: Lessons, network: nn.Module) -> Task:
    """Return somebody's task of training a network."""
    task = lessons(network)
    if not isinstance(task, Task) or task.training is None or task.step is None:
        found = 'a Task without them' if isinstance(task, Task) else type(task).__name__
        raise PruningError(
            f'{_name(lessons)}: must return a Task with `training` (batches) and `step` (the loss '
            f'of the network that it is given), not {found}'
        )
    return task


def _name(function: Lessons) -> str:
    return f'{function.__module__}:{getattr(function, "__qualname__", type(function).__name__)}'


def _identity(budget: Budget) -> list[Any]:
    if isinstance(budget, Latency):
        return ['Latency', budget.ms, budget.table.sha256]
    return [type(budget).__name__, budget.share]  # type: ignore[union-attr]


def _rank(likeness: Likeness) -> tuple[float, float, float]:
    return likeness.ap50, likeness.agreement, -likeness.error


def _parts(training: TrainingBudget | None, recipe: LabelFree) -> list[TrainingBudget | None]:
    """Return what each cut has of the training."""
    if training is None:
        return [None] * recipe.cuts
    if training.cpu_minutes is None and training.steps is None:
        raise PruningError(f'training without labels: cpu_minutes or steps, not {training}')
    if recipe.cuts == 1:
        return [training]
    others = (1 - recipe.last_share) / (recipe.cuts - 1)
    shares = [others] * (recipe.cuts - 1) + [recipe.last_share]
    if training.cpu_minutes is not None:
        return [
            TrainingBudget(cpu_minutes=training.cpu_minutes * each) if each else None
            for each in shares
        ]
    assert training.steps is not None
    return [
        TrainingBudget(steps=steps) if (steps := round(training.steps * each)) else None
        for each in shares
    ]


def _check_apart(frames: Sequence[Picture], held_out: Sequence[Picture]) -> None:
    """Raise PruningError where a held-out picture is fitted on."""
    seen = {hashlib.sha256(each.tobytes()).digest(): index for index, each in enumerate(frames)}
    for index, each in enumerate(held_out):
        if (other := seen.get(hashlib.sha256(each.tobytes()).digest())) is not None:
            raise PruningError(
                f'held-out frames: picture {index} is picture {other} of the frames that are '
                'fitted on; split by drive or time'
            )


def _digest(frames: Sequence[Picture]) -> str:
    digest = hashlib.sha256()
    for each in frames:
        digest.update(each.tobytes())
    return digest.hexdigest()
