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

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import shapes
import tiny
import torch

from pruned_perception.bundle import load_family, record_evidence
from pruned_perception.datasets import DataError
from pruned_perception.inference.accuracy import evaluate, evaluation_record
from pruned_perception.inference.detector import Detector as RobotDetector
from pruned_perception.pruning import Macs, count, make_plan
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.export import ExportError, compare, to_onnx
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.validation import validate


@pytest.fixture(scope='module')
def onnx_bytes(detector: Detector, images: np.ndarray) -> bytes:
    return to_onnx(detector, images)


def test_the_graph_is_the_contracts(onnx_bytes: bytes) -> None:
    graph = onnx.load_from_string(onnx_bytes).graph
    (image,), (predictions,) = graph.input, graph.output

    def shape(value: onnx.ValueInfoProto) -> list[int]:
        return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]

    assert (image.name, shape(image)) == ('image', [1, 96, 128, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    cells = 12 * 16 + 6 * 8 + 3 * 4
    assert (predictions.name, shape(predictions)) == ('predictions', [1, cells, 7])
    operators = {node.op_type for node in graph.node}
    assert not operators & {'BatchNormalization', 'Shape', 'Div'}


def test_old_runtimes_can_read_it_and_no_path_is_in_it(onnx_bytes: bytes) -> None:
    model = onnx.load_from_string(onnx_bytes)
    assert model.ir_version <= 9  # of ONNX Runtime 1.17
    assert max(each.version for each in model.opset_import) <= 20
    assert not any(node.doc_string for node in model.graph.node)
    assert str(Path(__file__).resolve().parents[3]).encode() not in onnx_bytes
    assert b'.py' not in onnx_bytes


def test_a_model_that_computes_something_else_is_refused(
    detector: Detector, onnx_bytes: bytes, images: np.ndarray
) -> None:
    assert compare(detector, onnx_bytes, images) < 1e-4
    other = folded(detector)
    with torch.no_grad():
        other.heads[0].class_output.bias += 0.05
    with pytest.raises(ExportError, match='differs from PyTorch'):
        compare(other, onnx_bytes, images)


def test_dense_and_pruned_make_a_family(
    detector: Detector, images: np.ndarray, tmp_path: Path
) -> None:
    example = (torch.zeros(1, 3, *tiny.SIZE),)
    plan = make_plan(detector, example, budget=Macs(0.5))
    small = plan.apply(detector)
    assert isinstance(small, Detector)
    dense = tiny.bundle(detector, images, tmp_path / 'dense')
    tiny.bundle(small, images, tmp_path / 'small', parent=dense, plan=plan.to_dict())
    family = load_family(tmp_path)
    assert [bundle.name for bundle in family.members] == ['dense', 'small']
    assert family.members[1].manifest['pruning']['kept'] == plan.to_dict()['kept']
    assert family.members[1].cost.macs == plan.macs == count(small, example).macs


def test_the_robots_detector_finds_what_pytorch_finds(
    detector: Detector, images: np.ndarray, shapes_data: Path, tmp_path: Path
) -> None:
    bundle = tiny.bundle(detector, images, tmp_path / 'dense')
    robot, _ = evaluate(bundle, shapes_data / 'validation', resamples=0)
    frames = load_frames(shapes_data / 'validation', tiny.SIZE)
    ours = validate(detector, frames)
    assert robot.ap50 == pytest.approx(ours.ap50, abs=0.02)
    assert robot.images == len(frames)

    image = cv2.imread(str(shapes_data / 'validation' / 'images' / '000000.png'))
    found, _ = RobotDetector(bundle).detect(image, 'bgr')
    assert found.boxes.shape[1] == 4


def test_records_replace_those_of_the_same_data(
    detector: Detector, images: np.ndarray, shapes_data: Path, tmp_path: Path
) -> None:
    bundle = tiny.bundle(detector, images, tmp_path / 'family' / 'dense')
    metrics, digest = evaluate(bundle, shapes_data / 'validation', resamples=20)
    for data in ('one', 'two', 'one'):  # the second 'one' takes the first one's place
        entry = {'net': 'member', **evaluation_record(metrics, data, digest)}
        record_evidence(bundle, 'evaluation', entry, keys=('net', 'data'))
    (again,) = load_family(tmp_path / 'family').members
    assert [each['data'] for each in again.manifest['evaluation']] == ['one', 'two']
    assert again.sha256 == bundle.sha256
    assert len(again.manifest['evaluation'][0]['ap50_interval']) == 2


def test_other_labels_are_refused(
    detector: Detector, images: np.ndarray, shapes_data: Path, tmp_path: Path
) -> None:
    bundle = tiny.bundle(detector, images, tmp_path / 'dense')
    other = tmp_path / 'other'
    shapes.write_shapes(other, 1, seed=0)
    path = other / 'annotations.json'
    path.write_text(path.read_text().replace('"disc"', '"ball"'))
    with pytest.raises(DataError, match='ball'):
        evaluate(bundle, other)
