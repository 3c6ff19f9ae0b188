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

"""From a network to its structure: groups of coupled channels, and the cost of each layer."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import LAYERS, count
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.structure import InputSpec, LayerTerm, Structure
from pruned_perception.pruning.surgery import find_groups


@on_cpu
def trace(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    ignored_layers: Collection[str] = (),
    calibration: Iterable[Batch] | None = None,
) -> Structure:
    """Find the groups and the costs of `model`, which is left untouched.

    Args:
        model: any module whose forward computes the same each time.
        example_inputs: its positional inputs.
        ignored_layers: names of layers whose outputs must stay.
        calibration: batches of inputs (a list), to verify on beside the example inputs.

    Raises:
        PruningError: the model cannot be traced, multiplies nothing, or a name in `ignored_layers`
            is no layer of it.

    Warns:
        UserWarning: operators whose multiply-accumulates are not counted; names them.
    """
    model = plain(model)
    groups = find_groups(
        model, example_inputs, ignored_layers=ignored_layers, calibration=calibration
    )
    cost = count(model, example_inputs)
    if not cost.macs:
        raise PruningError(f'{type(model).__name__} multiplies nothing: it has no MACs to save')
    if cost.not_counted:
        named = ', '.join(f'{name} ({calls} calls)' for name, calls in cost.not_counted.items())
        warnings.warn(
            f'{type(model).__name__}: {named} may multiply, but is not counted among the MACs',
            stacklevel=2,
        )
    modules = {name: each for name, each in model.named_modules() if isinstance(each, LAYERS)}
    macs = {layer.name: layer.macs for layer in cost.layers}
    shapes = {layer.name: layer.shapes for layer in cost.layers}
    made: dict[str, list[tuple[str, float]]] = {}
    read: dict[str, list[tuple[str, float]]] = {}
    for group in groups.prunable:
        for each in group.producers:
            share = len(each.indices) / _outputs(modules[each.layer])
            made.setdefault(each.layer, []).append((group.name, share))
        for each in group.consumers:
            if each.layer in groups.even or _mixes(modules.get(each.layer)):
                share = len(each.indices) / _inputs(modules[each.layer])
                read.setdefault(each.layer, []).append((group.name, share))
    terms = tuple(
        LayerTerm(
            layer=name,
            macs=macs.get(name, 0),
            weights=_numel(module.weight),
            bias=_numel(module.bias),
            outputs=tuple(made.get(name, ())),
            inputs=tuple(read.get(name, ())),
            shapes=shapes.get(name, ()),
        )
        for name, module in modules.items()
    )
    inputs = tuple(InputSpec.of(each) for each in example_inputs)
    return Structure(groups, terms, cost.macs, cost.parameters, inputs)


def _mixes(layer: nn.Module | None) -> bool:
    """Whether every output of the layer reads every input; a depthwise layer passes them on.

    A grouped layer of which whole groups go is like a depthwise one.
    """
    return layer is not None and getattr(layer, 'groups', 1) == 1


def _outputs(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _inputs(layer: Any) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _numel(tensor: Any) -> int:
    return 0 if tensor is None else int(tensor.numel())
