"""ℓ1 norm of the filters that make a channel.

Source: Li et al., Pruning filters for efficient ConvNets (ICLR 2017), section 3.1.
"""

from __future__ import annotations

from pruned_perception.pruning.criteria.filter_norm import filter_norms
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.scores import Scores


def score(subject: Subject) -> Scores:
    """Return ℓ1 norms, relative to their layer's mean."""
    return subject.scores('filter_l1', filter_norms(subject, order=1))
