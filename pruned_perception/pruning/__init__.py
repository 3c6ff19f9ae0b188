"""Pruning with guarantees: sensitivity → prediction → plan → surgery → recalibration.

For any network that can be traced; every step is a function of plain objects, and nothing is
pruned before `prune`.
"""

from pruned_perception.pruning.budget import Budget, Error, Macs, Params
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.finetuning.recalibration import recalibrate
from pruned_perception.pruning.network.cost import NetworkCost, count
from pruned_perception.pruning.network.groups import ChannelGroup, ChannelGroups, Slice
from pruned_perception.pruning.network.structure import Structure, trace
from pruned_perception.pruning.network.surgery import find_groups, mask_channels, slice_channels
from pruned_perception.pruning.pipeline.saving import load_pruned, save_pruned
from pruned_perception.pruning.planning.method import make_plan, score
from pruned_perception.pruning.planning.plan import Plan, allocate, prune
from pruned_perception.pruning.planning.prediction import Curve, predict
from pruned_perception.pruning.sensitivity.estimation import Sensitivity, estimate_sensitivity
from pruned_perception.pruning.sensitivity.scores import Scores

__all__ = [
    'Budget',
    'BudgetError',
    'ChannelGroup',
    'ChannelGroups',
    'Curve',
    'Error',
    'Macs',
    'NetworkCost',
    'Params',
    'Plan',
    'PruningError',
    'Scores',
    'Sensitivity',
    'Slice',
    'Structure',
    'allocate',
    'count',
    'estimate_sensitivity',
    'find_groups',
    'load_pruned',
    'make_plan',
    'mask_channels',
    'predict',
    'prune',
    'recalibrate',
    'save_pruned',
    'score',
    'slice_channels',
    'trace',
]
