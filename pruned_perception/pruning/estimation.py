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

"""Sensitivities, as `sensitivity` defines them, measured on a calibration set.

One pass over the set, one batch in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.conformal import largest_ratios
from pruned_perception.pruning.contributions import (
    Fields,
    contributions,
    fields,
    sampled,
    whole_kernel,
)
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.channels import ChannelGroup, Slice
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.sensitivity import (
    DEFINITIONS,
    POSITIONS,
    QUADRANTS,
    ConsumerSensitivity,
    Sensitivity,
)
from pruned_perception.pruning.structure import Structure
from pruned_perception.pruning.tracing import trace

_NEGLIGIBLE = 1e-6
# A contribution is written, divided and compared, which takes as long as some 30 of the layer's
# multiply-accumulates. Of layers with few positions and taps so few positions are sampled that
# there is one contribution to so many of these at most: sensitivities cost a few forward passes.
_MACS_PER_VALUE = 16
_VALUES_IN_CACHE = 2**17  # contributions at a time
_ROWS = 32  # positions at a time


def estimate_sensitivity(
    model: nn.Module,
    calibration: Iterable[Batch],
    *,
    example_inputs: Sequence[Tensor],
    definition: str = 'absolute',
    positions: int | None = POSITIONS,
    seed: int = 0,
    structure: Structure | None = None,
) -> Sensitivity:
    """Measure how sensitive every consumer is to each of its input channels, in one pass.

    Args:
        model: any traceable network; it is run in evaluation mode, where it is, and left as it was.
            What its layers have seen is added up on the CPU.
        calibration: batches of inputs, without labels.
        example_inputs: the network's positional inputs, for tracing.
        definition: 'quadrants', 'absolute' or 'summed', see the module.
        positions: output positions sampled per image, fewer of layers that have few; None for all
            of them. 'summed' always sees all.
        seed: of the positions.
        structure: of the network, if it has been traced already.

    Raises:
        PruningError: unknown definition; an empty or unusable calibration set; a network that
            cannot be traced.
    """
    if definition not in DEFINITIONS:
        raise PruningError(
            f'unknown sensitivity {definition!r}; there are {", ".join(DEFINITIONS)}'
        )
    if positions is not None and positions < 1:
        raise PruningError(f'positions: at least 1 per image, got {positions}')
    model = plain(model)
    structure = structure or trace(model, example_inputs)
    readers = structure.readers()
    modules = dict(model.named_modules())
    generator = torch.Generator().manual_seed(seed)
    kernels = {name: mixing_outputs(whole_kernel(modules[name])) for name in readers}
    readers = {name: who for name, who in readers.items() if kernels[name].shape[1]}
    worst = {name: [torch.zeros(g.channels) for g, _ in who] for name, who in readers.items()}
    events = dict.fromkeys(readers, 0)  # of all images

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        who, weight, found = readers[name], kernels[name], fields(modules[name], x.detach())
        events[name] += len(x) * weight.shape[1] * found.positions * QUADRANTS[definition]
        apart = all(_is_apart(group, part) for group, part in who)
        for field, own in _parts(definition, found, weight, positions, generator):
            if apart:
                each_alone = _largest_alone(field, own)
                for index, (_, part) in enumerate(who):
                    roots = torch.tensor(part.roots)
                    largest = torch.zeros_like(worst[name][index])
                    largest[roots] = each_alone[list(part.indices)]
                    worst[name][index] = torch.maximum(worst[name][index], largest)
                continue
            for values in contributions(field, own):
                shares = _shares(values)
                for index, (group, part) in enumerate(who):
                    largest = _largest(shares, group, part)
                    worst[name][index] = torch.maximum(worst[name][index], largest)

    batches = CheckedBatches(calibration, example_inputs)
    with observed(model, readers, observe):
        run(model, batches)
    images = batches.record.images
    consumers = tuple(
        ConsumerSensitivity(name, group.name, events[name] // images, tuple(values.tolist()))
        for name, who in readers.items()
        for (group, _), values in zip(who, worst[name], strict=True)
    )
    sampled_at = None if definition == 'summed' else positions
    return Sensitivity(definition, structure, consumers, batches.record, sampled_at, seed)


def with_second_half(
    sensitivity: Sensitivity, model: nn.Module, images: Iterable[Batch]
) -> Sensitivity:
    """Return the sensitivities with what a second half of images says of K.

    Args:
        sensitivity: of a first half, at all positions.
        model: the network that they are of.
        images: other images, exchangeable with those to come; one pass, image by image.

    Raises:
        PruningError: sensitivities at sampled positions, which are not what g_j is compared with;
            an unusable set.
    """
    if sensitivity.positions is not None:
        raise PruningError(
            'K from a second half: g and s are compared at all positions; measure sensitivities '
            'with positions=None (--positions all)'
        )
    example = [each.example() for each in sensitivity.structure.inputs]
    read = sorted({each.group for each in sensitivity.consumers})
    found = []
    for batch in CheckedBatches(images, example, name='second half'):
        for n in range(len(batch[0])):
            alone = estimate_sensitivity(
                model,
                [tuple(each[n : n + 1] for each in batch)],
                example_inputs=example,
                definition=sensitivity.definition,
                positions=None,
                structure=sensitivity.structure,
            )
            found.append(torch.cat([alone.values[name] for name in read]).numpy())
    measured = torch.cat([sensitivity.values[name] for name in read]).numpy()
    return replace(sensitivity, ratios=tuple(largest_ratios(np.stack(found), measured).tolist()))


def mixing_outputs(weight: Tensor) -> Tensor:
    """Return the outputs (1, ≤ f, c, κ) that read more than one input."""
    read = (weight != 0).any(-1).sum(-1)
    return weight[:, read[0] > 1]


def _parts(
    definition: str,
    found: Fields,
    weight: Tensor,
    positions: int | None,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield non-negative fields (c, n, κ) and weights (groups, f/groups, c/groups, κ).

    n counts positions, or images where summed.
    """
    size = weight.abs()
    if definition == 'summed':
        yield found.absolute_sums(), size
        return
    if positions is not None:
        positions = min(positions, max(1, found.positions * weight.shape[3] // _MACS_PER_VALUE))
    for field in sampled(found, weight, positions, generator):
        if definition == 'absolute':
            yield field.abs(), size
            continue
        for part in (field.clamp(min=0), (-field).clamp(min=0)):
            if part.any():  # after ReLU there are two quadrants only
                yield part, weight.clamp(min=0)
                yield part, (-weight).clamp(min=0)


def _is_apart(group: ChannelGroup, part: Slice) -> bool:
    """Whether the layer has one input for each channel, and each may go alone."""
    return group.unit == 1 and len(set(part.roots)) == len(part.roots)


def _largest_alone(field: Tensor, weight: Tensor) -> Tensor:
    """Return (c,): the largest share of each input, as `_largest` of `_shares`, but faster.

    Sums are matrix products, and contributions are made, divided and compared in the cache.

    Args:
        field: (c, n, κ), non-negative.
        weight: (groups, f/groups, c/groups, κ), non-negative.
    """
    parts = zip(field.chunk(len(weight)), weight, strict=True)
    return torch.cat([_largest_of_group(part, own) for part, own in parts])


def _largest_of_group(field: Tensor, weight: Tensor) -> Tensor:
    largest = field.new_zeros(len(field))
    columns = weight.permute(1, 2, 0)  # (c, κ, f)
    flat, outputs = columns.flatten(0, 1), len(weight)
    for rows in field.split(_ROWS, 1):
        sums = rows.transpose(0, 1).flatten(1) @ flat
        scale = _reciprocal(sums)
        step = max(1, _VALUES_IN_CACHE // max(1, rows.shape[1] * outputs))
        for start in range(0, len(field), step):
            values = torch.bmm(rows[start : start + step], columns[start : start + step])
            found = values.mul_(scale).amax((1, 2))
            torch.maximum(largest[start : start + step], found, out=largest[start : start + step])
    return largest.clamp_(max=1)  # which rounding may exceed


def _reciprocal(sums: Tensor) -> Tensor:
    """Return 1 / sums (n, f), 0 where they are negligible beside the largest output; in place."""
    negligible = sums <= _NEGLIGIBLE * sums.amax(1, keepdim=True)
    negligible |= sums < torch.finfo(sums.dtype).tiny  # whose reciprocal is infinite
    return sums.reciprocal_().masked_fill_(negligible, 0.0)


def _shares(values: Tensor) -> Tensor:
    """Return each channel's share (c, n, f) of the sum over channels, 0/0 = 0; in place."""
    return values.mul_(_reciprocal(values.sum(0)))


def _largest(shares: Tensor, group: ChannelGroup, part: Slice) -> Tensor:
    """Return (channels of the group,): their largest shares.

    What goes together adds up first: a channel's many inputs, and the channels of a run.
    """
    if part.indices != tuple(range(len(shares))):
        shares = shares[list(part.indices)]
    if part.roots != tuple(range(group.channels)):
        empty = shares.new_zeros(group.channels, *shares.shape[1:])
        shares = empty.index_add_(0, torch.tensor(part.roots), shares)
    if group.unit > 1:
        runs = shares.unflatten(0, (-1, group.unit)).sum(1)
        return (runs.amax((1, 2)) / group.unit).repeat_interleave(group.unit)
    return shares.amax((1, 2))
