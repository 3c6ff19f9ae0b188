"""Rules of allocation: each is the error that a group is said to have with k channels kept.

Which engine divides the budget follows from what the errors mean: bounds are equalised (the
largest counts), losses are added up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pruned_perception.pruning.allocation.engines import Engine, least_maximum, least_sum
from pruned_perception.pruning.bounds import draws_for_all
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.scores import Scores, in_runs
from pruned_perception.pruning.sensitivity import Sensitivity

Evidence = Sensitivity | Scores

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
    assert isinstance(evidence, Scores)
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


def find_rule(name: str, evidence: Evidence) -> Rule:
    """Return a rule; raise PruningError where it is unknown or needs other evidence."""
    if name not in RULES:
        raise PruningError(f'unknown allocation {name!r}; there are {", ".join(RULES)}')
    rule = RULES[name]
    if rule.needs == 'sensitivities' and not isinstance(evidence, Sensitivity):
        raise PruningError(
            f'allocation {name!r} divides by sensitivities; {evidence.criterion!r} scores have none'
        )
    if rule.needs == 'errors' and getattr(evidence, 'errors', None) is None:
        with_errors = 'joint_error, end_to_end, fisher'
        raise PruningError(f'allocation {name!r} needs scores that come with errors: {with_errors}')
    return rule


def tail_sums(values: Tensor) -> list[float]:
    """Return, for k = 0 … c, the sum of all but the k highest values."""
    ascending = values.double().sort().values.tolist()
    return [0.0, *itertools.accumulate(ascending)][::-1]


def _runs(evidence: Evidence, group: str) -> tuple[Tensor, int]:
    """Return the sums of what is kept or goes together, and how many channels that are."""
    unit = evidence.structure.groups[group].unit
    return in_runs(evidence.values[group], unit), unit


def _by_channels(curve: list[float], unit: int) -> list[float]:
    return [curve[kept // unit] for kept in range(unit * (len(curve) - 1) + 1)]


def _descending(values: Tensor) -> Tensor:
    return values.to(torch.float64).sort(descending=True).values
