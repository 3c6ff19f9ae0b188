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

"""Small ONNX graphs, and ONNX Runtime's word on them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from other_device import DEVICE, OtherDevice

from pruned_perception.inference.engine import create_session
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.training.onnx_import import OnnxNetwork, import_onnx

FLOAT = TensorProto.FLOAT


def graph(
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    dtype: int = FLOAT,
) -> bytes:
    """Return a model with inputs of these shapes; shapes of outputs are left open."""
    model = helper.make_model(
        helper.make_graph(
            list(nodes),
            'graph',
            [helper.make_tensor_value_info(n, dtype, list(s)) for n, s in shapes.items()],
            [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
            [
                numpy_helper.from_array(np.asarray(value), name)
                for name, value in (constants or {}).items()
            ],
        ),
        opset_imports=[helper.make_opsetid('', opset)],
    )
    model.ir_version = 8
    return model.SerializeToString()


def node(operator: str, inputs: str, outputs: str = 'y', **attributes: Any) -> onnx.NodeProto:
    """Return a node; inputs and outputs are separated by blanks, '-' leaves one out."""
    names = ['' if each == '-' else each for each in inputs.split()]
    name = attributes.pop('name', f'{operator}_{outputs.split()[0]}')
    return helper.make_node(operator, names, outputs.split(), name=name, **attributes)


def check(
    model: bytes, inputs: Sequence[np.ndarray] | None = None, *, batch: int = 3, **options: Any
) -> OnnxNetwork:
    """Import, and compare with ONNX Runtime; several images at once with one after the other.

    On another device it computes the same: all that it computes with goes along.
    """
    network = import_onnx(model, **options)
    torch.manual_seed(0)
    if inputs is None:
        inputs = [
            torch.randn(port.shape).numpy() * 2
            if port.dtype.is_floating_point
            else port.example().numpy()
            for port in network.inputs
        ]
    session = create_session(model)
    feed = {port.name: each for port, each in zip(network.inputs, inputs, strict=True)}
    wanted = session.run(list(network.outputs), feed)
    with torch.no_grad():
        given = [torch.from_numpy(each) for each in inputs]
        found = tensors(network.module(*given))
        for want, each in zip(wanted, found, strict=True):
            assert tuple(each.shape) == want.shape
            assert each.numpy().dtype == want.dtype
            scale = max(float(np.abs(want.astype(np.float64)).max(initial=0)), 1e-6)
            worst = np.abs(each.numpy().astype(np.float64) - want).max(initial=0)
            assert worst <= 2e-4 * scale
        if network.one_batch is None:
            more = [torch.cat([each, *(each * 0 + each.flip(-1),) * (batch - 1)]) for each in given]
            for each, single in zip(tensors(network.module(*more)), found, strict=True):
                assert each.shape[0] == batch * single.shape[0]
                torch.testing.assert_close(each[: len(single)], single, rtol=1e-4, atol=1e-4)
        _check_elsewhere(network, given, found)
    return network


def _check_elsewhere(
    network: OnnxNetwork, given: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]
) -> None:
    with OtherDevice():
        module = copy.deepcopy(network.module).to(DEVICE)
        found = tensors(module(*(each.to(DEVICE) for each in given)))
        for each, want in zip(found, wanted, strict=True):
            assert each.device == DEVICE
            assert torch.equal(each.cpu(), want) or not torch.isfinite(want).all()
