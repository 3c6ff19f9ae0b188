"""Backward elimination on a quadratic form, shared by `joint_error` and `thinet`."""

from __future__ import annotations

import torch
from torch import Tensor


def eliminate(form: Tensor, unit: int = 1) -> tuple[Tensor, Tensor]:
    """Remove channels one by one, each time the one that makes 1ᵀ_P form 1_P grow least.

    Args:
        form: (c, c) positive semi-definite; the error of pruning the set P is the sum of its
            entries over P × P.
        unit: channels that are kept or go together, in runs of so many.

    Returns:
        Scores (c,): the order of elimination, from 1/c for the first to 1 for the last; and the
        errors (c + 1,) at k = 0 … c channels kept; for runs, those of the whole runs within k.
    """
    if unit > 1:
        runs = form.unflatten(0, (-1, unit)).sum(1).unflatten(1, (-1, unit)).sum(2)
        scores, errors = eliminate(runs)
        return scores.repeat_interleave(unit), errors.repeat_interleave(unit)[: len(form) + 1]
    channels = len(form)
    scores = torch.zeros(channels, dtype=torch.float64)
    errors = torch.zeros(channels + 1, dtype=torch.float64)
    diagonal = form.diagonal().double()
    beside = torch.zeros(channels, dtype=torch.float64)  # Σ over the pruned of form[j, ·]
    total = torch.zeros((), dtype=torch.float64)
    gone = torch.zeros(channels, dtype=torch.bool)
    for step in range(1, channels + 1):
        growth = (diagonal + 2 * beside).masked_fill(gone, float('inf'))
        least = int(growth.argmin())
        total = (total + growth[least]).clamp(min=0)  # rounding must not make it negative
        gone[least] = True
        scores[least] = step / channels
        errors[channels - step] = total
        beside += form[least].double()
    # Removing more can cancel what was lost before, but nothing relies on such luck.
    return scores, errors.flip(0).cummax(0).values.flip(0)
