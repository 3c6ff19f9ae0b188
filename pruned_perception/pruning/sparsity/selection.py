"""What a method is asked, what it answers, and the rule that most methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import CalibrationRecord
from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import BudgetError, PruningError

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Pool:
    """Layers that share a number of `weights` to keep."""

    layers: tuple[str, ...]
    weights: int


@dataclass(frozen=True)
class Request:
    """What a method may use, beside the network.

    Attributes:
        pools: which layers may keep how many weights together; each layer is in one of them.
        parameters: of the dense network.
        fixed: how many of these are not up for pruning.
        calibration: batches, for the methods that look at data.
        loss: (model, batch) → scalar, for the methods that look at gradients.
        positions: output positions sampled per image for sensitivities; None for all.
        delta: probability that a random selection's bound fails.
        K: how far a future input may exceed the measured sensitivities.
        generator: of everything random.
    """

    pools: Sequence[Pool]
    parameters: int
    fixed: int
    calibration: Iterable[Any] | None
    loss: Loss | None
    positions: int | None
    delta: float
    K: float
    generator: torch.Generator

    def batches(self, method: str) -> Iterable[Any]:
        """Return the calibration batches; raise PruningError where there are none."""
        if self.calibration is None:
            raise PruningError(f'{method} measures on data: give `calibration` batches')
        return self.calibration

    def too_small(self, pool: Pool, needed: int, why: str) -> BudgetError:
        """Return the error that a pool may keep fewer weights than `needed`, with the nearest."""
        if len(self.pools) == 1:
            share = math.ceil(1e4 * (self.fixed + needed) / self.parameters) / 1e4
            where, nearest = 'the network', f'{share:g} of the parameters'
        else:
            where, nearest = ', '.join(pool.layers), f'{needed:,} weights'
        return BudgetError(
            f'{where} may keep {max(pool.weights, 0):,} weights, but {why}; the nearest budget is '
            f'{nearest}'
        )


@dataclass(frozen=True)
class Choice:
    """A method's answer.

    Attributes:
        factors: per layer, in its weight's shape: what each weight is multiplied with; 0 (or
            False) prunes it.
        bounds: per layer ε of |ẑ − z| ≤ ε Σ |w a| for each of its outputs, where the method has
            a guarantee.
        calibration: which inputs the bounds were measured on.
    """

    factors: Mapping[str, Tensor]
    bounds: Mapping[str, float] = field(default_factory=dict)
    calibration: CalibrationRecord | None = None


def keep_highest(
    layers: Mapping[str, Layer], scores: Mapping[str, Tensor], request: Request
) -> dict[str, Tensor]:
    """Return masks of the highest scores, as many as each of the request's pools may keep.

    Weights that are zero already are never among them, so that a mask counts what is there.

    Raises:
        BudgetError: what is not pruned is too much already.
    """
    masks: dict[str, Tensor] = {}
    for pool in request.pools:
        if pool.weights < 0:
            raise request.too_small(pool, 0, f'{request.fixed:,} parameters are not pruned')
        weights = [layers[name].weight.detach() for name in pool.layers]
        there = torch.cat([weight.flatten() for weight in weights]) != 0
        flat = torch.cat([scores[name].flatten() for name in pool.layers])
        wanted = min(pool.weights, int(there.sum()))
        mask = torch.zeros_like(there)
        mask[flat.masked_fill(~there, -torch.inf).topk(wanted).indices] = True
        parts = mask.split([weight.numel() for weight in weights])
        for name, weight, part in zip(pool.layers, weights, parts, strict=True):
            masks[name] = part.view(weight.shape)
    return masks
