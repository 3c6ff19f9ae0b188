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

"""Least-squares refit: every layer fitted anew to what the parent's computed.

In the order of computation, from the first that reads cut channels on, each layer is fitted by
regression on its inputs, as the pruned network itself makes them, to the outputs of the parent's
layer; so errors of earlier layers are made good by later ones, whether their own inputs were cut or
not. For where no fine-tuning is possible: no labels, no gradients. A layer that the plan makes two
is fitted as one, and gets the factors of that fit which lose least of the outputs
(`lowrank.factorisation.reduced_rank`).

Both networks run once, where they are. The parent's layers are sampled as they compute; the pruned
network is shown all images together, and each layer is fitted when its inputs are there, before it
computes; regressions are added up and solved on the CPU, in double precision. Batch norms are
measured on the way: were their statistics the parent's, later layers would be fitted to inputs that
they do not get once these are put right.

Source: He et al., Channel pruning for accelerating very deep neural networks (ICCV 2017), who fit
the layers whose inputs are cut.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.contributions import fields, kernel
from pruned_perception.pruning.criteria import Loss, Subject
from pruned_perception.pruning.criteria.compensated import output_curvature
from pruned_perception.pruning.graph.cost import LAYERS
from pruned_perception.pruning.graph.device import CPU, device_of, moved
from pruned_perception.pruning.graph.observation import (
    evaluating,
    observed,
    outside_inference_mode,
    run,
)
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.lowrank.factorisation import Factored, reduced_rank
from pruned_perception.pruning.plan import Plan
from pruned_perception.pruning.recalibration import measuring
from pruned_perception.pruning.structure import Structure
from pruned_perception.pruning.tracing import trace

POSITIONS = 64
RIDGE = 1e-3  # relative to the mean square of the inputs
MEMORY = 2**30  # bytes that the images may take on their way through the network
_LIVE = 8  # tensors of the largest size that are held at a time, at most
_LONGEST = 2**13  # receptive field: there are fewer images than that, and it takes its cube
_ROWS = 1024  # of a regression at once: single precision within, double between


@dataclass
class _Regression:
    """Sums for regressions with intercept, one for each group of a convolution, in double."""

    count: int = 0
    x: Any = 0.0
    y: Any = 0.0
    xx: Any = 0.0
    xy: Any = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take n rows of inputs (groups, n, cκ) and outputs (groups, n, f)."""
        self.count += x.shape[1]
        self.x = self.x + x.sum(1).double()
        self.y = self.y + y.sum(1).double()
        self.xx = self.xx + (x.mT @ x).double()
        self.xy = self.xy + (x.mT @ y).double()

    @property
    def covariance(self) -> Tensor:
        """Of the inputs (groups, cκ, cκ)."""
        mean = self.x / self.count
        return self.xx / self.count - mean[:, :, None] * mean[:, None, :]

    def solve(self, start: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the weight (groups, f, cκ) that fits best near `start`, intercept (groups, f)."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.covariance
        xy = self.xy / self.count - mean_x[:, :, None] * mean_y[:, None, :]
        size = xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
        damping = ridge * size[:, None, None] * torch.eye(xx.shape[1]).double()
        change = torch.linalg.solve(xx + damping, xy - xx @ start.mT)
        weight = start + change.mT
        return weight, self.intercept(weight)

    def intercept(self, weight: Tensor) -> Tensor:
        """Return (groups, f) that keeps the mean of the outputs (groups, f, cκ) · x."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        return mean_y - (weight @ mean_x[:, :, None])[:, :, 0]


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
    loss: Loss | None = None,
) -> nn.Module:
    """Return a copy of `small` whose layers are fitted to `model`, layer by layer.

    Biases are fitted where there are any; without, the means are left to the batch norms, which
    hold the statistics of the images in the end. Transposed convolutions stay as they are, and
    layers with receptive fields of more than _LONGEST values.

    Args:
        model: the parent.
        small: it after `plan.apply(model)`; recalibrated or not makes no difference.
        plan: what was kept.
        calibration: batches of inputs; as many examples, from all over them, as fit into MEMORY
            together. Where they are fewer than all, `recalibrate` afterwards.
        positions: output positions sampled per image.
        ridge: pull towards the present weights, relative to the mean square of the inputs.
        seed: of the positions.
        loss: whose curvature says what errors of layers of low rank count for; by default a random
            projection of the outputs, see `criteria.Subject`.
    """
    fitted, model = copy.deepcopy(small), plain(model)
    example = [each.example() for each in plan.inputs]
    structure = trace(model, example)
    outputs = kept_outputs(model, structure, plan)
    first = _readers(structure, plan) | plan.ranks.keys()
    names = [term.layer for term in structure.terms if _is_fitted(model, term.layer)]
    batches = list(CheckedBatches(calibration, example))
    inputs = _together(batches, _bytes_per_image(model, example))
    sample = _Sample(len(inputs[0]), positions, seed)
    curvature = {}
    if plan.ranks:
        curvature = output_curvature(Subject(model, structure, batches, loss, seed))
    targets = _targets(model, _batches_of(inputs, len(batches[0][0])), names, outputs, sample)
    begun = False

    def fit(name: str) -> Any:
        def hook(layer: Any, arguments: tuple[Tensor, ...]) -> None:
            nonlocal begun
            begun = begun or name in first
            if not begun or name not in targets:  # nothing was cut yet, or called before
                return
            sums = _regression(layer, arguments[0], targets.pop(name), sample)
            both = fitted.get_submodule(name)
            if isinstance(both, Factored):
                metric = curvature[name]
                if name in outputs:
                    metric = metric[outputs[name]][:, outputs[name]]
                _fit_both(both, sums, metric, ridge)
                return
            weight, intercept = sums.solve(kernel(layer).flatten(2).double(), ridge)
            layer.weight.copy_(weight.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(intercept.flatten())

        return hook

    def read_by(name: str) -> nn.Module:
        layer = fitted.get_submodule(name)
        return layer.both[0] if isinstance(layer, Factored) else layer

    handles = [read_by(name).register_forward_pre_hook(fit(name)) for name in names]
    try:
        with evaluating(fitted), measuring(fitted):
            fitted(*moved(inputs, device_of(fitted)))
    finally:
        for handle in handles:
            handle.remove()
    return fitted


def _fit_both(both: Factored, sums: _Regression, metric: Tensor, ridge: float) -> None:
    """Fit a layer of low rank as one, and write the best factors of that."""
    first, second = (each.weight.double().flatten(1) for each in both.both)
    weight, _ = sums.solve((second @ first)[None], ridge)
    factors = reduced_rank(weight[0], sums.covariance[0], metric, both.rank)
    both.set_factors(factors, sums.intercept(factors.product)[0])


class _Sample:
    """Which positions of which images are looked at: for both networks the same."""

    def __init__(self, images: int, positions: int, seed: int) -> None:
        self.images, self.positions, self.seed = images, positions, seed

    def of(self, count: int) -> Tensor:
        """Return positions (images, ≤ positions) among `count`; all, if there are so few."""
        if count <= self.positions:
            return torch.arange(count).expand(self.images, -1)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(count, (self.images, self.positions), generator=generator)


def _targets(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    names: Collection[str],
    outputs: dict[str, Tensor],
    sample: _Sample,
) -> dict[str, Tensor]:
    """Return rows (images · positions, f) of the kept outputs that the parent's layers make."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    layers = dict(model.named_modules())
    start = 0
    seen: set[str] = set()

    def note(name: str, x: Tensor, output: Tensor) -> None:
        if name in seen:
            return
        seen.add(name)
        rows = output if isinstance(layers[name], nn.Linear) else output.movedim(1, -1)
        rows = rows.reshape(len(output), -1, rows.shape[-1])
        where = sample.of(rows.shape[1])[start : start + len(output)]
        picked = rows[torch.arange(len(output))[:, None], where].flatten(0, 1).to(CPU)
        found[name].append(picked[:, outputs[name]] if name in outputs else picked)

    with observed(model, names, note):
        for inputs in batches:
            seen.clear()
            run(model, [inputs])
            start += len(inputs[0])
    return {name: torch.cat(rows) for name, rows in found.items() if rows}


def _regression(layer: nn.Module, x: Tensor, wanted: Tensor, sample: _Sample) -> _Regression:
    sums = _Regression()
    groups = getattr(layer, 'groups', 1)
    images = max(1, _ROWS // (len(wanted) // len(x)))
    for start in range(0, len(x), images):
        part = fields(layer, x[start : start + images])
        where = sample.of(part.positions)[start : start + images]
        which = torch.arange(len(where)).repeat_interleave(where.shape[1])
        rows = part.at(which, where.flatten()).unflatten(0, (groups, -1))  # (groups, c, n, κ)
        rows = rows.transpose(1, 2).flatten(2)
        first = start * where.shape[1]
        y = wanted[first : first + rows.shape[1]].unflatten(1, (groups, -1)).transpose(0, 1)
        sums.add(rows, y)
    return sums


def _together(batches: list[tuple[Tensor, ...]], size: int) -> tuple[Tensor, ...]:
    """Return the examples of all batches, or as many from all over them as fit into MEMORY."""
    inputs = tuple(torch.cat(each) for each in zip(*batches, strict=True))
    images, most = len(inputs[0]), max(1, MEMORY // size)
    if images <= most:
        return inputs
    chosen = torch.linspace(0, images - 1, most).round().long()
    return tuple(each[chosen] for each in inputs)


def _batches_of(inputs: tuple[Tensor, ...], size: int) -> Iterable[tuple[Tensor, ...]]:
    """Yield the examples, so many at a time."""
    return zip(*(each.split(size) for each in inputs), strict=True)


def _bytes_per_image(model: nn.Module, example: list[Tensor]) -> int:
    largest = max(each.numel() for each in example)
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]

    def note(_: str, x: Tensor, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, output.numel())

    with observed(model, layers, note):
        run(model, [tuple(example)])
    return 4 * _LIVE * largest // len(example[0])


def _readers(structure: Structure, plan: Plan) -> set[str]:
    """Return the layers of which inputs were cut."""
    cut = {name for name, kept in plan.kept.items() if len(kept) < plan.channels[name]}
    groups = (group for group in structure.groups.prunable if group.name in cut)
    return {each.layer for group in groups for each in group.consumers}


def _is_fitted(model: nn.Module, name: str) -> bool:
    layer = model.get_submodule(name)
    return isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight[0].numel() <= _LONGEST


def kept_outputs(model: nn.Module, structure: Structure, plan: Plan) -> dict[str, Tensor]:
    """Return, for each layer whose outputs were cut, the outputs (kept,) that are left.

    Several groups may have a part of one layer.

    Args:
        model: the parent.
        structure: of it.
        plan: what was kept.
    """
    gone: dict[str, set[int]] = {}
    for group in structure.groups.prunable:
        if group.name in plan.kept:
            lost = set(range(group.channels)) - set(plan.kept[group.name])
            for producer in group.producers:
                gone.setdefault(producer.layer, set()).update(producer.of(lost))
    found = {}
    for name, lost in gone.items():
        layer = model.get_submodule(name)
        if lost and _is_fitted(model, name):
            assert isinstance(layer.weight, Tensor)
            found[name] = torch.tensor(sorted(set(range(len(layer.weight))) - lost))
    return found
