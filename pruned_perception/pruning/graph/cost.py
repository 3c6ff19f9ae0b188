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

"""Parameters and multiply-accumulates of a network, counted as it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import (
    check_model,
    evaluating,
    outside_inference_mode,
)
from pruned_perception.pruning.graph.operators import Operators

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class LayerCost:
    """One module that multiplies: its name and multiply-accumulates for one example."""

    name: str
    macs: int
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of a 2-D convolution, each time it runs: of its weights, its input and its output."""


@dataclass(frozen=True)
class NetworkCost:
    """Parameters, and multiply-accumulates for one example, by the module that asked for them.

    Counted are convolutions and matrix products, whoever calls them: modules, functions, attention,
    recurrent cells. Not counted, as is usual: what works element by element, norms, pooling and
    interpolation. `not_counted` names further operators that multiply: operator → calls.
    """

    parameters: int
    macs: int
    layers: tuple[LayerCost, ...]
    not_counted: Mapping[str, int]


@on_cpu
@outside_inference_mode
def count(model: nn.Module, example_inputs: Sequence[Tensor]) -> NetworkCost:
    """Run `model` once on `example_inputs` and count; a layer used twice counts twice.

    Parameters are all of the module's; those of batch norms vanish where they are folded.

    Raises:
        PruningError: the model has no Python code to run.
    """
    check_model(model)
    counter = _Counter()
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(counter.enter(name)))
        handles.append(module.register_forward_hook(counter.leave))
    try:
        with evaluating(model), _unfused(), counter:
            model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    batch = next(len(each) for each in example_inputs if isinstance(each, Tensor))
    layers = tuple(
        LayerCost(name, value // batch, tuple(counter.shapes.get(name, ())))
        for name, value in counter.macs.items()
    )
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(layer.macs for layer in layers),
        layers=layers,
        not_counted=counter.not_counted,
    )


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Let attention run as the products that it is made of, not as one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# Operator → multiply-accumulates, from its arguments; beside those that PyTorch itself has formulas
# for (in operations, of which a multiply-accumulate is two).
_Formula = Callable[..., int]
_FORMULAS: dict[str, _Formula] = {
    'dot': lambda a, b: a.numel(),
    'vdot': lambda a, b: a.numel(),
    'mv': lambda a, b: a.numel(),
    'addmv': lambda c, a, b, **_: a.numel(),
    'addbmm': lambda c, a, b, **_: a.numel() * b.shape[-1],
    '_addmm_activation': lambda c, a, b, **_: a.numel() * b.shape[-1],
    '_int_mm': lambda a, b: a.numel() * b.shape[-1],
    '_trilinear': lambda a, w, b, *_: w.numel() * prod(a.shape[:-1]),  # x W y of Bilinear
    '_euclidean_dist': lambda a, b: a.numel() * b.shape[-2],
    '_cdist_forward': lambda a, b, *_: a.numel() * b.shape[-2],
    '_scaled_dot_product_flash_attention_for_cpu': lambda q, k, v, *_, **__: (
        q.numel() * k.shape[-2] + prod(q.shape[:-1]) * k.shape[-2] * v.shape[-1]
    ),
    'mkldnn_rnn_layer': lambda x, w, v, *_: x[..., 0].numel() * (w.numel() + v.numel()),
}
# What else multiplies goes by names like these; resizing images and norms do not count as that.
_MULTIPLYING = (
    'mm', 'conv', 'linear', 'attention', 'encoder_layer', 'rnn', 'lstm', 'gru', 'fft', 'cdist',
    'linalg', 'grid_sampler', 'trilinear', 'bilinear', 'einsum', 'matmul', 'inverse', 'solve',
)  # fmt: skip
_HARMLESS = ('upsample', 'interpolate', 'im2col', 'col2im', 'vector_norm')
# Namespaces of operators that only arrange, or ask for a property.
_PLAIN = frozenset(('prim', 'prims', 'debugprims', 'profiler', 'higher_order'))


class _Counter(Operators):
    """While it is entered, counts what every operation multiplies, for the innermost module."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self.not_counted: dict[str, int] = {}
        self.shapes: dict[str, list[tuple[int, ...]]] = {}
        self._where: list[str] = []

    def enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            self._where.append(name)

        return hook

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name = self._where.pop()
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor) and output.dim() == 4:
            source, target = (1, *inputs[0].shape[1:]), (1, *output.shape[1:])
            self.shapes.setdefault(name, []).append((*module.weight.shape, *source, *target))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        name = packet.__name__.removesuffix('_')
        plain = getattr(torch.ops.aten, name, packet) if func.namespace == 'aten' else packet
        formula = _FORMULAS.get(name) if func.namespace == 'aten' else None
        if formula is None and plain not in flop_registry:
            with self:  # under inference mode operators come as a whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        where = self._where[-1] if self._where else ''
        if formula is not None:
            macs = formula(*args, **kwargs)
        elif plain in flop_registry:
            macs = flop_registry[plain](*args, **kwargs, out_val=result) // 2
        else:
            if _multiplies(func.namespace, name):
                label = str(packet)
                self.not_counted[label] = self.not_counted.get(label, 0) + 1
            return result
        self.macs[where] = self.macs.get(where, 0) + macs
        return result


def _multiplies(namespace: str, name: str) -> bool:
    """Whether an operator without a formula may do more than the usual."""
    if namespace != 'aten':
        return namespace not in _PLAIN
    return any(each in name for each in _MULTIPLYING) and not any(
        each in name for each in _HARMLESS
    )
