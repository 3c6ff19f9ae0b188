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


"""What an ONNX network costs: multiply–accumulates of a run, and parameters in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from pruned_perception.bundle.manifest import Cost
from pruned_perception.inference.engine import profiled_nodes
from pruned_perception.inference.onnx_file import stored_values

Shape = Sequence[int]


def onnx_cost(model: bytes, feeds: Callable[[Any], Mapping[str, Any]]) -> Cost:
    """Return multiply–accumulates of a run, and the numbers that the file stores as weights.

    Convolutions and matrix products count, whatever else a node computes does not, as usual. Shapes
    are those that ONNX Runtime met while it ran, so that open dimensions do no harm.

    Args:
        model: ONNX, with all its tensors in it.
        feeds: session → the inputs of a run.
    """
    [nodes] = profiled_nodes(model, feeds, 1, fused=False)
    return Cost(parameters=stored_values(model), macs=sum(map(_macs, nodes)))


def _macs(node: Mapping[str, Any]) -> int:
    count = MACS.get(node['op_name'])
    if count is None:
        return 0
    inputs, outputs = (
        [next(iter(each.values())) for each in node[name]]
        for name in ('input_type_shape', 'output_type_shape')
    )
    return count(inputs, outputs[0])


def convolution(inputs: Sequence[Shape], output: Shape) -> int:
    """Each output is a sum over the weights (outputs, inputs / groups, *kernel) of its channel.

    >>> convolution([(1, 8, 16, 16), (32, 8, 3, 3)], (1, 32, 16, 16))
    589824
    """
    return prod(output) * prod(inputs[1][1:])


def transposed_convolution(inputs: Sequence[Shape], output: Shape) -> int:
    """Each input goes into the weights (inputs, outputs / groups, *kernel) of its channel.

    >>> transposed_convolution([(1, 8, 16, 16), (8, 4, 2, 2)], (1, 4, 32, 32))
    32768
    """
    return prod(inputs[0]) * prod(inputs[1][1:])


def product(inputs: Sequence[Shape], output: Shape) -> int:
    """Each output is a sum over the last dimension of the first input.

    >>> product([(1, 4, 10, 32), (32, 64)], (1, 4, 10, 64))
    81920
    """
    return prod(output) * inputs[0][-1]


def general_product(inputs: Sequence[Shape], output: Shape) -> int:
    """Either input may be transposed: of the first, (M, K) or (K, M), K is what M leaves.

    >>> general_product([(64, 10), (64, 5), (5,)], (10, 5))
    3200
    """
    return prod(output) * prod(inputs[0]) // max(output[0], 1)


MACS: dict[str, Callable[[Sequence[Shape], Shape], int]] = {
    'Conv': convolution,
    'ConvInteger': convolution,
    'ConvTranspose': transposed_convolution,
    'Gemm': general_product,
    'MatMul': product,
    'MatMulInteger': product,
    'QLinearConv': lambda inputs, output: convolution([inputs[0], inputs[3]], output),
    'QLinearMatMul': product,
}
