"""From groups and ranks to a plan with errors and costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from pruned_perception.pruning.calibration import CalibrationRecord
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.lowrank.decomposition import Decomposition, LayerPlan, Projection
from pruned_perception.pruning.lowrank.factorisation import (
    Factors,
    error_bound,
    relative_error,
    slices,
    truncate,
)
from pruned_perception.pruning.lowrank.layers import (
    Candidates,
    LayerShape,
    LayerSize,
    find_layers,
)


def make_decomposition(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    choice: Mapping[str, tuple[int, int]],
    *,
    keep: Collection[str] = (),
) -> Decomposition:
    """Return the plan that gives each named layer its groups k and rank j.

    Args:
        model: the dense network; untouched.
        example_inputs: its positional inputs.
        choice: (k, j) of layers, for example another plan's `choice`.
        keep: names of layers to leave alone.

    Raises:
        PruningError: a layer that cannot be decomposed, or not like this.
    """
    network = find_layers(model, example_inputs, keep=keep)
    for name, (groups, rank) in choice.items():
        if name not in network.shapes:
            reason = network.left_alone.get(name, 'is no layer of this network')
            raise PruningError(f'choice: {name!r} {reason}')
        shape = network.shapes[name]
        if groups not in shape.groupings:
            possible = ', '.join(map(str, shape.groupings))
            raise PruningError(
                f'choice: {name!r} has {possible} groups or one of them, not {groups}'
            )
        if rank < 1 or not shape.shrinks(groups, rank):
            raise PruningError(
                f'choice: {name!r} does not shrink at rank {rank} in {groups} groups; '
                f'{_ranks(shape, groups)}'
            )
    return assemble('given', model, network, choice)


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
    for name, shape in network.shapes.items():
        if name not in choice:
            smaller = any(shape.shrinks(groups, 1) for groups in shape.groupings)
            left_alone[name] = 'dense by choice' if smaller else 'no smaller even at rank 1'
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
    )


def factors_of(parts: Tensor, rank: int, projection: Projection | None) -> Factors:
    """Return the factors of a layer's slices: truncated, or projected on the given basis."""
    if projection is None:
        return truncate(parts, rank)
    basis = projection.basis.to(parts)
    return Factors(basis.T @ parts, basis[None])


def _ranks(shape: LayerShape, groups: int) -> str:
    ranks = [j for j in range(1, shape.full_rank(groups) + 1) if shape.shrinks(groups, j)]
    return f'ranks 1 to {ranks[-1]} do' if ranks else 'no rank does'
