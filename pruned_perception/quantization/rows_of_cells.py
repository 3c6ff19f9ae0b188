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

"""Outputs of several levels, put together with channels last.

A head gives boxes and scores of each level, (N, C, H, W). The end of many detectors puts them side
by side, level after level, transposes all of it to rows of cells, and takes boxes and scores apart
again. Where layers are computed with channels last, as those of 8 bits are on a CPU, rows of cells
are what there is: here each kind of output is put together by itself, and nothing is transposed
or taken apart. The values are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pruned_perception.quantization.values import Values, attribute

_CHANNELS_LAST, _TO_ROWS = [0, 2, 3, 1], [0, 2, 1]


@dataclass(frozen=True)
class _End:
    """What is transposed to rows of cells: (N, C, cells of all levels)."""

    levels: tuple[tuple[str, ...], ...]
    """Of each level its kinds of output, (N, C, H, W)."""
    nodes: tuple[onnx.NodeProto, ...]
    """Those that put it together."""


def put_together_by_kind(model: onnx.ModelProto) -> None:
    """Rewrite, in place, the ends that the module describes.

    Args:
        model: in float, nodes in order, with the shapes of its values. Ends of another kind, or of
            unknown shapes, stay as they are.
    """
    values = Values(model.graph)
    done: set[str] = set()
    for transpose in [each for each in model.graph.node if each.op_type == 'Transpose']:
        end = _end(values, transpose)
        if end is None:
            continue
        found = [each for level in end.levels for each in level]
        if len({*found, *done}) < len(found) + len(done):
            continue  # one of them stands twice
        done.update(found)
        rows = transpose.output[0]
        readers = values.readers.get(rows, [])
        borders = [0, *accumulate(values.shapes[each][1] for each in end.levels[0])]
        kinds: dict[str, range] = {}  # which of them a value holds
        sliced = []
        for reader in readers:
            span = _span(values, reader, borders[-1])
            if span is not None and set(span) <= set(borders):
                kinds[reader.output[0]] = range(*map(borders.index, span))
                sliced.append(reader)
        if len(sliced) < len(readers) or rows in values.outputs:
            kinds[rows] = range(len(borders) - 1)
        place = list(model.graph.node).index(transpose)
        for node in (*end.nodes, *sliced, transpose):
            model.graph.node.remove(node)
        place -= len(end.nodes)  # these came before it
        for number, node in enumerate(_put_together(model, values, end, kinds)):
            model.graph.node.insert(place + number, node)


def _end(values: Values, transpose: onnx.NodeProto) -> _End | None:
    """Return what the node transposes, where that is levels side by side."""
    if attribute(transpose, 'perm') != _TO_ROWS:
        return None
    joined = values.private(transpose.input[0], 'Concat')
    if joined is not None and attribute(joined, 'axis') not in (2, -1):
        return None
    levels = []
    nodes = [] if joined is None else [joined]
    for value in transpose.input[:1] if joined is None else joined.input:
        flat = values.private(value, 'Reshape')
        if flat is None:
            return None
        shape = values.shapes.get(flat.input[0], ())
        if len(shape) != 4 or 0 in shape:
            return None
        if values.shapes.get(value) != (*shape[:2], shape[2] * shape[3]):
            return None
        nodes.append(flat)
        kinds = values.private(flat.input[0], 'Concat')
        if kinds is not None and attribute(kinds, 'axis') in (1, -3):
            nodes.append(kinds)
            levels.append(tuple(kinds.input))
        else:
            levels.append((flat.input[0],))
    channels = {tuple(values.shapes.get(each, (0, 0))[1] for each in level) for level in levels}
    if len(channels) > 1 or 0 in channels.pop():
        return None
    return _End(tuple(levels), tuple(nodes))


def _span(values: Values, node: onnx.NodeProto, channels: int) -> tuple[int, int] | None:
    """Return the first channel of a slice of rows and the one after its last; None of others."""
    known = [values.constants.get(each) for each in node.input[1:]]
    if node.op_type != 'Slice' or None in known:
        return None
    numbers = [numpy_helper.to_array(each).tolist() for each in known if each is not None]
    if len(numbers) < 3 or numbers[2] not in ([2], [-1]) or numbers[3:] not in ([], [[1]]):
        return None
    start, stop, _ = slice(numbers[0][0], numbers[1][0]).indices(channels)
    return start, stop


def _put_together(
    model: onnx.ModelProto, values: Values, end: _End, kinds: Mapping[str, range]
) -> Iterator[onnx.NodeProto]:
    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], f'{output}/{operator}', **attributes)

    rows: list[list[str]] = [[] for _ in end.levels[0]]  # of each kind, level by level
    for level in end.levels:
        for kind, value in enumerate(level):
            last, row, shape = (f'{value}/{each}' for each in ('last', 'rows', 'shape'))
            batch, channels, height, width = values.shapes[value]
            sides = np.array([batch, height * width, channels], np.int64)
            model.graph.initializer.append(numpy_helper.from_array(sides, shape))
            yield node('Transpose', [value], last, perm=_CHANNELS_LAST)
            yield node('Reshape', [last, shape], row)
            rows[kind].append(row)
    for value, which in kinds.items():
        alone = {kind: value if len(which) == 1 else f'{value}/{kind}' for kind in which}
        for kind, name in alone.items():
            yield node('Concat', rows[kind], name, axis=1)
        if len(which) > 1:
            yield node('Concat', list(alone.values()), value, axis=2)
