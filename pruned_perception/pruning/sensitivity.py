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
`positions=None` takes all.

What was measured is here, plain data that need no PyTorch; how, in `estimation`.

For new images the bounds of random selection need a factor K, see `conformal`: `with_second_half`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import Claim, calibration_size, expected_exceedances
from pruned_perception.pruning.conformal import conformal_factor
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.structure import Structure

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = 8
QUADRANTS = {'quadrants': 4, 'absolute': 1, 'summed': 1}
DEFINITIONS = tuple(QUADRANTS)


# A sum below this share of the largest output's at the same position counts as zero, and 0/0 = 0:
# what is lost there is lost below the rounding of the outputs that matter.
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
    def largest(self) -> dict[str, NDArray[np.float64]]:
        """Per group (channels,): the largest sensitivity that any consumer has for a channel.

        One throughout where every consumer passes the channels on.
        """
        found: dict[str, NDArray[np.float64]] = {}
        for each in self.consumers:
            own = np.array(each.values, dtype=np.float64)
            found[each.group] = np.maximum(found.get(each.group, own), own)
        channels = self.structure.channels
        return {name: found.get(name, np.ones(count)) for name, count in channels.items()}

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The same as tensors, as plans ask of all evidence."""
        import torch

        return {name: torch.from_numpy(each) for name, each in self.largest.items()}

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
