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
