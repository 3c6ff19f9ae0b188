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

"""Empirical sensitivity of channels: how much of a consumer's output can hang on one of them.

For a calibration set S of images without labels, a consumer's input channel j and the
contributions u, v of `contributions`, three definitions share one interface:

* `quadrants`: g_j = max over images, outputs i, positions p and the four sign quadrants q of
  u^q_{ij,p} / Σ_k u^q_{ik,p}, each quadrant the products of the positive or negative parts of
  weights and activations. As published for PFP (Liebenwein et al., ICLR 2020), whose networks
  have non-negative activations; where activations have both signs, a tiny quadrant forces g ≈ 1.
* `absolute`: g_j = max over images, i, p of v_{ij,p} / Σ_k v_{ik,p}. Never larger than 1, any
  activation, the same guarantee |ẑ − z| ≤ ε V.
* `summed`: h_j = max over images and i of Σ_p v_{ij,p} / Σ_k Σ_p v_{ik,p}. What is lost of a
  whole output map: Σ_p |z − ẑ| ≤ (Σ_pruned s_j) Σ_p V, exactly, on S.

S_ℓ = Σ_j s_j says how compressible the layer is: between 1 (one channel's worth of information
suffices) and the number of channels (every one is indispensable somewhere).

An output that reads a single channel has g = 1 for it whatever the data: it passes the channel on,
as a depthwise layer or an identity shortcut does, and nothing is claimed about it; what counts is
who reads it next. The first two definitions are maxima over positions. Measured at a few random
positions per image they are estimates from below, with which no bound is certain, not even on S;
`positions=None` takes all. One pass over S, one batch in memory at a time.

For new images the bounds of random selection need a factor K, see `conformal`: `with_second_half`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import Claim, calibration_size, expected_exceedances
from pruned_perception.pruning.calibration import Batch, CalibrationRecord, CheckedBatches
from pruned_perception.pruning.conformal import conformal_factor, largest_ratios
from pruned_perception.pruning.contributions import (
    Fields,
    contributions,
    fields,
    sampled,
    whole_kernel,
)
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.graph.groups import ChannelGroup, Slice
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.records import Record
from pruned_perception.pruning.structure import Structure, trace

POSITIONS = 8
QUADRANTS = {'quadrants': 4, 'absolute': 1, 'summed': 1}
DEFINITIONS = tuple(QUADRANTS)

# A sum below this share of the largest output's at the same position counts as zero, and 0/0 = 0:
# what is lost there is lost below the rounding of the outputs that matter.
_NEGLIGIBLE = 1e-6
# A contribution is written, divided and compared, which takes as long as some 30 of the layer's
# multiply-accumulates. Of layers with few positions and taps so few positions are sampled that
# there is one contribution to so many of these at most: sensitivities cost a few forward passes.
_MACS_PER_VALUE = 16
_VALUES_IN_CACHE = 2**17  # contributions at a time
_ROWS = 32  # positions at a time


@dataclass(frozen=True)
class ConsumerSensitivity:
    """Sensitivities (channels of the group,) of what one consumer reads of one group.

    `events` is the number of outputs × positions (× quadrants) of the consumer on one example, at
    all its calls. Of channels that go together in runs, each has an equal part of the run's.
    """

    layer: str
    group: str
    events: int
    values: tuple[float, ...]

    @property
    def total(self) -> float:
        """S_ℓ, the sum over the channels."""
        return sum(self.values)


@dataclass(frozen=True)
class Sensitivity(Record):
    """Sensitivities of all consumers of a network's prunable groups.

    `positions` is the number of positions per image that was sampled, or None for all. `ratios` are
    max_j g_j / s_j of each image of a second half, from which K follows; none where K is assumed.
    """

    definition: str
    structure: Structure
    consumers: tuple[ConsumerSensitivity, ...]
    calibration: CalibrationRecord
    positions: int | None
    seed: int
    ratios: tuple[float, ...] = ()
    errors: ClassVar[None] = None
    offers: ClassVar[str] = 'sensitivities'

    @property
    def criterion(self) -> str:
        """The definition, under which it is a criterion."""
        return self.definition

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Per group (channels,): the largest sensitivity that any consumer has for a channel.

        One throughout where every consumer passes the channels on.
        """
        found: dict[str, Tensor] = {}
        for each in self.consumers:
            own = torch.tensor(each.values, dtype=torch.float64)
            found[each.group] = torch.maximum(found.get(each.group, own), own)
        channels = self.structure.channels
        return {name: found.get(name, torch.ones(c).double()) for name, c in channels.items()}

    @property
    def events(self) -> int:
        """N: outputs × positions × quadrants of all consumers on one example.

        A consumer counts for each group that it reads: these are drawn, and bounded, apart.
        """
        return sum(each.events for each in self.consumers)

    def claim(self, delta: float, K: float | None = None) -> Claim:
        """Return what the bounds claim; refuse a calibration set that cannot support it.

        Without K it is the conformal one of the second half, or assumed to be 1 where there is
        none.
        """
        signed = self.definition != 'quadrants'
        if self.ratios and K is None:
            return Claim(self.events, delta, conformal_factor(self.ratios, delta), signed=signed)
        channels = max(1, sum(len(each.values) for each in self.consumers))
        needed = calibration_size(channels, delta=delta)
        images = self.calibration.images
        if images < needed:
            raise PruningError(
                f'calibration set: {images} images are too few for δ = {delta:g}: {needed} are '
                f'needed for {channels} channels that layers read; with {images}, the next image '
                'must be expected to exceed the sensitivities of '
                f'{expected_exceedances(channels, images):.3g} of them'
            )
        return Claim(self.events, delta, 1.0 if K is None else K, signed=signed)

    def check_drawn(self) -> None:
        """Raise PruningError where drawing by these sensitivities bounds nothing.

        Of draws, the summed definition bounds the sum of errors with their signs over a map, which
        may cancel: it says nothing about their sizes.
        """
        if self.definition == 'summed':
            raise PruningError(
                "sensitivity 'summed' with random or mixed selection: errors of both signs would "
                'cancel in its bound; use deterministic selection, or absolute sensitivities'
            )

    def within(self, structure: Structure) -> Sensitivity:
        """Return the same about some of the groups only."""
        return replace(self, structure=structure)

    def to_text(self) -> str:
        """Return a table: how compressible each consumer is, and how far S can be trusted."""
        where = (
            'all positions' if self.positions is None else f'{self.positions} positions an image'
        )
        header = 'consumer | reads | channels:d | S_ℓ:6.2f | S_ℓ/c:5.2f | largest:7.3f'
        rows = [
            (each.layer, each.group, count, each.total, each.total / count, max(each.values))
            for each in self.consumers
            for count in [len(each.values)]
        ]
        channels = sum(len(each.values) for each in self.consumers)
        exceeded = expected_exceedances(channels, self.calibration.images)
        text = (
            f'{self.definition} sensitivity, {self.calibration.images} images, {where} '
            f'({"exact" if self.positions is None else "estimated from below"})\n'
            f'{Table.under(header, rows).to_text()}\n'
        )
        if self.positions is None:
            text += (
                'One more image like these is expected to exceed the values of at most '
                f'{exceeded:.3g} of {channels} channels; more images lower that.'
            )
        else:
            text += (
                'At sampled positions nothing is said of how many values one more image exceeds; '
                'measure at all.'
            )
        if self.ratios:
            text += (
                f'\nsecond half: {len(self.ratios)} images, which exceed some value '
                f'{np.median(self.ratios):.3g}-fold (median), {max(self.ratios):.3g}-fold at most'
            )
        return text


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
    kernels = {name: mixing_outputs(whole_kernel(modules[name]).to(CPU)) for name in readers}
    readers = {name: who for name, who in readers.items() if kernels[name].shape[1]}
    worst = {name: [torch.zeros(g.channels) for g, _ in who] for name, who in readers.items()}
    events = dict.fromkeys(readers, 0)  # of all images

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        who, weight, found = readers[name], kernels[name], fields(modules[name], x.detach().to(CPU))
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
