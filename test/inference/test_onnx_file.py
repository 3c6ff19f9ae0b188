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

"""Tensors in other files, wherever in the graph: found, refused, and put in by `create`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_detector import LABELS, tiny_onnx, write_tiny_bundle

from pruned_perception.bundle import load_bundle
from pruned_perception.cli.main import main
from pruned_perception.inference import Detector, InferenceError
from pruned_perception.inference.onnx_file import external_tensors

MODEL = tiny_onnx()


def external(name: str = 'far') -> Any:
    onnx = pytest.importorskip('onnx')
    tensor = onnx.numpy_helper.from_array(np.array([1, 2], np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, '/etc/passwd')
    tensor.ClearField('raw_data')
    return tensor


def hidden(place: str) -> bytes:
    """Return a model with an external tensor in that place."""
    onnx = pytest.importorskip('onnx')
    make = onnx.helper
    tensor = external()
    model = onnx.load_from_string(MODEL)
    constant = make.make_node('Constant', [], ['c'], value=tensor)
    inner = make.make_graph([constant], 'inner', [], [])
    if place == 'initializer':
        model.graph.initializer.append(tensor)
    elif place == 'attribute':
        model.graph.node.append(constant)
    elif place == 'subgraph':
        branches = {'then_branch': inner, 'else_branch': inner}
        model.graph.node.append(make.make_node('If', ['x'], ['y'], **branches))
    elif place == 'function':
        function = make.make_function('own', 'f', [], ['c'], [constant], model.opset_import)
        model.functions.append(function)
    elif place == 'sparse':
        sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
        model.graph.sparse_initializer.append(sparse)
    else:  # the location alone, without an address
        only = onnx.TensorProto(name='far', data_location=onnx.TensorProto.EXTERNAL)
        model.graph.initializer.append(only)
    return model.SerializeToString()


PLACES = ['initializer', 'attribute', 'subgraph', 'function', 'sparse', 'location alone']


def test_a_model_in_one_file_has_none() -> None:
    assert external_tensors(MODEL) == []


@pytest.mark.parametrize('place', PLACES)
def test_an_external_tensor_is_found_and_its_model_refused(place: str, tmp_path: Path) -> None:
    model = hidden(place)
    assert set(external_tensors(model)) == {'far'}
    with pytest.raises(InferenceError, match=r'\(far, …\) lie in other files'):
        Detector(write_tiny_bundle(tmp_path / 'bundle', onnx=model))


@given(st.integers(0, len(MODEL) - 1), st.binary(max_size=12))
def test_damaged_files_are_walked_through_or_refused(place: int, junk: bytes) -> None:
    try:
        external_tensors(MODEL[:place] + junk + MODEL[place + len(junk) :])
        external_tensors(MODEL[:place])
    except ValueError:
        pass


def test_graphs_within_graphs_have_an_end() -> None:
    model = b''
    for _ in range(300):
        for field in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            size = len(model)
            length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127])
            model = bytes([field << 3 | 2]) + length + model
    with pytest.raises(ValueError, match='deep'):
        external_tensors(b'\x3a' + bytes([len(model) & 127 | 128, len(model) >> 7]) + model)


@pytest.mark.parametrize('inside', [True, False])
def test_create_puts_the_weights_in_or_says_why_not(
    tmp_path: Path, inside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the new bundle lies in the model's own folder."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string(MODEL)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    source = tmp_path / 'model.onnx'
    onnx.save(model, source, save_as_external_data=True, location='weights.bin', size_threshold=0)
    assert external_tensors(source.read_bytes())
    labels = tmp_path / 'labels.txt'
    labels.write_text('\n'.join(LABELS))
    if not inside:
        (tmp_path / 'weights.bin').unlink()
    words = ['bundle', 'create', str(source), str(tmp_path / 'bundle'), '--labels', str(labels)]
    words += ['--decoder', 'anchor_free', '--parameter', 'strides=[8]']
    status = main(words)
    if not inside:
        assert status == 1
        assert 'cannot be read' in capsys.readouterr().err
        return
    assert status == 0
    bundle = load_bundle(tmp_path / 'bundle')
    (tmp_path / 'weights.bin').unlink()
    assert external_tensors(bundle.onnx_bytes) == []
    image = np.zeros((96, 128, 3), np.uint8)
    image[24:48, 24:48, 0] = 255
    detections, _ = Detector(bundle).detect(image, 'rgb')
    assert detections.boxes[0].tolist() == [24, 24, 48, 48]
