"""Provable filter pruning: sensitivities of channels, under its three definitions.

Source: Liebenwein et al., Provable filter pruning (ICLR 2020); for the definitions see
`sensitivity`, for what follows from them `bounds`.
"""

from __future__ import annotations

from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.sensitivity import Sensitivity


@criterion
def quadrants(subject: Subject) -> Sensitivity:
    """Return sensitivities per position and sign quadrant, as published."""
    return subject.sensitivity('quadrants')


@criterion
def absolute(subject: Subject) -> Sensitivity:
    """Return sensitivities per position of absolute contributions."""
    return subject.sensitivity('absolute')


@criterion
def summed(subject: Subject) -> Sensitivity:
    """Return sensitivities of absolute contributions summed over positions."""
    return subject.sensitivity('summed')
