"""How many channels each group keeps, so that the network meets a budget."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping

from pruned_perception.pruning.allocation.engines import floor_widths
from pruned_perception.pruning.allocation.rules import RULES, Evidence, Rule, find_rule
from pruned_perception.pruning.budget import Budget, Error, Macs
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.structure import Structure, Widths

__all__ = ['RULES', 'Evidence', 'Rule', 'find_rule', 'widths_for']


def widths_for(
    evidence: Evidence,
    budget: Budget,
    *,
    rule: str,
    round_to: int,
    error_at: Callable[[str, int], float] | None = None,
) -> Widths:
    """Return the width of every group, within the budget.

    Args:
        evidence: sensitivities or scores, whichever the rule needs.
        budget: share of multiply-accumulates or parameters, or an error.
        rule: a name in `RULES`.
        round_to: kept channels are multiples of this, one block at least.
        error_at: for an error as budget: the a-priori error of a group at a width.

    Raises:
        BudgetError: not even one block per group is within the budget; says what is.
        PruningError: unknown rule, missing evidence, or a block out of range.
    """
    if round_to < 1:
        raise PruningError(f'round_to: must be at least 1 channel, got {round_to}')
    structure = evidence.structure
    blocks = {group.name: math.lcm(round_to, group.unit) for group in structure.groups.prunable}
    if isinstance(budget, Error):
        assert error_at is not None
        return _within_error(structure, budget.epsilon, blocks, error_at)
    chosen = find_rule(rule, evidence)

    def size(widths: Mapping[str, float]) -> float:
        found = structure.size(widths)
        return found.macs if isinstance(budget, Macs) else found.parameters

    dense = structure.macs if isinstance(budget, Macs) else structure.parameters
    least = size(floor_widths(structure.channels, blocks))
    allowed = math.floor(dense * budget.share)
    if least > allowed + 0.5:
        share = min(1.0, math.floor(1e4 * least / dense + 1) / 1e4)  # rounded up, and never below
        raise BudgetError(
            f'a budget of {budget} cannot be met with blocks of {round_to} channels; the nearest '
            f'is {share:g} ({round(least):,} of {dense:,}); allow it or smaller blocks'
        )
    curves = {name: chosen.curve(evidence, name) for name in structure.channels}
    return chosen.engine(curves, size, allowed + 0.5, blocks)


def _within_error(
    structure: Structure,
    epsilon: float,
    blocks: Mapping[str, int],
    error_at: Callable[[str, int], float],
) -> Widths:
    """Return the smallest widths at which no consumer's error exceeds ε.

    The errors of the groups that a consumer reads side by side (a concatenation) add up.
    """
    widths = {}
    for name, beside in structure.side_by_side().items():
        channels = structure.channels[name]
        options = [*range(blocks[name], channels, blocks[name]), channels]
        place = bisect.bisect_left(
            options[:-1], True, key=lambda width: error_at(name, width) <= epsilon / beside
        )
        widths[name] = options[place]
    return widths
