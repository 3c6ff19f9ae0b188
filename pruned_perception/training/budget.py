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

import math
from dataclasses import dataclass
from typing import Any

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record


@dataclass(frozen=True)
class TrainingBudget(Record):
    """How long to train: CPU minutes of the process in training steps, or steps.

    CPU time, not wall time, because it is fair on a machine that does other things as well; the
    learning rate follows the fraction that is used up.
    """

    cpu_minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.cpu_minutes, self.steps) if value is not None]
        if len(given) != 1 or not _positive(given[0]):
            raise PruningError(
                'training budget: exactly one of cpu_minutes and steps, > 0; got '
                f'{self.cpu_minutes!r} and {self.steps!r}'
            )
        if not isinstance(self.steps, int | None):
            raise PruningError(f'steps: must be an integer, got {self.steps!r}')

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if value is not None}

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

    def __str__(self) -> str:
        if self.cpu_minutes is not None:
            return f'{self.cpu_minutes:g} CPU minutes'
        return f'{self.steps:,} steps'


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf  # type: ignore[operator]
