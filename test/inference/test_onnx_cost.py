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


"""Multiply–accumulates and parameters of any ONNX file."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import onnx_writer as ow
import pytest

from pruned_perception.bundle import load_family
from pruned_perception.inference import cost
from pruned_perception.inference.cost import onnx_cost
from pruned_perception.inference.graph import black

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('member', ['dense', 'half', 'quarter', 'sixth', 'tenth', 'twelfth'])
def test_the_shipped_family_is_counted_as_where_it_was_pruned(member: str) -> None:
    """There the counter of the off-line stage did, on the PyTorch network."""
    bundle = load_family(ROOT / 'models' / 'warehouse').member(member)
    found = onnx_cost(bundle.onnx_bytes, lambda session: black(session, bundle.input))
    assert found == bundle.cost


def test_the_formulas_examples() -> None:
    assert doctest.testmod(cost).failed == 0


def test_matrix_products_count_and_open_dimensions_do_no_harm() -> None:
    weights = np.ones((6, 4), np.float32)
    nodes = [
        ow.node('Gemm', ['x', 'w'], ['y'], transB=0),
        ow.node('MatMul', ['y', 'v'], ['z']),
        ow.node('Relu', ['z'], ['out']),
    ]
    model = ow.model(
        nodes,
        [ow.value('x', 'float32', ['N', 6])],
        [ow.value('out', 'float32', ['N', 2])],
        {'w': weights, 'v': np.ones((4, 2), np.float32)},
    )
    found = onnx_cost(model, lambda _: {'x': np.ones((3, 6), np.float32)})
    assert found.macs == 3 * 6 * 4 + 3 * 4 * 2
    assert found.parameters == 24 + 8
