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

"""The tests' own ONNX files are ONNX files to the reference, too."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_detector import tiny_onnx

onnx = pytest.importorskip('onnx', reason='compares with the onnx package')


@pytest.mark.parametrize('symbolic', [False, True])
def test_the_reference_reads_and_accepts_the_tiny_detector(symbolic):
    model = onnx.load_from_string(tiny_onnx(symbolic=symbolic))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][:3] == ['Cast', 'Transpose', 'AveragePool']
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert constants['rows'].tolist() == [1, 3, -1]
    np.testing.assert_array_equal(constants['distances'], np.full((1, 192, 4), 12, np.float32))
