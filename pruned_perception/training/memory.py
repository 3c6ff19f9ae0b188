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

"""Batches that a device has no memory for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pruned_perception.pruning.graph.device import mapped


def examples(batch: Any) -> int:
    """Return how many examples a batch has: the length of its tensors, 0 where they differ."""
    lengths: set[int] = set()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        lengths.add(len(tensor) if tensor.dim() else 0)
        return tensor

    mapped(batch, note)
    return lengths.pop() if len(lengths) == 1 else 0


def largest_that_fits(batch: Any, attempt: Callable[[Any], object]) -> int:
    """Return how many of a batch's examples there is memory for, by halving; 0 where none fits.

    Args:
        batch: for which there is none.
        attempt: does with a part of it what needs the memory.
    """
    size = examples(batch)
    while size > 1:
        size //= 2
        if _fits(attempt, mapped(batch, lambda each: each[:size])):  # noqa: B023
            return size
    return 0


def _fits(attempt: Callable[[Any], object], part: Any) -> bool:
    try:
        attempt(part)
    except torch.OutOfMemoryError:
        return False
    return True
