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

"""Networks of any inputs that return tensors written out beforehand, whatever the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_writer as onnx


def constant_network(
    image: tuple[Sequence[int | str], str],
    outputs: Mapping[str, Any],
    *,
    others: Mapping[str, tuple[Sequence[int], str]] | None = None,
    open_rows: Sequence[str] = (),
    sized: Mapping[str, str] | None = None,
) -> bytes:
    """Return a model with the input `image` (shape, type) and the arrays `outputs`.

    `others` are more inputs; those of `sized` are read: output → the input, (1, 2), by which its
    four columns are multiplied. Of outputs in `open_rows` the graph does not say how many rows.
    """
    inputs = {'image': image, **(others or {})}
    nodes = [
        onnx.node('Cast', ['image'], ['float_image'], to=onnx.TYPES['float32']),
        onnx.node('ReduceMean', ['float_image'], ['mean'], keepdims=0),
        onnx.node('Mul', ['mean', 'nought'], ['nothing']),
    ]
    constants: dict[str, Any] = {'nought': np.float32(0)}
    declared = []
    for name, content in outputs.items():
        array = np.asarray(content)
        constants[f'{name}_values'] = array.astype(np.float32)
        nodes.append(onnx.node('Add', [f'{name}_values', 'nothing'], [f'{name}_float']))
        last = f'{name}_float'
        if sized and name in sized:
            nodes += [
                onnx.node('Cast', [sized[name]], [f'{name}_size'], to=onnx.TYPES['float32']),
                onnx.node('Concat', [f'{name}_size'] * 2, [f'{name}_sizes'], axis=-1),
                onnx.node('Mul', [last, f'{name}_sizes'], [f'{name}_scaled']),
            ]
            last = f'{name}_scaled'
        shape: list[int | str] = list(array.shape)
        if name in open_rows:
            shape[-2] = 'rows'
            end, axis = np.array([array.shape[-2]]), np.array([-2])
            constants.update({f'{name}_end': end, 'axis': axis, 'start': np.array([0])})
            nodes += [
                onnx.node('Cast', ['nothing'], [f'{name}_nothing'], to=onnx.TYPES['int64']),
                onnx.node('Add', [f'{name}_end', f'{name}_nothing'], [f'{name}_rows']),
                onnx.node('Slice', [last, 'start', f'{name}_rows', 'axis'], [f'{name}_cut']),
            ]
            last = f'{name}_cut'
        nodes.append(onnx.node('Cast', [last], [name], to=onnx.TYPES[array.dtype.name]))
        declared.append(onnx.value(name, array.dtype.name, shape))
    taken = [onnx.value(name, dtype, shape) for name, (shape, dtype) in inputs.items()]
    return onnx.model(nodes, taken, declared, constants)
