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

"""A user's network with what is needed to prune, fine-tune and judge it."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.certificate import Decide
from pruned_perception.pruning.criteria import Loss
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import load_tensors
from pruned_perception.training.distillation import DistillationLoss
from pruned_perception.training.losses import Losses
from pruned_perception.training.outcomes import Figures
from pruned_perception.training.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """What a user's function returns: `package.module:function`, called without arguments.

    Only the first three fields are needed to measure sensitivities, predict and prune; `training`
    and `step` to fine-tune; `evaluate` to compare methods; `trained_for` to train a control from
    scratch; `holdout` to certify.
    """

    model: nn.Module
    """The parent, as it is to be pruned."""
    example_inputs: tuple[Tensor, ...]
    """Its positional inputs, batch of one."""
    calibration: Iterable[Batch]
    """Inputs without labels; iterated over more than once."""
    loss: Loss | None = None
    """(outputs, index of the calibration batch, generator) → what criteria differentiate."""
    training: Callable[[int], Iterator[Any]] | None = None
    """Seed → endless batches, labels and augmentation included, whatever `step` takes.

    Drawn from a generator of their own, so that an interrupted training can go on with the same
    ones. What has `state_dict()` and `load_state_dict(state)` is put back to its place; of any
    other iterator, the batches that were had are drawn again. What has `follow(recipe, fraction)`
    is told before each batch how much of the budget is used up: for the recipe's `batch` and
    `phases`. Its `steps_per_epoch` is needed for a budget of epochs.

    What also has `draw()` → a list with an entry for each example, all that is random about it, and
    `make(entries)` → the batch of some of them, which depends on nothing else, is made ahead by
    worker processes, and by each of several training processes in its part; `state_dict()` is a
    copy then. Of any other batch each process makes all, and keeps its part: the same slice of
    every tensor.
    """
    step: Callable[[nn.Module, Any], Losses] | None = None
    """(network in training mode, batch) → the loss to minimise, or several by name: their sum."""
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    """How the network is trained: by default with SGD, momentum 0.9, weight decay 5e-4."""
    optimiser: Callable[[nn.Module, float], torch.optim.Optimizer] | None = None
    """(network, learning rate) → its optimiser, instead of the recipe's."""
    teacher: nn.Module | None = None
    """Who teaches where a method distils; by default the parent."""
    distillation_loss: DistillationLoss | None = None
    """For a teacher; by default the divergence of class scores, or the squared difference."""
    trained_for: TrainingBudget | None = None
    """How long the parent was trained: what a control from scratch gets beside the fine-tuning."""
    initialise: Callable[[nn.Module], None] | None = None
    """Makes all weights random again, in place, for a control; by default `reset_parameters`."""
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    """Network in evaluation mode → figures on held-out data; the first one is what counts.

    Of several training processes each computes all of it, unless it uses `processes.in_parts`.

    `outcomes.Figures` may have outcomes of the images, always the same ones in the same order, with
    them, which comparisons of methods need for intervals that hold for other images, too.
    """
    test: Callable[[nn.Module], Mapping[str, float]] | None = None
    """The same on test data, which choices must not see."""
    holdout: Iterable[Batch] | None = None
    """Inputs for the certificate, of which neither calibration nor training has seen any."""
    clusters: tuple[Any, ...] | None = None
    """The drive or venue of each frame of the hold-out, where they are not independent."""
    slices: Mapping[str, Any] | None = None
    """Name → (n,) bool: parts of the hold-out, declared beforehand, to be certified apart."""
    decide: Decide | None = None
    """(parent's output, child's output) → (B,) bool, where they differ; by default by argmax. Or
    counts of several kinds, see `pruning.certificate.KINDS`."""
    terms: Mapping[str, str] | None = None
    """For 'frames' and 'objects': threshold and overlap of `decide`, printed in each sentence."""
    used: Mapping[str, Iterable[Batch]] | None = None
    """Name → inputs that training, a choice or stopping saw: none may be in the hold-out."""


@torch.no_grad()
def figures_of(evaluate: Callable[[nn.Module], Mapping[str, float]], network: nn.Module) -> Figures:
    """Return what `evaluate` or `test` of a task says of a network, whatever its mode and device.

    Wherever it is, they give it tensors on the CPU, and get such.

    Raises PruningError where there are no figures, or some that are not finite.
    """
    modes = {module: module.training for module in network.modules()}
    try:
        with fed_from_cpu(network):
            given = evaluate(network.eval())
        found = given if isinstance(given, Figures) else Figures(given)
    finally:
        for module, training in modes.items():
            module.training = training
    if not found or not all(map(math.isfinite, found.values())):
        raise PruningError(f'the task returned the figures {found}: some, and finite, are needed')
    return found


def first_figure(figures: Mapping[str, float]) -> float:
    """Return the figure that counts."""
    return next(iter(figures.values()))


def load_task(name: str, *, weights: str | os.PathLike[str] | None = None) -> Task:
    """Call the function `package.module:function` and return its task.

    The working directory is importable. Raises PruningError where the name, the function or the
    weights do not fit.

    Args:
        name: of the function.
        weights: a state dict to load into the model (tensors only, nothing is unpickled).
    """
    task = load_function(name, 'task')()
    if not isinstance(task, Task):
        raise PruningError(f'task {name!r}: returned {type(task).__name__}, not a Task')
    if weights is not None:
        load_weights(task.model, weights)
    return task


def load_function(name: str, purpose: str) -> Callable[..., Any]:
    """Return the function `package.module:function`; the working directory is importable.

    Raises:
        PruningError: naming the `purpose`, where there is no such function.
    """
    module_name, _, function_name = name.partition(':')
    if not module_name or not function_name:
        raise PruningError(f'{purpose} {name!r}: must be package.module:function')
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise PruningError(f'{purpose} {name!r}: cannot be imported: {error}') from error
    if not callable(function):
        raise PruningError(f'{purpose} {name!r}: is no function')
    return function


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a state dict into `model`; raise PruningError naming file and what does not fit.

    A checkpoint is understood, as are a file that holds it under `state_dict`, and names prefixed
    with `module.`.
    """
    path = Path(path)
    try:
        content = load_tensors(path)
    except FileNotFoundError as error:
        raise PruningError(f'{path}: no such file') from error
    except pickle.UnpicklingError as error:
        # PyTorch's own message advises to load it all the same, which could run any code.
        raise PruningError(
            f'{path}: no state dict of plain tensors: another kind of file, damaged, or a pickled '
            'network, which could run code and is not loaded; save the state dict of one that you '
            'trust: torch.save(network.state_dict(), FILE)'
        ) from error
    except OSError as error:
        raise PruningError(f'{path}: no state dict of plain tensors: {error}') from error
    state = content
    if isinstance(content, dict):
        state = content.get('weights', content.get('state_dict', content))
    try:
        model.load_state_dict({key.removeprefix('module.'): value for key, value in state.items()})
    except (AttributeError, RuntimeError, TypeError) as error:
        first = ' '.join(str(error).split()[:40])  # PyTorch lists every name that does not fit
        raise PruningError(f'{path}: the weights do not fit the network: {first} …') from error
