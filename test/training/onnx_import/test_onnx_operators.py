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

"""Every operator computes in PyTorch what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from graphs import check, graph, node
from torch import nn

from pruned_perception.training.onnx_import.functions import following


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@settings(max_examples=40)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    auto=st.sampled_from(['NOTSET', 'SAME_UPPER', 'SAME_LOWER', 'VALID']),
    bias=st.booleans(),
)
def test_convolutions(
    groups: int,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    pads: list[int],
    auto: str,
    bias: bool,
) -> None:
    if auto.startswith('SAME'):
        dilation = 1  # ONNX Runtime has no more
    constants = {'w': random(8, 4 // groups, *kernel)}
    if bias:
        constants['b'] = random(8)
    attributes: dict[str, Any] = {'pads': pads} if auto == 'NOTSET' else {'auto_pad': auto}
    conv = node(
        'Conv', 'x w b' if bias else 'x w', group=groups, strides=[stride] * 2,
        dilations=[dilation] * 2, **attributes,
    )  # fmt: skip
    network = check(graph([conv], {'x': (1, 4, 9, 11)}, ['y'], constants))
    assert [type(each) for each in network.module.children()] == [nn.Conv2d]


@pytest.mark.parametrize('dimensions', [1, 2])
@pytest.mark.parametrize(
    'attributes',
    [
        {},
        {'strides': 2, 'pads': 1, 'output_padding': 1},
        {'strides': 2, 'auto_pad': 'SAME_UPPER'},
        {'strides': 2, 'auto_pad': 'SAME_LOWER'},
        {'strides': 3, 'group': 2, 'dilations': 2},
        {'strides': 2, 'ends': 1},
    ],
)
def test_transposed_convolutions(dimensions: int, attributes: dict[str, Any]) -> None:
    own = dict(attributes)
    if (end := own.pop('ends', None)) is not None:  # more is taken off before than after
        own['pads'] = [end] * dimensions + [0] * dimensions
    for name in ('strides', 'dilations', 'output_padding'):
        if name in own:
            own[name] = [own[name]] * dimensions
    if isinstance(own.get('pads'), int):
        own['pads'] = [own['pads']] * 2 * dimensions
    shape = (4, 6 // own.get('group', 1), *(3, 3)[:dimensions])
    conv = node('ConvTranspose', 'x w b', **own)
    constants = {'w': random(*shape), 'b': random(6)}
    check(graph([conv], {'x': (1, 4, *(5, 6)[:dimensions])}, ['y'], constants))


def test_convolutions_of_signals_are_layers_of_pictures_one_pixel_high() -> None:
    conv = node('Conv', 'x w b', pads=[1, 2], strides=[2])
    constants = {'w': random(6, 3, 4), 'b': random(6)}
    network = check(graph([conv], {'x': (1, 3, 17)}, ['y'], constants))
    assert isinstance(next(network.module.children()), nn.Conv2d)


@pytest.mark.parametrize('opset', [11, 13, 17, 21])
@pytest.mark.parametrize(
    ('operator', 'attributes'),
    [
        ('Relu', {}), ('LeakyRelu', {'alpha': 0.1}), ('Sigmoid', {}), ('Tanh', {}), ('Exp', {}),
        ('HardSigmoid', {}), ('HardSigmoid', {'alpha': 1 / 6, 'beta': 0.5}), ('Elu', {}),
        ('Elu', {'alpha': 0.5}), ('Selu', {}), ('Softplus', {}), ('Erf', {}), ('Abs', {}),
        ('Neg', {}), ('Floor', {}), ('Ceil', {}), ('Round', {}), ('Sign', {}), ('Softsign', {}),
        ('Softmax', {'axis': 1}), ('Softmax', {'axis': 3}), ('Softmax', {}), ('Identity', {}),
        ('LogSoftmax', {'axis': -1}), ('Sin', {}), ('Cos', {}), ('GlobalAveragePool', {}),
        ('GlobalMaxPool', {}), ('LRN', {'size': 3}), ('Dropout', {}),
        ('Flatten', {}), ('Flatten', {'axis': 2}), ('Transpose', {'perm': [0, 2, 3, 1]}),
        ('DepthToSpace', {'blocksize': 2}), ('DepthToSpace', {'blocksize': 2, 'mode': 'CRD'}),
        ('SpaceToDepth', {'blocksize': 2}), ('ArgMax', {'axis': 1}),
    ],
)  # fmt: skip
def test_operators_of_one_input(opset: int, operator: str, attributes: dict[str, Any]) -> None:
    model = graph(
        [node(operator, 'x', 'z', **attributes), node('Cast', 'z', to=1)],
        {'x': (1, 4, 6, 8)}, ['y'], opset=opset,
    )  # fmt: skip
    check(model)


@pytest.mark.parametrize(
    ('operator', 'attributes', 'opset'),
    [
        ('Celu', {'alpha': 2.0}, 12), ('HardSwish', {}, 14), ('Mish', {}, 18), ('Gelu', {}, 20),
        ('Gelu', {'approximate': 'tanh'}, 20),
    ],
)  # fmt: skip
def test_younger_activations(operator: str, attributes: dict[str, Any], opset: int) -> None:
    check(graph([node(operator, 'x', **attributes)], {'x': (1, 4, 5, 5)}, ['y'], opset=opset))


@pytest.mark.parametrize('operator', ['Log', 'Sqrt', 'Reciprocal'])
def test_operators_of_positive_numbers(operator: str) -> None:
    model = graph([node(operator, 'x')], {'x': (1, 2, 3)}, ['y'])
    check(model, [np.abs(random(1, 2, 3)) + 0.5])


@pytest.mark.parametrize('operator', ['Add', 'Sub', 'Mul', 'Div', 'Pow', 'Min', 'Max', 'Mod'])
@pytest.mark.parametrize('shape', [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 4, 3, 5)])
@pytest.mark.parametrize('swapped', [False, True])
def test_operators_of_two_inputs(operator: str, shape: tuple[int, ...], swapped: bool) -> None:
    constant = np.abs(random(*shape)) + np.float32(0.5)
    attributes = {'fmod': 1} if operator == 'Mod' else {}
    one = node(operator, 'c x' if swapped else 'x c', **attributes)
    model = graph([one], {'x': (1, 4, 3, 5)}, ['y'], {'c': constant})
    check(model, [np.abs(random(1, 4, 3, 5)) + np.float32(0.5)])


def test_comparisons_choose() -> None:
    nodes = [node('Greater', 'x z', 'more'), node('Where', 'more x z')]
    check(graph(nodes, {'x': (1, 4, 5), 'z': (1, 4, 5)}, ['y']))


@pytest.mark.parametrize('opset', [11, 13])
def test_clip_with_one_bound_and_none(opset: int) -> None:
    constants = {'low': np.float32(-0.5), 'high': np.float32(0.75)}
    for inputs in ('x low high', 'x low', 'x - high', 'x'):
        check(graph([node('Clip', inputs)], {'x': (1, 4, 5)}, ['y'], constants, opset=opset))


def test_prelu_and_norms_are_layers() -> None:
    constants = {
        's': random(4, 1, 1), 'a': random(4), 'b': random(4), 'm': random(4),
        'v': np.abs(random(4)),
    }  # fmt: skip
    nodes = [
        node('PRelu', 'x s', 'p'),
        node('BatchNormalization', 'p a b m v', 'n', epsilon=1e-3),
        node('InstanceNormalization', 'n a b'),
    ]
    network = check(graph(nodes, {'x': (1, 4, 5, 6)}, ['y'], constants))
    kinds = [type(each) for each in network.module.children()]
    assert kinds == [nn.PReLU, nn.BatchNorm2d, nn.InstanceNorm2d]
    layer = graph(
        [node('LayerNormalization', 'x a b', axis=-1)], {'x': (1, 6, 4)}, ['y'], constants
    )
    assert isinstance(next(check(layer).module.children()), nn.LayerNorm)
    group = {'g': random(4), 'h': random(4)}
    norm = node('GroupNormalization', 'x g h', num_groups=2)
    check(graph([norm], {'x': (1, 4, 3, 5)}, ['y'], group, opset=21))


def test_matrices_are_linear_layers_with_the_bias_that_is_added() -> None:
    constants = {'w': random(5, 7), 'b': random(7)}
    nodes = [node('MatMul', 'x w', 'm'), node('Add', 'm b')]
    network = check(graph(nodes, {'x': (1, 6, 5)}, ['y'], constants))
    (layer,) = network.module.children()
    assert isinstance(layer, nn.Linear) and layer.bias is not None
    for attributes in ({'transB': 1}, {'transB': 1, 'alpha': 0.5, 'beta': 2.0}, {}):
        matrix = random(7, 5) if attributes else random(5, 7)
        gemm = graph(
            [node('Gemm', 'x w b', **attributes)], {'x': (1, 5)}, ['y'], {**constants, 'w': matrix}
        )
        assert isinstance(next(check(gemm).module.children()), nn.Linear)


def test_a_matrix_read_twice_keeps_what_is_added_apart() -> None:
    constants = {'w': random(5, 7), 'b': random(7)}
    nodes = [node('MatMul', 'x w', 'm'), node('Add', 'm b', 'y'), node('Relu', 'm', 'z')]
    check(graph(nodes, {'x': (1, 6, 5)}, ['y', 'z'], constants))


def test_attention_of_two_inputs() -> None:
    nodes = [
        node('Transpose', 'k', 't', perm=[0, 2, 1]),
        node('MatMul', 'q t', 's'),
        node('Softmax', 's', 'p', axis=-1),
        node('MatMul', 'p k'),
    ]
    check(graph(nodes, {'q': (1, 6, 4), 'k': (1, 5, 4)}, ['y']))


@settings(max_examples=60)
@given(
    kind=st.sampled_from(['MaxPool', 'AveragePool']),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    even=st.booleans(),
    ceil=st.integers(0, 1),
    include=st.integers(0, 1),
    auto=st.sampled_from(['NOTSET', 'NOTSET', 'SAME_UPPER', 'SAME_LOWER']),
)
def test_pooling(
    kind: str,
    kernel: tuple[int, int],
    stride: int,
    pads: list[int],
    even: bool,
    ceil: int,
    include: int,
    auto: str,
) -> None:
    if auto != 'NOTSET':
        stride = min(stride, *kernel)  # ONNX Runtime has no more
    if even:
        pads = pads[:2] * 2
    pads = [min(pad, k - 1) for pad, k in zip(pads, kernel * 2, strict=True)]
    if ceil:  # more is refused
        pads = [min(pad, k // 2) for pad, k in zip(pads[:2] * 2, kernel * 2, strict=True)]
    attributes: dict[str, Any] = {'kernel_shape': list(kernel), 'strides': [stride] * 2}
    if auto == 'NOTSET':
        attributes |= {'pads': pads, 'ceil_mode': ceil}
    else:
        attributes['auto_pad'] = auto
    if kind == 'AveragePool':
        attributes['count_include_pad'] = include
    model = graph([node(kind, 'x', **attributes)], {'x': (1, 3, 9, 10)}, ['y'], opset=19)
    check(model)


def test_pooling_of_signals_and_dilated() -> None:
    pool = node('MaxPool', 'x', kernel_shape=[3], strides=[2], pads=[1, 1])
    check(graph([pool], {'x': (1, 3, 9)}, ['y']))
    pool = node('MaxPool', 'x', kernel_shape=[2, 2], dilations=[2, 2])
    check(graph([pool], {'x': (1, 3, 9, 9)}, ['y']))


@settings(max_examples=80)
@given(
    mode=st.sampled_from(['nearest', 'linear', 'cubic']),
    how=st.sampled_from(
        ['half_pixel', 'pytorch_half_pixel', 'align_corners', 'asymmetric', 'half_pixel_symmetric']
    ),
    rounding=st.sampled_from(['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil']),
    scale=st.sampled_from([(2.0, 2.0), (3.0, 2.0), (0.5, 0.5), (1.5, 2.5), (1.0, 2.0)]),
    by_size=st.booleans(),
)
def test_resizing(
    mode: str, how: str, rounding: str, scale: tuple[float, float], by_size: bool
) -> None:
    if mode == 'cubic' and how not in ('half_pixel', 'pytorch_half_pixel', 'align_corners'):
        how = 'half_pixel'
    attributes = {'mode': mode, 'coordinate_transformation_mode': how}
    if mode == 'nearest':
        attributes['nearest_mode'] = rounding
    sizes = ints(1, 3, int(6 * scale[0]), int(8 * scale[1]))
    constants: dict[str, Any] = {'scales': np.array([1, 1, *scale], np.float32), 'sizes': sizes}
    inputs = 'x - - sizes' if by_size else 'x - scales'
    resize = node('Resize', inputs, **attributes)
    opset = 19 if how == 'half_pixel_symmetric' else 13
    check(graph([resize], {'x': (1, 3, 6, 8)}, ['y'], constants, opset=opset))


def test_upsampling_before_opset_10() -> None:
    constants = {'scales': np.array([1, 1, 2, 2], np.float32)}
    for mode in ('nearest', 'linear'):
        resize = node('Upsample', 'x scales', mode=mode)
        check(graph([resize], {'x': (1, 3, 6, 8)}, ['y'], constants, opset=9))


@pytest.mark.parametrize('opset', [11, 13, 18])
@pytest.mark.parametrize(
    'operator',
    ['ReduceMean', 'ReduceSum', 'ReduceMax', 'ReduceMin', 'ReduceL2', 'ReduceSumSquare'],
)
@pytest.mark.parametrize('keep', [0, 1])
def test_reductions(operator: str, opset: int, keep: int) -> None:
    as_input = opset >= (13 if operator == 'ReduceSum' else 18)
    if as_input:
        one, constants = node(operator, 'x axes', keepdims=keep), {'axes': ints(-1, 2)}
    else:
        one, constants = node(operator, 'x', keepdims=keep, axes=[-1, 2]), {}
    check(graph([one], {'x': (1, 4, 5, 6)}, ['y'], constants, opset=opset))


@pytest.mark.parametrize('opset', [11, 13])
def test_splits_squeezes_and_slices(opset: int) -> None:
    constants = {
        'sizes': ints(1, 3, 2), 'axes': ints(3), 'starts': ints(-2, 0), 'ends': ints(-100, 2**62),
        'slice_axes': ints(2, 3), 'steps': ints(-2, 3), 'first': ints(0),
    }  # fmt: skip
    by_input = opset >= 13
    nodes = [
        node('Split', 'x sizes', 'a b c', axis=1)
        if by_input
        else node('Split', 'x', 'a b c', axis=1, split=[1, 3, 2]),
        node('Unsqueeze', 'a axes', 'u') if by_input else node('Unsqueeze', 'a', 'u', axes=[3]),
        node('Squeeze', 'u axes', 's') if by_input else node('Squeeze', 'u', 's', axes=[3]),
        node('Slice', 'b starts ends slice_axes steps', 'd'),
        node('Relu', 's', 'y'),
        node('Relu', 'd', 'z'),
        node('Relu', 'c', 'w'),
    ]
    check(graph(nodes, {'x': (1, 6, 7, 8)}, ['y', 'z', 'w'], constants, opset=opset))


@pytest.mark.parametrize('indices', [2, [3, 0, 0, 1], [-1, 1]])
def test_gathering(indices: Any) -> None:
    constants = {'i': np.array(indices, np.int64)}
    nodes = [node('Relu', 'x', 'r'), node('Gather', 'r i', axis=1)]
    check(graph(nodes, {'x': (1, 4, 3, 5)}, ['y'], constants))


@pytest.mark.parametrize('mode', ['constant', 'reflect', 'edge'])
def test_padding(mode: str) -> None:
    constants = {'p': ints(0, 0, 1, 2, 0, 0, 0, 1), 'v': np.float32(1.5)}
    inputs = 'x p v' if mode == 'constant' else 'x p'
    check(graph([node('Pad', inputs, mode=mode)], {'x': (1, 3, 5, 6)}, ['y'], constants))
    constants['p'] = ints(0, 1, 0, 0, 0, 2, 0, 0)
    if mode == 'constant':
        check(graph([node('Pad', inputs, mode=mode)], {'x': (1, 3, 5, 6)}, ['y'], constants))


def test_shape_arithmetic_is_folded_and_follows_the_batch() -> None:
    constants = {'zero': ints(0), 'two': ints(2), 'rest': ints(-1), 'one': ints(1)}
    nodes = [
        node('Shape', 'x', 'shape'),
        node('Gather', 'shape zero', 'batch', axis=0),
        node('Gather', 'shape one', 'channels', axis=0),
        node('Div', 'channels two', 'half'),
        node('Concat', 'batch two half rest', 'sizes', axis=0),
        node('Reshape', 'x sizes', 'y'),
    ]
    network = check(graph(nodes, {'x': ('batch', 6, 4, 5)}, ['y'], constants))
    assert len(network.module.graph.nodes) == 3


def test_grids_are_constants() -> None:
    constants = {
        'start': np.int64(0), 'stop': np.int64(6), 'step': np.int64(1), 'shape': ints(4, 6),
    }  # fmt: skip
    nodes = [
        node('Range', 'start stop step', 'r'),
        node('Cast', 'r', 'f', to=1),
        node('Expand', 'f shape', 'grid'),
        node('ConstantOfShape', 'shape', 'zeros'),
        node('Add', 'grid zeros', 'offset'),
        node('Add', 'x offset', 'y'),
    ]
    network = check(graph(nodes, {'x': (1, 3, 4, 6)}, ['y'], constants))
    assert len(network.module.graph.nodes) == 4


def test_tiles_expands_and_sums() -> None:
    constants = {'shape': ints(1, 3, 4, 6), 'repeats': ints(1, 2, 1, 1)}
    nodes = [
        node('Expand', 'x shape', 'e'), node('Tile', 'e repeats', 't'), node('Sum', 't t t', 'y'),
    ]  # fmt: skip
    check(graph(nodes, {'x': (1, 3, 4, 1)}, ['y'], constants))


@settings(max_examples=200)
@given(data=st.data())
def test_sizes_of_a_reshape_follow_to_the_same_shape(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    shape = (1, *sizes)
    flat = [factor for size in shape for factor in ([2, 2] if size == 4 else [size])]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(flat) - 1)), max_size=3)))
    parts = np.split(np.array(flat), [cut for cut in cuts if cut < len(flat)])
    target = tuple(int(part.prod()) for part in parts)
    x = np.arange(np.prod(shape)).reshape(shape)

    import torch

    from pruned_perception.training.onnx_import.functions import reshape

    found = reshape(torch.from_numpy(x), following(shape, target, 0, None))
    assert np.array_equal(found.numpy(), x.reshape(target))
    both = reshape(torch.from_numpy(np.concatenate([x, x])), following(shape, target, 0, 0))
    assert np.array_equal(both.numpy()[: target[0]], x.reshape(target))
