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

"""Nearest upsampling between layers in 8 bits, as copies of whole pixels.

On a CPU ONNX Runtime computes convolutions of 8 bits with channels last, and its Resize finds the
place of every single value there: a tenth of a network's time, where there is a level of stride 4.
Nearest upsampling repeats rows and columns, and Gather copies what it repeats in one piece. The
transpositions that are written around it meet the engine's own, and both go when it loads the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pruned_perception.inference.engine import create_session
from pruned_perception.quantization.values import Values, attribute

_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_CROPPED = b'tf_crop_and_resize'
"""It puts a number of its own where it leaves the input."""


@dataclass(frozen=True)
class Repetition:
    """Which row and which column of the input each one of the output is."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def repetitions(model: onnx.ModelProto) -> dict[str, Repetition]:
    """Return what each nearest Resize of rows and columns repeats, by the name of the node.

    Args:
        model: with the shapes of its values; a Resize whose shapes are not known is left out.
    """
    values = Values(model.graph)
    found = {}
    for node in model.graph.node:
        if node.op_type == 'Resize' and attribute(node, 'mode') == b'nearest':
            before, after = (
                values.shapes.get(each, ()) for each in (node.input[0], node.output[0])
            )
            wanted = [values.constants.get(each) for each in node.input[2:] if each]
            if (
                len(before) == len(after) == 4
                and before[:2] == after[:2]
                and 0 not in before + after
                and None not in wanted
                and attribute(node, 'axes') is None
                and attribute(node, 'coordinate_transformation_mode') != _CROPPED
            ):
                found[node.name] = _repetition(model, node, before, after)
    return found


def gather(model: onnx.ModelProto, known: Mapping[str, Repetition]) -> None:
    """Replace, in a quantised graph, each Resize that is `known` and reads and gives 8 bits.

    The order of the nodes is no longer that of their values then, and what they read may be left
    over: whoever wrote the graph sorts and cleans it.
    """
    values = Values(model.graph)
    for resize in [node for node in model.graph.node if node.name in known]:
        before = values.writer.get(resize.input[0])
        after = values.readers.get(resize.output[0], [])
        if (
            before is None
            or before.op_type != 'DequantizeLinear'
            or [node.op_type for node in after] != ['QuantizeLinear']
            or list(before.input[1:]) != list(after[0].input[1:])
        ):
            continue  # in float, or on another scale
        if values.readers[before.output[0]] == [resize]:
            model.graph.node.remove(before)
        model.graph.node.remove(resize)
        model.graph.node.remove(after[0])
        _add_gathers(model, resize.name, before.input[0], after[0].output[0], known[resize.name])


def _add_gathers(
    model: onnx.ModelProto, name: str, source: str, result: str, repetition: Repetition
) -> None:
    values = [source, *(f'{name}/{each}' for each in ('pixels', 'columns', 'rows')), result]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(repetition.columns, f'{name}/which_columns'),
            numpy_helper.from_array(repetition.rows, f'{name}/which_rows'),
        ]
    )
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ('Transpose', [], {'perm': _TO_CHANNELS_LAST}),
        ('Gather', [f'{name}/which_columns'], {'axis': 2}),  # the smaller copies while it is small
        ('Gather', [f'{name}/which_rows'], {'axis': 1}),
        ('Transpose', [], {'perm': _TO_CHANNELS_FIRST}),
    ]
    for number, (operator, indices, attributes) in enumerate(steps):
        model.graph.node.append(
            helper.make_node(
                operator,
                [values[number], *indices],
                [values[number + 1]],
                f'{name}/{operator}_{number}',
                **attributes,
            )
        )


def _repetition(
    model: onnx.ModelProto, node: onnx.NodeProto, before: Sequence[int], after: Sequence[int]
) -> Repetition:
    """Ask the engine: it resizes the numbers of rows and of columns, by the node's own rules."""
    how = onnx.NodeProto()
    how.CopyFrom(node)
    how.input[0], how.output[0] = 'numbers', 'taken'
    kept = [each for each in model.graph.initializer if each.name in node.input[1:]]
    graph = helper.make_graph(
        [how],
        'resize',
        [helper.make_tensor_value_info('numbers', onnx.TensorProto.FLOAT, before)],
        [helper.make_tensor_value_info('taken', onnx.TensorProto.FLOAT, after)],
        kept,
    )
    small = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = create_session(small.SerializeToString(), name=node.name)
    rows = np.arange(before[2], dtype=np.float32)[:, None]
    columns = np.arange(before[3], dtype=np.float32)
    taken = [
        session.run(None, {'numbers': np.broadcast_to(each, before)})[0][0, 0].astype(np.int64)
        for each in (rows, columns)
    ]
    return Repetition(taken[0][:, 0], taken[1][0])
