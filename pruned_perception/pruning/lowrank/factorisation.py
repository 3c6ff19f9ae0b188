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

"""One layer as two: a sliced low-rank factorisation of its weight, and how far it is off.

The weight is folded to W of f × (c κ), its c input channels are sliced into k groups of equal
size, W = [W_1 … W_k], and each slice is replaced by its best approximation of rank j (truncated
singular value decomposition, Eckart–Young): W_i ≈ B_i A_i with A_i of j × (c κ / k) and B_i of
f × j. The A_i are one grouped convolution of the layer's own geometry, [B_1 … B_k] is a
1 × 1 convolution that follows it: j (c κ + k f) parameters in the place of f c κ.

With E_i = W_i − B_i A_i and E = [E_1 … E_k], E Eᵀ = Σ_i E_i E_iᵀ, hence

    max_i σ_{i,j+1} ≤ ‖E‖₂ ≤ √(Σ_i σ²_{i,j+1}) ≤ √k · max_i σ_{i,j+1},

where σ_{i,j+1} is the slice's largest singular value that was cut off. Without √k the right side
is no bound: for k equal slices ‖E‖₂ attains √k σ_{j+1}.

Errors here are relative to σ₁(W), so that ‖(W − Ŵ) a‖ ≤ ε · σ₁(W) ‖a‖ for a receptive field a.
They are not comparable with the ε of channel pruning, which is relative to the contributions
Σ_j |u_j| of the channels to an output: σ₁(W) ‖a‖ may exceed the layer's output by far.

Where data says more than the weight, `reduced_rank` takes its place (one slice): of inputs x with
covariance G and errors that cost eᵀ Λ e in the outputs, the best weight of rank j is
Ŵ = R⁻¹ U Uᵀ R W with R² = Λ and U the leading j eigenvectors of M = R W G Wᵀ R, and it loses

    tr Λ (W − Ŵ) G (W − Ŵ)ᵀ = Σ_{l>j} λ_l(M),

by Eckart–Young for R W G^½. Two properties make these losses fit to stand beside those of channels:

* they fall convexly in j, as tail sums of falling eigenvalues do;
* where the layer also loses inputs and is fitted anew on the others, W x becomes its projection on
  what these explain, ŷ, and the remainder is uncorrelated with them. So the loss of both is that of
  the inputs plus the tail of ŷ's covariance; that is at most W x's (C_ŷ ≼ C, and eigenvalues are
  monotone). **The sum of both losses is an upper bound** of the layer's loss, and fitting attains
  what is below it. This supposes the moments G and Λ that were measured, without damping; and
  outputs that stay (outputs that go change Λ, which is not covered).

Sources: Liebenwein et al., Towards determining the optimal layer-wise decomposition (NeurIPS 2021);
reduced-rank regression: Izenman, Journal of Multivariate Analysis 5 (1975).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

DAMPING = 1e-2  # of Λ, relative to its mean: what the frames cannot tell still counts
_GEOMETRY = ('kernel_size', 'stride', 'padding', 'dilation', 'padding_mode')


@dataclass(frozen=True)
class Factors:
    """Factors of k slices: `first` (k, j, c κ / k) reads the input, `second` (k, f, j) follows."""

    first: Tensor
    second: Tensor

    @property
    def product(self) -> Tensor:
        """What the factors compute together: (k, f, c κ / k)."""
        return self.second @ self.first


def slices(layer: nn.Module, groups: int) -> Tensor:
    """Return the folded weight's k slices (k, f, c κ / k) in double precision on the CPU.

    Args:
        layer: Conv2d with groups=1, or Linear.
        groups: k, a divisor of the number of input channels.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    folded = weight.detach().cpu().double().reshape(*weight.shape[:2], -1)
    return folded.unflatten(1, (groups, -1)).transpose(0, 1).flatten(2)


def truncate(parts: Tensor, rank: int) -> Factors:
    """Return the best factors of this rank for each slice.

    The singular values are shared equally between the two, which keeps both at one scale for
    fine-tuning and quantisation.

    Args:
        parts: (k, f, c κ / k), as `slices` returns.
        rank: j, from 1 to min(f, c κ / k).
    """
    left, values, right = torch.linalg.svd(parts, full_matrices=False)
    roots = values[:, :rank].sqrt()
    return Factors(roots[:, :, None] * right[:, :rank], left[:, :, :rank] * roots[:, None])


def rank_losses(weight: Tensor, covariance: Tensor, metric: Tensor) -> Tensor:
    """Return (min(f, c κ) + 1,): what the best weight of rank 0, 1, … loses, falling convexly to 0.

    Args:
        weight: W (f, c κ).
        covariance: G (c κ, c κ) of the inputs.
        metric: Λ (f, f), positive semi-definite.
    """
    root, _ = _roots(metric)
    weighed = root @ weight
    energies = torch.linalg.eigvalsh(weighed @ covariance @ weighed.T).clamp(min=0)
    tails = torch.cat((energies.new_zeros(1), energies.cumsum(0)))  # from the smallest
    lost = tails.flip(0)[: min(weight.shape) + 1].clone()
    lost[-1] = 0
    return lost


def reduced_rank(
    weight: Tensor, covariance: Tensor, metric: Tensor, rank: int, *, damping: float = DAMPING
) -> Factors:
    """Return the factors of the weight of this rank that loses least on what was measured.

    Arguments as `rank_losses`. Λ is damped, so that directions of the outputs that the frames say
    nothing of are not given up for free.
    """
    root, inverse = _roots(metric, damping)
    weighed = root @ weight
    basis = torch.linalg.eigh(weighed @ covariance @ weighed.T).eigenvectors[:, -rank:]
    return truncate((inverse @ basis @ (basis.T @ weighed))[None], rank)


def _roots(metric: Tensor, damping: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the symmetric root of a damped form, and its inverse."""
    values, vectors = torch.linalg.eigh(metric)
    values = values.clamp(min=0)
    values = (values + damping * values.mean()).sqrt()
    tiny = torch.finfo(values.dtype).tiny
    root, inverse = ((vectors * each) @ vectors.T for each in (values, 1 / values.clamp(min=tiny)))
    return root, inverse


def relative_error(parts: Tensor, factors: Factors) -> float:
    """Return ‖[E_1 … E_k]‖₂ / σ₁(W), computed directly; 0 for a weight of zeros."""
    largest = _norm(parts)
    return _norm(parts - factors.product) / largest if largest else 0.0


def relative_errors(parts: Tensor, ranks: Iterable[int]) -> dict[int, float]:
    """Return the `relative_error` of the best factors at each rank, from one SVD per slice.

    E Eᵀ = Σ_i Σ_{l>j} σ²_{i,l} u_{i,l} u_{i,l}ᵀ grows by what the next lower rank cuts off; its
    largest eigenvalue is ‖E‖₂². It is rounded to about 1e-8 of σ₁(W).

    Args:
        parts: (k, f, c κ / k), as `slices` returns.
        ranks: from 1 to min(f, c κ / k).
    """
    largest = _norm(parts)
    if not largest:
        return dict.fromkeys(ranks, 0.0)
    if parts.shape[1] > parts.shape[0] * parts.shape[2]:  # rotate: E's norm stays, E Eᵀ shrinks
        parts = torch.linalg.qr(torch.cat(tuple(parts), dim=1)).Q.T @ parts
    left, values, _ = torch.linalg.svd(parts, full_matrices=False)
    columns = (left * values[:, None]).permute(1, 2, 0)  # (f, full rank, k)
    gram = columns.new_zeros(len(columns), len(columns))
    errors, known = {}, columns.shape[1]
    for rank in sorted(ranks, reverse=True):
        cut = columns[:, rank:known].flatten(1)
        gram += cut @ cut.T
        known = rank
        top = float(torch.linalg.eigvalsh(gram)[-1])
        errors[rank] = math.sqrt(max(top, 0.0)) / largest
    return errors


def error_bound(parts: Tensor, rank: int) -> float:
    """Return √k · max_i σ_{i,j+1} / σ₁(W), which bounds `relative_error` from above."""
    cut = torch.linalg.svdvals(parts)[:, rank:]  # nothing is left at the full rank
    largest = _norm(parts)
    return math.sqrt(len(parts)) * float(cut.max()) / largest if cut.numel() and largest else 0.0


class Factored(nn.Sequential):
    """Two layers in the place of one; seen from outside it has that one's channels and bias."""

    @property
    def both(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The layer that reads, and the one that follows (linear ones, of a linear layer)."""
        first, second = list(self)[:2]  # norms that are put between stand behind
        return first, second  # type: ignore[return-value]

    @property
    def out_channels(self) -> int:
        """Of the layer that it stands for."""
        return self.both[1].weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        """Of the layer that it stands for, as the second one adds it."""
        return self.both[1].bias

    @property
    def rank(self) -> int:
        """Channels between the two, those of all slices."""
        return self.both[1].weight.shape[1]

    @torch.no_grad()
    def set_factors(self, factors: Factors, bias: Tensor | None) -> None:
        """Write the factors' weights, and the bias where there is one, into the two layers."""
        parts = factors.first, factors.second.transpose(0, 1)
        for layer, values in zip(self.both, parts, strict=True):
            layer.weight.copy_(values.reshape(layer.weight.shape))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


def factorised(model: nn.Module, ranks: Mapping[str, int]) -> nn.Module:
    """Return a copy in which each named layer is two, by the best factors of its weight alone.

    In an imported network (a graph) its call becomes two, so that each can have a batch norm.
    """
    small = copy.deepcopy(model)
    for name, rank in ranks.items():
        layer = small.get_submodule(name)
        bias = layer.bias.detach() if isinstance(layer.bias, Tensor) else None
        replace_layer(small, layer, factored_layer(layer, truncate(slices(layer, 1), rank), bias))
    if isinstance(small, fx.GraphModule):
        _call_both(small, ranks)
    return small


def _call_both(module: fx.GraphModule, names: Collection[str]) -> None:
    for node in list(module.graph.nodes):
        if node.op == 'call_module' and node.target in names:
            name = node.target
            node.target = f'{name}.0'
            with module.graph.inserting_after(node):
                after = module.graph.call_module(f'{name}.1', (node,))
            node.replace_all_uses_with(after)
            after.args = (node,)  # which it reads itself
    module.recompile()


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a layer in the place of another, which may have several names."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                setattr(parent, name, new)


def factored_layer(layer: nn.Module, factors: Factors, bias: Tensor | None) -> Factored:
    """Return the two layers that compute `factors` and add `bias`, in the place of `layer`.

    Type, device, training mode and frozen parameters are those of `layer`.

    Args:
        layer: Conv2d with groups=1, or Linear.
        factors: of its weight; of one slice for a linear layer.
        bias: (f,) or None.
    """
    groups, rank, inputs = factors.first.shape
    outputs = factors.second.shape[1]
    weight = layer.weight
    assert isinstance(weight, Tensor)
    first: nn.Conv2d | nn.Linear
    second: nn.Conv2d | nn.Linear
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        if isinstance(layer, nn.Conv2d):
            geometry: dict[str, Any] = {name: getattr(layer, name) for name in _GEOMETRY}
            first = nn.Conv2d(
                layer.in_channels, groups * rank, groups=groups, bias=False, **geometry
            )
            second = nn.Conv2d(groups * rank, outputs, 1, bias=bias is not None)
        else:
            first = nn.Linear(inputs, rank, bias=False)
            second = nn.Linear(rank, outputs, bias=bias is not None)
    both = Factored(first, second).to(weight.device, weight.dtype).train(layer.training)
    both.requires_grad_(weight.requires_grad)
    both.set_factors(factors, bias)
    if isinstance(layer.bias, Tensor) and second.bias is not None:
        second.bias.requires_grad_(layer.bias.requires_grad)
    return both


def _norm(parts: Tensor) -> float:
    return float(torch.linalg.matrix_norm(torch.cat(tuple(parts), dim=1), 2))
