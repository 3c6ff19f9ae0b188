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

"""What a cut did to the outputs of the network, and whether a refit helps: measured.

An eighth of the calibration frames is held out: batch norms, and layers that are refitted, see the
rest, and the outputs are compared with the parent's on what was held out. So it is found whether a
refit helps. What is returned is made in the same way of all frames.

The channels were chosen on all of them. Frames that follow each other closely are alike, and make
the error look smaller than it is on another drive: for that there are certificates.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning.budget import Budget, Macs, Params
from pruned_perception.pruning.calibration import Batch, as_inputs
from pruned_perception.pruning.criteria import Loss
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.pruning.graph.observation import evaluating, tensors
from pruned_perception.pruning.plan import Plan, Planner
from pruned_perception.pruning.recalibration import recalibrate
from pruned_perception.pruning.records import Record
from pruned_perception.pruning.refit import refit as refitted

EIGHTH = 8  # every so many frames one is held out
FEWEST = 16  # frames of which some can be held out
MOST = 64  # frames on which outputs are compared
USELESS = 0.7
"""Relative output error from which on a network is called useless: half of what its outputs do is
gone then (their variance is that of the error and more)."""
STEPS = 5  # of the bisection of budgets
_ROUNDING = 1e-4  # of its size: what varies less counts as if so much, since it may be rounding
_LARGEST = 10.0  # that one part counts for: it may be constant in the parent


@dataclass(frozen=True)
class Holding:
    """The nearest budget, as a share, at which the outputs hold, and the error there."""

    share: float
    error: float


@dataclass(frozen=True)
class Outcome(Record):
    """Relative output errors after a cut; see `output_error`.

    `plain` with batch norms measured again, `fitted` with layers refitted; None where it was not
    tried. `refit`: which of them was taken. `images` were compared; where they are not `held_out`,
    there were too few to hold some out. `nearest` is None where the network holds, or no budget
    does (`collapses` tells which).
    """

    plain: float | None
    fitted: float | None
    refit: bool
    images: int
    held_out: bool
    nearest: Holding | None = None

    @property
    def error(self) -> float | None:
        """Of the network as it is."""
        return self.fitted if self.refit else self.plain

    @property
    def collapses(self) -> bool:
        """Whether the outputs have little to do with the parent's."""
        return self.error is not None and self.error >= USELESS

    def to_text(self) -> str:
        """Return the errors, and a warning where the network is useless as it is."""
        where = 'held-out calibration frames' if self.held_out else 'the calibration frames'
        header = f'output error against the parent, {self.images} {where} | relative:.2f | '
        rows = [
            (name, error, 'taken' if taken else '')
            for name, error, taken in (
                ('batch norms measured again', self.plain, not self.refit),
                ('layers refitted', self.fitted, self.refit),
            )
            if error is not None
        ]
        text = Table.under(header, rows).to_text()
        return f'{text}\nWARNING: {self.warning()}' if self.collapses else text

    def warning(self) -> str:
        """Return what to do about a network that collapses."""
        nearest = (
            'no larger budget is known to hold'
            if self.nearest is None
            else f'nearest that holds: {self.nearest.share:.0%} (error {self.nearest.error:.2f})'
        )
        return (
            f'this network collapses at this budget: its outputs err by {self.error:.2f} '
            f'of what they vary, and without fine-tuning it is useless; {nearest}'
        )


def prune(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    budget: Budget,
    calibration: Iterable[Batch],
    *,
    refit: bool | None = None,
    tuned: bool = False,
    seed: int = 0,
    **options: Any,
) -> tuple[nn.Module, Plan, Outcome | None]:
    """Return the network pruned to a budget, its plan, and what that did to the outputs.

    Without options it is what the project knows to be best, see `presets.RECOMMENDED`.

    Args:
        model: the dense network; untouched.
        example_inputs: its positional inputs.
        budget: what may remain.
        calibration: batches of inputs without labels.
        refit: see `finish`.
        tuned: fine-tuning follows: then nothing is refitted unless asked for, and a network that is
            useless without it is nothing to warn of.
        seed: of everything random.
        options: those of `Planner`.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: options that do not fit the network or each other.

    Warns:
        UserWarning: the network collapses at this budget; names the nearest that holds.
    """
    planner = Planner(model, example_inputs, calibration=calibration, seed=seed, **options)
    assert planner.calibration is not None
    plan = planner.plan(budget)
    small, outcome = finish(
        model,
        planner.cut(plan),
        planner.calibration,
        plan=plan,
        refit=False if refit is None and tuned and not plan.ranks else refit,
        seed=seed,
        loss=planner.loss,
    )
    if not tuned:
        outcome = with_nearest(outcome, budget, planner, seed=seed)
        warn_of(outcome)
    return small, plan, outcome


def warn_of(outcome: Outcome | None) -> None:
    """Warn where the outputs have little to do with the parent's."""
    if outcome is not None and outcome.collapses:
        warnings.warn(outcome.warning(), stacklevel=3)


def finish(
    model: nn.Module,
    small: nn.Module,
    calibration: Iterable[Batch],
    *,
    plan: Plan | None = None,
    refit: bool | None = False,
    recalibrated: bool = True,
    seed: int = 0,
    loss: Loss | None = None,
) -> tuple[nn.Module, Outcome | None]:
    """Return the cut network with statistics, and weights, fitted to the frames; and what it errs.

    Without any frames it is as it was cut, and nothing is known of it.

    Args:
        model: the parent.
        small: what was cut of it; neither is changed.
        calibration: batches of inputs, iterated over several times.
        plan: what was kept, for a refit.
        refit: fit the layers to the parent's; None: where that makes the held-out error smaller.
        recalibrated: measure batch norms again.
        seed: of the refit.
        loss: see `refit.refit`.
    """
    fitting, held, held_out = _divided(calibration)
    if refit is None and not held_out:
        refit = False
    if not held and not refit and not recalibrated:
        return small, None

    def plain(frames: Iterable[Batch]) -> nn.Module:
        return recalibrate(small, frames) if recalibrated else small

    def fitted(frames: Iterable[Batch]) -> nn.Module:
        assert plan is not None
        found = refitted(model, small, plan, frames, seed=seed, loss=loss)
        return recalibrate(found, frames) if recalibrated else found

    errors: list[float | None] = [None, None]
    for index, make in enumerate((plain, fitted)):
        if refit in (None, bool(index)) and held:
            errors[index] = output_error(model, make(fitting), held)
    if refit is None:
        refit = _or_infinite(errors[1]) < _or_infinite(errors[0])
    finished = (fitted if refit else plain)(calibration)
    if not held:
        return finished, None
    images = sum(len(each[0]) for each in held)
    return finished, Outcome(errors[0], errors[1], refit, images, held_out)


def with_nearest(
    outcome: Outcome | None, budget: Budget | None, planner: Planner, *, seed: int = 0
) -> Outcome | None:
    """Return the outcome with the nearest budget that holds, where this one does not.

    Found by bisection of whole per cents over the same scores: the larger the budget, the smaller
    the error, usually.
    """
    if outcome is None or not outcome.collapses or not isinstance(budget, Macs | Params):
        return outcome
    assert planner.calibration is not None
    too_small, enough = budget.share, 1.0
    nearest = None
    for _ in range(STEPS):
        share = (
            math.ceil(round(50 * (too_small + enough), 6)) / 100
        )  # whole per cent, as it is said
        if share >= enough:
            break
        plan = planner.plan(type(budget)(share))
        found = finish(
            planner.model,
            planner.cut(plan),
            planner.calibration,
            plan=plan,
            refit=outcome.refit,
            seed=seed,
            loss=planner.loss,
        )[1]
        if found is None or found.error is None or found.collapses:
            too_small = share
        else:
            enough, nearest = share, Holding(share, found.error)
    return replace(outcome, nearest=nearest)


@torch.no_grad()
def output_error(model: nn.Module, small: nn.Module, batches: Iterable[Batch]) -> float | None:
    """Return by how much the outputs of `small` err, relative to how much the parent's vary.

    Of each part along an axis of an output (a class, a coordinate, a position) it is the root of
    the mean square of the error, relative to the parent's deviation from its mean over the
    examples; of these the mean over the axis; and of axes and outputs, the worst: small scores
    beside large coordinates count as much as these. 0 is the parent itself, 1 no better than a
    constant. None where no output can be compared: they are integers, or their shapes depend on
    what is seen.
    """
    sums: dict[int, _Sums] = {}
    incomparable: set[int] = set()
    both = evaluating(model), evaluating(small), fed_from_cpu(model), fed_from_cpu(small)
    with contextlib.ExitStack() as stack:
        for each in both:
            stack.enter_context(each)
        for batch in batches:
            inputs = as_inputs(batch)
            pairs = zip(tensors(model(*inputs)), tensors(small(*inputs)), strict=False)
            for index, (wanted, found) in enumerate(pairs):
                if not _comparable(wanted, found, len(inputs[0])):
                    incomparable.add(index)
                elif index not in incomparable:
                    sums.setdefault(index, _Sums()).add(wanted, found)
    errors = [each.error() for index, each in sums.items() if index not in incomparable]
    return max(errors, default=None)


def _comparable(wanted: Tensor, found: Tensor, examples: int) -> bool:
    return (
        wanted.is_floating_point()
        and wanted.shape == found.shape
        and wanted.ndim > 1
        and len(wanted) == examples
        and wanted.numel() > 0
    )


class _Sums:
    """Of one output, sums over examples: of what is wanted, its square, and what is wrong."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0
        self.wrong: Tensor | float = 0.0

    def add(self, wanted: Tensor, found: Tensor) -> None:
        wanted, found = wanted.double(), found.double()
        self.count += len(wanted)
        self.first = self.first + wanted.sum(0)
        self.second = self.second + wanted.square().sum(0)
        self.wrong = self.wrong + (found - wanted).square().sum(0)

    def error(self) -> float:
        """Return the worst over the axes."""
        assert isinstance(self.first, Tensor)
        assert isinstance(self.wrong, Tensor)
        if not torch.isfinite(self.wrong).all():
            return math.inf
        mean = self.first / self.count
        axes = [axis for axis, size in enumerate(mean.shape) if size > 1] or [0]
        if self.count > 1:
            varying = (self.second - self.count * mean.square()).clamp(min=0)
            varying = varying * (self.count / (self.count - 1))
            return max(self._along(axis, varying) for axis in axes)
        # Of a single example: around the mean of what is compared.
        return max(
            self._along(axis, (mean - mean.mean([a for a in axes if a != axis], True)).square())
            for axis in axes
        )

    def _along(self, axis: int, varying: Tensor) -> float:
        assert isinstance(self.wrong, Tensor)
        assert isinstance(self.second, Tensor)
        wrong, right, size = (
            each.movedim(axis, 0).reshape(each.shape[axis], -1).sum(1)
            for each in (self.wrong, varying, self.second)
        )
        least = (size * _ROUNDING**2).clamp(min=max(float(right.mean()) * 1e-12, 1e-30))
        return float((wrong / torch.maximum(right, least)).sqrt().clamp(max=_LARGEST).mean())


def _divided(
    calibration: Iterable[Batch],
) -> tuple[Iterable[Batch], list[tuple[Tensor, ...]], bool]:
    """Return the frames to fit to, those to compare on, and whether these are others."""
    images = sum(len(as_inputs(batch)[0]) for batch in calibration)
    if images < FEWEST:
        return calibration, [as_inputs(batch) for batch in calibration], False
    held, count = [], 0
    for part in _Part(calibration, held=True):
        part = tuple(each if each is None else each[: MOST - count] for each in part)
        held.append(part)
        count += len(part[0])
        if count >= MOST:
            break
    return _Part(calibration, held=False), held, True


class _Part:
    """The frames that are held out, or the others; any number of times."""

    def __init__(self, batches: Iterable[Batch], *, held: bool) -> None:
        self.batches, self.held = batches, held

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        done = 0
        for batch in self.batches:
            inputs = as_inputs(batch)
            numbers = torch.arange(done, done + len(inputs[0]))
            done += len(numbers)
            chosen = (numbers % EIGHTH == EIGHTH - 1) == self.held
            if chosen.any():
                yield tuple(each if each is None else each[chosen] for each in inputs)


def _or_infinite(error: float | None) -> float:
    return math.inf if error is None else error
