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

"""Whether two networks compute the same, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.observation import evaluating, observed, tensors

# Of a difference, relative to the largest value of the same output channel. In single precision it
# is only a suspicion, since channels may be small beside what they are computed from: then double
# precision decides. A channel in the wrong place errs by the value itself.
TOLERANCE = 1e-3
# Smaller than this, relative to the whole tensor, a channel counts as zero.
_NOTHING = 1e-9


def telling(example_inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the inputs, with random ones for constant ones, which would hide errors.

    Real numbers from 0 to 1, bytes from 0 to 255.
    """
    generator = torch.Generator().manual_seed(0)

    def random(each: Any) -> Any:
        if not isinstance(each, Tensor) or each.numel() < 2 or each.min() != each.max():
            return each
        if each.dtype == torch.uint8:
            return torch.randint(256, each.shape, generator=generator).to(each)
        if not each.is_floating_point():
            return each
        return torch.rand(each.shape, generator=generator).to(each)

    return tuple(random(each) for each in example_inputs)


def verifying_inputs(
    model: nn.Module, example_inputs: Sequence[Tensor], calibration: Iterable[Batch] | None
) -> list[tuple[Tensor, ...]]:
    """Return the inputs on which networks are compared: telling ones, and two images of the set.

    Raises:
        PruningError: a layer or output of the network is not finite on any of them.
    """
    candidates = [telling(example_inputs)]
    if calibration is not None:
        first = next(iter(CheckedBatches(calibration, example_inputs)))
        candidates.append(tuple(each if each is None else each[:2] for each in first))
    places = [_not_finite(_results(model, inputs)) for inputs in candidates]
    if all(places):
        where = 'its example inputs' if calibration is None else 'its calibration set'
        raise PruningError(
            f'{type(model).__name__}: {places[-1]} has NaN or infinite values on {where} (random '
            'numbers, 0 … 1, in place of constants): nothing can be verified on it; give '
            'inputs as in use'
        )
    return [inputs for inputs, place in zip(candidates, places, strict=True) if not place]


def _not_finite(results: Sequence[tuple[str, Tensor]]) -> str | None:
    """Return the first place with NaN, or infinite throughout a layer or an output."""
    for name, each in results:
        if each.numel() and (each.isnan().any() or not each.isfinite().any()):
            return name
    return None


def deviation(
    wanted: nn.Module,
    found: nn.Module,
    example_inputs: Sequence[Tensor],
    gone: Mapping[str, Sequence[int]],
) -> tuple[float, str]:
    """Return by how much `found` deviates from `wanted` in evaluation mode, and where first.

    Compared are the outputs of every layer, but for the channels `gone` (layer → indices), and
    those of the network: the largest absolute difference in a channel relative to the largest
    absolute value there. Where `found` fails it is infinite, and the place is the error.
    """
    actual: list[tuple[str, Tensor]] = []
    try:
        _run(found, example_inputs, actual)
    except Exception as error:  # whatever the user's forward raises
        place = f'after {actual[-1][0]}' if actual else 'at the start'
        return float('inf'), f'{type(error).__name__} {place}: {error}'
    expected = _results(wanted, example_inputs)
    if [name for name, _ in expected] != [name for name, _ in actual]:
        return float('inf'), 'other layers run'
    modules = dict(wanted.named_modules())
    worst, where = 0.0, ''
    for (name, one), (_, other) in zip(expected, actual, strict=True):
        axes: list[int] | None = None
        if name in modules:
            axes = [one.ndim - (1 if isinstance(modules[name], nn.Linear) else 3)]
        if name in gone and axes:
            rest = sorted(set(range(one.shape[axes[0]])) - set(gone[name]))
            one = one.index_select(axes[0], torch.tensor(rest, device=one.device))
        difference = _difference(one, other, axes)
        if difference > worst and worst <= TOLERANCE:  # what follows an error is wrong, too
            where = name
        worst = max(worst, difference)
    return worst, where


def in_double(
    wanted: nn.Module,
    found: nn.Module,
    example_inputs: Sequence[Tensor],
    gone: Mapping[str, Sequence[int]],
) -> tuple[float, str] | None:
    """Return the deviation in double precision; None where a network cannot compute in it."""
    inputs = [each.double() if _is_floating(each) else each for each in example_inputs]
    wanted, found = (copy.deepcopy(each).double() for each in (wanted, found))
    try:
        if _not_finite(_results(wanted, inputs)):
            return None
    except Exception:  # a type that is written into its code
        return None
    return deviation(wanted, found, inputs, gone)


def check_deterministic(model: nn.Module, example_inputs: Sequence[Tensor]) -> None:
    """Raise PruningError if two runs on the same inputs, in evaluation mode, differ; say where."""
    with torch.random.fork_rng():
        first, second = (_results(model, example_inputs) for _ in range(2))
    for (name, one), (_, other) in zip(first, second, strict=False):
        if (difference := _difference(one, other, None)) > TOLERANCE:
            raise PruningError(
                f'{type(model).__name__}: two runs on the same inputs differ, first in {name} (by '
                f'{difference:.2g} of the range): pruning needs a network that computes the same '
                'each time; is dropout called with training=True, or are random numbers drawn?'
            )


def _results(model: nn.Module, example_inputs: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    results: list[tuple[str, Tensor]] = []
    _run(model, example_inputs, results)
    return results


@torch.no_grad()
def _run(
    model: nn.Module, example_inputs: Sequence[Tensor], results: list[tuple[str, Tensor]]
) -> None:
    """Run the model in evaluation mode; append the outputs of its layers, then its own."""
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]

    def observe(name: str, _: Tensor, output: Tensor) -> None:
        results.append((name, output.clone()))  # an activation may be in place

    with evaluating(model), observed(model, layers, observe):
        own = (each.clone() if isinstance(each, Tensor) else each for each in example_inputs)
        outputs = tensors(model(*own))
    results.extend((f'output {index} of the network', each) for index, each in enumerate(outputs))


def _is_floating(each: Any) -> bool:
    return isinstance(each, Tensor) and each.is_floating_point()


def _difference(one: Tensor, other: Tensor, axes: Sequence[int] | None) -> float:
    """Return the largest difference, relative to the largest value along each index of `axes`.

    By default along every axis but the first.
    """
    if one.shape != other.shape:
        return float('inf')
    if not one.numel():
        return 0.0
    one, other = one.double(), other.double()
    difference = torch.where(one == other, 0.0, (one - other).abs()).nan_to_num(nan=float('inf'))
    if not difference.any():
        return 0.0
    size = one.nan_to_num(0, 0, 0).abs()
    least = max(float(size.max()) * _NOTHING, 1e-12)
    worst = 0.0
    for axis in axes if axes is not None else range(1, one.ndim) if one.ndim > 1 else (0,):
        parts = [each.movedim(axis, 0).flatten(1).amax(1) for each in (difference, size)]
        worst = max(worst, float((parts[0] / parts[1].clamp(min=least)).max()))
    return worst
