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

"""A decomposition whose groups and ranks are given: what no method would choose, tests may."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from pruned_perception.pruning import PruningError
from pruned_perception.pruning.lowrank import Decomposition
from pruned_perception.pruning.lowrank.decomposition import assemble
from pruned_perception.pruning.lowrank.layers import find_layers


def make_decomposition(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    choice: Mapping[str, tuple[int, int]],
    *,
    ignored_layers: Collection[str] = (),
) -> Decomposition:
    """Return the plan that gives each named layer its groups k and rank j, if that shrinks it."""
    network = find_layers(model, example_inputs, ignored_layers=ignored_layers)
    for name, (groups, rank) in choice.items():
        if not network.shapes[name].shrinks(groups, rank):
            raise PruningError(f'{name!r} does not shrink at rank {rank} in {groups} groups')
    return assemble('given', model, network, choice)
