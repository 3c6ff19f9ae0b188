"""How much each channel matters to what reads it: the three sensitivities, and scores."""

from pruned_perception.pruning.sensitivity.estimation import (
    DEFINITIONS,
    Sensitivity,
    estimate_sensitivity,
)
from pruned_perception.pruning.sensitivity.scores import Scores

__all__ = [
    'DEFINITIONS',
    'Scores',
    'Sensitivity',
    'estimate_sensitivity',
]
