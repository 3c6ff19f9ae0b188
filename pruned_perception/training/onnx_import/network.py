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

"""ONNX file → a network that trains, is pruned and is exported again."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from pruned_perception.errors import UserError
from pruned_perception.training.onnx_import.builder import Builder, Node, OnnxImportError, Value
from pruned_perception.training.onnx_import.operators import RULES

OPSETS = range(9, 22)  # those whose operators the rules know

# Operators of postprocessing: what they return has another size for each picture.
_AFTER = frozenset(
    ('NonMaxSuppression', 'NonZero', 'TopK', 'Compress', 'Unique', 'RoiAlign', 'ScatterND',
     'GatherND', 'ScatterElements', 'GatherElements')
)  # fmt: skip
_CONTROL = frozenset(('If', 'Loop', 'Scan'))


@dataclass(frozen=True)
class Port:
    """An input of the network: its name in the file, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def example(self) -> Tensor:
        """Return random values of this shape, the same each time: 0…1, or bytes."""
        generator = torch.Generator().manual_seed(0)
        if self.dtype.is_floating_point:
            return torch.rand(self.shape, generator=generator)
        most = 256 if self.dtype == torch.uint8 else 2
        return torch.randint(most, self.shape, generator=generator).to(self.dtype)


@dataclass(frozen=True)
class OnnxNetwork:
    """An imported network.

    Attributes:
        module: takes the inputs in the file's order and returns the output, or a tuple of them.
        inputs: of the file.
        outputs: their names.
        one_batch: why it takes only as many images at once as the file says; None where any.
    """

    module: fx.GraphModule
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    one_batch: str | None

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Random inputs in the file's shape."""
        return tuple(port.example() for port in self.inputs)


def import_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
) -> OnnxNetwork:
    """Return the network of an ONNX file as a module in evaluation mode, in single precision.

    Layers are named after their weights, or after their nodes where the weights' names say
    nothing. Shuffles and splits of channels become `Take`, sizes that the exporter wrote down
    follow the batch and the widths, so that surgery can cut through them.

    Args:
        source: the file; tensors in files beside it are read. Or its bytes.
        shapes: of inputs, by name, where the file leaves sizes open. An open batch is one image.
        outputs: names of the values to return, by default those of the file: so what follows
            them, as suppression of boxes, is left out.

    Raises:
        OnnxImportError: no ONNX file, or what cannot be taken: which operator of which node.
    """
    model, name = _read(source)
    try:
        return _build(model, dict(shapes or {}), outputs)
    except OnnxImportError as error:
        raise OnnxImportError(f'{name}: {error}') from error


def _read(source: str | os.PathLike[str] | bytes) -> tuple[Any, str]:
    try:
        import onnx
    except ImportError as error:
        raise UserError("importing needs onnx: pip install 'pruned_perception[train]'") from error
    name = 'the model' if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            model = onnx.load(io.BytesIO(source))
        elif not Path(source).is_file():
            raise OnnxImportError(f'{name}: no such file')
        else:
            model = onnx.load(source)
        if not model.graph.node:
            raise OnnxImportError(f'{name}: no ONNX file: there is no graph in it')
    except OnnxImportError:
        raise
    except Exception as error:  # onnx raises what protobuf and the file system raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise OnnxImportError(f'{name}: no ONNX file that can be read: {first}') from error
    return model, name


def _build(
    model: Any, shapes: dict[str, Sequence[int]], outputs: Sequence[str] | None
) -> OnnxNetwork:
    opset = _opset(model)
    graph = model.graph
    stored = {each.name: _tensor(each) for each in graph.initializer}
    wanted = list(outputs) if outputs is not None else [each.name for each in graph.output]
    nodes = _needed(graph, wanted, set(stored))
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(wanted)
    b = Builder()
    values = {name: Value(constant=each, readers=readers[name]) for name, each in stored.items()}
    ports = []
    for each in graph.input:
        if each.name in stored:
            continue
        port = _port(each, shapes)
        ports.append(port)
        single = port.example()
        double = torch.cat([single, single.flip(-1)]) if port.shape else single
        values[each.name] = b.input(each.name, single, double)
        values[each.name].readers = readers[each.name]
    for number, proto in enumerate(nodes):
        _add_node(b, _node(proto, number, values, opset), values, readers)
    found = [values[name] for name in wanted]
    b.graph.output(b.node(found[0]) if len(found) == 1 else tuple(b.node(each) for each in found))
    module = fx.GraphModule(b.root, b.graph, class_name='ImportedNetwork').eval()
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    one_batch = b.single_only
    if one_batch is None and any(each.constant is None and each.batch is None for each in found):
        one_batch = 'an output does not grow with the number of images'
    return OnnxNetwork(module, tuple(ports), tuple(wanted), one_batch)


def _add_node(b: Builder, node: Node, values: dict[str, Value], readers: Mapping[str, int]) -> None:
    b.place = node.name
    try:
        made = RULES[node.operator](b, node)
    except OnnxImportError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise node.refuse(f'not in a way that is understood: {first}') from error
    results = [made] if isinstance(made, Value) else list(made)
    for name, value in zip(node.outputs, results, strict=False):
        values[name] = value
        value.readers += readers[name]
    for read in node.inputs:
        if read is not None:
            read.readers -= 1
            if read.readers == 0 and read.constant is None:
                read.single = read.double = None


def _opset(model: Any) -> int:
    versions = {each.domain: each.version for each in model.opset_import}
    opset = versions.get('', versions.get('ai.onnx', 0))
    if opset not in OPSETS:
        raise OnnxImportError(
            f'opset {opset}; {OPSETS[0]} to {OPSETS[-1]} are taken: convert it with '
            'onnx.version_converter, or export it anew'
        )
    return opset


def _needed(graph: Any, wanted: Sequence[str], stored: set[str]) -> list[Any]:
    """Return the nodes that the wanted values need, in order; refuse operators without a rule."""
    made = {name for node in graph.node for name in node.output}
    inputs = {each.name for each in graph.input}
    if unknown := [name for name in wanted if name not in made | inputs | stored]:
        raise OnnxImportError(f'outputs: there is no value {unknown[0]!r}')
    needed, nodes = set(wanted), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    nodes.reverse()
    for node in nodes:
        if node.domain not in ('', 'ai.onnx') or node.op_type not in RULES:
            raise OnnxImportError(_why_not(node, nodes))
    return nodes


def _why_not(node: Any, nodes: Sequence[Any]) -> str:
    kind = f'{node.domain}.{node.op_type}' if node.domain else node.op_type
    name = node.name or ', '.join(node.output)
    what = f'node {name!r}: the operator {kind} is not taken'
    if 'Quant' in kind or kind.endswith('Integer'):
        return f'{what}: a quantised network does not train; give the one that it was made of'
    if node.op_type in _AFTER:
        return (
            f'{what}: it belongs to what is done with the boxes; name the values before it, '
            f'as {next(iter(node.input))!r}, as outputs'
        )
    if node.op_type in _CONTROL:
        return f'{what}: a network that decides what to compute; export it without control flow'
    unknown = sorted({each.op_type for each in nodes if each.op_type not in RULES})
    return f'{what} (not taken here: {", ".join(unknown)}); export the network without it'


def _port(info: Any, shapes: Mapping[str, Sequence[int]]) -> Port:
    from onnx import helper

    kind = info.type.tensor_type
    declared = [each.dim_value or each.dim_param or '?' for each in kind.shape.dim]
    if declared and not isinstance(declared[0], int):
        declared[0] = 1
    sizes: list[Any] = list(shapes.get(info.name, declared))
    if len(sizes) != len(declared) or not all(isinstance(each, int) and each > 0 for each in sizes):
        raise OnnxImportError(
            f'input {info.name!r} is {declared}: give its shape, as '
            f'shapes={{{info.name!r}: (1, 3, 416, 416)}}'
        )
    given = torch.from_numpy(_empty(helper.tensor_dtype_to_np_dtype(kind.elem_type))).dtype
    return Port(info.name, tuple(sizes), torch.float32 if given.is_floating_point else given)


def _empty(dtype: Any) -> Any:
    import numpy as np

    try:
        torch.from_numpy(np.empty(0, dtype))
    except TypeError as error:
        raise OnnxImportError(f'an input of type {dtype}') from error
    return np.empty(0, dtype)


def _node(proto: Any, number: int, values: Mapping[str, Value], opset: int) -> Node:
    name = proto.name or f'{proto.op_type}_{number}'
    node = Node(
        operator=proto.op_type,
        name=name,
        inputs=tuple(values[each] if each else None for each in proto.input),
        names=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={},
        opset=opset,
    )
    return replace(node, attributes={each.name: _attribute(node, each) for each in proto.attribute})


def _attribute(node: Node, attribute: Any) -> Any:
    from onnx import AttributeProto, helper

    if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        raise node.refuse('holds a graph of its own')
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        raise node.refuse('a sparse tensor')
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(proto: Any) -> Tensor:
    """Return a stored tensor; floating point in single precision, whatever the file has."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    if proto.data_type == TensorProto.STRING:
        raise OnnxImportError(f'tensor {proto.name!r}: text')
    array = numpy_helper.to_array(proto)
    if array.dtype.kind not in 'biu':
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array))
