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

"""Scores of channels: what every criterion returns, and what plans keep the highest of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import Claim
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.structure import Structure


class Evidence(Protocol):
    """What a criterion says of a network's groups: `Scores`, or a `Sensitivity`.

    Plans keep the highest `values` (channels,) of each group of the `structure`.
    """

    @property
    def criterion(self) -> str:
        """Who says it."""

    @property
    def structure(self) -> Structure:
        """Groups, and what the network costs."""

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Per group (channels,), ≥ 0."""

    @property
    def errors(self) -> Mapping[str, Tensor] | None:
        """Per group (channels + 1,) the error at k = 0 … c channels kept, where it is known."""

    @property
    def calibration(self) -> CalibrationRecord | None:
        """The set that it was measured on, where bounds follow from that."""

    @property
    def offers(self) -> str | None:
        """What rules of allocation may need: 'sensitivities', 'errors' or nothing."""

    def claim(self, delta: float, K: float | None = None) -> Claim | None:
        """Return what the bounds of a selection claim; None where nothing bounds it.

        Raises:
            PruningError: the calibration set is too small for `delta`.
        """

    def within(self, structure: Structure) -> Evidence:
        """Return the same about some of the groups only."""


@dataclass(frozen=True)
class Scores(Record):
    """Per group (channels,) scores ≥ 0; of each group the highest are kept.

    `errors`, where the criterion knows them: per group the error (channels + 1,) at k = 0 … c
    channels kept, in a currency that is the same for all groups. `ranks`, where it knows them: per
    layer the error (full rank + 1,) of the best weight of rank 0 …, in the same currency;
    `left_alone`: why other layers have none.
    """

    criterion: str
    structure: Structure
    values: dict[str, Tensor]
    errors: dict[str, Tensor] | None = None
    ranks: dict[str, Tensor] | None = None
    left_alone: dict[str, str] = field(default_factory=dict)
    calibration: ClassVar[CalibrationRecord | None] = None

    def __post_init__(self) -> None:
        for name, channels in self.structure.channels.items():
            values = self.values.get(name)
            if values is None or values.shape != (channels,):
                found = None if values is None else tuple(values.shape)
                raise PruningError(
                    f'{self.criterion}: group {name!r} has {channels} channels, scores: {found}'
                )
            if not torch.isfinite(values).all() or (values < 0).any():
                raise PruningError(f'{self.criterion}: scores of {name!r} must be finite and ≥ 0')

    @property
    def offers(self) -> str | None:
        """Errors, where the criterion knows them."""
        return None if self.errors is None else 'errors'

    def claim(self, delta: float, K: float | None = None) -> None:
        """Nothing bounds what is lost with the lowest scores."""

    def within(self, structure: Structure) -> Scores:
        """Return the same about some of the groups only."""
        return replace(self, structure=structure)

    def to_text(self) -> str:
        """Return a table: the range of the scores of each group."""
        rows = [
            (name, len(values), float(values.min()), float(values.max()))
            for name, values in self.values.items()
        ]
        header = 'group | channels:d | least:10.4g | greatest:10.4g'
        return f'{self.criterion} scores\n{Table.under(header, rows).to_text()}'


def in_runs(values: Tensor, unit: int) -> Tensor:
    """Return (channels / unit,): the sums of runs of channels that are kept or go together."""
    return values.double().unflatten(0, (-1, unit)).sum(1)
