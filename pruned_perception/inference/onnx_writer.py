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

"""The few lines of protobuf that an ONNX file takes, for machines without the package `onnx`.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (test/inference compares
with the `onnx` package where that is installed).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Dimension = int | str
TYPES = {'float32': 1, 'uint8': 2, 'int8': 3, 'int32': 6, 'int64': 7, 'bool': 9, 'float16': 10}


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    constants: Mapping[str, Any],
    opset: int = 17,
) -> bytes:
    """Return a ModelProto; `constants` are its initializers."""
    whole = graph(nodes, inputs, outputs, constants)
    return _integer(1, 8) + _bytes(7, whole) + _bytes(8, _bytes(1, b'') + _integer(2, opset))


def graph(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    constants: Mapping[str, Any],
) -> bytes:
    """Return a GraphProto; as an attribute it is the body of a Loop or If."""
    return (
        b''.join(_bytes(1, each) for each in nodes)
        + _bytes(2, b'graph')
        + b''.join(_bytes(5, _tensor(name, value)) for name, value in constants.items())
        + b''.join(_bytes(11, each) for each in inputs)
        + b''.join(_bytes(12, each) for each in outputs)
    )


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> bytes:
    """Return a NodeProto; attributes are int, float, lists of int, or graphs (bytes)."""
    return (
        b''.join(_bytes(1, name.encode()) for name in inputs)
        + b''.join(_bytes(2, name.encode()) for name in outputs)
        + _bytes(4, operator.encode())
        + b''.join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
    )


def value(name: str, dtype: str, shape: Sequence[Dimension]) -> bytes:
    """Return a ValueInfoProto; a dimension that is a string is symbolic."""
    dimensions = b''.join(
        _bytes(1, _bytes(2, size.encode()) if isinstance(size, str) else _integer(1, size))
        for size in shape
    )
    tensor_type = _integer(1, TYPES[dtype]) + _bytes(2, dimensions)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor_type))


def _attribute(name: str, content: int | float | list[int] | bytes) -> bytes:
    head = _bytes(1, name.encode())
    if isinstance(content, bytes):
        return head + _bytes(6, content) + _integer(20, 5)
    if isinstance(content, list):
        return head + b''.join(_integer(8, each) for each in content) + _integer(20, 7)
    if isinstance(content, float):
        return head + _varint(2 << 3 | 5) + struct.pack('<f', content) + _integer(20, 1)
    return head + _integer(3, content) + _integer(20, 2)


def _tensor(name: str, content: Any) -> bytes:
    array = np.asarray(content)
    return (
        b''.join(_integer(1, size) for size in array.shape)
        + _integer(2, TYPES[array.dtype.name])
        + _bytes(8, name.encode())
        + _bytes(9, np.ascontiguousarray(array).tobytes())
    )


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _integer(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
