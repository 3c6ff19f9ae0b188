"""How many channels each group keeps, so that the network meets a budget of MACs.

Kept channels are multiples of the engine's block: a partly filled block costs as much as a full
one. Costs are exact: a layer's multiply-accumulates are proportional to its kept inputs times its
kept outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pruned_perception.pruning.cost import NetworkCost
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.groups import ChannelGroups

Widths = dict[str, int]


@dataclass(frozen=True)
class LayerTerm:
    """One layer's multiply-accumulates: base · outputs kept · inputs kept (as shares)."""

    macs: int
    outputs: str | None  # the group, or None where nothing is cut
    inputs: tuple[tuple[str, float], ...]  # (group, share of the inputs that it feeds)


class CostModel:
    """Multiply-accumulates of a network as a function of its groups' widths, without surgery."""

    def __init__(self, groups: ChannelGroups, cost: NetworkCost, inputs: Mapping[str, int]) -> None:
        """Take the groups, the dense cost and the number of inputs of each layer's weight."""
        self.channels = {group.name: group.channels for group in groups.prunable}
        outputs: dict[str, str] = {}
        feeds: dict[str, list[tuple[str, float]]] = {}
        for group in groups.prunable:
            produced = {each.layer for each in group.producers}
            outputs |= dict.fromkeys(produced, group.name)
            for each in group.consumers:
                if each.layer not in produced:  # depthwise: counted once, as an output
                    share = len(each.indices) / inputs[each.layer]
                    feeds.setdefault(each.layer, []).append((group.name, share))
        self.terms = tuple(
            LayerTerm(layer.macs, outputs.get(layer.name), tuple(feeds.get(layer.name, ())))
            for layer in cost.layers
        )

    def macs(self, widths: Mapping[str, int]) -> int:
        """Return the multiply-accumulates at these widths (groups that are left out: whole)."""
        kept = {name: widths.get(name, full) / full for name, full in self.channels.items()}
        total = 0.0
        for term in self.terms:
            lost = sum(share * (1 - kept[name]) for name, share in term.inputs)
            out = 1.0 if term.outputs is None else kept[term.outputs]
            total += term.macs * (1 - lost) * out
        return round(total)


def floor_widths(channels: Mapping[str, int], block: int) -> Widths:
    """Return the smallest widths: one block, or the whole group where it has less."""
    return {name: min(block, count) for name, count in channels.items()}


def uniform(scores: Mapping[str, Tensor], cost: CostModel, budget: int, block: int) -> Widths:
    """Keep the same share of every group, as nearly as blocks and budget allow.

    From one block each, the group with the smallest share gets the next block, the cheaper one
    where shares are equal, as long as something fits: no part of the budget is left to rounding.
    """
    widths = floor_widths(cost.channels, block)
    while True:
        fitting = []
        for name, full in cost.channels.items():
            more = min(full, (widths[name] // block + 1) * block)
            if more > widths[name]:
                price = cost.macs(widths | {name: more})
                if price <= budget:
                    fitting.append((widths[name] / full, price, name, more))
        if not fitting:
            return widths
        *_, name, more = min(fitting)
        widths[name] = more


def retained_share(
    scores: Mapping[str, Tensor], cost: CostModel, budget: int, block: int
) -> Widths:
    """Maximise the product over groups of the share of the total score that is retained.

    Greedy: of all groups, take a block from the one that loses least of log(share) per
    multiply-accumulate saved; in the end, give back what still fits. The logarithm keeps thin
    layers from collapsing, which a plain sum would let happen.
    """
    curves = {name: _retained(score) for name, score in scores.items()}
    floors = floor_widths(cost.channels, block)
    widths = dict(cost.channels)
    current = cost.macs(widths)

    def smaller(name: str) -> int:
        return max(floors[name], (widths[name] - 1) // block * block)

    def larger(name: str) -> int:
        return min(cost.channels[name], (widths[name] // block + 1) * block)

    while current > budget:
        options = []
        for name, width in widths.items():
            if (less := smaller(name)) < width:
                saved = current - cost.macs(widths | {name: less})
                loss = math.log(curves[name][width] / curves[name][less])
                options.append((loss / max(saved, 1), name, less))
        _, name, less = min(options)
        widths[name] = less
        current = cost.macs(widths)
    while True:
        fitting = []
        for name, width in widths.items():
            if (more := larger(name)) > width and cost.macs(widths | {name: more}) <= budget:
                gain = math.log(curves[name][more] / curves[name][width])
                fitting.append((gain, name, more))
        if not fitting:
            return widths
        _, name, more = max(fitting)
        widths[name] = more


RULES: dict[str, Callable[[Mapping[str, Tensor], CostModel, int, int], Widths]] = {
    'retained_share': retained_share,
    'uniform': uniform,
}


def allocate(
    scores: Mapping[str, Tensor], cost: CostModel, macs: float, *, block: int, rule: str
) -> Widths:
    """Return the widths of all groups within `macs`, a share (0…1] of the dense network's.

    Raises:
        BudgetError: not even one block per group is within the budget; says what is.
        PruningError: unknown rule, or a share or block out of range.
    """
    if rule not in RULES:
        raise PruningError(f'unknown allocation {rule!r}; there are {", ".join(RULES)}')
    if not 0 < macs <= 1:
        raise PruningError(f'budget: the share of MACs must be in (0, 1], got {macs}')
    if block < 1:
        raise PruningError(f'block: must be at least 1 channel, got {block}')
    dense = cost.macs({})
    least = cost.macs(floor_widths(cost.channels, block))
    budget = math.floor(dense * macs)
    if least > budget:
        share = math.ceil(1e4 * least / dense) / 1e4
        raise BudgetError(
            f'a budget of {macs:g} of the MACs cannot be met with blocks of {block} channels; '
            f'the nearest is {share:g} ({least:,} of {dense:,}); allow it or smaller blocks'
        )
    return RULES[rule](scores, cost, budget, block)


def _retained(score: Tensor) -> list[float]:
    """Return, for k = 0…c, the share of the total score in the k highest."""
    ordered = score.double().sort(descending=True).values + 1e-12
    return [0.0, *(ordered.cumsum(0) / ordered.sum()).tolist()]
