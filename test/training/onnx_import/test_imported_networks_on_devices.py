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

"""Imported networks on a device that is not the CPU: see `other_device` for how, without one.

Operators are in `test_onnx_operators.py`, whose `check` runs each there, too.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from graphs import graph, node  # noqa: E402
from other_device import DEVICE, OtherDevice  # noqa: E402
from torch import fx, nn  # noqa: E402

from pruned_perception import optimize, quantization  # noqa: E402
from pruned_perception.pruning.graph.device import device_of  # noqa: E402
from pruned_perception.training import label_free, onnx_import  # noqa: E402
from pruned_perception.training.onnx_import import OnnxNetwork, import_onnx  # noqa: E402


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


CONSTANTS = {
    'first.weight': _random(8, 3, 3, 3), 'first.bias': _random(8), 'mean': _random(1, 3, 1, 1),
    'second.weight': _random(8, 8, 3, 3), 'head.weight': _random(4, 8, 1, 1),
}  # fmt: skip
NODES = [
    node('Sub', 'x mean', 'shifted'),
    node('Conv', 'shifted first.weight first.bias', 'a', pads=[1] * 4),
    node('Relu', 'a', 'b'),
    node('Conv', 'b second.weight', 'c', pads=[1] * 4),
    node('Relu', 'c', 'd'),
    node('Conv', 'd head.weight'),
]
MODEL = graph(NODES, {'x': (1, 3, 8, 8)}, ['y'], CONSTANTS)
IMAGES = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))]

CASES: dict[str, Callable[[OnnxNetwork], Any]] = {
    'with_batch_norms': lambda net: onnx_import.with_batch_norms(net.module, IMAGES),
    'folded': lambda net: onnx_import.folded(onnx_import.with_batch_norms(net.module, IMAGES)),
    'export_onnx': lambda net: onnx_import.export_onnx(net, net.module),
    'disagreement': lambda net: onnx_import.disagreement(net, MODEL, IMAGES),
    'measure_sensitivity': lambda net: optimize.measure_sensitivity(net, IMAGES, 0).to_dict(),
}


def _on_device(network: OnnxNetwork) -> OnnxNetwork:
    return dataclasses.replace(network, module=network.module.to(DEVICE))


@pytest.mark.parametrize('name', CASES)
def test_the_result_is_the_same_wherever_the_network_is(name: str) -> None:
    wanted = CASES[name](import_onnx(MODEL))
    with OtherDevice():
        network = _on_device(import_onnx(MODEL))
        found = CASES[name](network)
        assert device_of(network.module) == DEVICE
        if isinstance(wanted, nn.Module):
            assert device_of(found) == DEVICE
            state = found.state_dict()
            assert {each.device for each in state.values() if each.ndim} == {DEVICE}
            for key, value in wanted.state_dict().items():
                torch.testing.assert_close(state[key].cpu(), value)
        else:
            assert found == wanted


def test_batch_norms_are_measured_where_the_network_is_and_it_trains_there() -> None:
    with OtherDevice():
        network = _on_device(import_onnx(MODEL))
        seen = set()
        network.module.first.register_forward_hook(lambda module, args, out: seen.add(out.device))
        normed: fx.GraphModule = onnx_import.with_batch_norms(network.module, IMAGES)
        images = IMAGES[0].to(DEVICE)
        normed.train()(images).square().mean().backward()
        assert {each.grad.device for each in normed.parameters()} == {DEVICE}
    assert seen == {DEVICE}


def test_no_public_function_that_takes_a_network_is_left_out() -> None:
    """Teaching and `optimize` take bundles; what quantises runs in ONNX Runtime alone."""
    public = {
        name
        for module in (onnx_import, label_free, optimize, quantization)
        for name in module.__all__
        if inspect.isfunction(function := getattr(module, name))
        and {'nn.Module', 'fx.GraphModule', 'OnnxNetwork'}
        & {each.annotation for each in inspect.signature(function).parameters.values()}
    }
    assert public == set(CASES)
