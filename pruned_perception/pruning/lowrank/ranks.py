"""How a budget is divided: the highest level of any layer becomes as low as the budget allows.

A layer's options are pairs of k groups and rank j, and staying as it is. A method says what level
each option has, for example its relative error. All layers start at their cheapest option, and the
one at the highest level takes its next, as long as something fits. The first that does not fit is
at the lowest common level that the budget allows: each layer is at its cheapest option not above
that level, and a lower one needs a dearer option here. What remains goes to the others, so that no
part of the budget is left to rounding.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pruned_perception.pruning.budget import Macs, Params
from pruned_perception.pruning.errors import BudgetError
from pruned_perception.pruning.lowrank.layers import Candidates, LayerShape, LayerSize

# Groups k and rank j of each layer that is decomposed.
Choice = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Option:
    """What a layer can become: k groups of rank j (rank 0: it stays as it is), at which level."""

    groups: int
    rank: int
    size: LayerSize
    level: float


def options(
    shape: LayerShape, levels: Mapping[int, Mapping[int, float]], *, shifted: bool = False
) -> list[Option]:
    """Return a layer's options: those that are smaller than it, and staying as it is at level 0.

    Args:
        shape: of the layer.
        levels: for numbers of groups k and ranks j: the level ≥ 0.
        shifted: the factors have a bias even where the layer has none.
    """
    found = [Option(1, 0, shape.dense, 0.0)]
    for groups, each in levels.items():
        found += [
            Option(groups, rank, shape.factored(groups, rank, shifted=shifted), level)
            for rank, level in each.items()
            if shape.shrinks(groups, rank, shifted=shifted)
        ]
    return found


def frontier(options: Sequence[Option], budget: Macs | Params) -> list[Option]:
    """Return the options that no other beats in cost and level, from the cheapest to level 0."""
    best: list[Option] = []
    for option in sorted(options, key=lambda each: (each.size.of(budget), each.level)):
        if not best or option.level < best[-1].level:
            best.append(option)
    return best


def equalise(
    network: Candidates, options: Mapping[str, Sequence[Option]], budget: Macs | Params
) -> Choice:
    """Return the choice whose highest level is the lowest that the budget allows.

    Args:
        network: as `find_layers` returns.
        options: of each layer that can be decomposed; one of them at level 0.
        budget: a share of the dense network.

    Raises:
        BudgetError: the cheapest options of all layers do not meet it; says what can be met.
    """
    if not isinstance(budget, Macs | Params):
        raise BudgetError(f'budget: ranks are chosen for Macs or Params, got {budget}')
    fronts = {name: frontier(each, budget) for name, each in options.items()}
    dense = network.dense.of(budget)
    fixed = dense - sum(network.shapes[name].dense.of(budget) for name in fronts)
    allowed = math.floor(budget.share * dense)
    least = fixed + sum(front[0].size.of(budget) for front in fronts.values())
    if least > allowed:
        share = math.ceil(1e4 * least / dense) / 1e4
        raise BudgetError(
            f'a budget of {budget} cannot be met by low rank: at rank 1 wherever it is smaller, '
            f'the nearest is {share:g} ({least:,} of {dense:,}); allow it, keep fewer layers or '
            'prune channels'
        )

    spare = allowed - least
    position = dict.fromkeys(fronts, 0)

    def entry(name: str) -> tuple[float, int, str] | None:
        now, *later = fronts[name][position[name] : position[name] + 2]
        price = later[0].size.of(budget) - now.size.of(budget) if later else 0
        return (-now.level, price, name) if later else None

    queue = [each for name in fronts if (each := entry(name))]
    heapq.heapify(queue)
    while queue:
        _, price, name = heapq.heappop(queue)
        if price <= spare:
            spare -= price
            position[name] += 1
            if later := entry(name):
                heapq.heappush(queue, later)
    chosen = {name: front[position[name]] for name, front in fronts.items()}
    return {name: (each.groups, each.rank) for name, each in chosen.items() if each.rank}
