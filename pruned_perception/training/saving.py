"""A pruned network in a file: tensors and plain data, from which it is cut again.

No pickle: the file holds the weights and the plans, not the module. `load_pruned` cuts the parent,
whatever its weights are by then, after the same plans and puts the weights in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pruned_perception.pruning import lowrank, sparsity
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.lowrank import Decomposition
from pruned_perception.pruning.plan import Plan, prune
from pruned_perception.pruning.sparsity import SparsityPlan
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint
from pruned_perception.training.method import PLANS
from pruned_perception.training.task import Task

AnyPlan = Plan | Decomposition | SparsityPlan


def save_pruned(path: str | os.PathLike[str], model: nn.Module, plans: Sequence[AnyPlan]) -> None:
    """Write the weights of `model`, and the plans by which it was made of its parent, in order."""
    entries = [{'kind': _kind(plan), 'plan': plan.to_dict()} for plan in plans]
    save_checkpoint(Path(path), {'state_dict': model.state_dict(), 'plans': entries})


def load_pruned(task: Task, path: str | os.PathLike[str]) -> nn.Module:
    """Return the network in `path`: the task's, cut after the file's plans, with its weights.

    The task's own network is untouched; the result is in its mode.

    Raises:
        CheckpointError: no such file, or a damaged one.
        PruningError: something else than `save_pruned` wrote, or of another network.
    """
    small = task.model
    try:
        for plan in read_plans(path):
            small = cut_after(plan, small)
        small.load_state_dict(_content(path)['state_dict'])
    except (PruningError, RuntimeError) as error:
        why = ' '.join(' '.join(str(error).splitlines()[:2]).split())
        raise PruningError(f'{path}: does not fit {type(task.model).__name__}: {why}') from error
    return small


def read_plans(path: str | os.PathLike[str]) -> tuple[AnyPlan, ...]:
    """Return the plans of a file, in order; raises as `load_pruned`."""
    return tuple(PLANS[each['kind']].from_dict(each['plan']) for each in _content(path)['plans'])


def cut_after(plan: AnyPlan, model: nn.Module) -> nn.Module:
    """Return a copy of `model` that is pruned after any kind of plan."""
    if isinstance(plan, Plan):
        return prune(model, plan)
    if isinstance(plan, Decomposition):
        return lowrank.decompose(model, plan)
    return sparsity.apply(model, plan)


def _kind(plan: AnyPlan) -> str:
    return next(kind for kind, each in PLANS.items() if isinstance(plan, each))


def _content(path: str | os.PathLike[str]) -> dict[str, Any]:
    content = read_checkpoint(path)
    if not {'state_dict', 'plans'} <= set(content):
        raise PruningError(
            f'{path}: not a pruned network: it holds {", ".join(map(str, content))} instead of '
            'state_dict and plans'
        )
    return content
