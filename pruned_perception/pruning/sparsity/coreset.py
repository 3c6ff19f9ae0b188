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

"""The coreset bound: how many weights of a chain of ReLU layers an end-to-end error needs.

The chain z¹ = W¹ x + b¹, a^ℓ = ReLU(z^ℓ), z^{ℓ+1} = W^{ℓ+1} a^ℓ + b^{ℓ+1} of n weight layers, batch
norms folded, is to be replaced by one with drawn weights whose every output has the relative error
|ẑ − z| ≤ ε |z|, ε < 1.

*One layer.* With V = V⁺ + V⁻ = Σ |w a|, its two sides, the cancellation factor Δ = V / |z| (z with
its bias) says by how much differences of large sums magnify relative errors. Let the inputs have
â_j within (1 ± η) a_j and the drawn sides be within (1 ± ε_ℓ) of the exact ones on the *exact*
inputs. Drawn weights keep their signs and a ≥ 0, so each side is monotone in the inputs, hence
within (1 ± η)(1 ± ε_ℓ), and

    |ẑ − z| ≤ (ε_ℓ (1 + η) + η) V ≤ Δ^ℓ (ε_ℓ (1 + η) + η) |z|.

ReLU keeps relative errors up to 1: they change no sign. So do maxima, and averages of what is not
negative.

*The chain.* With Δ^k ≥ 1 and η_0 = 0, ε_ℓ = ε / (2 n Π_{k ≥ ℓ} Δ^k) gives by induction
η_ℓ ≤ (ℓ / n) ε / Π_{k > ℓ} Δ^k ≤ 1, thus η_n ≤ ε. m(ε_ℓ) draws per side, see `bounds`, make all N
claims about sides true at once with probability ≥ 1 − δ. The first layer may read inputs of either
sign: they are exact, so that only the whole error counts, relative to V.

Δ^k is the largest over outputs, positions and the calibration set, where the bound is exact; for
another input it assumes that its Δ is no larger, beside the factor K. One output near zero makes
Δ^k huge, and the product over the layers makes the bound vacuous for nearly every trained network:
as many draws as there are weights or more. It says how errors travel; it is no way to prune.

Residual additions need a Δ of their own, and other activations do not keep relative errors: such
networks are refused.

Source: Baykal et al., Data-dependent coresets for compressing neural networks (ICLR 2019),
section 5, derived again for biases and for signed inputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from pruned_perception._tables import Table
from pruned_perception.pruning.bounds import expected_distinct, sample_complexity
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.contributions import Layer, kernel
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import observed
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.sparsity.selection import from_kernel
from pruned_perception.pruning.sparsity.sensitivity import Side, sides_of, weight_sensitivities

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NEUTRAL = (nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.MaxPool2d)
_MEAN = (torch.mean, 'mean')
_RELU = (torch.relu, functional.relu, 'relu', 'relu_')
_FLATTEN = (torch.flatten, 'flatten')


@dataclass(frozen=True, eq=False)
class Chain:
    """A folded chain in double precision.

    Attributes:
        network: computes what the original does in evaluation mode.
        names: of its weight layers, in order: their name in `network` → in the original.
    """

    network: nn.Sequential
    names: dict[str, str]

    @property
    def layers(self) -> dict[str, Layer]:
        """The weight layers of `network` by their names there, in order."""
        modules = dict(self.network.named_modules())
        return {name: modules[name] for name in self.names}


class _Mean(nn.Module):
    """The mean over height and width of (B, c, H, W)."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


_AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, _Mean)


class _ToDouble(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def relu_chain(model: nn.Module) -> Chain:
    """Fold a chain: weight layer, batch norm, ReLU, and so on up to the last weight layer.

    Convolutions and linear layers count as weight layers; between a ReLU and the next of them
    there may be pooling, flattening and dropout. Nothing may branch.

    Args:
        model: the network, traceable by torch.fx; untouched.

    Raises:
        PruningError: it is no such chain; names the module.
    """
    source = copy.deepcopy(model).eval().double()
    try:
        graph = fx.symbolic_trace(source).graph
    except Exception as error:  # whatever the user's forward or the tracing raises
        raise PruningError(f'{type(model).__name__}: cannot be traced: {error}') from error
    steps: list[nn.Module] = [_ToDouble()]
    names: dict[str, str] = {}
    previous: fx.Node | None = None
    signed_sum = False  # whether the last weight layer's output has not met its ReLU yet
    for node in graph.nodes:
        if node.op == 'placeholder':
            if previous is not None:
                raise _refusal(node, 'is a second input')
            previous = node
            continue
        if previous is None or node.all_input_nodes != [previous] or len(previous.users) != 1:
            raise _refusal(node, 'branches or joins branches: a residual needs a Δ of its own')
        if node.op == 'output':
            break
        module = _module(source, node)
        if isinstance(module, nn.Conv2d | nn.Linear):
            if signed_sum:
                raise _refusal(node, 'follows another weight layer without a ReLU between them')
            if node.target in names.values():
                raise _refusal(node, 'is used twice')
            names[str(len(steps))] = str(node.target)
            signed_sum = True
        elif isinstance(module, _NORMS):
            if not isinstance(steps[-1], nn.Conv2d | nn.Linear) or module.running_var is None:
                raise _refusal(node, 'follows no weight layer that it could be folded into')
            module = _folded(steps.pop(), module)
        elif isinstance(module, nn.ReLU):
            signed_sum = False
        elif isinstance(module, _AVERAGES):
            if signed_sum:
                raise _refusal(node, 'averages values of both signs, which magnifies errors')
        elif not isinstance(module, _NEUTRAL):
            raise _refusal(node, f'({type(module).__name__}) does not keep relative errors')
        steps.append(module)
        previous = node
    if not names:
        raise PruningError(f'{type(model).__name__}: has no convolution or linear layer')
    return Chain(nn.Sequential(*steps).requires_grad_(False), names)


def _module(source: nn.Module, node: fx.Node) -> nn.Module:
    if node.op == 'call_module':
        return source.get_submodule(str(node.target))
    if node.target in _RELU:
        return nn.ReLU()
    if node.target in _FLATTEN:
        ends = dict(zip(('start_dim', 'end_dim'), node.args[1:], strict=False))
        return nn.Flatten(**{'start_dim': 0, **ends, **node.kwargs})  # type: ignore[arg-type]
    if node.target in _MEAN:
        asked = dict(zip(('dim', 'keepdim'), node.args[1:], strict=False)) | node.kwargs
        dims = asked.get('dim')
        if isinstance(dims, list | tuple) and {each % 4 for each in dims} == {2, 3}:
            return _Mean(bool(asked.get('keepdim', False)))
        raise _refusal(node, 'averages over something else than height and width')
    raise _refusal(node, 'is no operation of such a chain')


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)  # type: ignore[arg-type]
    return fuse_conv_bn_eval(layer, norm)  # type: ignore[type-var,arg-type]


def _refusal(node: fx.Node, why: str) -> PruningError:
    """Return the error that names the module: the node's own, or that of the operation."""
    where = str(node.target) if node.op == 'call_module' else node.name
    holders = list(node.meta.get('nn_module_stack', {}))
    if node.op != 'call_module' and holders:
        where = f'{holders[-1]}: {where}'
    return PruningError(
        f'{where} {why}; the bound is for chains of weight layers with a ReLU between them'
    )


_MOST_DRAWS = 2**62  # that the generator can count


@dataclass(frozen=True, eq=False)
class MeasuredChain:
    """A chain and what its bound depends on, measured on a calibration set.

    Attributes:
        chain: the folded network.
        sides: of its neurons, with their sensitivities; all positions were looked at.
        cancellations: Δ^k ≥ 1 of each weight layer, in order; may be infinite.
        events: N, outputs × positions × sides of all layers on one example.
        calibration: what it was measured on.
    """

    chain: Chain
    sides: tuple[Side, ...]
    cancellations: tuple[float, ...]
    events: int
    calibration: CalibrationRecord


@dataclass(frozen=True)
class LayerBound(Record):
    """What the end-to-end error asks of one layer.

    Attributes:
        name: of the layer.
        weights: how many it has.
        active: how many of them ever mattered on the calibration set; the others go for nothing.
        cancellation: Δ^ℓ, the largest V / |z|.
        epsilon: ε_ℓ, the error that each of its sides may have; 0 where a Δ^k is infinite.
        draws: of all its sides together; infinite where ε_ℓ is 0.
        kept: distinct weights among them, in expectation.
    """

    name: str
    weights: int
    active: int
    cancellation: float
    epsilon: float
    draws: float
    kept: float

    @property
    def vacuous(self) -> bool:
        """Whether the bound asks for as many draws as there are active weights, or more."""
        return self.draws >= self.active

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        return {name: None if value == math.inf else value for name, value in data.items()}

    @classmethod
    def _given(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: math.inf if value is None else value for name, value in data.items()}


@dataclass(frozen=True)
class CoresetBound(Record):
    """How many weights each layer of a chain must draw for an end-to-end relative error ε.

    With probability 1 − δ each output has |ẑ − z| ≤ ε |z|, for one input whose sensitivities and
    cancellations are within K and the Δ of the calibration set.
    """

    epsilon: float
    delta: float
    K: float
    events: int
    calibration: CalibrationRecord
    layers: tuple[LayerBound, ...]

    def to_text(self) -> str:
        """Return a table: cancellation, error and draws of each layer, and what is vacuous."""
        header = 'layer | weights:7d | active:7d | Δ:7.2g | ε_ℓ:7.2g | draws:8.3g | kept:7.0f | '
        rows = [
            (
                *(each.name, each.weights, each.active, each.cancellation, each.epsilon),
                *(each.draws, each.kept, self._remark(each)),
            )
            for each in self.layers
        ]
        weights, kept = (sum(getattr(each, n) for each in self.layers) for n in ('weights', 'kept'))
        vacuous = sum(each.vacuous for each in self.layers)
        where = f'; vacuous in {vacuous} of {len(self.layers)} layers' if vacuous else ''
        return (
            f'end-to-end relative error {self.epsilon:g} with probability {1 - self.delta:g}, '
            f'{self.calibration.images} images\n{Table.under(header, rows).to_text()}\n'
            f'drawn like this, {kept:,.0f} of {weights:,} weights would stay{where}'
        )

    def _remark(self, layer: LayerBound) -> str:
        if math.isinf(layer.cancellation):
            return 'vacuous: an output cancels to zero'
        return 'vacuous: no fewer draws than active weights' if layer.vacuous else ''


def layer_errors(epsilon: float, cancellations: Sequence[float]) -> tuple[float, ...]:
    """Return ε_ℓ = ε / (2 n Π_{k ≥ ℓ} Δ^k) of each of the n layers.

    Args:
        epsilon: end-to-end relative error in (0, 1).
        cancellations: Δ^k ≥ 1 of the layers, in order.

    Raises:
        PruningError: an argument out of its domain.

    >>> layer_errors(0.4, [2.0, 5.0])
    (0.01, 0.02)
    >>> layer_errors(0.4, [float('inf'), 5.0])
    (0.0, 0.02)
    """
    if not 0 < epsilon < 1:
        raise PruningError(f'epsilon must be in (0, 1), got {epsilon}')
    if any(not factor >= 1 for factor in cancellations):
        raise PruningError(f'cancellation factors must be ≥ 1, got {list(cancellations)}')
    product, errors = 1.0, []
    for factor in reversed(cancellations):
        product *= factor
        errors.append(epsilon / (2 * len(cancellations) * product))
    return tuple(reversed(errors))


@on_cpu
def measure_chain(model: nn.Module, calibration: Iterable[Batch]) -> MeasuredChain:
    """Fold a chain and measure its sensitivities and cancellations, in one pass.

    Args:
        model: a chain of ReLU weight layers; untouched.
        calibration: batches of inputs, without labels.

    Raises:
        PruningError: the network is no such chain (names the module), or an empty or unusable
            calibration set.
    """
    chain = relu_chain(model)
    sizes = {name: _absolute(layer) for name, layer in chain.layers.items()}
    largest = dict.fromkeys(chain.layers, 1.0)

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        size = sizes[name](x.abs())
        factors = torch.where(size > 0, size / output.abs(), 0.0)  # 0/0: nothing can go wrong
        largest[name] = max(largest[name], float(factors.max()))

    with observed(chain.network, chain.layers, observe):
        measured, record = weight_sensitivities(
            chain.network,
            chain.layers,
            calibration,
            positions=None,
            generator=torch.Generator(),
            negligible=0.0,
        )
    return MeasuredChain(
        chain=chain,
        sides=tuple(sides_of(chain.layers, measured)),
        cancellations=tuple(largest.values()),
        events=sum(each.events for each in measured.values()),
        calibration=record,
    )


def coreset_bound(
    measured: MeasuredChain, *, epsilon: float, delta: float = 0.1, K: float = 1.0
) -> CoresetBound:
    """Return how many weights each layer must draw.

    Args:
        measured: the chain, from `measure_chain`.
        epsilon: end-to-end relative error in (0, 1).
        delta: probability in (0, 1) that it is exceeded.
        K: how far an input may exceed the measured sensitivities.

    Raises:
        PruningError: an argument out of its domain.
    """
    chain = measured.chain
    layers = []
    for name, cancellation, error in zip(
        chain.layers,
        measured.cancellations,
        layer_errors(epsilon, measured.cancellations),
        strict=True,
    ):
        own = [side for side in measured.sides if side.layer == name]
        draws = [_draws(side, error, measured.events, delta, K) for side in own]
        layers.append(
            LayerBound(
                name=chain.names[name],
                weights=chain.layers[name].weight.numel(),
                active=sum(map(len, own)),
                cancellation=cancellation,
                epsilon=error,
                draws=sum(draws),
                kept=sum(
                    expected_distinct(side.probabilities, m)
                    for side, m in zip(own, draws, strict=True)
                ),
            )
        )
    return CoresetBound(epsilon, delta, K, measured.events, measured.calibration, tuple(layers))


@torch.no_grad()
def draw_coreset(measured: MeasuredChain, bound: CoresetBound, *, seed: int) -> nn.Sequential:
    """Return the folded chain, in double precision, with weights drawn as `bound` asks.

    A side that would need more draws than can be counted stays as it is.

    Raises:
        PruningError: the bound is of another chain.
    """
    chain = measured.chain
    names = tuple(chain.names[name] for name in chain.layers)
    if names != tuple(layer.name for layer in bound.layers):
        raise PruningError(f'bound: it is of another chain, this one has the layers {names}')
    rng = np.random.default_rng(seed)
    network = copy.deepcopy(chain.network)
    for (name, layer), asked in zip(chain.layers.items(), bound.layers, strict=True):
        factors = torch.zeros(layer.weight.numel(), dtype=torch.float64)
        for side in (each for each in measured.sides if each.layer == name):
            draws = _draws(side, asked.epsilon, bound.events, bound.delta, bound.K)
            drawn = side.draw(int(draws), rng) if draws < _MOST_DRAWS else 1.0
            factors[side.indices] = drawn
        weight = network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        weight.mul_(from_kernel(layer, factors.view_as(kernel(layer))))
    return network


def _draws(side: Side, epsilon: float, events: int, delta: float, K: float) -> float:
    if epsilon == 0:
        return math.inf
    try:
        return float(
            sample_complexity(epsilon, side.total, events, delta=delta, K=K, signed=side.signed)
        )
    except (OverflowError, ZeroDivisionError):  # ε² is 0, or what is divided by it is infinite
        return math.inf


def _absolute(layer: Layer) -> nn.Module:
    """Return the layer that computes V of absolute inputs: |w|, no bias."""
    size = copy.deepcopy(layer)
    size.weight.data.abs_()
    size.bias = None
    return size
