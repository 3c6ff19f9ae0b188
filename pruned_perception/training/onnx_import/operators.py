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

"""What each ONNX operator becomes: a layer whose weights train, or a function.

Specification: ONNX operators, opsets 11 to 21, https://onnx.ai/onnx/operators/ .
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.training.onnx_import import functions
from pruned_perception.training.onnx_import.builder import Builder, Node, Value, identifier
from pruned_perception.training.onnx_import.resizing import resize

Rule = Callable[[Builder, Node], Value | Sequence[Value]]
RULES: dict[str, Rule] = {'Resize': resize, 'Upsample': resize}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register what becomes of these operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


# Layers


@rule('Conv', 'ConvTranspose')
def _convolution(b: Builder, node: Node) -> Value:
    x, weight, bias = node.input(0), _weight(node, 1), _optional_weight(node, 2)
    spatial = weight.ndim - 2
    if spatial not in (1, 2) or x.ndim != weight.ndim:
        raise node.refuse(f'{spatial} spatial axes; one or two are taken')
    kernel = list(weight.shape[2:])
    stride = list(node.attribute('strides', [1] * spatial))
    dilation = list(node.attribute('dilations', [1] * spatial))
    groups = node.attribute('group', 1)
    settings: dict[str, Any] = {'groups': groups, 'bias': bias is not None}
    transposed, extra = node.operator == 'ConvTranspose', [0] * spatial
    if transposed:
        begin, extra = _transposed_padding(node, x.shape[2:], kernel, stride, dilation)
        settings['output_padding'] = [max(each, 0) for each in extra]
    else:
        begin, end = _padding(node, x.shape[2:], kernel, stride, dilation)
        if begin != end:
            x, begin = _padded(b, x, begin, end, 0.0), [0] * spatial
    if spatial == 1:  # as rows of a picture: what cuts channels knows layers of pictures
        x = b.call(torch.unsqueeze, x, 2)
        weight = weight.unsqueeze(2)
        kernel, stride, dilation = [1, *kernel], [1, *stride], [1, *dilation]
        begin = [0, *begin]
        if transposed:
            settings['output_padding'] = [0, *settings['output_padding']]
    channels = weight.shape[:2]
    made, read = (
        (channels[1] * groups, channels[0]) if transposed else (channels[0], channels[1] * groups)
    )

    def make() -> nn.Module:
        kind: Any = nn.ConvTranspose2d if transposed else nn.Conv2d
        more = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        window = (tuple(kernel), tuple(stride), tuple(begin))
        layer = kind(read, made, *window, dilation=tuple(dilation), **more)
        return _with(layer, weight=weight, bias=bias)

    key = (node.operator, node.names[1:], repr((stride, begin, dilation, settings)))
    y = b.layer(key, _layer_name(node), make, x)
    if spatial == 1:
        y = b.call(torch.squeeze, y, 2)
    for axis, more in enumerate(extra, 2):
        if more < 0:
            y = b.call(functions.slice_axis, y, axis, 0, more, 1)
    return y


@rule('Gemm')
def _gemm(b: Builder, node: Node) -> Value:
    a, matrix, c = node.input(0), node.input(1), node.optional(2)
    alpha, beta = node.attribute('alpha', 1.0), node.attribute('beta', 1.0)
    if node.attribute('transA', 0):
        a = b.call(torch.transpose, a, 0, 1)
    out = matrix.shape[0 if node.attribute('transB', 0) else 1]
    known = matrix.constant is not None and (c is None or c.constant is not None)
    if not known or (c is not None and c.shape not in ((), (1,), (out,), (1, out), (1, 1))):
        if node.attribute('transB', 0):
            matrix = b.call(torch.transpose, matrix, 0, 1)
        y = b.call(torch.matmul, a, matrix)
        y = y if alpha == 1 else b.call(operator.mul, y, alpha)
        if c is None:
            return y
        return b.call(operator.add, y, c if beta == 1 else b.call(operator.mul, c, beta))
    weight = alpha * _weight(node, 1)
    weight = weight if node.attribute('transB', 0) else weight.T
    bias = None if c is None else beta * _weight(node, 2).flatten().expand(out)
    return _linear(b, node, a, weight, bias)


@rule('MatMul')
def _matmul(b: Builder, node: Node) -> Value:
    a, matrix = node.input(0), node.input(1)
    if matrix.constant is None or matrix.ndim != 2 or a.ndim < 2 or a.constant is not None:
        return b.call(torch.matmul, a, matrix)
    return _linear(b, node, a, _weight(node, 1).T, None)


def _linear(b: Builder, node: Node, x: Value, weight: Tensor, bias: Tensor | None) -> Value:
    def make() -> nn.Module:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        return _with(layer, weight=weight, bias=bias)

    key = (node.operator, node.names[1:], repr(node.attributes))
    return b.layer(key, _layer_name(node), make, x)


@rule('BatchNormalization')
def _batch_norm(b: Builder, node: Node) -> Value:
    if len(node.outputs) > 1 or node.attribute('training_mode', 0):
        raise node.refuse('is in training mode; export the network in evaluation mode')
    x = node.input(0)
    scale, shift, mean, variance = (_weight(node, index) for index in range(1, 5))

    def make() -> nn.Module:
        kind = nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d
        momentum = 1 - node.attribute('momentum', 0.9)
        norm = kind(len(scale), eps=node.attribute('epsilon', 1e-5), momentum=momentum)
        _with(norm, weight=scale, bias=shift)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        return norm

    return b.layer((node.operator, node.names[1:]), _layer_name(node), make, x)


@rule('InstanceNormalization')
def _instance_norm(b: Builder, node: Node) -> Value:
    x, scale, shift = node.input(0), _weight(node, 1), _weight(node, 2)

    def make() -> nn.Module:
        kind = nn.InstanceNorm2d if x.ndim == 4 else nn.InstanceNorm1d
        norm = kind(len(scale), eps=node.attribute('epsilon', 1e-5), affine=True)
        return _with(norm, weight=scale, bias=shift)

    return b.layer((node.operator, node.names[1:]), _layer_name(node), make, x)


@rule('GroupNormalization')
def _group_norm(b: Builder, node: Node) -> Value:
    x, scale, shift = node.input(0), _weight(node, 1), _weight(node, 2)
    groups = node.attribute('num_groups')
    if len(scale) != x.shape[1]:  # before opset 21: one of each group
        scale, shift = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, shift))

    def make() -> nn.Module:
        norm = nn.GroupNorm(groups, x.shape[1], eps=node.attribute('epsilon', 1e-5))
        return _with(norm, weight=scale, bias=shift)

    return b.layer((node.operator, node.names[1:]), _layer_name(node), make, x)


@rule('LayerNormalization')
def _layer_norm(b: Builder, node: Node) -> Value:
    if len(node.outputs) > 1:
        raise node.refuse('its mean and deviation are asked for')
    x, weight, bias = node.input(0), _weight(node, 1), _optional_weight(node, 2)
    shape = x.shape[node.attribute('axis', -1) % x.ndim :]

    def make() -> nn.Module:
        norm = nn.LayerNorm(shape, eps=node.attribute('epsilon', 1e-5), bias=bias is not None)
        return _with(norm, weight=weight.expand(shape), bias=bias)

    return b.layer((node.operator, node.names[1:]), _layer_name(node), make, x)


@rule('PRelu')
def _prelu(b: Builder, node: Node) -> Value:
    x, slope = node.input(0), _weight(node, 1)
    along = [axis for axis, size in enumerate(slope.shape) if size > 1]
    if any(axis - slope.ndim != 1 - x.ndim for axis in along):
        raise node.refuse(f'slopes of shape {tuple(slope.shape)}; one, or one a channel is taken')

    def make() -> nn.Module:
        return _with(nn.PReLU(slope.numel()), weight=slope.flatten())

    return b.layer((node.operator, node.names[1:]), _layer_name(node), make, x)


def _weight(node: Node, index: int) -> Tensor:
    value = node.input(index)
    if value.constant is None:
        raise node.refuse(f'its input {index} is computed, not a weight of the file')
    return value.constant.float()


def _optional_weight(node: Node, index: int) -> Tensor | None:
    return None if node.optional(index) is None else _weight(node, index)


def _with(module: nn.Module, **values: Tensor | None) -> Any:
    for name, value in values.items():
        if value is not None:
            parameter = getattr(module, name)
            parameter.data = value.detach().reshape(parameter.shape).clone()
    return module


def _layer_name(node: Node) -> str:
    """Return the name of the module that the weight was of, where the file still says so."""
    stored = node.names[1].rpartition(':')[2].rpartition('/')[2]
    path, _, own = stored.rpartition('.')
    if own in ('weight', 'weight_quantized') and all(
        part and part.replace('_', 'a').isalnum() for part in path.split('.')
    ):
        return path
    return identifier(node.name)


# Element by element


def _elementwise(b: Builder, node: Node, function: Callable[..., Any]) -> Value:
    x, y = node.input(0), node.input(1)
    return b.call(function, _operand(x, y), _operand(y, x))


def _operand(value: Value, other: Value) -> Any:
    """Return a constant of one element as a number, where that changes no shape."""
    if value.constant is None or value.constant.numel() != 1 or value.ndim > other.ndim:
        return value
    return value if other.constant is not None else value.constant.item()


_BINARY: dict[str, Callable[..., Any]] = {
    'Sub': operator.sub, 'Div': functions.divide, 'Pow': operator.pow,
    'Equal': operator.eq, 'Greater': operator.gt, 'GreaterOrEqual': operator.ge,
    'Less': operator.lt, 'LessOrEqual': operator.le, 'And': operator.and_, 'Or': operator.or_,
    'Xor': operator.xor,
}  # fmt: skip
for _name, _function in _BINARY.items():
    RULES[_name] = partial(_elementwise, function=_function)


@rule('Add')
def _add(b: Builder, node: Node) -> Value:
    for x, c in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        layer = x.made_by
        if (
            isinstance(layer, nn.Linear)
            and layer.bias is None
            and c.constant is not None
            and c.constant.numel() == c.shape[-1] == layer.out_features
            and x.single is not None
            and b.only_reader(x)
        ):
            layer.bias = nn.Parameter(c.constant.float().flatten().clone())
            x.single = x.single + layer.bias.detach()
            x.double = None if x.double is None else x.double + layer.bias.detach()
            return x
    return _elementwise(b, node, operator.add)


@rule('Mul')
def _mul(b: Builder, node: Node) -> Value:
    for x, gate in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        made = gate.node
        if (
            made is not None
            and made.target is torch.sigmoid
            and x.node is made.args[0]
            and b.only_reader(gate)
        ):
            return b.call(functional.silu, x)
    return _elementwise(b, node, operator.mul)


@rule('Mod')
def _mod(b: Builder, node: Node) -> Value:
    function = torch.fmod if node.attribute('fmod', 0) else torch.remainder
    return b.call(function, node.input(0), _operand(node.input(1), node.input(0)))


def _unary(b: Builder, node: Node, function: Callable[..., Any]) -> Value:
    return b.call(function, node.input(0))


_UNARY: dict[str, Callable[..., Any]] = {
    'Relu': functional.relu, 'Sigmoid': torch.sigmoid, 'Tanh': torch.tanh, 'Exp': torch.exp,
    'Log': torch.log, 'Sqrt': torch.sqrt, 'Abs': torch.abs, 'Neg': torch.neg, 'Erf': torch.erf,
    'Floor': torch.floor, 'Ceil': torch.ceil, 'Round': torch.round, 'Sign': torch.sign,
    'Reciprocal': torch.reciprocal, 'Softplus': functional.softplus, 'Sin': torch.sin,
    'Cos': torch.cos, 'Softsign': functional.softsign, 'HardSwish': functional.hardswish,
    'Mish': functional.mish, 'Not': torch.logical_not, 'Atan': torch.atan,
}  # fmt: skip
for _name, _function in _UNARY.items():
    RULES[_name] = partial(_unary, function=_function)


@rule('Identity', 'Dropout')
def _identity(b: Builder, node: Node) -> Value:
    return node.input(0)


@rule('LeakyRelu')
def _leaky_relu(b: Builder, node: Node) -> Value:
    slope = float(f'{node.attribute("alpha", 0.01):.7g}')  # as it was before it was stored
    return b.call(functional.leaky_relu, node.input(0), slope)


@rule('Elu', 'Celu')
def _elu(b: Builder, node: Node) -> Value:
    function = functional.elu if node.operator == 'Elu' else functional.celu
    return b.call(function, node.input(0), node.attribute('alpha', 1.0))


@rule('Selu')
def _selu(b: Builder, node: Node) -> Value:
    alpha, gamma = node.attribute('alpha', 1.6732632), node.attribute('gamma', 1.050701)
    return b.call(operator.mul, b.call(functional.elu, node.input(0), alpha), gamma)


@rule('Gelu')
def _gelu(b: Builder, node: Node) -> Value:
    how = node.attribute('approximate', 'none')
    return b.call(functional.gelu, node.input(0), approximate=how)


@rule('HardSigmoid')
def _hard_sigmoid(b: Builder, node: Node) -> Value:
    alpha, beta = node.attribute('alpha', 0.2), node.attribute('beta', 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5:
        return b.call(functional.hardsigmoid, node.input(0))
    line = b.call(operator.add, b.call(operator.mul, node.input(0), alpha), beta)
    return b.call(torch.clamp, line, 0.0, 1.0)


@rule('Clip')
def _clip(b: Builder, node: Node) -> Value:
    bounds = []
    for index, name in enumerate(('min', 'max'), 1):
        given = node.constant(index)
        value = node.attribute(name) if given is None or not given.numel() else given.item()
        bounds.append(value)
    if bounds == [None, None]:
        return node.input(0)
    return b.call(torch.clamp, node.input(0), *bounds)


@rule('Softmax', 'LogSoftmax')
def _softmax(b: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = node.attribute('axis', -1 if node.opset >= 13 else 1) % x.ndim
    function = functional.softmax if node.operator == 'Softmax' else functional.log_softmax
    if node.opset < 13 and math.prod(x.shape[axis + 1 :]) > 1:
        if node.operator == 'LogSoftmax':
            raise node.refuse('over several axes at once')
        return b.call(functions.softmax_from, x, axis)
    return b.call(function, x, axis)


@rule('Min', 'Max')
def _extreme(b: Builder, node: Node) -> Value:
    function = torch.minimum if node.operator == 'Min' else torch.maximum
    found = node.input(0)
    for index in range(1, len(node.inputs)):
        found = b.call(function, found, node.input(index))
    return found


@rule('Sum')
def _sum(b: Builder, node: Node) -> Value:
    found = node.input(0)
    for index in range(1, len(node.inputs)):
        found = b.call(operator.add, found, node.input(index))
    return found


@rule('Where')
def _where(b: Builder, node: Node) -> Value:
    return b.call(torch.where, *(node.input(index) for index in range(3)))


_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool, 10: torch.float32, 11: torch.float32, 16: torch.float32,
}  # fmt: skip


@rule('Cast')
def _cast(b: Builder, node: Node) -> Value:
    x, wanted = node.input(0), _TYPES.get(node.attribute('to'))
    if wanted is None:
        raise node.refuse(f'to type {node.attribute("to")}')
    assert x.single is not None
    return x if x.single.dtype == wanted else b.call(torch.Tensor.to, x, wanted)


@rule('CastLike')
def _cast_like(b: Builder, node: Node) -> Value:
    x, like = node.input(0), node.input(1)
    assert x.single is not None and like.single is not None
    wanted = like.single.dtype
    return x if x.single.dtype == wanted else b.call(torch.Tensor.to, x, wanted)


# Windows


def _padding(
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Return the padding before and after each spatial axis."""
    auto, axes = node.attribute('auto_pad', 'NOTSET'), len(kernel)
    if auto == 'NOTSET':
        pads = list(node.attribute('pads', [0] * 2 * axes))
        return pads[:axes], pads[axes:]
    if auto == 'VALID':
        return [0] * axes, [0] * axes
    begin, end = [], []
    for size, taps, step, spread in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((math.ceil(size / step) - 1) * step + (taps - 1) * spread + 1 - size, 0)
        less, more = total // 2, total - total // 2
        begin.append(less if auto == 'SAME_UPPER' else more)
        end.append(more if auto == 'SAME_UPPER' else less)
    return begin, end


def _transposed_padding(
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Return what a transposed convolution takes off before and after, and adds at the end.

    What is added is negative where more is taken off after than before.
    """
    axes = len(kernel)
    extra = list(node.attribute('output_padding', [0] * axes))
    pads = list(node.attribute('pads', [0] * 2 * axes))
    wanted = node.attribute('output_shape')
    auto = node.attribute('auto_pad', 'NOTSET')
    if auto == 'VALID':
        pads = [0] * 2 * axes
    elif auto != 'NOTSET' or wanted is not None:
        wanted = wanted or [size * step for size, step in zip(sizes, stride, strict=True)]
        for axis in range(axes):
            whole = (sizes[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
            total = whole + extra[axis] - wanted[axis]
            less, more = total // 2, total - total // 2
            upper = auto == 'SAME_UPPER'
            pads[axis], pads[axes + axis] = (less, more) if upper else (more, less)
    begin, end = pads[:axes], pads[axes:]
    for axis in range(axes):
        extra[axis] += begin[axis] - end[axis]
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise node.refuse(f'takes off {begin} before and {end} after, which PyTorch cannot')
    return begin, extra


def _padded(b: Builder, x: Value, begin: Sequence[int], end: Sequence[int], value: float) -> Value:
    pairs = [each for pair in reversed(list(zip(begin, end, strict=True))) for each in pair]
    return b.call(functional.pad, x, pairs, value=value)


@rule('MaxPool', 'AveragePool')
def _pool(b: Builder, node: Node) -> Value:
    x = node.input(0)
    kernel = list(node.attribute('kernel_shape'))
    spatial = len(kernel)
    stride = list(node.attribute('strides', [1] * spatial))
    dilation = list(node.attribute('dilations', [1] * spatial))
    ceil = bool(node.attribute('ceil_mode', 0))
    if len(node.outputs) > 1:
        raise node.refuse('its indices are asked for')
    if spatial not in (1, 2):
        raise node.refuse(f'{spatial} spatial axes; one or two are taken')
    begin, end = _padding(node, x.shape[2:], kernel, stride, dilation)
    if spatial == 1:
        x = b.call(torch.unsqueeze, x, 2)
        kernel, stride, dilation = [1, *kernel], [1, *stride], [1, *dilation]
        begin, end = [0, *begin], [0, *end]
    plain = begin == end and all(2 * pad <= k for pad, k in zip(begin, kernel, strict=True))
    if ceil and not plain:
        raise node.refuse('ceil_mode with padding that is unequal, or above half the window')
    if node.operator == 'MaxPool':
        if not plain:
            x, begin = _padded(b, x, begin, end, -math.inf), [0, 0]
        y = b.call(functional.max_pool2d, x, kernel, stride, begin, dilation, ceil)
    else:
        if set(dilation) != {1}:
            raise node.refuse('dilated averages are not taken')
        inside = not node.attribute('count_include_pad', 0)
        if plain:
            y = b.call(functional.avg_pool2d, x, kernel, stride, begin, ceil, not inside)
        else:
            y = _average_pool(b, x, (kernel, stride), (begin, end), inside)
    return b.call(torch.squeeze, y, 2) if spatial == 1 else y


def _average_pool(b: Builder, x: Value, window: Any, pads: Any, inside: bool) -> Value:
    begin, end = pads
    y = b.call(functional.avg_pool2d, _padded(b, x, begin, end, 0.0), *window)
    if not inside:
        return y
    ones = Value(constant=torch.ones(1, 1, *x.shape[2:]))
    share = b.call(functional.avg_pool2d, _padded(b, ones, begin, end, 0.0), *window)
    return b.call(operator.truediv, y, share)


@rule('LRN')
def _local_response_norm(b: Builder, node: Node) -> Value:
    return b.call(
        functional.local_response_norm,
        node.input(0),
        node.attribute('size'),
        node.attribute('alpha', 1e-4),
        node.attribute('beta', 0.75),
        node.attribute('bias', 1.0),
    )


# Reductions


@rule('GlobalAveragePool')
def _global_average(b: Builder, node: Node) -> Value:
    return b.call(torch.mean, node.input(0), list(range(2, node.input(0).ndim)), True)


@rule('GlobalMaxPool')
def _global_maximum(b: Builder, node: Node) -> Value:
    return b.call(torch.amax, node.input(0), list(range(2, node.input(0).ndim)), True)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    'ReduceMean': torch.mean, 'ReduceSum': torch.sum, 'ReduceMax': torch.amax,
    'ReduceMin': torch.amin,
}  # fmt: skip


@rule(*_REDUCTIONS, 'ReduceL2', 'ReduceSumSquare', 'ReduceProd')
def _reduce(b: Builder, node: Node) -> Value:
    x, axes = node.input(0), node.numbers('axes', 1)
    keep = bool(node.attribute('keepdims', 1))
    if not axes:
        if node.attribute('noop_with_empty_axes', 0):
            return x
        axes = list(range(x.ndim))
    axes = [axis % x.ndim for axis in axes]
    if node.operator == 'ReduceProd':
        if len(axes) > 1:
            raise node.refuse('over several axes at once')
        return b.call(torch.prod, x, axes[0], keep)
    if node.operator in _REDUCTIONS:
        return b.call(_REDUCTIONS[node.operator], x, axes, keep)
    y = b.call(torch.sum, b.call(operator.mul, x, x), axes, keep)
    return y if node.operator == 'ReduceSumSquare' else b.call(torch.sqrt, y)


@rule('ArgMax', 'ArgMin')
def _extreme_index(b: Builder, node: Node) -> Value:
    if node.attribute('select_last_index', 0):
        raise node.refuse('the last of equal values is asked for')
    function = torch.argmax if node.operator == 'ArgMax' else torch.argmin
    keep = bool(node.attribute('keepdims', 1))
    return b.call(function, node.input(0), node.attribute('axis', 0), keep)


# Shapes


@rule('Constant')
def _constant(b: Builder, node: Node) -> Value:
    (value,) = node.attributes.values()
    if isinstance(value, str):
        raise node.refuse('text')
    return Value(constant=value if isinstance(value, Tensor) else torch.tensor(value))


@rule('ConstantOfShape')
def _constant_of_shape(b: Builder, node: Node) -> Value:
    shape, value = node.constant(0), node.attribute('value', torch.zeros(1))
    assert shape is not None
    return Value(constant=value.reshape(()).expand(shape.tolist()).clone())


@rule('Shape')
def _shape(b: Builder, node: Node) -> Value:
    sizes = node.input(0).shape[node.attribute('start', 0) : node.attribute('end', None)]
    return Value(constant=torch.tensor(sizes, dtype=torch.int64))


@rule('Size')
def _size(b: Builder, node: Node) -> Value:
    return Value(constant=torch.tensor(math.prod(node.input(0).shape)))


@rule('Range')
def _range(b: Builder, node: Node) -> Value:
    start, stop, step = (node.constant(index) for index in range(3))
    assert start is not None and stop is not None and step is not None
    found = torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)
    return Value(constant=found)


@rule('Reshape')
def _reshape(b: Builder, node: Node) -> Value:
    x = node.input(0)
    target = node.constant(1)
    assert target is not None
    sizes = [int(each) for each in target.tolist()]
    if not node.attribute('allowzero', 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = math.prod(x.shape) // known if known else 0
    return _reshaped(b, x, sizes)


def _reshaped(b: Builder, x: Value, sizes: Sequence[int]) -> Value:
    if x.constant is not None:
        return b.call(functions.reshape, x, tuple(sizes))
    if tuple(sizes) == x.shape:
        return x
    return b.move(functions.reshape, x, _following(x, sizes))


def _following(x: Value, target: Sequence[int]) -> tuple[functions.Size, ...]:
    """Return the sizes of a reshape such that several images come out as each alone.

    Where there is a choice, images stay apart rather than mixed with others of the same axis, and
    off the last axis, which holds the features.
    """
    plain = functions.following(x.shape, target, x.batch, None)
    if x.batch is None or x.single is None or x.double is None:
        return plain
    single = x.single.reshape(tuple(target))
    found: list[tuple[bool, int, int]] = []
    for axis in range(len(target)):
        sizes = functions.following(x.shape, target, x.batch, axis)
        try:
            double = functions.reshape(x.double, sizes)
        except RuntimeError:
            continue
        if (kind := functions.growth(single, double, axis)) is not None:
            found.append((axis == len(target) - 1, kind, axis))
    return functions.following(x.shape, target, x.batch, min(found)[2]) if found else plain


@rule('Flatten')
def _flatten(b: Builder, node: Node) -> Value:
    x = node.input(0)
    axis = node.attribute('axis', 1)
    axis = axis + x.ndim if axis < 0 else axis
    return _reshaped(b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule('Transpose')
def _transpose(b: Builder, node: Node) -> Value:
    x = node.input(0)
    order = list(node.attribute('perm', range(x.ndim)[::-1]))
    return x if order == sorted(order) else b.move(torch.permute, x, order)


@rule('Squeeze')
def _squeeze(b: Builder, node: Node) -> Value:
    x, axes = node.input(0), node.numbers('axes', 1)
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = b.move(torch.squeeze, x, axis)
    return x


@rule('Unsqueeze')
def _unsqueeze(b: Builder, node: Node) -> Value:
    x, axes = node.input(0), node.numbers('axes', 1) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = b.move(torch.unsqueeze, x, axis)
    return x


@rule('Concat')
def _concat(b: Builder, node: Node) -> Value:
    parts = [each for each in node.inputs if each is not None and 0 not in each.shape]
    if not parts:
        return node.input(0)
    if len(parts) == 1:
        return parts[0]
    axis = node.attribute('axis') % node.input(0).ndim
    batch = next((each.batch for each in parts if each.batch is not None), axis)
    if batch != axis and any(each.batch is None for each in parts):
        return b.call(functions.join, parts, axis, batch)
    return b.call(torch.cat, parts, axis)


@rule('Split')
def _split(b: Builder, node: Node) -> list[Value]:
    x, sizes = node.input(0), node.numbers('split', 1)
    axis = node.attribute('axis', 0) % x.ndim
    if sizes is None:
        parts = node.attribute('num_outputs', len(node.outputs))
        size = math.ceil(x.shape[axis] / parts)
        sizes = [min(size, x.shape[axis] - size * part) for part in range(parts)]
    found, start = [], 0
    for size in sizes:
        found.append(_sliced(b, x, axis, start, start + size, 1))
        start += size
    return found


@rule('Slice')
def _slice(b: Builder, node: Node) -> Value:
    x = node.input(0)
    starts, stops = node.numbers('starts', 1), node.numbers('ends', 2)
    axes, steps = node.numbers('axes', 3), node.numbers('steps', 4)
    assert starts is not None and stops is not None
    axes = list(range(len(starts))) if axes is None else axes
    for axis, start, stop, step in zip(
        axes, starts, stops, steps or [1] * len(starts), strict=True
    ):
        size = x.shape[axis]
        start, stop, step = slice(start, stop, step).indices(size)
        if (start, stop, step) != (0, size, 1):
            x = _sliced(b, x, axis % x.ndim, start, stop, step)
    return x


def _sliced(b: Builder, x: Value, axis: int, start: int, stop: int, step: int) -> Value:
    end = None if stop < 0 or (step > 0 and stop >= x.shape[axis]) else stop
    return b.move(functions.slice_axis, x, axis, start, end, step)


@rule('Gather')
def _gather(b: Builder, node: Node) -> Value:
    x, indices = node.input(0), node.constant(1)
    assert indices is not None
    axis = node.attribute('axis', 0) % x.ndim
    indices = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    if indices.ndim == 0:
        return b.move(torch.select, x, axis, int(indices))
    if indices.ndim > 1:
        if x.constant is None:
            raise node.refuse(f'indices with {indices.ndim} axes')
        flat = x.constant.index_select(axis, indices.flatten())
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return Value(constant=flat.reshape(shape))
    return b.move(functions.gather_axis, x, axis, tuple(indices.tolist()))


@rule('Expand')
def _expand(b: Builder, node: Node) -> Value:
    x, shape = node.input(0), node.constant(1)
    assert shape is not None
    return b.call(functions.expand, x, tuple(shape.tolist()))


@rule('Tile')
def _tile(b: Builder, node: Node) -> Value:
    repeats = node.constant(1)
    assert repeats is not None
    return b.call(torch.Tensor.repeat, node.input(0), repeats.tolist())


@rule('Pad')
def _pad(b: Builder, node: Node) -> Value:
    x, pads, value = node.input(0), node.numbers('pads', 1), node.constant(2)
    assert pads is not None
    mode = node.attribute('mode', 'constant')
    given = node.constant(3)
    axes = range(x.ndim) if given is None else [int(a) % x.ndim for a in given.flatten()]
    begin, end = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(axes):
        begin[axis], end[axis] = pads[place], pads[place + len(pads) // 2]
    while begin and begin[0] == end[0] == 0:  # of the axes in front, nothing is said
        del begin[0], end[0]
    if not begin:
        return x
    if mode == 'constant':
        fill = node.attribute('value', 0.0) if value is None or not value.numel() else value.item()
        return _padded(b, x, begin, end, fill)
    if mode not in ('reflect', 'edge') or len(begin) > 2:
        raise node.refuse(f'mode {mode} over {len(begin)} axes')
    pairs = [each for pair in reversed(list(zip(begin, end, strict=True))) for each in pair]
    pairs += [0] * (2 * (x.ndim - 2) - len(pairs))
    mode = 'replicate' if mode == 'edge' else mode
    return b.call(functional.pad, x, pairs, mode=mode)


@rule('DepthToSpace', 'SpaceToDepth')
def _depth_space(b: Builder, node: Node) -> Value:
    block = node.attribute('blocksize')
    if node.operator == 'SpaceToDepth':
        return b.move(functions.space_to_depth, node.input(0), block)
    if node.attribute('mode', 'DCR') == 'CRD':
        return b.call(functional.pixel_shuffle, node.input(0), block)
    return b.move(functions.depth_to_space, node.input(0), block)


@rule('Einsum')
def _einsum(b: Builder, node: Node) -> Value:
    parts = [each for each in node.inputs if each is not None]
    return b.call(torch.einsum, node.attribute('equation'), *parts)
