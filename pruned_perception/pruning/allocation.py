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

"""How many channels each group keeps, so that the network meets a budget.

A rule says what error a group has with k channels kept; which of two engines divides the budget
follows from what such errors mean: bounds are equalised (the largest counts), losses are added.

Where losses are added, layers of low rank stand beside the groups: the rank of a layer is one more
width, full rank is the layer as it is, and what it loses is in the same currency.

Both engines move in blocks: kept channels are multiples of the engine's block, since a partly
filled block costs as much as a full one. Sizes are exact at every step, and what is left of the
budget in the end is spent as long as another block of some group fits. Where losses are added and
all blocks are coarse (grouped convolutions), one of a group is then exchanged for others'.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruned_perception.pruning.bounds import draws_for_all, tail_sums
from pruned_perception.pruning.budget import Budget, ErrorBound, Latency, Macs, Params
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.latency import latency_of
from pruned_perception.pruning.scores import Evidence, in_runs
from pruned_perception.pruning.structure import Structure, Widths, is_rank, rank_of

# Errors of a group at k = 0 … c channels kept; falling in k.
Curves = Mapping[str, Sequence[float]]
SizeOf = Callable[[Mapping[str, int]], float]
Engine = Callable[[Curves, SizeOf, float, Mapping[str, int]], Widths]
_UNSPENT = 2e-3  # of the budget: less is not worth an exchange
_LARGEST_BLOCK = 4e-3  # of the network's multiply-accumulates, where blocks are ours to choose
_RANKS = 16  # that are compared of a layer
_WORSE = 0.05  # of the error: what exchanges may add to spend the budget


def floor_widths(channels: Mapping[str, int], blocks: Mapping[str, int]) -> Widths:
    """Return the smallest widths: one block, or the whole group where it has less."""
    return {name: min(blocks[name], count) for name, count in channels.items()}


def least_maximum(curves: Curves, size: SizeOf, budget: float, blocks: Mapping[str, int]) -> Widths:
    """Minimise the largest error of all groups.

    From one block each, the group with the largest error gets the next block (of equal ones, that
    whose block is cheapest), as long as something fits. Errors fall and sizes rise with widths, so
    that no other widths within the budget have a smaller maximum.
    """
    channels = {name: len(curve) - 1 for name, curve in curves.items()}
    widths = floor_widths(channels, blocks)
    open_groups = {name for name in widths if widths[name] < channels[name]}
    while open_groups:
        ranked = sorted(open_groups, key=lambda name: (-curves[name][widths[name]], name))
        worst = curves[ranked[0]][widths[ranked[0]]]
        equal = [name for name in ranked if curves[name][widths[name]] == worst]
        grown = {name: _larger(widths[name], channels[name], blocks[name]) for name in equal}
        prices = {name: size(widths | {name: grown[name]}) for name in equal}
        cheapest = min(equal, key=lambda name: (prices[name], name))
        if prices[cheapest] <= budget:
            widths[cheapest] = grown[cheapest]
            if widths[cheapest] == channels[cheapest]:
                open_groups.remove(cheapest)
        else:  # sizes only rise: it will not fit later either
            open_groups -= set(equal)
    return widths


def least_sum(curves: Curves, size: SizeOf, budget: float, blocks: Mapping[str, int]) -> Widths:
    """Minimise the sum of the groups' errors, greedily.

    From the dense widths, the block that adds least error per saved cost goes first; in the end,
    whatever block gains most is given back while it fits. Errors are replaced by their largest
    convex minorants first, so that a steep place in a curve does not hide a flat one behind it.
    Ranks save nothing until they are low, so of them all lower ones are compared at each step.
    """
    channels = {name: len(curve) - 1 for name, curve in curves.items()}
    floors = floor_widths(channels, blocks)
    convex = {name: _convex_minorant(curve, floors[name]) for name, curve in curves.items()}
    widths = dict(channels)
    current = size(widths)
    while current > budget:
        options = []
        for name, width in widths.items():
            first = _smaller(width, floors[name], blocks[name])
            lower = range(floors[name], first + 1, blocks[name]) if is_rank(name) else (first,)
            for less in lower:
                if less == width:
                    continue
                saved = current - size(widths | {name: less})
                lost = convex[name][less] - convex[name][width]
                options.append((lost / max(saved, 1e-12), name, less))
        _, name, less = min(options)
        widths[name] = less
        current = size(widths)
    while True:
        fitting = []
        for name, width in widths.items():
            more = _larger(width, channels[name], blocks[name])
            if more > width and size(widths | {name: more}) <= budget:
                fitting.append((convex[name][width] - convex[name][more], name, more))
        if not fitting:
            return _exchanged(curves, size, budget, blocks, widths)
        _, name, more = max(fitting)
        widths[name] = more


def _exchanged(
    curves: Curves, size: SizeOf, budget: float, blocks: Mapping[str, int], widths: Widths
) -> Widths:
    """Return widths that leave less of the budget unspent than these, where blocks are coarse.

    A block more of one group for as few as possible of another: as long as more than a small share
    of the budget is left, the exchange with the least error among those that leave no more than
    that, or else the one that leaves least. None adds more than a small share to the error.
    """
    floors = floor_widths({name: len(curve) - 1 for name, curve in curves.items()}, blocks)
    current = size(widths)
    allowed = _WORSE * sum(curves[name][width] for name, width in widths.items())
    while current < budget * (1 - _UNSPENT):
        options = []
        for new in _exchanges(curves, size, budget, blocks, floors, widths):
            found = size(new)
            added = sum(curves[n][new[n]] - curves[n][widths[n]] for n in new)
            if found > current and added <= allowed:
                left = max(0.0, budget * (1 - _UNSPENT) - found)
                options.append((left, added, found, new))
        if not options:
            break
        _, added, current, widths = min(options, key=lambda option: option[:2])
        allowed -= max(0.0, added)
    return widths


def _exchanges(
    curves: Curves,
    size: SizeOf,
    budget: float,
    blocks: Mapping[str, int],
    floors: Widths,
    widths: Widths,
) -> Iterator[Widths]:
    """Yield the widths within the budget with a block more of one group and fewer of another."""
    for grown, width in widths.items():
        channels = len(curves[grown]) - 1
        if width == channels:
            continue
        more = widths | {grown: _larger(width, channels, blocks[grown])}
        if size(more) <= budget:
            yield more
            continue
        for shrunk in widths.keys() - {grown}:
            new = dict(more)
            while new[shrunk] > floors[shrunk]:
                new[shrunk] = _smaller(new[shrunk], floors[shrunk], blocks[shrunk])
                if size(new) <= budget:
                    yield new
                    break


def _convex_minorant(curve: Sequence[float], first: int) -> list[float]:
    """Return the largest convex function below the curve, from index `first` on."""
    hull: list[tuple[int, float]] = []
    for point in list(enumerate(curve))[first:]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    corners, values = zip(*hull, strict=True)
    return np.interp(np.arange(len(curve)), corners, values).tolist()


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _larger(width: int, channels: int, block: int) -> int:
    return min(channels, (width // block + 1) * block)


def _smaller(width: int, floor: int, block: int) -> int:
    return max(floor, (width - 1) // block * block)


# (evidence, group) → errors at k = 0 … c channels kept; of a group whose channels go in runs, those
# of the whole runs within k.
Curve = Callable[[Evidence, str], list[float]]


@dataclass(frozen=True)
class Rule:
    """A rule of allocation: a group's errors, how they are weighed, and what they need."""

    summary: str
    curve: Curve
    engine: Engine
    needs: str | None = None


def _uniform(evidence: Evidence, group: str) -> list[float]:
    channels = evidence.structure.channels[group]
    return [1 - kept / channels for kept in range(channels + 1)]


def _proportional(evidence: Evidence, group: str) -> list[float]:
    values = evidence.values[group]
    total = float(values.sum())
    return [math.inf, *(total / kept for kept in range(1, len(values) + 1))]


def _equal_error(evidence: Evidence, group: str) -> list[float]:
    """S / m, on which alone ε(m) depends; m is such that U(m) = k.

    Hence the allocation is the same for every K, δ and N: they only scale S / m. (Of contributions
    of both signs at once, ε(m) has K S + 1 in one place for K S: not quite the same everywhere.)
    """
    runs, unit = _runs(evidence, group)
    total = float(runs.sum())
    if total == 0:  # nobody ever reads it
        return [0.0] * (evidence.structure.channels[group] + 1)
    draws = draws_for_all(runs / total)
    found = [math.inf, *(total / m for m in draws[1:])]
    return _by_channels(found + [0.0] * (len(runs) + 1 - len(found)), unit)


def _equal_sum(evidence: Evidence, group: str) -> list[float]:
    runs, unit = _runs(evidence, group)
    return _by_channels(tail_sums(runs), unit)


def _retained_share(evidence: Evidence, group: str) -> list[float]:
    """−log of the share of the total score that is retained: thin layers must not collapse."""
    runs, unit = _runs(evidence, group)
    ordered = _descending(runs) + 1e-12
    share = ordered.cumsum(0) / ordered.sum()
    return _by_channels([math.inf, *(-share.log()).clamp(min=0).tolist()], unit)


def _global_ranking(evidence: Evidence, group: str) -> list[float]:
    """Return the best score that is lost: one threshold for the network equalises it."""
    runs, unit = _runs(evidence, group)
    return _by_channels([*_descending(runs / unit).tolist(), 0.0], unit)


def _least_error(evidence: Evidence, group: str) -> list[float]:
    assert evidence.errors is not None
    return evidence.errors[group].tolist()


RULES: dict[str, Rule] = {
    'uniform': Rule('the same share of every group', _uniform, least_maximum),
    'proportional': Rule(
        "in proportion to S_ℓ, the sum of a group's sensitivities",
        _proportional,
        least_maximum,
        'sensitivities',
    ),
    'equal_error': Rule(
        'the same error bound ε of random selection everywhere, U(m) distinct channels expected '
        '(PFP)',
        _equal_error,
        least_maximum,
        'sensitivities',
    ),
    'equal_sum': Rule(
        'the same sum of pruned sensitivities, the bound of deterministic selection, everywhere',
        _equal_sum,
        least_maximum,
        'sensitivities',
    ),
    'retained_share': Rule(
        'the largest product of the shares of score retained', _retained_share, least_sum
    ),
    'global_ranking': Rule(
        'one threshold on the scores of all groups', _global_ranking, least_maximum
    ),
    'least_error': Rule(
        'the least sum of the errors that the scores come with', _least_error, least_sum, 'errors'
    ),
}

DEFAULT_RULES = {'sensitivities': 'equal_error', 'errors': 'least_error', None: 'uniform'}


def find_rule(name: str, evidence: Evidence) -> Rule:
    """Return a rule; raise PruningError where it is unknown or needs other evidence."""
    if name not in RULES:
        raise PruningError(f'unknown allocation {name!r}; there are {", ".join(RULES)}')
    rule = RULES[name]
    if rule.needs in (None, evidence.offers):
        return rule
    if rule.needs == 'sensitivities':
        raise PruningError(
            f'allocation {name!r} divides by sensitivities; {evidence.criterion!r} scores have none'
        )
    raise PruningError(
        f"allocation {name!r} needs scores that come with errors, as joint_error's do; "
        f'{evidence.criterion!r} scores have none'
    )


def default_rule(evidence: Evidence) -> str:
    """Return the rule that makes most of what the evidence offers."""
    return DEFAULT_RULES[evidence.offers]


def _runs(evidence: Evidence, group: str) -> tuple[Tensor, int]:
    """Return the sums of what is kept or goes together, and how many channels that are."""
    unit = evidence.structure.groups[group].unit
    return in_runs(evidence.values[group], unit), unit


def _by_channels(curve: list[float], unit: int) -> list[float]:
    return [curve[kept // unit] for kept in range(unit * (len(curve) - 1) + 1)]


def _descending(values: Tensor) -> Tensor:
    return values.to(torch.float64).sort(descending=True).values


def blocks_for(structure: Structure, round_to: int | None) -> Widths:
    """Return the block of each group: of its kept channels all are multiples.

    With None the largest power of two that is at most a sixty-fourth of the group and at most 16,
    what engines compute at once, and costs no more than a small share of the network: of a thin
    layer, or of a network of few groups, a larger block is too much to lose at once. Channels that
    go in runs go in whole ones.
    """
    if round_to is not None and round_to < 1:
        raise PruningError(f'round_to: must be at least 1 channel, got {round_to}')
    found = {}
    for group in structure.groups.prunable:
        if (block := round_to) is None:
            block = 2 ** max(0, min(4, (group.channels // 64).bit_length() - 1))
            saved = structure.macs - structure.size({group.name: group.channels - block}).macs
            while block > 1 and saved > _LARGEST_BLOCK * structure.macs:
                block, saved = block // 2, saved / 2
        found[group.name] = math.lcm(block, group.unit)
    return found


def _rank_curves(
    ranks: Mapping[str, Tensor], round_to: int | None
) -> tuple[dict[str, list[float]], Widths]:
    """Return, by `rank_of(layer)`, errors at each rank up to the full one, and blocks of ranks.

    Ranks are multiples of the engine's block, and few enough to be compared.
    """
    curves, blocks = {}, {}
    for layer, each in ranks.items():
        full = len(each) - 1
        block = round_to or 1
        block *= max(1, math.ceil(full / (_RANKS * block)))
        if block < full:
            curves[rank_of(layer)] = each.tolist()
            blocks[rank_of(layer)] = block
    return curves, blocks


def widths_for(
    evidence: Evidence,
    budget: Budget,
    *,
    rule: str,
    round_to: int | None,
    error_at: Callable[[str, int], float] | None = None,
    ranks: Mapping[str, Tensor] | None = None,
) -> Widths:
    """Return the width of every group, within the budget; and ranks of layers that are two then.

    Args:
        evidence: sensitivities or scores, whichever the rule needs.
        budget: share of multiply-accumulates or parameters, milliseconds, or an error.
        rule: a name in `RULES`.
        round_to: kept channels are multiples of this, one block at least; see `blocks_for`.
        error_at: for an error as budget: the a-priori error of a group at a width.
        ranks: of layers that may become two, the errors at each rank; those that make nothing
            faster, or smaller, at the widths that are found are left out of the result.

    Raises:
        BudgetError: not even one block per group is within the budget; says what is.
        PruningError: unknown rule, missing evidence, or a block out of range.
    """
    structure = evidence.structure
    blocks = blocks_for(structure, round_to)
    if ranks is not None and (isinstance(budget, ErrorBound) or rule != 'least_error'):
        raise PruningError(
            "ranks: are divided with channels by the rule 'least_error', and by a budget of MACs, "
            'parameters or milliseconds'
        )
    if isinstance(budget, ErrorBound):
        assert error_at is not None
        return _within_error(structure, budget.epsilon, blocks, error_at)
    chosen = find_rule(rule, evidence)
    curves = {name: chosen.curve(evidence, name) for name in structure.channels}
    if ranks:
        own, own_blocks = _rank_curves(ranks, round_to)
        curves, blocks = curves | own, blocks | own_blocks
    floors = floor_widths({name: len(curve) - 1 for name, curve in curves.items()}, blocks)
    size, allowed = _divided(structure, budget, blocks, floors)
    widths = chosen.engine(curves, size, allowed, blocks)
    return {
        name: width
        for name, width in widths.items()
        if not is_rank(name) or size(widths | {name: len(curves[name]) - 1}) > size(widths)
    }


def _divided(
    structure: Structure,
    budget: Macs | Params | Latency,
    blocks: Mapping[str, int],
    floors: Widths,
) -> tuple[SizeOf, float]:
    """Return what the budget divides as a function of widths, and how much of it there is.

    Raises BudgetError where one block per group is too much, or there is nothing to divide.
    """
    if not structure.channels:
        raise BudgetError(f'a budget of {budget} cannot be met: {structure.nothing_to_prune()}')
    block = max(blocks[name] for name in structure.channels)
    if isinstance(budget, Latency):
        latency = latency_of(structure, budget.table)
        least_ms = latency(floors)
        if least_ms > budget.ms:
            raise BudgetError(
                f'a budget of {budget} cannot be met with blocks of {block} channels; the '
                f'nearest is {math.ceil(1e3 * least_ms) / 1e3:g} ms ({latency({}):.4g} ms whole)'
            )
        return latency, budget.ms

    def size(widths: Mapping[str, float]) -> float:
        found = structure.size(widths, cheapest=True)
        return found.macs if isinstance(budget, Macs) else found.parameters

    dense = structure.macs if isinstance(budget, Macs) else structure.parameters
    least = size(floors)
    allowed = math.floor(dense * budget.share)
    if least > allowed + 0.5:
        share = min(1.0, math.floor(1e4 * least / dense + 1) / 1e4)  # rounded up, and never below
        raise BudgetError(
            f'a budget of {budget} cannot be met with blocks of {block} channels; the nearest '
            f'is {share:g} ({round(least):,} of {dense:,}); allow it or smaller blocks'
            f'{_kept_whole(structure)}'
        )
    return size, allowed + 0.5


def _kept_whole(structure: Structure) -> str:
    """Say what stands in the way beside blocks, if anything does."""
    others = {
        layer: why
        for layer, why in structure.groups.not_pruned.items()
        if not why.startswith(('reaches the output', 'asked to keep'))
    }
    if not others:
        return ''
    layer, why = next(iter(others.items()))
    return f'; {len(others)} layers are kept whole, such as {layer}, which {_shortened(why)}'


def _shortened(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f'{text[:most]} …'


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
