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

"""Latency tables in which time is arithmetic, for tests of budgets in milliseconds."""

from __future__ import annotations

from pruned_perception.bundle import Bundle
from pruned_perception.inference.latency_table import (
    LatencyTable,
    Target,
    Times,
    Whole,
    convolution,
)
from pruned_perception.pruning.tracing import trace
from pruned_perception.training.onnx_import.task import import_bundle_network

ROBOT = Target('a robot', 'AVX2', 'engine 1', 'CPU', 1)


def arithmetic_table(bundle: Bundle, *, ms: float = 8.0, block: int = 1) -> LatencyTable:
    """Return a table of a bundle's convolutions, which takes `ms` as a whole."""
    network = import_bundle_network(bundle)
    layers = [
        convolution(shape[:4], shape[4:8], shape[8:])
        for term in trace(network.module, network.example_inputs).terms
        for shape in term.shapes
    ]
    times = []
    for geometry in dict.fromkeys(each.geometry for each in layers):
        unit = 1e-6 * geometry.height * geometry.width
        unit *= geometry.kernel_height * geometry.kernel_width
        own = [each for each in layers if each.geometry == geometry]
        inputs = tuple(sorted({block, *(each.inputs for each in own)}))
        outputs = tuple(sorted({block, *(each.outputs for each in own)}))
        rows = tuple(tuple(unit * m * n for n in outputs) for m in inputs)
        times.append(Times(geometry, inputs, outputs, rows))
    whole = Whole(bundle.name, bundle.sha256, ms, 0.9, tuple(layers))
    return LatencyTable(ROBOT, block, whole, tuple(times))
