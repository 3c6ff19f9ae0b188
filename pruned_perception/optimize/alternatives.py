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

"""What else makes a detector faster, where pruning does not pay: measured, not promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pruned_perception._tables import Table
from pruned_perception.bundle import Bundle, write_bundle
from pruned_perception.errors import UserError
from pruned_perception.inference.detector import Detector
from pruned_perception.optimize.frames import Picture
from pruned_perception.optimize.judging import agreement, compare_members
from pruned_perception.optimize.probing import ROUNDS, RUNS, speedup, timed
from pruned_perception.pruning.graph.cost import count
from pruned_perception.training.onnx_import import OnnxNetwork, export_onnx, import_onnx

SMALLER = 0.75
"""Of height and width of the input."""
STRIDE = 32
"""Sides of inputs are multiples of it, in all detectors that are known here."""


@dataclass(frozen=True)
class Alternative:
    """Another way to be faster, on this machine and the frames to choose by."""

    name: str
    ms: float
    speedup: float
    agreement: float


def at_lower_resolution(parent: Bundle, folder: Path, share: float = SMALLER) -> Bundle | None:
    """Return the detector with an input of smaller sides; None where its graph is bound to them."""
    spec = parent.input
    height, width = (
        max(STRIDE, round(share * side / STRIDE) * STRIDE) for side in (spec.height, spec.width)
    )
    shape = (1, 3, height, width) if spec.layout == 'NCHW' else (1, height, width, 3)
    try:
        network = _of_size(parent, shape)
        model = export_onnx(network, network.module)
        cost = count(network.module, network.example_inputs)
        manifest = {
            **parent.manifest,
            'name': f'input{width}x{height}',
            'input': {**parent.manifest['input'], 'shape': list(shape)},
            'cost': {'parameters': cost.parameters, 'macs': cost.macs},
        }
        bundle = write_bundle(folder, model, manifest)
        Detector(bundle).self_check()
    except (UserError, RuntimeError):  # PyTorch's, of sizes that do not fit together
        return None
    return bundle


def _of_size(parent: Bundle, shape: tuple[int, ...]) -> OnnxNetwork:
    """Return the network with another input; sizes that its exporter wrote down follow."""
    spec = parent.input
    network = import_onnx(
        parent.onnx_bytes, shapes={spec.name: spec.shape}, outputs=parent.output.names
    )
    inputs = (
        replace(each, shape=shape) if each.name == spec.name else each for each in network.inputs
    )
    return replace(network, inputs=tuple(inputs))


def measured(parent: Bundle, other: Bundle, frames: Sequence[Picture]) -> Alternative:
    """Time it by turns with its parent, and compare what both see."""
    times = timed([parent.onnx_bytes, other.onnx_bytes], rounds=ROUNDS, runs=RUNS)
    return Alternative(
        other.name,
        float(np.median(times[1])),
        speedup(*times),
        agreement(compare_members(parent, other, frames)).share,
    )


def table(found: Sequence[Alternative]) -> str:
    """Return them as a table."""
    header = 'instead of pruning | ms, one thread:.2f | × faster:.2f | agreement:.3f'
    rows = [(each.name, each.ms, each.speedup, each.agreement) for each in found]
    return Table.under(header, rows).to_text()
