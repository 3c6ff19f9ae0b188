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

Source: Liebenwein et al., Towards determining the optimal layer-wise decomposition (NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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


def factored_layer(layer: nn.Module, factors: Factors, bias: Tensor | None) -> nn.Sequential:
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
    both = nn.Sequential(first, second).to(weight.device, weight.dtype).train(layer.training)
    both.requires_grad_(weight.requires_grad)
    with torch.no_grad():
        first.weight.copy_(factors.first.reshape(first.weight.shape))
        second.weight.copy_(factors.second.transpose(0, 1).reshape(second.weight.shape))
        if bias is not None and second.bias is not None:
            second.bias.copy_(bias)
    if isinstance(layer.bias, Tensor) and second.bias is not None:
        second.bias.requires_grad_(layer.bias.requires_grad)
    return both


def _norm(parts: Tensor) -> float:
    return float(torch.linalg.matrix_norm(torch.cat(tuple(parts), dim=1), 2))
