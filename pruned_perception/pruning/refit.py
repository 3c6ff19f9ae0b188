"""Least-squares refit: every consumer fitted anew to what its parent computed.

In the order of computation, each layer whose inputs were cut is fitted by ridge regression on its
kept inputs, as the pruned network itself makes them, to the outputs of the parent's layer; so
errors of earlier layers are made good by later ones. For where no fine-tuning is possible: no
labels, no gradients.

Source: He et al., Channel pruning for accelerating very deep neural networks (ICCV 2017).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.contributions import fields
from pruned_perception.pruning.graph.observation import observed, outside_inference_mode, run
from pruned_perception.pruning.plan import Plan
from pruned_perception.pruning.structure import trace

POSITIONS = 64
RIDGE = 1e-3  # relative to the mean square of the inputs


class _Enough(Exception):  # noqa: N818
    """The layer has been observed: what comes after it need not be computed."""


@dataclass
class _Regression:
    """Sums for a regression with intercept, in double precision."""

    count: int = 0
    x: Any = 0.0
    y: Any = 0.0
    xx: Any = 0.0
    xy: Any = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take n rows of inputs (n, cκ) and outputs (n, f)."""
        self.count += len(x)
        self.x = self.x + x.sum(0).double()
        self.y = self.y + y.sum(0).double()
        self.xx = self.xx + (x.T @ x).double()
        self.xy = self.xy + (x.T @ y).double()

    def solve(self, start: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the weight (f, cκ) that fits best near `start`, and the intercept (f,)."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - mean_x[:, None] * mean_x[None, :]
        xy = self.xy / self.count - mean_x[:, None] * mean_y[None, :]
        damping = ridge * xx.diagonal().mean().clamp(min=1e-12) * torch.eye(len(xx)).double()
        change = torch.linalg.solve(xx + damping, xy - xx @ start.T)
        weight = start + change.T
        return weight, mean_y - weight @ mean_x


@outside_inference_mode
def refit(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    calibration: Iterable[Batch],
    *,
    positions: int = POSITIONS,
    ridge: float = RIDGE,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of `small` whose layers are fitted to `model`, layer by layer.

    Biases are fitted where there are any; without, the means are left to the batch norms:
    `recalibrate` afterwards. Transposed and grouped convolutions stay as they are.

    Args:
        model: the parent.
        small: it after `plan.apply(model)`; recalibrated or not makes little difference.
        plan: what was kept.
        calibration: batches of inputs, iterated over twice per layer.
        positions: output positions sampled per image.
        ridge: pull towards the present weights, relative to the mean square of the inputs.
        seed: of the positions.
    """
    fitted = copy.deepcopy(small)
    batches = list(calibration)
    example = [each.example() for each in plan.inputs]
    outputs = _kept_outputs(model, example, plan)
    cut = {name for name, kept in plan.kept.items() if len(kept) < plan.channels[name]}
    structure = trace(model, example)
    readers = {
        name
        for name, who in structure.readers().items()
        if any(group.name in cut for group, _ in who)
    }
    layers = dict(fitted.named_modules())
    for name in _order(fitted, example, readers):
        layer = layers[name]
        if isinstance(layer, nn.Conv2d | nn.Linear) and getattr(layer, 'groups', 1) == 1:
            sums = _regression(
                model, fitted, name, outputs.get(name), batches, example, positions, seed
            )
            start = layer.weight.flatten(1).double()
            weight, intercept = sums.solve(start, ridge)
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(intercept)
    return fitted


def _regression(
    model: nn.Module,
    fitted: nn.Module,
    name: str,
    kept: Tensor | None,
    batches: list[Batch],
    example: list[Tensor],
    positions: int,
    seed: int,
) -> _Regression:
    sums = _Regression()
    targets: list[Tensor] = []

    def sample(output: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the same images and positions for both networks' calls number n."""
        images = output.shape[0]
        count = output[0].numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]
        where = torch.randint(count, (images * positions,), generator=generator)
        return torch.arange(images).repeat_interleave(positions), where

    def of_parent(_: str, x: Tensor, output: Tensor) -> None:
        layer = parents[name]
        images, where = sample(output, layer)
        rows = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
        rows = rows.reshape(len(output), -1, rows.shape[-1])[images, where]
        targets.append(rows if kept is None else rows[:, kept])
        raise _Enough

    def of_small(_: str, x: Tensor, output: Tensor) -> None:
        layer = children[name]
        images, where = sample(output, layer)
        found = fields(layer, x).at(images, where)
        sums.add(found.transpose(0, 1).flatten(1), targets.pop(0))
        raise _Enough

    parents, children = dict(model.named_modules()), dict(fitted.named_modules())
    for index, inputs in enumerate(CheckedBatches(batches, example)):
        for network, observer in ((model, of_parent), (fitted, of_small)):
            generator = torch.Generator().manual_seed(seed + index)
            with observed(network, [name], observer), contextlib.suppress(_Enough):
                run(network, [inputs])
    return sums


def _kept_outputs(model: nn.Module, example: list[Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return, for each layer whose outputs were cut, the outputs that are left."""
    found = {}
    for group in trace(model, example).groups.prunable:
        if group.name in plan.kept:
            kept = set(plan.kept[group.name])
            for producer in group.producers:
                found[producer.layer] = torch.tensor(sorted(producer.of(kept)))
    return found


def _order(model: nn.Module, example: list[Tensor], names: set[str]) -> list[str]:
    """Return the layers in the order in which they first compute."""
    seen: dict[str, None] = {}

    def note(name: str, x: Tensor, output: Tensor) -> None:
        seen.setdefault(name)

    with observed(model, names, note):
        run(model, [tuple(example)])
    return list(seen)
