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

"""Channels picked by index: a shuffle or a split that surgery can cut through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Take(nn.Module):
    """The entries `indices` of a tensor along `axis`, in that order.

    A shuffle written as reshape–transpose–reshape, or a split with sizes in the code, ties channels
    to each other that have nothing else in common; here each may go by itself, for the indices
    that are left are known.
    """

    indices: Tensor

    def __init__(self, axis: int, indices: Sequence[int]) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer('indices', torch.empty(0, dtype=torch.long), persistent=False)
        self._pick(list(indices))

    def follow(self, rest: Sequence[int]) -> None:
        """Pick what is left of the same entries when the input has only its entries `rest`."""
        place = {old: new for new, old in enumerate(rest)}
        self._pick([place[each] for each in self.indices.tolist() if each in place])

    def forward(self, x: Tensor) -> Tensor:
        """Return the picked entries."""
        if self._run is not None:  # a view, which costs nothing
            return x[(slice(None),) * self.axis + (self._run,)]
        return x.index_select(self.axis, self.indices)

    def extra_repr(self) -> str:
        """Return axis and indices."""
        indices = self.indices.tolist()
        picked = indices if self._run is None else f'{indices[0]}…{indices[-1]}'
        return f'axis={self.axis}, {picked}'

    def _pick(self, indices: list[int]) -> None:
        self.indices = torch.tensor(indices, dtype=torch.long, device=self.indices.device)
        self._run: slice | None = None
        steps = {after - before for before, after in itertools.pairwise(indices)}
        if indices and len(steps) < 2 and (step := max(steps, default=1)) > 0:
            self._run = slice(indices[0], indices[-1] + 1, step)
