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
