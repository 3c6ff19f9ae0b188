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

"""What a pruned network may cost, or how much it may err."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pruned_perception.inference.latency_table import LatencyTable
from pruned_perception.pruning.errors import BudgetError


@dataclass(frozen=True)
class _Share:
    share: float
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BudgetError(
                f'budget: the share of the {self.unit} must be in (0, 1], got {self.share}'
            )

    def __str__(self) -> str:
        return f'{self.share:.4g} of the {self.unit}'


@dataclass(frozen=True)
class Macs(_Share):
    """A share (0 … 1] of the dense network's multiply-accumulates that may remain."""

    unit: ClassVar[str] = 'MACs'


@dataclass(frozen=True)
class Params(_Share):
    """A share (0 … 1] of the dense network's parameters that may remain."""

    unit: ClassVar[str] = 'parameters'


@dataclass(frozen=True)
class ErrorBound:
    """The a-priori relative error ε > 0 that every consumer may have; the size follows."""

    epsilon: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float('inf'):
            raise BudgetError(f'budget: the error must be a finite number > 0, got {self.epsilon}')

    def __str__(self) -> str:
        return f'a relative error of {self.epsilon:.4g}'


@dataclass(frozen=True)
class Latency:
    """The milliseconds > 0 that the network may take on the target of a latency table."""

    ms: float
    table: LatencyTable

    def __post_init__(self) -> None:
        if not 0 < self.ms < float('inf'):
            raise BudgetError(f'budget: milliseconds must be a finite number > 0, got {self.ms}')

    def __str__(self) -> str:
        target = self.table.target
        threads = f'{target.threads} thread' + 's' * (target.threads > 1)
        bits = ' in 8 bits' * self.table.in_8_bits
        return f'{self.ms:.4g} ms{bits} on {target.processor} ({target.engine}, {threads})'


Budget = Macs | Params | ErrorBound | Latency
