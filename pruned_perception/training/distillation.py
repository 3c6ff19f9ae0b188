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

"""Learning from a teacher's outputs beside the labels.

The student's calls are listened to while the user's step function makes them, so that teacher and
student see the same inputs, whatever the step does with a batch, and the student runs once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.pruning.records import Record
from pruned_perception.training.losses import Losses, named

TEMPERATURE = 4.0
"""Of class scores, where none is given."""

DistillationLoss = Callable[[Any, Any], Losses]
"""(student's outputs, teacher's outputs) → losses that are 0 where they agree."""


@dataclass(frozen=True)
class Distillation(Record):
    """How much a teacher counts: `weight` times as much as the step's own loss.

    `temperature` softens class scores; a task with a distillation loss of its own has no use for
    it.
    """

    weight: float = 1.0
    temperature: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float('inf'):
                raise PruningError(f'{name}: must be a number > 0, got {value!r}')

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}


@dataclass(frozen=True)
class Call:
    """One call of a network: what it was given and what it returned."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any


@contextlib.contextmanager
def calls_of(model: nn.Module) -> Iterator[list[Call]]:
    """Collect the calls of the network itself (not of its parts)."""
    calls: list[Call] = []

    def hook(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        calls.append(Call(args, kwargs, outputs))

    handle = model.register_forward_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def teach(
    teacher: nn.Module,
    calls: list[Call],
    loss: DistillationLoss | None,
    distillation: Distillation,
) -> dict[str, Tensor]:
    """Return the mean distillation losses of the student's calls; the teacher has no gradient."""
    if not calls:
        raise PruningError(
            'distillation: the step function never calls the network it is given, only parts of '
            'it; call it, or fine-tune without a teacher'
        )
    sums: dict[str, Tensor] = {}
    for call in calls:
        with torch.no_grad():
            lesson = teacher(*call.args, **call.kwargs)
        if loss is None:
            temperature = distillation.temperature or TEMPERATURE
            found: Losses = agreement_loss(call.outputs, lesson, temperature)
        else:
            found = loss(call.outputs, lesson)
        for name, value in named(found, 'distilled').items():
            sums[name] = sums[name] + value if name in sums else value
    return {name: value / len(calls) for name, value in sums.items()}


def agreement_loss(student: Any, teacher: Any, temperature: float) -> Tensor:
    """Return how far two outputs are apart: 0 where they are the same.

    Scores (B, classes): the Kullback–Leibler divergence of the softened class probabilities, times
    T², by which gradients shrink otherwise (Hinton, Vinyals and Dean, Distilling the knowledge in
    a neural network, 2015). Anything else: the mean squared difference, summed over outputs.
    """
    ours, theirs = tensors(student), tensors(teacher)
    if [each.shape for each in ours] != [each.shape for each in theirs]:
        raise PruningError(
            f'distillation: the network returns {[tuple(each.shape) for each in ours]} in '
            f'training mode, the teacher {[tuple(each.shape) for each in theirs]} in evaluation '
            'mode; give the task a `distillation_loss` of the two'
        )
    if isinstance(student, Tensor) and student.ndim == 2 and student.shape[1] > 1:
        mine = functional.log_softmax(student / temperature, dim=1)
        target = functional.log_softmax(teacher / temperature, dim=1)
        divergence = functional.kl_div(mine, target, reduction='batchmean', log_target=True)
        return divergence * temperature**2
    losses = [functional.mse_loss(a, b) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(losses).sum()
