"""Low-rank decomposition: ranks → plan → two layers in the place of one."""

from pruned_perception.pruning.lowrank.decomposition import (
    Decomposition,
    LayerPlan,
    Projection,
)
from pruned_perception.pruning.lowrank.ranks import RankMethod, get, names

__all__ = ['Decomposition', 'LayerPlan', 'Projection', 'RankMethod', 'get', 'names']
