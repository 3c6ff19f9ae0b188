"""Scores of channels: what every criterion returns, and what plans keep the highest of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from pruned_perception.pruning.bounds import Claim
from pruned_perception.pruning.calibration import CalibrationRecord
from pruned_perception.pruning.errors import PruningError
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
class Scores:
    """Per group (channels,) scores ≥ 0; of each group the highest are kept.

    `errors`, where the criterion knows them: per group the error (channels + 1,) at k = 0 … c
    channels kept, in a currency that is the same for all groups.
    """

    criterion: str
    structure: Structure
    values: dict[str, Tensor]
    errors: dict[str, Tensor] | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        errors = self.errors
        return {
            'criterion': self.criterion,
            'structure': self.structure.to_dict(),
            'values': {name: each.tolist() for name, each in self.values.items()},
            'errors': None if errors is None else {n: e.tolist() for n, e in errors.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scores:
        """Read what `to_dict` wrote; raise PruningError where it is something else."""
        try:
            errors = data['errors']
            return cls(
                data['criterion'],
                Structure.from_dict(data['structure']),
                _tensors(data['values']),
                None if errors is None else _tensors(errors),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise PruningError(f'not scores: {error}') from error

    def to_text(self) -> str:
        """Return a table: the range of the scores of each group."""
        width = max(map(len, self.values), default=5)
        lines = [f'{self.criterion} scores', f'{"group":{width}}  channels       least    greatest']
        for name, values in self.values.items():
            low, high = float(values.min()), float(values.max())
            lines.append(f'{name:{width}}  {len(values):8d}  {low:10.4g}  {high:10.4g}')
        return '\n'.join(lines)


def in_runs(values: Tensor, unit: int) -> Tensor:
    """Return (channels / unit,): the sums of runs of channels that are kept or go together."""
    return values.double().unflatten(0, (-1, unit)).sum(1)


def _tensors(data: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(each, dtype=torch.float64) for name, each in data.items()}
