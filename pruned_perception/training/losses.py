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

"""What a step says of a batch: one loss, or several by name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

from torch import Tensor

Losses = Tensor | Mapping[str, Tensor]
"""A scalar to minimise, or scalars by name, of which the sum is minimised."""


def named(losses: Losses, name: str) -> dict[str, Tensor]:
    """Return losses by name; a single one has the name that is given."""
    return {name: losses} if isinstance(losses, Tensor) else dict(losses)


def total(losses: Losses) -> Tensor:
    """Return the scalar that is minimised."""
    if isinstance(losses, Tensor):
        return losses
    return functools.reduce(operator.add, losses.values())
