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

"""Batch-norm statistics of a pruned network, measured again."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruned_perception.pruning.calibration import Batch, as_inputs, check_finite
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import CPU, device_of, moved
from pruned_perception.pruning.graph.observation import evaluating, outside_inference_mode

Network = TypeVar('Network', bound=nn.Module)

# Images are run so many at a time, whatever the batches they come in, as long as they are small.
MOST_AT_ONCE, LEAST_AT_ONCE, VALUES_AT_ONCE = 256, 16, 2**24


@dataclass
class _Moments:
    """Of a batch norm's inputs, per channel: number, mean, and squared distances from the mean."""

    runs: int = 0
    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, other: _Moments) -> None:
        """Take further values (Chan, Golub and LeVeque, 1979)."""
        both = self.count + other.count
        step = other.mean - self.mean
        self.squares = self.squares + other.squares + step**2 * (self.count * other.count / both)
        self.mean = self.mean + step * (other.count / both)
        self.count = both
        self.runs += other.runs


@outside_inference_mode
def recalibrate(model: Network, calibration: Iterable[Batch]) -> Network:
    """Return a copy of `model` whose batch norms hold the statistics of `calibration`.

    Cutting channels changes the inputs of every later layer; mean and variance over all the
    images, however they are batched, put that right without labels (nothing of the old statistics
    is kept). While they are measured, a layer reads what is normalised by the statistics of the
    images that are run together. Norms that evaluation does not run, such as those of heads for
    training, keep their statistics. The copy is in the modes of the original.

    Args:
        model: a network with batch norm; one without is copied as it is.
        calibration: batches of inputs.

    Raises:
        PruningError: no image, one value per channel only, or values that are not finite, in a
            batch or where a norm reads them.
    """
    adjusted = copy.deepcopy(model)
    if not _norms(adjusted):
        return adjusted
    runs, device = 0, device_of(adjusted)
    with evaluating(adjusted), measuring(adjusted):
        for inputs in _regrouped(_checked(calibration)):
            adjusted(*moved(inputs, device))
            runs += 1
        if not runs:
            raise PruningError(
                'calibration set: empty, or a generator that was used up before; give at least one '
                'batch of inputs (a list, where they are needed several times)'
            )
    return adjusted


@contextlib.contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Let batch norms normalise by what they read together; in the end they hold all of it.

    Raises:
        PruningError: one value per channel only, or values that are not finite.
    """
    norms = _norms(model)
    moments = {name: _Moments() for name in norms}
    handles = [
        norm.register_forward_pre_hook(_measuring(moments[name])) for name, norm in norms.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name, norm in norms.items():
        if moments[name].count:
            _set(name, norm, moments[name])


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: each
        for name, each in model.named_modules()
        if isinstance(each, _BatchNorm) and each.running_mean is not None
    }


def _measuring(total: _Moments) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """Return a hook that adds what a norm reads, and lets it normalise by just that."""

    def hook(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0] if inputs[0].dtype == torch.float64 else inputs[0].float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        count = x.numel() // x.shape[1]
        total.add(_Moments(1, count, mean.to(CPU).double(), variance.to(CPU).double() * count))
        _copy(norm, mean, variance)

    return hook


def _set(name: str, norm: nn.Module, total: _Moments) -> None:
    if not torch.isfinite(total.squares).all():
        raise PruningError(
            f'{name}: what it reads on the calibration set is not finite; look at the weights '
            'before it'
        )
    if total.count < 2:
        raise PruningError(
            f'{name}: reads one value per channel on the calibration set, which has no variance; '
            'give more images'
        )
    _copy(norm, total.mean, total.squares / (total.count - 1))
    if isinstance(norm.num_batches_tracked, Tensor):
        norm.num_batches_tracked.fill_(total.runs)


def _copy(norm: Any, mean: Tensor, variance: Tensor) -> None:
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _checked(calibration: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
    for index, batch in enumerate(calibration):
        inputs = as_inputs(batch)
        check_finite(inputs, f'calibration set: batch {index}')
        if len(inputs[0]):
            yield inputs


def _regrouped(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same images in batches whose sizes depend on the size of the images alone.

    The last one has up to twice as many, so that none is small. What differs in shape, or has no
    common number of images, is not joined.
    """
    waiting: list[tuple[Tensor, ...]] = []
    for inputs in batches:
        if waiting and not _alike(waiting[0], inputs):
            yield _joined(waiting)
            waiting = []
        waiting.append(inputs)
        if not _alike(inputs, inputs):
            continue
        size = VALUES_AT_ONCE // max(1, inputs[0][0].numel())
        size = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, size))
        if (images := sum(len(each[0]) for each in waiting)) >= 2 * size:
            joined, start = _joined(waiting), 0
            for start in range(0, images - 2 * size + 1, size):
                yield _part(joined, start, start + size)
            waiting = [_part(joined, start + size, images)]
    if waiting:
        yield _joined(waiting)


def _alike(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    tensors = [[each for each in side if each is not None] for side in (one, other)]
    kinds = [[(each.shape[1:], each.dtype, each.device) for each in side] for side in tensors]
    return kinds[0] == kinds[1] and all(len({len(x) for x in side}) == 1 for side in tensors)


def _part(inputs: tuple[Tensor, ...], start: int, stop: int) -> tuple[Tensor, ...]:
    return tuple(each if each is None else each[start:stop] for each in inputs)


def _joined(waiting: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    if len(waiting) == 1:
        return waiting[0]
    sides = [[each for each in side if each is not None] for side in zip(*waiting, strict=True)]
    return tuple(torch.cat(side) if side else None for side in sides)  # type: ignore[misc]
