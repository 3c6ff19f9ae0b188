"""Pruning: scores → allocation → plan → surgery → recalibration, for any traceable network."""

from pruned_perception.pruning.cost import NetworkCost, count
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.groups import ChannelGroup, ChannelGroups, Slice
from pruned_perception.pruning.plan import Plan, make_plan, prune
from pruned_perception.pruning.recalibration import recalibrate
from pruned_perception.pruning.surgery import find_groups, mask_channels, slice_channels

__all__ = [
    'BudgetError',
    'ChannelGroup',
    'ChannelGroups',
    'NetworkCost',
    'Plan',
    'PruningError',
    'Slice',
    'count',
    'find_groups',
    'make_plan',
    'mask_channels',
    'prune',
    'recalibrate',
    'slice_channels',
]
