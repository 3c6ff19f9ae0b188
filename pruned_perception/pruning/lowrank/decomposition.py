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

"""A decomposition: which layers become two, at which groups and rank, and what that costs.

`Decomposition.apply` replaces them; until then nothing is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import outside_inference_mode
from pruned_perception.pruning.lowrank.factorisation import (
    Factors,
    error_bound,
    factored_layer,
    relative_error,
    replace_layer,
    slices,
    truncate,
)
from pruned_perception.pruning.lowrank.layers import (
    Candidates,
    LayerSize,
    find_layers,
)
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.structure import InputSpec


@dataclass(frozen=True)
class LayerPlan:
    """One layer's groups k and rank j, its size before and after, and the error of its weight.

    `error` is ‖W − Ŵ‖₂ / σ₁(W), computed directly. `bound` is √k · max_i σ_{i,j+1} / σ₁(W) for
    truncated slices, None for projections, which do not minimise the weight's error.
    """

    groups: int
    rank: int
    dense_parameters: int
    parameters: int
    dense_macs: int
    macs: int
    error: float
    bound: float | None


@dataclass(frozen=True, eq=False)
class Projection:
    """Orthonormal columns `basis` (f, j) that a layer's outputs are projected on.

    `shift` (f,) is added to the bias, so that the outputs' mean stays as it was.
    """

    basis: Tensor
    shift: Tensor

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Projection)
            and torch.equal(self.basis, other.basis)
            and torch.equal(self.shift, other.shift)
        )


@dataclass(frozen=True)
class Decomposition(Record):
    """Groups and rank of each layer, the errors of the weights, and what the network will cost.

    Errors are relative to σ₁(W) ‖a‖ and not comparable with the ε of channel pruning, which is
    relative to the contributions to an output. Compare measured errors of the outputs instead.
    """

    method: str
    inputs: tuple[InputSpec, ...]
    dense_parameters: int
    parameters: int
    dense_macs: int
    macs: int
    layers: dict[str, LayerPlan]
    left_alone: dict[str, str]
    calibration: CalibrationRecord | None = None
    projections: dict[str, Projection] = field(default_factory=dict)
    predicted_ms: float | None = None
    """Of a budget of milliseconds: p50 that its latency table predicts."""
    kind: ClassVar[str] = 'low_rank'

    @property
    def masks(self) -> dict[str, Tensor]:
        """None: no weight is set to zero."""
        return {}

    @on_cpu
    @outside_inference_mode
    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` in which each layer of the plan is two; `model` is untouched.

        A layer `name` becomes `name.0`, which has its geometry, and `name.1`, which has its bias.
        `model` may have been pruned or decomposed before. In the result, whoever reads the
        structure sees ordinary layers: the ranks of one group are channels like others, a sliced
        `name.0` is a grouped convolution.

        Raises:
            PruningError: the plan is not for this network, or its forward needs the layer as it
                was.
            RuntimeError: the network does not cost what was planned (a defect of ours).
        """
        example = tuple(each.example() for each in self.inputs)
        _check_fits(model, self, example)
        small = copy.deepcopy(model)
        for name, each in self.layers.items():
            layer = small.get_submodule(name)
            parts = slices(layer, each.groups)
            projection = self.projections.get(name)
            bias = layer.bias.detach().cpu().double() if isinstance(layer.bias, Tensor) else None
            if projection is not None:
                bias = projection.shift if bias is None else bias + projection.shift
            factors = factors_of(parts, each.rank, projection)
            replace_layer(small, layer, factored_layer(layer, factors, bias))
        probe = copy.deepcopy(small).eval()
        try:
            probe(*example)
        except Exception as error:  # whatever the user's forward raises
            raise PruningError(
                f'{type(model).__name__} does not run when decomposed ({error}): name the layers '
                'whose attributes its forward reads in `ignored_layers`'
            ) from error
        real = count(probe, example)
        if (real.parameters, real.macs) != (self.parameters, self.macs):
            raise RuntimeError(
                f'planned {self.parameters} parameters and {self.macs} MACs, but the decomposed '
                f'network has {real.parameters} and {real.macs}'
            )
        return small

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in data.items() if k != 'predicted_ms' or v is not None}

    @property
    def choice(self) -> dict[str, tuple[int, int]]:
        """Groups k and rank j of each layer that is decomposed."""
        return {name: (each.groups, each.rank) for name, each in self.layers.items()}

    def to_text(self) -> str:
        """Return a table: groups, rank, size and relative error of each layer."""
        title = (
            f'{self.method}: {self.parameters:,} of {self.dense_parameters:,} parameters '
            f'({self.parameters / self.dense_parameters:.1%}), {self.macs:,} of '
            f'{self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%})'
        )
        if self.predicted_ms is not None:
            title += f', {self.predicted_ms:.3g} ms predicted'
        header = 'layer | groups:d | rank:d | parameters:,d | MACs:10,d | error:6.4f | bound:6.4f'
        rows: list[tuple[object, ...]] = [
            (name, each.groups, each.rank, each.parameters, each.macs, each.error, each.bound)
            for name, each in self.layers.items()
        ]
        rows += [(name, f'left alone: {why}') for name, why in self.left_alone.items()]
        return (
            f'{title}\n{Table.under(header, rows).to_text()}\n'
            'errors are relative to σ₁(W)·‖a‖: not comparable with channel pruning’s ε'
        )


def assemble(
    method: str,
    model: nn.Module,
    network: Candidates,
    choice: Mapping[str, tuple[int, int]],
    *,
    projections: Mapping[str, Projection] | None = None,
    calibration: CalibrationRecord | None = None,
) -> Decomposition:
    """Return the plan for a valid choice, with errors computed from the model's weights."""
    layers: dict[str, LayerPlan] = {}
    left_alone = dict(network.left_alone)
    projections = projections or {}
    faster = 0.0
    for name, shape in network.shapes.items():
        if name not in choice:
            none = 'no smaller even at rank 1' if shape.ms is None else 'faster at no rank'
            left_alone[name] = 'dense by choice' if shape.shrinkable else none
            continue
        groups, rank = choice[name]
        parts = slices(model.get_submodule(name), groups)
        projection = projections.get(name)
        size = shape.factored(groups, rank, shifted=projection is not None)
        layers[name] = LayerPlan(
            groups,
            rank,
            shape.dense.parameters,
            size.parameters,
            shape.dense.macs,
            size.macs,
            error=relative_error(parts, factors_of(parts, rank, projection)),
            bound=None if projection else error_bound(parts, rank),
        )
        if shape.ms is not None:
            faster += shape.ms[0] - shape.ms[rank]
    saved = LayerSize(
        sum(each.dense_parameters - each.parameters for each in layers.values()),
        sum(each.dense_macs - each.macs for each in layers.values()),
    )
    return Decomposition(
        method=method,
        inputs=network.inputs,
        dense_parameters=network.dense.parameters,
        parameters=network.dense.parameters - saved.parameters,
        dense_macs=network.dense.macs,
        macs=network.dense.macs - saved.macs,
        layers=layers,
        left_alone=left_alone,
        projections=dict(projections),
        calibration=calibration,
        predicted_ms=network.ms - faster if network.ms else None,
    )


def factors_of(parts: Tensor, rank: int, projection: Projection | None) -> Factors:
    """Return the factors of a layer's slices: truncated, or projected on the given basis."""
    if projection is None:
        return truncate(parts, rank)
    basis = projection.basis.to(parts)
    return Factors(basis.T @ parts, basis[None])


def _check_fits(model: nn.Module, plan: Decomposition, example: Sequence[Tensor]) -> None:
    network = find_layers(model, example)
    for name, each in plan.layers.items():
        if name not in network.shapes:
            reason = network.left_alone.get(name, 'is no layer of this network')
            raise PruningError(f'plan: {name!r} {reason}')
        shape = network.shapes[name]
        planned = LayerSize(each.parameters, each.macs)
        factored = shape.factored(each.groups, each.rank, shifted=name in plan.projections)
        if each.groups not in shape.groupings or factored != planned:
            raise PruningError(f'plan: {name!r} has another shape in this network')
    dense = network.dense
    if (dense.parameters, dense.macs) != (plan.dense_parameters, plan.dense_macs):
        raise PruningError(
            f'the plan is for a network of {plan.dense_parameters:,} parameters and '
            f'{plan.dense_macs:,} MACs, this one has {dense.parameters:,} and {dense.macs:,}'
        )
