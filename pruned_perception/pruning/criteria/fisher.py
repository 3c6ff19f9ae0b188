"""Joint Gauss–Newton error of the channels that go: second moments of their Taylor terms.

With t_j = Σ_p g · a, the derivative of the loss by a gate on channel j for one example, closing
the gates of a set P changes the loss by about −Σ_P t_j. The mean square over examples is the sum
of F = E[t tᵀ] over P × P: Taylor's criterion is its diagonal, and the rest knows what cancels.
With the default loss (a random projection of the outputs) it is the squared error of the outputs
themselves, in one currency for all groups: a knapsack over them needs no other weights.

Sources: Theis et al., Faster gaze prediction with dense networks and Fisher pruning (2018); Liu et
al., Group Fisher pruning (ICML 2021).
"""

from __future__ import annotations

import torch

from pruned_perception.pruning.criteria.elimination import eliminate
from pruned_perception.pruning.criteria.gradients import channel_terms
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.scores import Scores


def score(subject: Subject) -> Scores:
    """Return the order of elimination, and the squared errors that it leaves."""
    forms = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    examples = 0
    for terms in channel_terms(subject, 'fisher'):
        for name, values in terms.items():
            forms[name] += values.T @ values
        examples += len(next(iter(terms.values()), ()))
    groups = subject.structure.groups
    found = {name: eliminate(f / examples, groups[name].unit) for name, f in forms.items()}
    return subject.scores(
        'fisher',
        {name: scores for name, (scores, _) in found.items()},
        {name: errors for name, (_, errors) in found.items()},
    )
