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

"""How long to train."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record, names_of


@dataclass(frozen=True)
class TrainingBudget(Record):
    """How long to train, in one of four units, all of them of training steps alone.

    CPU minutes of the process are fair on a machine that does other things as well; wall minutes
    count where a GPU computes, which takes no CPU time; steps and epochs give the same weights
    again. The learning rate follows the fraction that is used up.
    """

    cpu_minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None
    """Passes over the data, of batches that say how many make one: `steps_per_epoch`."""
    wall_minutes: float | None = None

    def __post_init__(self) -> None:
        given = self.to_dict()
        if len(given) != 1 or not _positive(*given.values()):
            raise PruningError(
                f'training budget: exactly one of {", ".join(names_of(TrainingBudget))}, > 0; '
                f'got {given or None}'
            )
        if not isinstance(self.steps, int | None):
            raise PruningError(f'steps: must be an integer, got {self.steps!r}')

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}

    @functools.cached_property  # it is asked for in every step
    def _unit(self) -> tuple[str, float]:
        return next(iter(self.to_dict().items()))

    def fraction(
        self, cpu_seconds: float, steps: int, wall_seconds: float = 0.0, epochs: float = 0.0
    ) -> float:
        """Return the share of the budget that is used up, at most 1."""
        unit, value = self._unit
        minutes = {'cpu_minutes': cpu_seconds, 'wall_minutes': wall_seconds}
        if unit in minutes:
            return min(1.0, minutes[unit] / (60 * value))
        return min(1.0, (steps if unit == 'steps' else epochs) / value)

    def divided(self, parts: int) -> TrainingBudget:
        """Return one of so many equal parts."""
        unit, value = self._unit
        part = math.ceil(value / parts) if unit == 'steps' else value / parts
        return TrainingBudget(**{unit: part})  # type: ignore[arg-type]

    def extended(self, cpu_seconds: float, steps: int) -> TrainingBudget:
        """Return the budget of this one and what another training used, in its own unit.

        Raises PruningError where that is not known.
        """
        if self.cpu_minutes is not None:
            return TrainingBudget(cpu_minutes=self.cpu_minutes + cpu_seconds / 60)
        if self.steps is not None:
            return TrainingBudget(steps=self.steps + steps)
        raise PruningError(
            f'a control that is trained for as long as others: its budget must be in steps or '
            f'cpu_minutes, not {self}'
        )

    def __str__(self) -> str:
        unit, value = self._unit
        if unit == 'steps':
            return f'{value:,} steps'
        return f'{value:g} {unit.replace("cpu_", "CPU ").replace("_", " ")}'


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf  # type: ignore[operator]
