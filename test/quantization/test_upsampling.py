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

"""Upsampling between layers in 8 bits is written as copies, and computes what it did before."""

from __future__ import annotations

from collections import Counter
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

CHANNELS = 4
RULES = (
    ('asymmetric', 'floor'),  # PyTorch's 'nearest'
    ('half_pixel', 'round_prefer_floor'),  # what Resize does unless told otherwise
    ('align_corners', 'round_prefer_ceil'),
)


def upsampling(
    before: tuple[int, int],
    after: tuple[int, int],
    rule: tuple[str, str] = RULES[0],
    mode: str = 'nearest',
    factors: bool = False,
    region: Sequence[float] = (),
) -> bytes:
    """Return two convolutions, and between them a Resize of (rows, columns)."""
    rng = np.random.default_rng(1)
    constants = {
        'w0': rng.standard_normal((CHANNELS, 1, 3, 3)).astype(np.float32),
        'w1': rng.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32),
    }
    if region:
        constants['region'] = np.array(region, np.float32)
    if factors:
        constants['wanted'] = np.array([1, 1, *np.divide(after, before)], np.float32)
    else:
        constants['wanted'] = np.array([1, CHANNELS, *after], np.int64)
    nodes = [
        helper.make_node('Conv', ['image', 'w0'], ['c'], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node('Relu', ['c'], ['a']),
        helper.make_node(
            'Resize',
            ['a', 'region' if region else '', *([] if factors else ['']), 'wanted'],
            ['b'],
            mode=mode,
            coordinate_transformation_mode=rule[0],
            nearest_mode=rule[1],
        ),
        helper.make_node('Conv', ['b', 'w1'], ['out'], kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        'upsampling',
        [helper.make_tensor_value_info('image', onnx.TensorProto.FLOAT, [1, 1, *before])],
        [helper.make_tensor_value_info('out', onnx.TensorProto.FLOAT, [1, CHANNELS, *after])],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    opset = helper.make_opsetid('', 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def image(model: bytes, seed: int) -> Feeds:
    (source,) = onnx.load_from_string(model).graph.input
    shape = [each.dim_value for each in source.type.tensor_type.shape.dim]
    return {'image': np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def quantized(model: bytes, channels_last: bool = True, layers: int = 2) -> bytes:
    """Return it in 8 bits, but for the layers after the first so many."""
    feeds = [image(model, seed) for seed in (1, 2)]
    quantizer = Quantizer(model, feeds, channels_last=channels_last)
    return quantizer.quantized(SCHEMES['u8s8'], [each.name for each in quantizer.layers[:layers]])


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def answer(model: bytes) -> NDArray[np.float32]:
    return np.asarray(create_session(model).run(None, image(model, 3))[0])


@settings(deadline=None, max_examples=25)
@given(
    before=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    more=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    rule=st.sampled_from(RULES),
)
def test_it_computes_the_same(
    before: tuple[int, int], more: tuple[int, int], rule: tuple[str, str]
) -> None:
    model = upsampling(before, (before[0] + more[0], before[1] + more[1]), rule)
    copied = quantized(model)
    assert 'Gather' in operators(copied)
    assert 'Resize' not in operators(copied)
    np.testing.assert_array_equal(answer(copied), answer(quantized(model, channels_last=False)))


def test_it_computes_the_same_by_factors() -> None:
    model = upsampling((4, 5), (8, 15), factors=True)
    copied = quantized(model)
    assert 'Resize' not in operators(copied)
    np.testing.assert_array_equal(answer(copied), answer(quantized(model, channels_last=False)))


@pytest.mark.parametrize('change', ['mode', 'cropped', 'in float', 'elsewhere'])
def test_what_would_not_be_the_same_or_not_faster_stays(change: str) -> None:
    """Linear upsampling mixes values, cropping brings a new one; in float are no 8 bits to copy."""
    model = upsampling(
        (4, 5),
        (8, 10),
        rule=('tf_crop_and_resize', 'floor') if change == 'cropped' else RULES[0],
        mode='linear' if change == 'mode' else 'nearest',
        region=(0, 0, 0, 0, 1, 1, 1, 2) if change == 'cropped' else (),
    )
    kept = quantized(
        model, channels_last=change != 'elsewhere', layers=0 if change == 'in float' else 2
    )
    assert 'Resize' in operators(kept)
    assert 'Gather' not in operators(kept)


def test_the_engine_drops_the_transpositions() -> None:
    """Else the copies would cost more than the Resize did."""
    model = upsampling((6, 5), (12, 10))
    executed = []
    for channels_last in (True, False):
        [nodes] = profiled_nodes(
            quantized(model, channels_last), lambda session: image(model, 3), 1
        )
        executed.append(Counter(node['op_name'] for node in nodes))
    copied, resized = executed
    assert copied['Gather'] == 2
    assert copied['Transpose'] == resized['Transpose']
    assert copied['QLinearConv'] == resized['QLinearConv'] == 2


def test_the_file_is_valid_onnx() -> None:
    """Each node comes after those that it reads, which ONNX asks for and ONNX Runtime does not."""
    onnx.checker.check_model(onnx.load_from_string(quantized(upsampling((4, 5), (8, 10)))))
