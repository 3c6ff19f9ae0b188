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

"""Torch-Pruning's own pruners, pruned to a given share of multiply-accumulates.

For `compare` as methods of kind `function`: importance and scope are the library's, nothing of ours
chooses. Its pruners know ratios of channels only, so the ratio is searched until the network costs
what was asked: within `TOLERANCE`, and where its steps are coarser than that, the cheapest network
above. In iterations (`schedule: cascade` of a comparison, or `cuts` here) importances are measured
again on the pruned, recalibrated network.

Source: Fang et al., DepGraph: Towards any structural pruning (CVPR 2023); Fang et al., Isomorphic
pruning for vision models (ECCV 2024).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from pruned_perception.pruning import Macs, PruningError, count, recalibrate
from pruned_perception.training.task import Task

TOLERANCE = 0.01  # by which costs may differ from what was asked, as a share of it
STEP, HALVINGS = 0.1, 10  # of the ratio, in search of the one that costs what is asked
LABELLED_BATCHES = 2
SCOPES = ('local', 'global', 'isomorphic')

Importance = Callable[[Any], Tensor | None]

IMPORTANCES: dict[str, Callable[[], Importance]] = {
    'l1': lambda: tp.importance.MagnitudeImportance(p=1, group_reduction='first'),
    'l2': lambda: tp.importance.MagnitudeImportance(p=2, group_reduction='first'),
    'group_l1': lambda: tp.importance.GroupMagnitudeImportance(p=1),
    'group_l2': lambda: tp.importance.GroupMagnitudeImportance(p=2),
    'bn_scale': tp.importance.BNScaleImportance,
    'lamp': tp.importance.LAMPImportance,
    'fpgm': tp.importance.FPGMImportance,
    'taylor': lambda: tp.importance.TaylorImportance(group_reduction='first'),
    'group_taylor': tp.importance.GroupTaylorImportance,
}
NEED_GRADIENTS = ('taylor', 'group_taylor')


def prune(
    task: Task,
    budget: Macs,
    seed: int,
    *,
    importance: str,
    scope: str = 'global',
    cuts: int = 1,
    max_pruning_ratio: float = 1.0,
) -> nn.Module:
    """Return a smaller copy of the task's network, not recalibrated after the last cut.

    Args:
        task: `training` and `step` give the labelled loss of Taylor's importances.
        budget: share of the multiply-accumulates.
        seed: of the labelled batches.
        importance: a name in IMPORTANCES.
        scope: 'local' has one ratio for every group, 'global' one threshold for all of them,
            'isomorphic' one ratio for all groups of the same kind.
        cuts: in how many steps, by the same factor each.
        max_pruning_ratio: the library's guard against cutting a layer too far.

    Raises:
        PruningError: unknown names, or a budget out of the pruner's reach.
    """
    if importance not in IMPORTANCES or scope not in SCOPES:
        raise PruningError(
            f'importance {importance!r}, scope {scope!r}: importances are '
            f'{", ".join(IMPORTANCES)}, scopes {", ".join(SCOPES)}'
        )
    dense = count(task.model, task.example_inputs).macs
    network = task.model
    for number in range(1, cuts + 1):
        current = network if number == 1 else recalibrate(network, task.calibration)
        needed = importance in NEED_GRADIENTS
        gradients = _gradients(task, current, seed) if needed else {}
        cutter = _Cutter(task, current, gradients, importance, scope, max_pruning_ratio)
        network = _closest(cutter, dense * budget.share ** (number / cuts))
        for name, parameter in task.model.named_parameters():  # the library thaws what it cuts
            network.get_parameter(name).requires_grad_(parameter.requires_grad)
    return network


@dataclass(frozen=True)
class _Cutter:
    """Cuts copies of a network."""

    task: Task
    network: nn.Module
    gradients: Mapping[str, Tensor]
    importance: str
    scope: str
    max_pruning_ratio: float

    def cut(self, ratio: float, ratios: Mapping[str, float] | None = None) -> tuple[int, nn.Module]:
        """Return the multiply-accumulates and the network cut by a ratio; `ratios`: by group."""
        small = copy.deepcopy(self.network)
        for name, parameter in small.named_parameters():  # not copied with them
            parameter.grad = self.gradients.get(name)
        own = {small.get_submodule(name): each for name, each in (ratios or {}).items()}
        self._pruner(small, ratio, own).step()
        return count(small, self.task.example_inputs).macs, small

    def groups(self) -> list[str]:
        """Return the first layer of every group, in the order of the network."""
        pruner = self._pruner(copy.deepcopy(self.network), 0.0, {})
        found = pruner.DG.get_all_groups(
            ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
        )
        return [pruner.DG._module2name[group[0].dep.target.module] for group in found]

    def _pruner(self, network: nn.Module, ratio: float, ratios: Mapping[nn.Module, float]) -> Any:
        *_, classifier = (each for each in network.modules() if isinstance(each, nn.Linear))
        return tp.pruner.BasePruner(
            network,
            self.task.example_inputs,
            importance=_of_trained(IMPORTANCES[self.importance]()),
            global_pruning=self.scope != 'local',
            isomorphic=self.scope == 'isomorphic',
            pruning_ratio=ratio,
            pruning_ratio_dict=dict(ratios),
            max_pruning_ratio=self.max_pruning_ratio,
            ignored_layers=[classifier],
        )


def _closest(cutter: _Cutter, wanted: float) -> nn.Module:
    """Return the network that costs what is wanted, as nearly as the pruner's steps allow."""
    low, high, above = 0.0, 0.0, cutter.cut(0.0)
    below = above
    while below[0] >= wanted:
        # In steps: a ratio too large cuts less, since groups are left whole that would vanish.
        low, high, above = high, high + STEP, below
        if high >= 1:
            raise PruningError(
                f'Torch-Pruning, {cutter.scope} {cutter.importance}: no ratio of channels costs '
                f'{wanted:,.0f} multiply-accumulates or less'
            )
        below = cutter.cut(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = cutter.cut(middle)
        if found[0] >= wanted:
            low, above = middle, found
        else:
            high, below = middle, found
    if cutter.scope == 'local' and not _near(above, wanted) and not _near(below, wanted):
        # All groups reach their next channel at the same ratio: let some do, some not.
        groups = cutter.groups()
        first, last = 0, len(groups)
        while last - first > 1:
            spared = (first + last) // 2
            found = cutter.cut(high, dict.fromkeys(groups[:spared], low))
            if found[0] >= wanted:
                last, above = spared, found
            else:
                first, below = spared, found
    if wanted - below[0] < min(above[0] - wanted, TOLERANCE * wanted):
        return below[1]
    return above[1]


def _near(found: tuple[int, nn.Module], wanted: float) -> bool:
    return abs(found[0] - wanted) <= TOLERANCE * wanted


def _of_trained(importance: Importance) -> Importance:
    """Return the importance without frozen layers, whose weights say nothing of a channel.

    Layers that make the channels come first: for a residual stream that began with a frozen
    shortcut, `group_reduction='first'` would else be the norm of whatever is next.
    """

    def trained(item: Any) -> bool:
        return all(each.requires_grad for each in item.dep.target.module.parameters())

    def reads(item: Any) -> bool:
        return item.dep.handler is not tp.prune_conv_out_channels

    return lambda group: importance(sorted(filter(trained, group.items), key=reads))


def _gradients(task: Task, network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return the gradient of the mean loss of labelled batches, in evaluation mode."""
    if task.training is None or task.step is None:
        raise PruningError('Taylor importance needs a task with `training` and `step`')
    source = copy.deepcopy(network).eval()
    source.zero_grad()
    for batch in itertools.islice(task.training(seed), LABELLED_BATCHES):
        (task.step(source, batch) / LABELLED_BATCHES).backward()
    return {name: each.grad for name, each in source.named_parameters() if each.grad is not None}
