"""Connection sensitivity of channels: |∂L/∂gate| of a gate on each of them.

Source: Lee et al., SNIP: single-shot network pruning based on connection sensitivity (ICLR 2019),
for channels instead of weights: the gradients of a batch are averaged before the absolute value
is taken, where Taylor squares them example by example. Over several batches, the absolute values
are averaged. It wants a loss with labels; with the random projection it measures little.
"""

from __future__ import annotations

import torch

from pruned_perception.pruning.criteria.gradients import channel_terms
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.scores import Scores


def score(subject: Subject) -> Scores:
    """Return, per group, the mean over batches of |mean over examples of Σ g · a|."""
    totals = {
        name: torch.zeros(channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    batches = 0
    for terms in channel_terms(subject, 'snip'):
        batches += 1
        for name, values in terms.items():
            totals[name] += values.mean(0).abs()
    return subject.scores('snip', {name: each / batches for name, each in totals.items()})
