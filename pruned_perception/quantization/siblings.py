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

"""Convolutions in 8 bits that read the same value, computed as one.

The branches of a head begin with convolutions of one shape on one value. On a CPU those of few
channels, as pruning leaves them, take most of their time to gather what a kernel covers, and as
one they gather it once. Each branch keeps its steps: what differs between their scales goes into
the scales of the weights, of which each channel has its own. The values are the same, but where
one lies so near the middle of two steps that the last bit of a multiplier decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pruned_perception.quantization.values import Values, attribute


@dataclass(frozen=True)
class _Layer:
    """A convolution between 8 bits, with what stands around it in a quantised graph."""

    conv: onnx.NodeProto
    weights: onnx.NodeProto
    bias: onnx.NodeProto
    after: onnx.NodeProto
    """The QuantizeLinear that alone reads it; an activation is in its limits."""


def compute_as_one(model: onnx.ModelProto) -> None:
    """Rewrite, in a quantised graph and in place, the convolutions that the module describes.

    The order of the nodes is no longer that of their values then, and constants may be left over:
    whoever wrote the graph sorts and cleans it.
    """
    graph = _Graph(model.graph)
    siblings: dict[Any, list[_Layer]] = defaultdict(list)
    for conv in model.graph.node:
        layer = graph.layer(conv)
        if layer is not None:
            siblings[graph.kind(layer)].append(layer)
    found = [layers for layers in siblings.values() if len(layers) > 1]
    for layers in found:
        graph.put_together(layers)
    if found:
        graph.finish()


class _Graph:
    """A quantised graph, and what is to be removed from it and added in the end."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._values = Values(graph)
        self._gone: list[onnx.NodeProto] = []
        self._new: list[onnx.NodeProto] = []

    def layer(self, conv: onnx.NodeProto) -> _Layer | None:
        """Return the convolution with its surroundings; None of what is no such layer."""
        values = self._values
        if conv.op_type != 'Conv' or len(conv.input) < 3 or conv.output[0] in values.outputs:
            return None
        before = [values.writer.get(each) for each in conv.input]
        after = values.readers.get(conv.output[0], [])
        around = [node for node in (*before, *after) if node is not None]
        types = ['DequantizeLinear'] * 3 + ['QuantizeLinear']
        if [node.op_type for node in around] != types or len(after) != 1:
            return None
        source, weights, bias, steps = around
        constants = {*source.input[1:], *weights.input, *bias.input, *steps.input[1:]}
        if not constants <= set(values.constants) or any(len(node.input) < 3 for node in around):
            return None
        return _Layer(conv, weights, bias, steps) if attribute(conv, 'group') in (None, 1) else None

    def kind(self, layer: _Layer) -> Any:
        """Return what siblings share: source, kernel, attributes, where zero is in their steps."""
        weights, zero = self._array(layer.weights.input[0]), self._array(layer.after.input[2])
        return (
            *self._values.writer[layer.conv.input[0]].input,
            (weights.dtype, weights.shape[1:]),
            tuple(sorted(each.SerializeToString() for each in layer.conv.attribute)),
            (zero.dtype, int(zero)),
        )

    def put_together(self, layers: Sequence[_Layer]) -> None:
        """Compute layers of one kind as one, in the steps of the first."""
        name = f'{layers[0].conv.name}/siblings'
        sizes = [len(self._array(each.weights.input[0])) for each in layers]
        scales = [float(self._array(each.after.input[1])) for each in layers]
        factors = [scales[0] / each for each in scales]
        conv = onnx.NodeProto()
        conv.CopyFrom(layers[0].conv)
        conv.name = name
        for place, part in ((1, 'weights'), (2, 'bias')):
            constants = [
                self._constants(getattr(each, part), factor)
                for each, factor in zip(layers, factors, strict=True)
            ]
            stacked = [np.concatenate(each) for each in zip(*constants, strict=True)]
            conv.input[place] = self._dequantized(f'{name}/{part}', *stacked)
        conv.output[0] = f'{name}/output'
        steps, together = list(layers[0].after.input[1:]), f'{name}/quantized'
        self._new.append(conv)
        self._add('QuantizeLinear', [conv.output[0], *steps], [together])
        self._gone += [node for each in layers for node in (each.conv, each.after)]
        branches = [each.after.output[0] for each in layers]
        readers = [self._pointwise(each) for each in branches]
        if None in readers:
            split = self._constant(np.array(sizes, np.int64), f'{name}/sizes')
            self._add('Split', [together, split], branches, axis=1)
            return
        self._add('DequantizeLinear', [together, *steps], [f'{name}/dequantized'])
        for number, reader in enumerate(readers):
            assert reader is not None
            mine = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
            self._read_all(reader, sum(sizes), mine, 1 / factors[number])
            reader.conv.input[0] = f'{name}/dequantized'

    def finish(self) -> None:
        """Bring the graph up to date; what only those read that are gone goes, too."""
        for node in self._gone:
            self._graph.node.remove(node)
        self._graph.node.extend(self._new)
        read = {value for node in self._graph.node for value in node.input}
        read |= self._values.outputs
        for node in list(self._graph.node):
            if node.op_type == 'DequantizeLinear' and node.output[0] not in read:
                self._graph.node.remove(node)

    def _pointwise(self, branch: str) -> _Layer | None:
        """Return the 1 × 1 convolution in 8 bits that alone reads a branch; None of others."""
        values = [branch]  # and what it is in float
        for _ in range(2):
            after = self._values.readers.get(values[-1], [])
            if len(after) != 1 or values[-1] in self._values.outputs:
                return None
            values.append(after[0].output[0])
        layer = self.layer(after[0])
        if layer is None or self._array(layer.weights.input[0]).shape[2:] != (1, 1):
            return None
        return layer

    def _read_all(self, layer: _Layer, channels: int, mine: slice, factor: float) -> None:
        """Let a layer read all branches, others with weights of 0: cheaper than to part them."""
        quantized, scale, zero = self._constants(layer.weights, factor)
        wide = np.empty((len(quantized), channels, 1, 1), quantized.dtype)
        wide[:] = zero[:, None, None, None]
        wide[:, mine] = quantized
        layer.conv.input[1] = self._dequantized(f'{layer.conv.name}/wide', wide, scale, zero)

    def _constants(
        self, node: onnx.NodeProto, factor: float
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]:
        """Return what is stored, its scales times the factor, and zero points, for each channel."""
        quantized, scale, zero = (self._array(each) for each in node.input)
        count = len(quantized)
        scales = np.broadcast_to(scale, count).astype(np.float64) * factor
        return quantized, scales.astype(np.float32), np.broadcast_to(zero, count)

    def _dequantized(self, name: str, *parts: NDArray[Any]) -> str:
        inputs = [
            self._constant(each, f'{name}_{part}')
            for each, part in zip(parts, ('quantized', 'scale', 'zero_point'), strict=True)
        ]
        self._add('DequantizeLinear', inputs, [name], axis=0)
        return name

    def _array(self, value: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._values.constants[value])

    def _constant(self, array: NDArray[Any], name: str) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _add(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        name = f'{outputs[0]}/{operator}'
        self._new.append(helper.make_node(operator, inputs, outputs, name, **attributes))
