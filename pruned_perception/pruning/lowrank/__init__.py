"""Low-rank decomposition: ranks → plan → two layers in the place of one."""

from pruned_perception.pruning.lowrank.decomposition import (
    Decomposition,
    LayerPlan,
    Projection,
    decompose,
)
from pruned_perception.pruning.lowrank.ranks import Method, get, names

__all__ = ['Decomposition', 'LayerPlan', 'Method', 'Projection', 'decompose', 'get', 'names']
