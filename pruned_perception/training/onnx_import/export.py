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

"""An imported network, pruned or trained since, as an ONNX file again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, fx

from pruned_perception.training.exporting import TOLERANCE, OnnxExportError, difference, onnx_bytes
from pruned_perception.training.onnx_import.batch_norms import folded
from pruned_perception.training.onnx_import.network import OnnxNetwork


def export_onnx(
    network: OnnxNetwork, module: fx.GraphModule, inputs: Sequence[Tensor] | None = None
) -> bytes:
    """Return the ONNX model of `module`, with the inputs and outputs of the imported file.

    Batch norms are folded. A file in half precision comes back in single precision.

    Args:
        network: the import, for names and shapes.
        module: made of `network.module`: pruned, with batch norms, trained.
        inputs: on which ONNX Runtime is compared with PyTorch; random by default.

    Raises:
        OnnxExportError: ONNX Runtime's outputs differ from PyTorch's by more than TOLERANCE.
    """
    names = [port.name for port in network.inputs]
    data = onnx_bytes(folded(module), network.example_inputs, names, network.outputs)
    given = network.example_inputs if inputs is None else tuple(inputs)
    found = disagreement(replace(network, module=module), data, given)
    if not found <= TOLERANCE:
        raise OnnxExportError(
            f'ONNX Runtime differs from PyTorch by {found:.2g} of the range (> {TOLERANCE:g})'
        )
    return data


def disagreement(network: OnnxNetwork, model: bytes, inputs: Sequence[Tensor]) -> float:
    """Return the largest difference of an ONNX model's outputs from the module's; see `difference`.

    Args:
        network: names and module.
        model: the ONNX file's content, for one image at a time where it says so.
        inputs: positional; compared image by image.
    """
    return difference(
        network.module,
        model,
        [port.name for port in network.inputs],
        network.outputs,
        inputs,
        at_once=network.inputs[0].shape[0] if network.inputs[0].shape else 1,
    )
