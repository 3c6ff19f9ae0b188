"""First-order Taylor expansion of the loss in each channel, squared.

Source: Molchanov et al., Importance estimation for neural network pruning (CVPR 2019): the loss
changes by about g · a if a channel's activation a is set to zero, g its gradient; per example,
summed over positions, squared, averaged over examples. With the default loss (a random projection
of the outputs) it is the Gauss–Newton estimate of the squared output error, without labels.
"""

from __future__ import annotations

import torch

from pruned_perception.pruning.criteria.gradients import channel_terms
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.scores import Scores


def score(subject: Subject) -> Scores:
    """Return, per group, the mean over examples of (Σ_p g · a)², consumers added before squaring.

    A channel that several consumers read is lost to all of them at once, hence their terms add.
    """
    totals = {
        name: torch.zeros(channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    examples = 0
    for terms in channel_terms(subject, 'taylor'):
        batch = 0
        for name, values in terms.items():
            totals[name] += values.square().sum(0)
            batch = len(values)
        examples += batch
    return subject.scores('taylor', {name: each / examples for name, each in totals.items()})
