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

"""PyTorch → ONNX: any network, the way that our runtimes read it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception import __version__
from pruned_perception.errors import UserError
from pruned_perception.inference.engine import create_session
from pruned_perception.pruning.graph.device import fed_from_cpu, on_cpu
from pruned_perception.pruning.graph.observation import evaluating, tensors

OPSET = 17
TOLERANCE = 1e-3  # of a difference, relative to the largest value of an output
IR_VERSION = 8  # ONNX Runtime 1.17 reads up to 9; exporters write newer ones


class OnnxExportError(UserError):
    """The exported model does not compute what the module does."""


@on_cpu
def onnx_bytes(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> bytes:
    """Return the ONNX model of a network, with the shapes of the example inputs.

    Args:
        module: exported in evaluation mode, in which it is left.
        example_inputs: its positional inputs.
        input_names: what they are called in the file.
        output_names: what its outputs are called.
    """
    try:
        import onnx
        import onnxscript.optimizer
    except ImportError as error:
        raise UserError(
            "export needs onnx and onnxscript: pip install 'pruned_perception[train]'"
        ) from error
    # The exporter refuses names that are numbers, which it used to give itself.
    ports = [*input_names, *output_names]
    safe = [name if name[:1].isalpha() else f'port_{name}' for name in ports]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = Path(folder) / 'model.onnx'
        torch.onnx.export(
            module.eval(),
            tuple(example_inputs),
            str(path),
            input_names=safe[: len(input_names)],
            output_names=safe[len(input_names) :],
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    # Shapes are fixed: what the exporter computes from them becomes a constant.
    model = onnxscript.optimizer.optimize(onnx.shape_inference.infer_shapes(model))
    _clean(model)
    _rename(model.graph, {old: new for old, new in zip(safe, ports, strict=True) if old != new})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@torch.no_grad()
def difference(
    module: nn.Module,
    model: bytes,
    input_names: Sequence[str],
    output_names: Sequence[str],
    inputs: Sequence[Tensor],
    *,
    at_once: int = 1,
) -> float:
    """Return the largest difference of ONNX Runtime's outputs from the module's.

    Relative to the largest absolute value of the output.

    Args:
        module: of PyTorch; it runs where it is.
        model: the ONNX file's content, which takes `at_once` images.
        input_names: in the order in which the module takes them.
        output_names: in the order of the module's tensors.
        inputs: (images, …) for each of them.
        at_once: images that are compared together.
    """
    session = create_session(model)
    worst = 0.0
    with evaluating(module), fed_from_cpu(module):
        for start in range(0, len(inputs[0]), at_once):
            part = [each[start : start + at_once] for each in inputs]
            feed = {name: each.numpy() for name, each in zip(input_names, part, strict=True)}
            wanted = tensors(module(*part))
            for found, want in zip(session.run(list(output_names), feed), wanted, strict=True):
                scale = max(float(want.abs().max()), 1e-12)
                worst = max(worst, float(np.abs(found - want.numpy()).max()) / scale)
    return worst


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename values; what has one of the new names gets another one."""
    if not names:
        return
    names = {**{new: f'{new}_inner' for new in names.values()}, **names}
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(each, each) for each in values]
    for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.name = names.get(each.name, each.name)


def _clean(model: Any) -> None:
    """Drop what names the machine that exported it, and mark it readable for older runtimes."""
    model.ir_version = IR_VERSION
    model.doc_string = ''
    model.producer_name, model.producer_version = 'pruned_perception', __version__
    del model.metadata_props[:]
    model.graph.doc_string = ''
    model.graph.name = 'detector'
    _without_documentation(model.graph.node)
    _without_documentation(model.graph.initializer)
    _without_documentation([*model.graph.input, *model.graph.output, *model.graph.value_info])


def _without_documentation(items: Sequence[Any]) -> None:
    for item in items:
        item.doc_string = ''
        if hasattr(item, 'metadata_props'):
            del item.metadata_props[:]
