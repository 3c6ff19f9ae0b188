"""From a network to a plan in one call: trace, score, allocate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from pruned_perception.pruning import criteria
from pruned_perception.pruning.allocation import RULES, Evidence
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.plan import Plan, allocate
from pruned_perception.pruning.structure import Structure, trace


def score(
    model: nn.Module,
    criterion: str,
    *,
    example_inputs: Sequence[Tensor],
    calibration: Iterable[Batch] | None = None,
    loss: criteria.Loss | None = None,
    seed: int = 0,
    structure: Structure | None = None,
) -> Evidence:
    """Return what a criterion says of the network: sensitivities or scores.

    Args:
        model: any traceable network.
        criterion: a name in `criteria.names()`, or the path of a Python file with `score`.
        example_inputs: the network's positional inputs.
        calibration: batches of inputs, for criteria that look at data.
        loss: for criteria that differentiate, see `criteria.Subject`.
        seed: of positions, projections and random scores.
        structure: of the network, if it has been traced already.
    """
    found = structure or trace(model, example_inputs)
    batches = list(calibration) if isinstance(calibration, Iterator) else calibration
    subject = criteria.Subject(model, found, batches, loss, seed)
    return criteria.get(criterion).score(subject)


def make_plan(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    budget: Budget | None = None,
    widths: Mapping[str, float] | None = None,
    criterion: str = 'filter_l2',
    allocation: str | None = None,
    allocation_by: str | None = None,
    selection: str = 'deterministic',
    round_to: int = 16,
    seed: int = 0,
    keep: Collection[str] = (),
    calibration: Iterable[Batch] | None = None,
    loss: criteria.Loss | None = None,
) -> Plan:
    """Choose the channels to keep.

    Args:
        model: the dense network; untouched.
        example_inputs: its positional inputs.
        budget: see `plan.allocate`.
        widths: instead of a budget, see `plan.allocate`.
        criterion: what ranks the channels, see `score`.
        allocation: how the budget is divided, see `allocation.RULES`.
        allocation_by: the criterion that the allocation reads, where it is another one; by
            default the absolute sensitivity where the rule divides by sensitivities and the
            criterion has none.
        selection: how channels are chosen, see `plan.allocate`.
        round_to: kept channels are multiples of this.
        seed: of everything random.
        keep: layers whose outputs stay, beside those of the network.
        calibration: batches of inputs without labels.
        loss: for criteria that differentiate.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: names or options that do not fit, or a network that cannot be traced.
    """
    structure = trace(model, example_inputs)
    batches = list(calibration) if isinstance(calibration, Iterator) else calibration

    def scored(name: str) -> Evidence:
        return score(
            model,
            name,
            example_inputs=example_inputs,
            calibration=batches,
            loss=loss,
            seed=seed,
            structure=structure,
        )

    ranking = scored(criterion)
    rule = RULES.get(allocation or '')
    if allocation_by is None and rule is not None and rule.needs == 'sensitivities':
        allocation_by = None if criterion in ('quadrants', 'absolute', 'summed') else 'absolute'
    evidence = ranking if allocation_by is None else scored(allocation_by)
    return allocate(
        evidence,
        budget,
        widths=widths,
        rule=allocation,
        scores=ranking,
        selection=selection,
        round_to=round_to,
        seed=seed,
        keep=keep,
    )
