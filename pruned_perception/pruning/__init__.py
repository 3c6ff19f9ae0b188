# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Pruning with guarantees: sensitivity → prediction → plan → surgery → recalibration.

For any network that can be traced; every step is a function of plain objects, and nothing is
pruned before `plan.apply`.

Names are imported when they are used: prediction needs no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruned_perception.pruning.budget import Budget, ErrorBound, Latency, Macs, Params
    from pruned_perception.pruning.errors import BudgetError, PruningError
    from pruned_perception.pruning.estimation import estimate_sensitivity
    from pruned_perception.pruning.graph.channels import ChannelGroup, ChannelGroups, Slice
    from pruned_perception.pruning.graph.cost import NetworkCost, count
    from pruned_perception.pruning.outcome import Outcome, finish, output_error, prune
    from pruned_perception.pruning.plan import Plan, Planner, allocate, make_plan, score
    from pruned_perception.pruning.prediction import Curve, predict
    from pruned_perception.pruning.recalibration import recalibrate
    from pruned_perception.pruning.scores import Evidence, Scores
    from pruned_perception.pruning.sensitivity import Sensitivity
    from pruned_perception.pruning.structure import Structure
    from pruned_perception.pruning.surgery import find_groups, mask_channels, slice_channels
    from pruned_perception.pruning.tracing import trace

_FROM = {
    'budget': ('Budget', 'ErrorBound', 'Latency', 'Macs', 'Params'),
    'errors': ('BudgetError', 'PruningError'),
    'estimation': ('estimate_sensitivity',),
    'graph.channels': ('ChannelGroup', 'ChannelGroups', 'Slice'),
    'graph.cost': ('NetworkCost', 'count'),
    'outcome': ('Outcome', 'finish', 'output_error', 'prune'),
    'plan': ('Plan', 'Planner', 'allocate', 'make_plan', 'score'),
    'prediction': ('Curve', 'predict'),
    'recalibration': ('recalibrate',),
    'scores': ('Evidence', 'Scores'),
    'sensitivity': ('Sensitivity',),
    'structure': ('Structure',),
    'surgery': ('find_groups', 'mask_channels', 'slice_channels'),
    'tracing': ('trace',),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [
    'Budget',
    'BudgetError',
    'ChannelGroup',
    'ChannelGroups',
    'Curve',
    'ErrorBound',
    'Evidence',
    'Latency',
    'Macs',
    'NetworkCost',
    'Outcome',
    'Params',
    'Plan',
    'Planner',
    'PruningError',
    'Scores',
    'Sensitivity',
    'Slice',
    'Structure',
    'allocate',
    'count',
    'estimate_sensitivity',
    'find_groups',
    'finish',
    'make_plan',
    'mask_channels',
    'output_error',
    'predict',
    'prune',
    'recalibrate',
    'score',
    'slice_channels',
    'trace',
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
