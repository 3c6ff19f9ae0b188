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

"""What an ONNX file says of its tensors, found without the `onnx` package: where, and how many.

A tensor may lie in another file (`external_data`), which no hash of the model covers. The file is
a tree of protobuf messages; only the branches that hold tensors are followed, so that weights are
skipped by their length.

Field numbers: onnx.proto of ONNX, as of IR version 13.
"""

from __future__ import annotations

from collections.abc import Iterator

# message → field number → message of that field
_TREE: dict[str, dict[int, str]] = {
    'model': {7: 'graph', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'function': {7: 'node', 11: 'attribute'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse'},
    'node': {5: 'attribute'},
    'attribute': {
        5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse',
    },
    'sparse': {1: 'tensor', 2: 'tensor'},
}  # fmt: skip
_DIMS, _DATA_TYPE = 1, 2  # of a tensor
_WEIGHTS = frozenset({1, 2, 3, 10, 11, 16})  # float, uint8, int8, float16, double, bfloat16
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_DEEPEST = 100


def external_tensors(model: bytes) -> list[str]:
    """Return the names of the tensors that the model has in other files.

    Raises ValueError where `model` is no sequence of protobuf fields.
    """
    data = memoryview(model)
    names = (_external(data, start, end) for start, end in _tensors(data))
    return [name for name in names if name is not None]


def stored_values(model: bytes) -> int:
    """Return how many numbers the model stores as weights: in tensors of more than one value.

    Whole numbers of 32 and 64 bits are shapes and indices, and do not count.

    Raises ValueError where `model` is no sequence of protobuf fields.
    """
    data = memoryview(model)
    return sum(_values(data, start, end) for start, end in _tensors(data))


def _values(data: memoryview, start: int, end: int) -> int:
    count, type_ = 1, 0
    for field, kind, first, last in _fields(data, start, end):
        if field == _DATA_TYPE:
            type_ = _varint(data, first, last)[0]
        elif field == _DIMS:
            while first < last:  # one number, or all of them packed
                size, first = _varint(data, first, last)
                count *= size
                if kind == _VARINT:
                    break
    return count if type_ in _WEIGHTS and count > 1 else 0


def _tensors(data: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where each tensor's message starts and ends."""
    waiting = [('model', 0, len(data), 0)]
    while waiting:
        message, start, end, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f'graphs within graphs, more than {_DEEPEST} deep')
        if message == 'tensor':
            yield start, end
            continue
        branches = _TREE[message]
        for field, kind, first, last in _fields(data, start, end):
            if kind == _BYTES and field in branches:
                waiting.append((branches[field], first, last, depth + 1))


def _external(data: memoryview, start: int, end: int) -> str | None:
    """Return the tensor's name if its data are elsewhere."""
    name, elsewhere = '', False
    for field, kind, first, last in _fields(data, start, end):
        if field == _NAME and kind == _BYTES:
            name = bytes(data[first:last]).decode('utf-8', 'replace')
        elif field == _EXTERNAL_DATA or (field == _DATA_LOCATION and data[first:last] != b'\0'):
            elsewhere = True
    return name or 'a tensor without a name' if elsewhere else None


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield field number, wire type, and where its content starts and ends."""
    at = start
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _BYTES:
            length, at = _varint(data, at, end)
            last = at + length
        elif kind == _VARINT:
            last = _varint(data, at, end)[1]
        elif kind in (_FIXED64, _FIXED32):
            last = at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f'wire type {kind} at byte {at}')
        if last > end:
            raise ValueError(f'cut off at byte {end}')
        yield key >> 3, kind, at, last
        at = last


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f'no number at byte {at}')
