"""Sensitivity of absolute contributions summed over positions; see `sensitivity`."""

from __future__ import annotations

from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.sensitivity import Sensitivity


def score(subject: Subject) -> Sensitivity:
    """Return the sensitivities of all consumers."""
    return subject.sensitivity('summed')
