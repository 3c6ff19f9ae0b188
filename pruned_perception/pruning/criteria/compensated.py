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

"""A criterion for networks that are refitted: what of a channel the others cannot make up for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import whole_kernel
from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.criteria.joint_error import POSITIONS, field_moments
from pruned_perception.pruning.graph.channels import Slice
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.graph.observation import evaluating
from pruned_perception.pruning.lowrank.factorisation import Factored, rank_losses
from pruned_perception.pruning.lowrank.layers import find_layers
from pruned_perception.pruning.scores import Scores

RIDGE = 1e-2  # relative to the mean square of the inputs: what calibration cannot tell is no help


@criterion
def compensated_error(subject: Subject) -> Scores:
    """Return the order of elimination, and the loss that it costs after a refit.

    What the outputs lose when channels go and the layers that read them are fitted anew.

    Of a consumer with weight W (f, c·κ) that reads fields with covariance G, removing the inputs J
    and fitting the others costs W_J [(G⁻¹)_JJ]⁻¹ W_Jᵀ in its outputs' covariance, and the fit
    changes W by −W_J [(G⁻¹)_JJ]⁻¹ (G⁻¹)_J·: an Optimal Brain Surgeon of whole channels. An error e
    there changes the loss by about eᵀ Λ e, with Λ the second moments of the loss's gradients by the
    consumer's outputs, summed over positions (curvature as a Kronecker product). So all groups have
    one currency, that of the loss: by default a random projection of the outputs, whose squared
    gradients are those of the squared output error.

    Channels are removed one by one, each time the one that costs least, all consumers together.

    What a layer loses at a lower rank is in the same currency: see `lowrank.factorisation`, where
    the sum of both is shown to bound what one layer loses. That layers' losses add up, for channels
    as for ranks, is the approximation that curvature by layers makes: it is measured, not proven.

    Sources: Hassibi and Stork, Optimal Brain Surgeon (1992); Frantar, Singh and Alistarh, Optimal
    Brain Compression (NeurIPS 2022); Martens and Grosse, Kronecker-factored curvature (ICML 2015).
    """
    structure = subject.structure
    readers = structure.readers()
    curvature = output_curvature(subject)
    states: dict[str, list[_Consumer]] = {name: [] for name in structure.channels}
    candidates = find_layers(subject.model, [each.example() for each in structure.inputs])
    ranks: dict[str, Tensor] = {}
    left_alone = dict(candidates.left_alone)
    modules = dict(subject.model.named_modules())
    for name, moments in field_moments(subject, POSITIONS).items():
        weight = whole_kernel(modules[name])[0].double()  # (f, c, κ)
        if name not in curvature:
            continue
        alone = not isinstance(modules.get(name.rpartition('.')[0]), Factored)
        if name in candidates.shapes and isinstance(modules[name], nn.Conv2d) and alone:
            ranks[name] = rank_losses(weight.flatten(1), moments.covariance, curvature[name])
        inverse = _inverse(moments.covariance)
        weighed = _root(curvature[name]).T @ weight.flatten(1)
        for group, part in readers[name]:
            indices = _by_run(part, group.unit, group.channels // group.unit, weight.shape[2])
            states[group.name].append(_Consumer(weighed, inverse, indices))
    scores, errors = {}, {}
    for name, channels in structure.channels.items():
        unit = structure.groups[name].unit
        order, left = _eliminate(states[name], channels // unit)
        scores[name] = order.repeat_interleave(unit)
        errors[name] = left.repeat_interleave(unit)[: channels + 1]
    for name in candidates.shapes.keys() - ranks.keys():
        left_alone[name] = 'is linear, one of two, or reads no channels that can be cut'
    found = subject.scores('compensated_error', scores, errors)
    return replace(found, ranks=ranks, left_alone=left_alone)


def output_curvature(subject: Subject) -> dict[str, Tensor]:
    """Return, per consumer, Λ (f, f): Σ over positions of E[g gᵀ], g the loss's gradients."""
    modules = dict(subject.model.named_modules())
    generator = subject.generator
    made: list[tuple[str, Tensor]] = []
    found: dict[str, Tensor] = {}
    images = 0

    def noting(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            own = (output if output.requires_grad else output.detach().requires_grad_()).clone()
            made.append((name, own))
            return own

        return after

    handles = [
        modules[name].register_forward_hook(noting(name)) for name in subject.structure.readers()
    ]
    try:
        with evaluating(subject.model):
            for index, inputs in enumerate(subject.batches('compensated_error')):
                made.clear()
                with torch.enable_grad():
                    loss = subject.scalar(subject.model(*inputs), index, generator)
                    own = [each for _, each in made]
                    gradients = torch.autograd.grad(loss, own, allow_unused=True)
                images += len(inputs[0])
                for (name, _), gradient in zip(made, gradients, strict=True):
                    if gradient is None:
                        continue
                    axis = -1 if isinstance(modules[name], nn.Linear) else 1
                    rows = gradient.movedim(axis, -1).flatten(0, -2)
                    moments = (rows.T @ rows).to(CPU).double()
                    found[name] = found.get(name, torch.zeros(())) + moments
    finally:
        for handle in handles:
            handle.remove()
    return {name: each / max(images, 1) for name, each in found.items()}


@dataclass
class _Consumer:
    """What is left of a layer: weight (f, c·κ) in the loss's metric, G⁻¹, inputs by run."""

    weight: Tensor
    inverse: Tensor
    indices: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        self.weight, self.inverse = self.weight.clone(), self.inverse.clone()

    def costs(self, runs: Sequence[int]) -> Tensor:
        """Return (runs,) what removing each would cost."""
        found = torch.zeros(len(runs), dtype=torch.float64)
        sizes = torch.tensor([len(self.indices[run]) for run in runs])
        for size in sizes.unique().tolist():
            if not size:
                continue
            which = (sizes == size).nonzero().flatten()
            index = torch.stack([self.indices[runs[each]] for each in which.tolist()])
            blocks = self.inverse[index[:, :, None], index[:, None, :]]  # (n, q, q)
            rows = self.weight.T[index]  # (n, q, f)
            found[which] = (rows * torch.linalg.solve(blocks, rows)).sum((1, 2))
        return found.clamp(min=0)

    def remove(self, run: int) -> None:
        """Fit the others to what the layer computed."""
        index = self.indices[run]
        if not len(index):
            return
        rows = self.inverse[index]  # (q, c·κ)
        change = torch.linalg.solve(rows[:, index], rows)
        self.weight -= self.weight[:, index] @ change
        self.inverse -= self.inverse[:, index] @ change
        self.weight[:, index] = 0
        self.inverse[index] = self.inverse[:, index] = 0


def _eliminate(consumers: Sequence[_Consumer], runs: int) -> tuple[Tensor, Tensor]:
    """Return scores (runs,), the order of elimination, and errors (runs + 1,) at so many kept."""
    scores = torch.zeros(runs, dtype=torch.float64)
    errors = torch.zeros(runs + 1, dtype=torch.float64)
    left, total = list(range(runs)), 0.0
    for step in range(1, runs + 1):
        costs = torch.zeros(len(left), dtype=torch.float64)
        for each in consumers:
            costs += each.costs(left)
        place = int(costs.argmin())
        least = left.pop(place)
        total += float(costs[place])
        scores[least] = step / runs
        errors[runs - step] = total
        for each in consumers:
            each.remove(least)
    return scores, errors


def _by_run(part: Slice, unit: int, runs: int, taps: int) -> tuple[Tensor, ...]:
    """Return, for each run of channels, the inputs (with their taps) of the layer that are its."""
    found: list[list[int]] = [[] for _ in range(runs)]
    for index, root in zip(part.indices, part.roots, strict=True):
        found[root // unit].extend(range(index * taps, (index + 1) * taps))
    return tuple(torch.tensor(each, dtype=torch.long) for each in found)


def _inverse(covariance: Tensor) -> Tensor:
    damping = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.inv(covariance + damping * torch.eye(len(covariance)).double())


def _root(form: Tensor) -> Tensor:
    """Return R (f, f) with R Rᵀ = form, which is positive semi-definite."""
    values, vectors = torch.linalg.eigh(form)
    return vectors * values.clamp(min=0).sqrt()
