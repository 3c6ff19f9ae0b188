"""How long to train, and how the learning rate follows what is used up of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pruned_perception.pruning.errors import PruningError


@dataclass(frozen=True)
class TrainingBudget:
    """How long to train: CPU minutes of the process in training steps, or steps.

    CPU time, not wall time, because it is fair on a machine that does other things as well; the
    learning rate follows the fraction that is used up.
    """

    cpu_minutes: float | None = None
    steps: int | None = None

    def fraction(self, cpu_seconds: float, steps: int) -> float:
        """Return the share of the budget that is used up, at most 1."""
        if self.cpu_minutes is not None:
            return min(1.0, cpu_seconds / (60 * self.cpu_minutes))
        assert self.steps is not None
        return min(1.0, steps / self.steps)

    def divided(self, parts: int) -> TrainingBudget:
        """Return one of so many equal parts."""
        if self.cpu_minutes is not None:
            return TrainingBudget(cpu_minutes=self.cpu_minutes / parts)
        assert self.steps is not None
        return TrainingBudget(steps=math.ceil(self.steps / parts))

    def extended(self, cpu_seconds: float, steps: int) -> TrainingBudget:
        """Return the budget of this one and what another training used, in its own unit."""
        if self.cpu_minutes is not None:
            return TrainingBudget(cpu_minutes=self.cpu_minutes + cpu_seconds / 60)
        assert self.steps is not None
        return TrainingBudget(steps=self.steps + steps)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the one that is set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingBudget:
        """Read what `to_dict` wrote; raise PruningError unless exactly one is set, and > 0."""
        unknown = set(data) - {'cpu_minutes', 'steps'}
        given = [value for value in data.values() if value is not None]
        if unknown or len(given) != 1 or not _positive(given[0]):
            raise PruningError(
                f'training budget: exactly one of cpu_minutes and steps, > 0: {dict(data)}'
            )
        if (steps := data.get('steps')) is not None and not isinstance(steps, int):
            raise PruningError(f'training budget: steps must be an integer, got {steps}')
        return cls(**data)

    def __str__(self) -> str:
        if self.cpu_minutes is not None:
            return f'{self.cpu_minutes:g} CPU minutes'
        return f'{self.steps:,} steps'


@dataclass(frozen=True)
class Schedule:
    """The rate rises over the fraction `warm_up`, then falls as a cosine to `final` of itself."""

    learning_rate: float = 0.01
    warm_up: float = 0.03
    final: float = 0.01

    def rate(self, fraction: float) -> float:
        """Return the learning rate at a fraction of the budget."""
        if fraction < self.warm_up:
            return self.learning_rate * max(fraction / self.warm_up, 0.01)
        past = (fraction - self.warm_up) / (1 - self.warm_up)
        cosine = (1 + math.cos(math.pi * past)) / 2
        return self.learning_rate * (self.final + (1 - self.final) * cosine)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """Read what `to_dict` wrote; raise PruningError naming a value out of range."""
        try:
            found = cls(**data)
        except TypeError as error:
            raise PruningError(f'schedule: {error}') from error
        if not _positive(found.learning_rate):
            raise PruningError(f'learning_rate: must be a number > 0, got {found.learning_rate!r}')
        for name, value in (('warm_up', found.warm_up), ('final', found.final)):
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise PruningError(f'{name}: must be in [0, 1), got {value!r}')
        return found


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf  # type: ignore[operator]
