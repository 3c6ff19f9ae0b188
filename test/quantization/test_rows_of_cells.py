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

"""Ends of detectors are put together by kinds of output, and give what they gave before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pruned_perception.inference.engine import create_session, profiled_nodes
from pruned_perception.quantization.qdq import Feeds, Quantizer
from pruned_perception.quantization.schemes import SCHEMES

SIDE = 12
CHANNELS = 4


def detector(
    kinds: Sequence[int] = (4, 3),
    slices: Sequence[tuple[int, int]] = ((0, 4), (4, 7)),
    strides: Sequence[int] = (1, 2, 3),
    rows_too: bool = False,
    axis: int = 2,
) -> bytes:
    """Return a layer, levels of `kinds` of output each, and slices of their rows of cells.

    `slices`: first channel and the one after the last of each output. `axis` of what puts the
    levels side by side: 2, or 0, which is another end.
    """
    rng = np.random.default_rng(1)
    constants: dict[str, NDArray[np.generic]] = {
        'w': rng.standard_normal((CHANNELS, 1, 3, 3)).astype(np.float32),
        'axis': np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node('Conv', ['image', 'w'], ['c'], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node('Relu', ['c'], ['x']),
    ]
    for level, stride in enumerate(strides):
        for kind, channels in enumerate(kinds):
            name = f'{level}.{kind}'
            weights = rng.standard_normal((channels, CHANNELS, 1, 1)).astype(np.float32)
            constants[f'w{name}'] = weights
            nodes.append(
                helper.make_node(
                    'Conv', ['x', f'w{name}'], [name], kernel_shape=[1, 1], strides=[stride] * 2
                )
            )
        found = f'{level}.0'
        if len(kinds) > 1:
            found = f'{level}'
            names = [f'{level}.{kind}' for kind in range(len(kinds))]
            nodes.append(helper.make_node('Concat', names, [found], axis=1))
        cells = (-(-SIDE // stride)) ** 2
        constants[f's{level}'] = np.array([1, sum(kinds), cells], np.int64)
        nodes.append(helper.make_node('Reshape', [found, f's{level}'], [f'flat{level}']))
    flat = [f'flat{level}' for level in range(len(strides))]
    nodes += [
        helper.make_node('Concat', flat, ['all'], axis=axis),
        helper.make_node('Transpose', ['all'], ['rows'], perm=[0, 2, 1]),
    ]
    outputs = ['rows'] if rows_too or not slices else []
    for number, (start, stop) in enumerate(slices):
        constants[f'a{number}'] = np.array([start], np.int64)
        constants[f'b{number}'] = np.array([stop], np.int64)
        inputs = ['rows', f'a{number}', f'b{number}', 'axis']
        nodes.append(helper.make_node('Slice', inputs, [f'part{number}']))
        nodes.append(helper.make_node('Sigmoid', [f'part{number}'], [f'out{number}']))
        outputs.append(f'out{number}')
    graph = helper.make_graph(
        nodes,
        'detector',
        [helper.make_tensor_value_info('image', onnx.TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    opset = helper.make_opsetid('', 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def image(seed: int) -> Feeds:
    shape = (1, 1, SIDE, SIDE)
    return {'image': np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def quantized(model: bytes, channels_last: bool) -> bytes:
    quantizer = Quantizer(model, [image(1), image(2)], channels_last=channels_last)
    return quantizer.quantized(SCHEMES['u8s8'], [each.name for each in quantizer.layers])


def operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def both(model: bytes) -> tuple[bytes, bytes]:
    """Return it for channels last, and as the quantiser writes it: they compute the same."""
    pair = quantized(model, True), quantized(model, False)
    found = [create_session(each).run(None, image(3)) for each in pair]
    assert len(found[0]) == len(found[1]) > 0
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    onnx.checker.check_model(onnx.load_from_string(pair[0]))
    return pair


def test_nothing_is_transposed_or_taken_apart() -> None:
    pair = both(detector())
    ours, theirs = (
        Counter(node['op_name'] for node in profiled_nodes(each, lambda session: image(3), 1)[0])
        for each in pair
    )
    assert theirs['Transpose'] > 1
    assert theirs['Slice'] + theirs['Split'] > 0
    assert ours['Transpose'] == 1  # of the image
    assert ours['Slice'] == ours['Split'] == 0
    assert ours['QLinearConv'] == theirs['QLinearConv'] == 7


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_it_computes_the_same(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    spans = st.tuples(st.integers(0, sum(kinds)), st.integers(0, sum(kinds)))
    slices = data.draw(st.lists(spans.filter(lambda each: each[0] < each[1]), max_size=3))
    strides = data.draw(st.lists(st.sampled_from([1, 2, 5]), min_size=1, max_size=3))
    both(detector(kinds, slices, strides, data.draw(st.booleans())))


def test_another_end_stays_as_it_is() -> None:
    """Levels of one size may be put one after the other, as a batch."""
    ours, theirs = both(detector(strides=(1, 1), axis=0))
    assert operators(ours) == operators(theirs)


def test_an_output_that_stands_twice_stays_as_it_is() -> None:
    model = onnx.load_from_string(detector(kinds=(3, 3), slices=((0, 3), (3, 6)), strides=(1, 2)))
    for node in model.graph.node:
        if node.op_type == 'Concat' and node.input[0].endswith('.0'):
            node.input[1] = node.input[0]
    ours, theirs = both(model.SerializeToString())
    assert operators(ours) == operators(theirs)
