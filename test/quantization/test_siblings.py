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

"""Branches that begin on the same value are computed as one, and give what they did before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pruned_perception.inference.engine import create_session, profiled_nodes
from pruned_perception.quantization.qdq import Feeds, Quantizer
from pruned_perception.quantization.schemes import SCHEMES

SIZE, STEM = (7, 9), 8


def branches(
    widths: Sequence[int],
    *,
    ends: Sequence[int] = (1,),
    strides: Sequence[int] = (1,),
    groups: int = 1,
    relu: bool = True,
    shown: bool = False,
) -> bytes:
    """Return a stem and branches on it of two convolutions: 3 × 3, and of `ends` to the square.

    `ends` and `strides` are gone through again and again. `shown`: the first branch's first
    convolution is an output of the graph, too.
    """
    rng = np.random.default_rng(len(widths))
    constants: dict[str, NDArray[np.float32]] = {}
    nodes, outputs = [], []

    def layer(
        source: str,
        name: str,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        group: int = 1,
    ) -> None:
        shape = (channels[1], channels[0] // group, kernel, kernel)
        # Branches of different ranges, so that their steps differ.
        constants[f'{name}.w'] = (rng.normal(size=shape) * rng.uniform(0.2, 3)).astype(np.float32)
        constants[f'{name}.b'] = rng.normal(size=channels[1]).astype(np.float32)
        nodes.append(
            helper.make_node(
                'Conv',
                [source, f'{name}.w', f'{name}.b'],
                [name],
                name,
                kernel_shape=[kernel] * 2,
                pads=[kernel // 2] * 4,
                strides=[stride] * 2,
                group=group,
            )
        )

    layer('image', 'stem', (3, STEM), 3)
    nodes.append(helper.make_node('Relu', ['stem'], ['base'], 'stem_relu'))
    for k, width in enumerate(widths):
        first = f'first{k}'
        layer('base', first, (STEM, width), 3, strides[k % len(strides)], groups)
        if relu:
            nodes.append(helper.make_node('Relu', [first], [f'{first}_relu'], f'{first}_relu'))
        layer(f'{first}_relu' if relu else first, f'out{k}', (width, 4), ends[k % len(ends)])
        outputs.append(f'out{k}')
    if shown:
        outputs.append('first0_relu')
    graph = helper.make_graph(
        nodes,
        'branches',
        [helper.make_tensor_value_info('image', onnx.TensorProto.FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, None) for each in outputs],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    opset = helper.make_opsetid('', 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def image(seed: int) -> Feeds:
    return {'image': np.random.default_rng(seed).normal(size=(1, 3, *SIZE)).astype(np.float32)}


def quantized(
    model: bytes, channels_last: bool = True, scheme: str = 'u8s8', in_float: Sequence[str] = ()
) -> bytes:
    quantizer = Quantizer(model, [image(1), image(2)], channels_last=channels_last)
    layers = [each.name for each in quantizer.layers if each.name not in in_float]
    return quantizer.quantized(SCHEMES[scheme], layers)


def count(model: bytes, operator: str) -> int:
    return sum(node.op_type == operator for node in onnx.load_from_string(model).graph.node)


def assert_same(one: bytes, other: bytes) -> None:
    """Compare what both give on an image: a step apart at most, and hardly ever that."""
    inputs = image(3)
    answers = [create_session(each).run(None, inputs) for each in (one, other)]
    for found, wanted in zip(*answers, strict=True):
        step = np.ptp(wanted) / 50  # of 255; a branch's first layer may be a step apart, too
        np.testing.assert_allclose(found, wanted, rtol=0, atol=step)
        assert np.mean(found != wanted) < 0.1


@settings(deadline=None, max_examples=25)
@given(
    widths=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    ends=st.sampled_from([(1,), (3,), (1, 3)]),
    scheme=st.sampled_from(sorted(SCHEMES)),
)
def test_they_are_one_and_compute_the_same(
    widths: list[int], ends: tuple[int, ...], scheme: str
) -> None:
    model = branches(widths, ends=ends)
    apart, one = quantized(model, False, scheme), quantized(model, True, scheme)
    assert count(apart, 'Conv') - count(one, 'Conv') == len(widths) - 1
    assert count(one, 'Split') == (ends != (1,))  # 1 × 1 convolutions read them all
    onnx.checker.check_model(onnx.load_from_string(one))
    assert_same(one, apart)


def test_the_engine_runs_them_in_8_bits_and_nothing_else_for_it() -> None:
    [nodes] = profiled_nodes(quantized(branches([16, 24])), lambda session: image(3), 1)
    ran = [node['op_name'] for node in nodes]
    assert ran.count('QLinearConv') == 4  # stem, siblings, two ends
    assert not {'Conv', 'Split', 'Slice'} & set(ran)
    assert ran.count('DequantizeLinear') == 2  # of the outputs: no constants


@pytest.mark.parametrize(
    'changes',
    [
        {'strides': (1, 2)},
        {'groups': 4},
        {'relu': False},  # zero is elsewhere in the steps of each
    ],
    ids=str,
)
def test_what_is_not_of_one_kind_stays(changes: dict[str, object]) -> None:
    model = branches([8, 16], **changes)  # type: ignore[arg-type]
    assert quantized(model, True) == quantized(model, False)


def test_a_branch_in_float_stays() -> None:
    model = branches([8, 16, 8])
    one = quantized(model, in_float=['first1'])
    assert count(one, 'Conv') == 6
    assert_same(one, quantized(model, False, in_float=['first1']))


def test_a_branch_that_is_an_output_too_is_given() -> None:
    model = branches([8, 16], shown=True)
    one = quantized(model)
    assert_same(one, quantized(model, False))
