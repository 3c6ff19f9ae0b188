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

"""A plan of weight sparsity: which weights of which layer stay, and their factors.

Unstructured sparsity does not speed up dense kernels, which multiply zeros as fast as anything
else: a sparse network costs the same multiply-accumulates and the same time. What shrinks is its
size, once the zeros are left out of the file; how small, `bitmask_bytes` and
`csr_bytes` say. Both forms hold the kept values as they are; entropy coding would shrink either
further.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import DELTA
from pruned_perception.pruning.budget import Params
from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import BudgetError, PruningError
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import outside_inference_mode
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.plan import bound_text
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.sensitivity import POSITIONS
from pruned_perception.pruning.sparsity import selection as methods
from pruned_perception.pruning.sparsity.selection import (
    Loss,
    Pool,
    Request,
    find_layers,
    weight_layers,
)

_POINTER_BYTES = 4


def bitmask_bytes(weights: int, kept: int, value_bytes: int) -> int:
    """Return the size of a mask of one bit per weight and the kept values.

    >>> bitmask_bytes(1000, 100, 4)
    525
    """
    return -(-weights // 8) + kept * value_bytes


def csr_bytes(rows: int, columns: int, kept: int, value_bytes: int) -> int:
    """Return the size of compressed sparse rows: kept values, their columns, a pointer per row.

    Columns take two bytes each up to 65,536 of them, else four; pointers take four.

    >>> csr_bytes(10, 100, 100, 4)
    644
    """
    index_bytes = 2 if columns <= 1 << 16 else 4
    return kept * (value_bytes + index_bytes) + (rows + 1) * _POINTER_BYTES


@dataclass(frozen=True)
class LayerSparsity(Record):
    """Which weights of one layer stay.

    Attributes:
        name: of the layer.
        shape: of its weight.
        kept: how many weights stay.
        value_bytes: size of one weight.
        bits: the mask, row-major, eight weights a byte, the first in the highest bit.
        values: factors of the kept weights, row-major 32-bit little-endian floats; empty where
            all are 1.
        bound: ε of |ẑ − z| ≤ ε V for each of its outputs, where the method has a guarantee.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    value_bytes: int
    bits: bytes
    values: bytes
    bound: float | None
    _derived: ClassVar = ('mask_sha256',)

    @property
    def weights(self) -> int:
        """How many weights the layer has."""
        return math.prod(self.shape)

    @property
    def mask(self) -> Tensor:
        """Which weights stay: bool, of the weight's shape."""
        packed = np.frombuffer(self.bits, np.uint8)
        flat = np.unpackbits(packed, count=self.weights).astype(bool)
        return torch.from_numpy(flat).view(self.shape)

    @property
    def factors(self) -> Tensor:
        """What each weight is multiplied with, of the weight's shape; 0 where it is pruned."""
        factors, mask = torch.zeros(self.shape), self.mask
        kept = torch.from_numpy(np.frombuffer(self.values, '<f4').astype(np.float32))
        factors[mask] = kept if self.values else 1.0
        return factors

    @property
    def mask_sha256(self) -> str:
        """SHA-256 of the mask."""
        return hashlib.sha256(self.bits).hexdigest()

    @property
    def compressed_bytes(self) -> int:
        """Size of the weight in the smallest of its forms: dense, bitmask or CSR."""
        rows, *columns = self.shape
        return min(
            self.weights * self.value_bytes,
            bitmask_bytes(self.weights, self.kept, self.value_bytes),
            csr_bytes(rows, math.prod(columns), self.kept, self.value_bytes),
        )


@dataclass(frozen=True)
class SparsityPlan(Record):
    """Kept weights of each layer, how they were chosen, and what the network's size will be.

    `parameters` counts all of the network's, `dense_bytes` their size. δ, K and `positions` belong
    to the bounds, which were measured on `calibration`.
    """

    method: str
    scope: str
    seed: int
    delta: float
    K: float
    positions: int | None
    calibration: CalibrationRecord | None
    parameters: int
    dense_bytes: int
    layers: tuple[LayerSparsity, ...]
    not_pruned: dict[str, str]
    kind: ClassVar[str] = 'sparsity'

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of a weight → which of its entries stay."""
        return {f'{each.name}.weight': each.mask for each in self.layers}

    @on_cpu
    @outside_inference_mode
    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` with the plan's zeros and factors; `model` is untouched.

        Raises:
            PruningError: the plan does not fit the network.
        """
        sparse = copy.deepcopy(plain(model))
        layers = find_layers(sparse)
        for each in self.layers:
            if each.name not in layers:
                raise PruningError(f'plan: {each.name!r} is no layer of this network')
            weight = layers[each.name].weight
            if tuple(weight.shape) != each.shape:
                raise PruningError(
                    f'plan: the weight of {each.name!r} is {tuple(weight.shape)}, planned for '
                    f'{each.shape}'
                )
            weight.mul_(each.factors.to(weight))
        return sparse

    @property
    def pruned(self) -> int:
        """How many weights become zero."""
        return sum(layer.weights - layer.kept for layer in self.layers)

    @property
    def share(self) -> float:
        """Share of the network's parameters that remain."""
        return 1 - self.pruned / self.parameters

    @property
    def counts(self) -> dict[str, int]:
        """How many weights each layer keeps."""
        return {layer.name: layer.kept for layer in self.layers}

    @property
    def compressed_bytes(self) -> int:
        """Size of all parameters, each pruned layer in its smallest form, the others dense."""
        saved = (each.weights * each.value_bytes - each.compressed_bytes for each in self.layers)
        return self.dense_bytes - sum(saved)

    def to_text(self) -> str:
        """Return a table: kept weights and bound of each layer, and the size."""
        left = self.parameters - self.pruned
        lines = [
            f'{self.method}, one budget per {self.scope}: {left:,} of {self.parameters:,} '
            f'parameters remain ({self.share:.1%})',
            f'size {self.compressed_bytes:,} of {self.dense_bytes:,} bytes '
            f'({self.compressed_bytes / self.dense_bytes:.1%}) with the zeros left out; '
            'dense kernels run no faster',
        ]
        header = 'layer | weights:9d | kept:9d | share:5.0% | bound'
        rows: list[tuple[object, ...]] = [
            (each.name, each.weights, each.kept, each.kept / each.weights, bound_text(each.bound))
            for each in self.layers
        ]
        rows += [(name, f'kept whole: {why}') for name, why in self.not_pruned.items()]
        return '\n'.join([*lines, Table.under(header, rows).to_text()])


SCOPES = ('network', 'layer')


@on_cpu
def make_plan(
    model: nn.Module,
    *,
    criterion: str,
    budget: Params | None = None,
    counts: Mapping[str, int] | None = None,
    calibration: Iterable[Any] | None = None,
    loss: Loss | None = None,
    scope: str = 'network',
    positions: int | None = POSITIONS,
    delta: float = DELTA,
    K: float = 1.0,
    seed: int = 0,
    ignored_layers: Collection[str] = (),
) -> SparsityPlan:
    """Choose the weights to keep. Zeros do not make dense kernels faster.

    Args:
        model: the dense network; untouched.
        criterion: what chooses the weights, see `names()`.
        budget: share of all the network's parameters that may remain; biases and norms stay.
        counts: instead of a budget: the weights that each layer keeps, for example another plan's
            `counts`, so that two methods are compared under one allocation.
        calibration: batches of inputs without labels (SiPP), or whatever `loss` takes (SNIP).
        loss: (model, batch) → scalar, for SNIP.
        scope: 'network' divides the budget over all layers together, 'layer' gives each layer the
            same share.
        positions: output positions sampled per image for sensitivities; None for all of them.
        delta: probability with which the bounds of random draws may fail.
        K: how far a future input may exceed the sensitivities, see `bounds`.
        seed: of everything random.
        ignored_layers: layers, or prefixes of layers' names, whose weights all stay.

    Raises:
        BudgetError: the budget cannot be met; says the nearest that can.
        PruningError: unknown names, options that do not fit together, missing or unusable data.
    """
    choose, model = methods.get(criterion), plain(model)
    if positions is not None and positions < 1:
        raise PruningError(f'positions: at least 1 per image, got {positions}')
    if not 0 < delta < 1 or not K > 0:
        raise PruningError(f'delta must be in (0, 1) and K > 0, got {delta} and {K}')
    layers = weight_layers(model, ignored_layers=ignored_layers)
    parameters = sum(each.numel() for each in model.parameters())
    fixed = parameters - sum(layer.weight.numel() for layer in layers.values())
    if (budget is None) == (counts is None):
        raise PruningError('give either a budget or the weights that each layer keeps')
    if counts is not None:
        scope, pools = 'layer', _given(counts, layers)
    else:
        assert budget is not None
        pools = _pools(scope, math.floor(budget.share * parameters) - fixed, layers)
    generator = torch.Generator().manual_seed(seed)
    request = Request(pools, parameters, fixed, calibration, loss, positions, delta, K, generator)
    choice = choose(model, layers, request)
    return SparsityPlan(
        method=criterion,
        scope=scope,
        seed=seed,
        delta=delta,
        K=K,
        positions=positions,
        calibration=choice.calibration,
        parameters=parameters,
        dense_bytes=sum(each.numel() * each.element_size() for each in model.parameters()),
        layers=tuple(
            _layer(name, layer, choice.factors[name], choice.bounds.get(name))
            for name, layer in layers.items()
        ),
        not_pruned={name: 'asked to keep' for name in find_layers(model) if name not in layers},
    )


def _pools(scope: str, wanted: int, layers: Mapping[str, Layer]) -> Sequence[Pool]:
    if scope not in SCOPES:
        raise PruningError(f'unknown scope {scope!r}; there are {", ".join(SCOPES)}')
    if scope == 'network' or wanted < 0:
        return (Pool(tuple(layers), wanted),)
    total = sum(layer.weight.numel() for layer in layers.values())
    return tuple(
        Pool((name,), wanted * layer.weight.numel() // total) for name, layer in layers.items()
    )


def _given(counts: Mapping[str, int], layers: Mapping[str, Layer]) -> Sequence[Pool]:
    if counts.keys() != layers.keys():
        name = sorted(counts.keys() ^ layers.keys())[0]
        raise PruningError(
            f'counts: {name!r} must be a layer, and be named there or in `ignored_layers`'
        )
    for name, wanted in counts.items():
        there = layers[name].weight.numel()
        if not 0 <= wanted <= there:
            raise BudgetError(f'counts: {name!r} has {there} weights, {wanted} cannot be kept')
    return tuple(Pool((name,), counts[name]) for name in layers)


def _layer(name: str, layer: Layer, factors: Tensor, bound: float | None) -> LayerSparsity:
    mask = factors != 0
    values = factors[mask].float().numpy()
    return LayerSparsity(
        name=name,
        shape=tuple(layer.weight.shape),
        kept=int(mask.sum()),
        value_bytes=layer.weight.element_size(),
        bits=np.packbits(mask.flatten().numpy()).tobytes(),
        values=b'' if (values == 1).all() else values.astype('<f4').tobytes(),
        bound=bound,
    )
