"""Sensitivity per position and sign quadrant, as published for provable filter pruning.

Source: Liebenwein et al., Provable filter pruning (ICLR 2020); see `sensitivity`.
"""

from __future__ import annotations

from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.sensitivity import Sensitivity


def score(subject: Subject) -> Sensitivity:
    """Return the sensitivities of all consumers."""
    return subject.sensitivity('quadrants')
