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

"""ONNX graph → the same graph in 8 bits (QDQ format), by ONNX Runtime's quantiser.

What comes after the last layers with weights is arithmetic on boxes and scores: it costs little
and does not bear 8 bits (one scale for scores and sizes side by side), so it stays in float.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile, gettempdir
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from pruned_perception.inference.engine import simplified
from pruned_perception.quantization.errors import QuantizationError
from pruned_perception.quantization.rows_of_cells import put_together_by_kind
from pruned_perception.quantization.schemes import Scheme
from pruned_perception.quantization.siblings import compute_as_one
from pruned_perception.quantization.upsampling import gather, repetitions
from pruned_perception.quantization.values import Values

Feeds = dict[str, NDArray[Any]]

OPSET = 13
"""The first whose QuantizeLinear takes a scale for each channel."""
_LEAST_SWISHED = -8.0
"""x · sigmoid(x) is −0.003 there: finer steps above it are worth more than what lies below."""
_WEIGHTED = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_OPERATORS = sorted({*QLinearOpsRegistry, *QDQRegistry})


@dataclass(frozen=True)
class Layer:
    """A node with constant weights, and the nodes after it up to the next layers.

    An activation that stays between 8-bit neighbours would be quantised with them; so layers are
    left in float with what follows them.
    """

    name: str
    nodes: tuple[str, ...]
    """The layer and, for example, its activation function."""
    macs: int | None
    """Multiply–accumulates of an image; None where shapes are not known."""


class Quantizer:
    """A float model made ready, with the ranges of its activations on calibration inputs.

    Args:
        model: the ONNX file.
        feeds: of each image the tensors that the graph takes, by name.
        name: what errors call the model.
        channels_last: whether what will run it computes 8 bits with channels last, as ONNX Runtime
            does on a CPU; upsampling, branches and the network's end are written to suit that.

    Raises:
        QuantizationError: quantised already, no layer to quantise, or no model that it can take.
    """

    def __init__(
        self,
        model: bytes,
        feeds: Sequence[Feeds],
        name: str = 'model',
        *,
        channels_last: bool = True,
    ) -> None:
        self.name = name
        self._channels_last = channels_last
        with _errors(name), _quiet():
            self.model = _prepared(model)
            if channels_last:
                put_together_by_kind(self.model)
                ONNXModel(self.model).clean_initializers()
            self.layers = _layers(self.model)
            if not self.layers:
                raise QuantizationError(f'{name}: no layer with constant weights to quantise')
            self._ranges = _ranges(self.model, feeds)
            self._repetitions = repetitions(self.model) if channels_last else {}

    def quantized(self, scheme: Scheme, layers: Collection[str]) -> bytes:
        """Return the model with these layers, by name, in 8 bits and all else in float."""
        wanted = {node for each in self.layers if each.name in layers for node in each.nodes}
        with _errors(self.name), _quiet():
            copy = onnx.ModelProto()
            copy.CopyFrom(self.model)
            quantizer = QDQQuantizer(
                copy,
                True,  # a scale for each channel
                scheme.reduced_range,
                QuantType.QInt8 if scheme.signed_weights else QuantType.QUInt8,
                QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8,
                self._ranges,
                [],
                [node.name for node in copy.graph.node if node.name not in wanted],
                _OPERATORS,
                {},
            )
            quantizer.quantize_model()
            if self._channels_last:
                gather(quantizer.model.model, self._repetitions)
                compute_as_one(quantizer.model.model)
            quantizer.model.topological_sort()  # the quantiser appends what it adds
            quantizer.model.clean_initializers()
            return quantizer.model.model.SerializeToString()


def _prepared(data: bytes) -> onnx.ModelProto:
    """Return the model with folded constants, an opset that fits, and names for its nodes."""
    model = onnx.load_from_string(data)
    found = {node.op_type for node in model.graph.node}
    if found & {'QuantizeLinear', 'DequantizeLinear', 'QLinearConv', 'QLinearMatMul'}:
        raise QuantizationError('is quantised already; give the network in float')
    # Weights of old files are inputs, too, and then no constants.
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    opset = next(each.version for each in model.opset_import if each.domain in ('', 'ai.onnx'))
    if opset < OPSET:
        model = version_converter.convert_version(model, OPSET)
    model = onnx.load_from_string(simplified(model.SerializeToString()))
    domains = {node.domain for node in model.graph.node} | {''}
    kept = [each for each in model.opset_import if each.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f'{node.op_type}_{number}'
        taken.add(node.name)
    return onnx.shape_inference.infer_shapes(model)


def _layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers; every node belongs to the last one before it, but for the tail."""
    values = Values(model.graph)
    weighted = [
        node
        for node in model.graph.node
        if node.op_type in _WEIGHTED and node.input[1] in values.constants
    ]
    place = {node.name: number for number, node in enumerate(weighted)}
    tail = _after_last(model, set(place))
    owner: dict[str, int] = {}  # of a value
    nodes: list[list[str]] = [[] for _ in weighted]
    for node in model.graph.node:
        mine = place.get(node.name, max((owner.get(each, 0) for each in node.input), default=0))
        owner.update(dict.fromkeys(node.output, mine))
        if node.name not in tail and nodes:
            nodes[mine].append(node.name)
    return [
        Layer(
            node.name,
            tuple(nodes[number]),
            _macs(node, values.constants[node.input[1]].dims, values.shapes.get(node.output[0])),
        )
        for number, node in enumerate(weighted)
    ]


def _macs(node: onnx.NodeProto, weights: Sequence[int], output: Sequence[int] | None) -> int | None:
    if not output or 0 in output:
        return None
    if node.op_type == 'Conv':
        return int(np.prod(output) * np.prod(weights[1:]))
    if node.op_type == 'MatMul':
        return int(np.prod(output) * weights[-2])
    if node.op_type == 'Gemm':
        return int(np.prod(output) * np.prod(weights) / output[-1])
    return int(np.prod(output) * weights[0] * np.prod(weights[2:]))  # about: strides overlap


def _after_last(model: onnx.ModelProto, layers: set[str]) -> set[str]:
    """Return the nodes from which no layer follows, and that are none themselves."""
    feeding: set[str] = set()  # values on the way to a layer
    tail = set()
    for node in reversed(model.graph.node):
        if node.name in layers or feeding.intersection(node.output):
            feeding.update(node.input)
        else:
            tail.add(node.name)
    return tail


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Feeds) -> None:
        self._feeds = iter([feeds])

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def _ranges(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> Any:
    """Return the smallest and largest value of each activation, as the quantiser takes them."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / 'model.onnx'
        onnx.save(model, file)
        calibrator = create_calibrator(
            file,
            _OPERATORS,
            augmented_model_path=str(Path(folder) / 'augmented.onnx'),
            calibrate_method=CalibrationMethod.MinMax,
        )
        for each in feeds:  # one by one: the calibrator keeps all activations of what it is given
            calibrator.collect_data(_Reader(each))
        ranges = calibrator.compute_data()
    for value in _swished(model):
        if value in ranges.data:
            ranges.data[value].lowest = np.maximum(
                ranges.data[value].lowest, np.float32(_LEAST_SWISHED)
            )
    return ranges


def _swished(model: onnx.ModelProto) -> list[str]:
    """Return the values that are read as x · sigmoid(x) alone."""
    found = []
    for value, nodes in Values(model.graph).readers.items():
        gates = [node.output[0] for node in nodes if node.op_type == 'Sigmoid']
        rest = [node for node in nodes if node.op_type != 'Sigmoid']
        if (
            gates
            and rest
            and all(node.op_type == 'Mul' and set(node.input) <= {value, *gates} for node in rest)
        ):
            found.append(value)
    return found


def _check_room(name: str) -> None:
    """Raise QuantizationError where temporary files cannot be written; ONNX Runtime is vague."""
    try:
        with TemporaryFile() as file:
            file.write(bytes(2**20))
            file.flush()
    except OSError as error:
        raise QuantizationError(
            f'{name}: its temporary files cannot be written: {error.strerror}; make room in '
            f'{gettempdir()}, or name another folder in TMPDIR'
        ) from error


@contextlib.contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except QuantizationError as error:
        raise QuantizationError(f'{name}: {str(error).removeprefix(name + ": ")}') from error
    except Exception as error:  # the quantiser, onnx and ONNX Runtime raise what they like
        _check_room(name)
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise QuantizationError(f'{name}: ONNX Runtime cannot quantise it: {first}') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's remarks, which are about options that are set here, off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
