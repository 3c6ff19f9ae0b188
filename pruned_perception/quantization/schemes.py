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

"""Types of 8-bit activations and weights, and which of them this processor computes exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pruned_perception.inference.engine import create_session
from pruned_perception.inference.processor import integer_arithmetic


@dataclass(frozen=True)
class Scheme:
    """Types of activations and weights; weights are symmetric and scaled per channel."""

    name: str
    signed_activations: bool
    signed_weights: bool
    reduced_range: bool
    """Weights of 7 bits: pairs of products fit into 16 bits."""


SCHEMES = {
    each.name: each
    for each in (
        Scheme('u8s8', False, True, False),
        Scheme('u8s7', False, True, True),
        Scheme('s8s8', True, True, False),
        Scheme('u8u8', False, False, False),
    )
}


def scheme_for_here() -> str:
    """Return the scheme for this processor: the fastest of those that it computes exactly.

    On Arm that is S8S8. On x86 the engine has fast kernels for unsigned activations and signed
    weights alone; these saturate without dot-product instructions, so that weights then have 7
    bits.
    """
    if integer_arithmetic().startswith('Arm'):
        return 's8s8'
    return 'u8s7' if saturates() else 'u8s8'


@cache
def saturates() -> bool:
    """Say whether the engine's convolution of bytes saturates here, by an example that would.

    All activations 255 and all weights 127: each pair of products, 64,770, exceeds 16 bits.
    """
    channels = 64
    session = create_session(_convolution(channels), name='test of saturation')
    image = np.full((1, channels, 8, 8), 255, np.uint8)
    (found,) = session.run(None, {'x': image})
    return bool(np.abs(found.astype(int) - 255).max() > 1)


def _convolution(channels: int) -> bytes:
    """Return a 1 × 1 convolution of bytes whose exact result is 255 everywhere."""
    constants = {
        'one': np.float32(1),
        'weights': np.full((channels, channels, 1, 1), 127, np.int8),
        'zero': np.uint8(0),
        'none': np.int8(0),
        'scale': np.float32(127 * channels),
    }
    node = helper.make_node(
        'QLinearConv',
        ['x', 'one', 'zero', 'weights', 'one', 'none', 'scale', 'zero'],
        ['y'],
        kernel_shape=[1, 1],
    )
    shape = [1, channels, 8, 8]
    graph = helper.make_graph(
        [node],
        'saturation',
        [helper.make_tensor_value_info('x', TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info('y', TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid('', 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
