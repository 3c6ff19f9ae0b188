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

"""From image to boxes with a real ONNX file, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx_writer as ow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_detector import (
    HEIGHT,
    LABELS,
    WIDTH,
    square_image,
    tiny_manifest,
    tiny_onnx,
    write_tiny_bundle,
)

from pruned_perception.inference import Detector, ImageError, InferenceError, Settings
from pruned_perception.inference import detector as detector_module
from pruned_perception.inference.detector import MOST_CANDIDATES


@pytest.fixture(scope='module')
def detector(tiny_bundle) -> Detector:
    return Detector(tiny_bundle)


def names(detections) -> list[str]:
    return [LABELS[class_id] for class_id in detections.class_ids]


@pytest.mark.parametrize('label', LABELS)
def test_a_square_is_found_where_it_is(detector, label):
    image = square_image(label, left=200, top=160, side=120)
    detections, times = detector.detect(image, 'rgb')
    assert names(detections) == [label]
    np.testing.assert_allclose(detections.boxes, [[200, 160, 320, 280]], atol=0.01)
    assert 0.97 < detections.scores[0] < 0.99
    assert times.preprocess > 0
    assert times.inference > 0
    assert times.postprocess > 0


def test_the_order_of_the_channels_is_honoured(detector):
    image = square_image('red', left=200, top=160, side=120)
    assert names(detector.detect(image, 'bgr')[0]) == ['blue']
    assert names(detector.detect(image[..., ::-1], 'bgr')[0]) == ['red']


def test_a_gray_image_has_no_coloured_squares(detector):
    detections, _ = detector.detect(np.full((480, 640), 255, np.uint8), 'gray')
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ('height', 'width'), [(96, 128), (48, 64), (960, 1280), (1, 1), (7, 4000), (4000, 7)]
)
def test_any_size_of_image_is_taken(detector, height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 255
    detections, _ = detector.detect(image, 'rgb')
    assert set(names(detections)) == {'red'}
    assert (detections.boxes >= 0).all()
    assert (detections.boxes <= [width, height, width, height]).all()
    assert (detections.boxes[:, 2:] > detections.boxes[:, :2]).all()


def test_108_megapixels_are_taken(detector):
    row = np.zeros((1, 12_000, 3), np.uint8)
    image = np.broadcast_to(row, (9_000, 12_000, 3))
    assert len(detector.detect(np.ascontiguousarray(image), 'rgb')[0]) == 0


@pytest.fixture
def three_squares() -> np.ndarray:
    image = square_image('red', left=40, top=40, side=120)
    image += square_image('green', left=240, top=40, side=120) // 5 * 4  # a lower score
    return image + square_image('blue', left=440, top=240, side=120)


def test_detections_are_sorted_by_score(detector, three_squares):
    detections, _ = detector.detect(three_squares, 'rgb')
    assert sorted(names(detections)) == ['blue', 'green', 'red']
    assert names(detections)[-1] == 'green'
    assert (np.diff(detections.scores) <= 0).all()


def test_settings_of_one_call_leave_the_others_alone(detector, three_squares):
    default = detector.settings

    def found(**changes) -> list[str]:
        settings = replace(default, **changes)
        return sorted(names(detector.detect(three_squares, 'rgb', settings)[0]))

    assert found() == ['blue', 'green', 'red']
    assert found(score_threshold=0.97) == ['blue', 'red']
    assert found(score_threshold=1.0) == []
    assert found(classes=frozenset({1, 2})) == ['blue', 'green']
    assert found(classes=frozenset()) == []
    assert len(found(max_detections=2)) == 2
    assert len(found(iou_threshold=1.0)) > 3
    assert detector.settings == default
    assert found() == ['blue', 'green', 'red']


def test_a_letterboxed_detector_finds_the_same(tmp_path):
    spec = {**tiny_manifest()['input'], 'resize': 'letterbox', 'pad_value': 0}
    detector = Detector(write_tiny_bundle(tmp_path / 'bundle', input=spec))
    # 640 × 240 lies in the middle rows 24 … 72 of the 128 × 96 input.
    image = square_image('green', left=200, top=80, side=120, height=240)
    detections, _ = detector.detect(image, 'rgb')
    assert names(detections) == ['green']
    np.testing.assert_allclose(detections.boxes, [[200, 80, 320, 200]], atol=0.01)


def test_what_lies_in_the_border_alone_is_no_detection(tmp_path):
    spec = {**tiny_manifest()['input'], 'resize': 'letterbox', 'align': 'top_left'}
    distances = np.zeros((1, 192, 4), np.float32)
    scores = np.zeros((1, 192, 3), np.float32)
    scores[0, -1] = 0.9  # the last cell, below an image that fills the upper half
    distances[0, -1] = 4
    model = constant_network([np.concatenate([distances, scores], axis=2)])
    detector = Detector(write_tiny_bundle(tmp_path / 'bundle', onnx=model, input=spec))
    assert len(detector.detect(np.zeros((240, 640, 3), np.uint8))[0]) == 0
    assert len(detector.detect(np.zeros((480, 640, 3), np.uint8))[0]) == 1


def test_symbolic_output_dimensions_are_taken(tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'bundle', onnx=tiny_onnx(symbolic=True))
    image = square_image('red', left=200, top=160, side=120)
    assert names(Detector(bundle).detect(image, 'rgb')[0]) == ['red']


def test_two_threads_find_the_same(tiny_bundle):
    image = square_image('red', left=200, top=160, side=120)
    detector = Detector(tiny_bundle, threads=2, allow_spinning=True)
    detector.warm_up()
    assert names(detector.detect(image, 'rgb')[0]) == ['red']


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_refused(tmp_path, value):
    bundle = write_tiny_bundle(tmp_path / 'bundle', onnx=tiny_onnx(scale=value))
    detector = Detector(bundle)
    with pytest.raises(InferenceError, match=r"model\.onnx: output 'predictions' holds NaN or inf"):
        detector.detect(np.zeros((480, 640, 3), np.uint8))


def constant_network(outputs) -> bytes:
    """Return a network of the tiny detector's input that always returns `outputs`."""
    constants = {f'const{i}': each for i, each in enumerate(outputs)}
    constants['none'] = np.array([0], np.int64)
    nodes = [
        # Touches the input, so that it stays one: nothing of it is kept.
        ow.node('ReduceMax', ['image'], ['any'], keepdims=0),
        ow.node('Cast', ['any'], ['any_long'], to=7),
        ow.node('Mul', ['any_long', 'none'], ['zero']),
    ]
    values = []
    for i, each in enumerate(outputs):
        onnx_type = ow.TYPES[each.dtype.name]
        nodes.append(ow.node('Cast', ['zero'], [f'zero{i}'], to=onnx_type))
        name = 'predictions' if len(outputs) == 1 else f'out{i}'
        nodes.append(ow.node('Add', [f'const{i}', f'zero{i}'], [name]))
        values.append(ow.value(name, each.dtype.name, each.shape))
    inputs = [ow.value('image', 'uint8', [1, HEIGHT, WIDTH, 3])]
    return ow.model(nodes, inputs, values, constants)


@pytest.fixture(scope='module')
def absurd_detector(tmp_path_factory):
    """Return a function that makes a detector of given finite outputs."""

    def make(predictions: np.ndarray) -> Detector:
        folder = tmp_path_factory.mktemp('absurd')
        return Detector(write_tiny_bundle(folder, onnx=constant_network([predictions])))

    return make


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(0, 38))
def test_absurd_but_finite_outputs_give_boxes_in_the_image(absurd_detector, seed, exponent):
    rng = np.random.default_rng(seed)
    predictions = (rng.uniform(-1, 1, (1, 192, 7)) * 10.0**exponent).astype(np.float32)
    predictions[..., 4:] = rng.random((1, 192, 3))
    detections, _ = absurd_detector(predictions).detect(np.zeros((480, 640, 3), np.uint8))
    assert np.isfinite(detections.boxes).all()
    assert (detections.boxes >= 0).all()
    assert (detections.boxes <= [640, 480, 640, 480]).all()


def test_a_label_that_the_bundle_does_not_have_is_an_error(tmp_path):
    outputs = [
        np.array([[[1, 1, 9, 9]]], np.float32),
        np.array([[0.9]], np.float32),
        np.array([[4]], np.int64),
    ]
    section = {'names': ['out0', 'out1', 'out2'], 'decoder': 'ssd', 'parameters': {}}
    bundle = write_tiny_bundle(tmp_path, onnx=constant_network(outputs), output=section)
    with pytest.raises(InferenceError, match=r'field labels: 3 labels, but .* returned class 3'):
        Detector(bundle).detect(np.zeros((480, 640, 3), np.uint8))


@pytest.mark.parametrize(
    ('section', 'changes', 'message'),
    [
        ('input', {'name': 'x'}, r"input\.name: 'x', but the inputs of .* are \['image'\]"),
        ('input', {'dtype': 'float32'}, r"input\.dtype: 'float32', but 'image' .* tensor\(uint8\)"),
        ('input', {'shape': [1, 96, 96, 3]}, r'input\.shape: .* is \[1, 96, 128, 3\]'),
        ('output', {'names': ['boxes']}, r"output\.names: 'boxes' is no output .*predictions"),
        ('output', {'decoder': 'mine'}, r"output\.decoder: unknown decoder 'mine'; .* yolox"),
        ('output', {'parameters': {'strides': [16]}}, r"'anchor_free' .* not fit .*\(1, 48, 7\)"),
        ('output', {'parameters': {'scale': 1}}, r"'anchor_free' .*unknown parameter 'scale'"),
    ],
)
def test_a_manifest_that_does_not_fit_the_network_is_refused(tmp_path, section, changes, message):
    merged = {**tiny_manifest()[section], **changes}
    bundle = write_tiny_bundle(tmp_path / 'bundle', **{section: merged})
    with pytest.raises(InferenceError, match=rf'manifest\.json: .*{message}'):
        Detector(bundle)


@pytest.mark.parametrize('labels', [['red', 'green'], ['red', 'green', 'blue', 'pink']])
def test_labels_that_are_not_as_many_as_classes_are_refused(tmp_path, labels):
    bundle = write_tiny_bundle(tmp_path / 'bundle', labels=labels)
    with pytest.raises(InferenceError, match=f'with {len(labels)} labels does not fit'):
        Detector(bundle)


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'bundle', onnx=b'not a network')
    with pytest.raises(InferenceError, match=r'model\.onnx: not an ONNX file, or damaged'):
        Detector(bundle)


def test_a_bad_image_does_not_spoil_the_next(detector):
    with pytest.raises(ImageError):
        detector.detect(np.zeros((0, 0, 3), np.uint8), 'rgb')
    image = square_image('red', left=200, top=160, side=120)
    assert names(detector.detect(image, 'rgb')[0]) == ['red']


def test_the_bytes_that_were_hashed_are_those_that_run(tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'bundle')
    bundle.onnx_path.write_bytes(b'changed after the check')
    image = square_image('red', left=200, top=160, side=120)
    assert names(Detector(bundle).detect(image, 'rgb')[0]) == ['red']


def test_nothing_of_the_off_line_stage_is_imported(tiny_bundle):
    code = (
        'import sys\n'
        'from pruned_perception.bundle import load_bundle\n'
        'from pruned_perception.inference import Detector\n'
        'Detector(load_bundle(sys.argv[1])).warm_up()\n'
        'heavy = "torch onnx rclpy jsonschema rich yaml matplotlib rosbags pycocotools scipy"\n'
        'print([name for name in heavy.split() if name in sys.modules])\n'
    )
    command = [sys.executable, '-c', code, str(tiny_bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize('scores', [[7.3], [-2.0], [95.0], [255.0], [1.01]])
def test_scores_outside_0_to_1_are_refused_not_published(tmp_path, scores):
    """Logits, per cent, bytes: at once by the check that `create` and `verify` make."""
    outputs = [np.array([[[1, 1, 9, 9]]], np.float32), np.array([scores], np.float32)]
    outputs.append(np.array([[1]], np.int64))
    section = {'names': ['out0', 'out1', 'out2'], 'decoder': 'ssd', 'parameters': {}}
    bundle = write_tiny_bundle(tmp_path, onnx=constant_network(outputs), output=section)
    with pytest.raises(InferenceError, match=r'needs them in 0 … 1: does the graph return logits'):
        Detector(bundle).self_check()
    if scores[0] > 0:
        with pytest.raises(InferenceError, match=r'needs them in 0 … 1'):
            Detector(bundle).detect(np.zeros((480, 640, 3), np.uint8))


def test_boxes_that_are_not_finite_are_refused(tmp_path):
    """The output is finite, but not what the decoder makes of it."""
    predictions = np.zeros((1, 192, 8), np.float32)
    predictions[..., 2:4], predictions[..., 4:] = 3e38, 1
    section = {'names': ['predictions'], 'decoder': 'yolox', 'parameters': {'strides': [8]}}
    bundle = write_tiny_bundle(tmp_path, onnx=constant_network([predictions]), output=section)
    detector = Detector(bundle)
    for use in (detector.self_check, lambda: detector.detect(np.zeros((96, 128, 3), np.uint8))):
        with pytest.raises(
            InferenceError, match=r'boxes that are not finite; is .yolox. the right'
        ):
            use()


def test_only_so_many_candidates_are_compared_with_each_other(tmp_path, monkeypatch):
    """20,000 boxes took 8 s where nothing is suppressed: the time goes with their square."""
    count = 20_000
    predictions = np.full((1, 7, count), 20, np.float32)
    predictions[0, 4:] = 0
    scores = np.linspace(0.6, 0.9, count, dtype=np.float32)
    predictions[0, 5] = np.random.default_rng(0).permutation(scores)
    section = {'names': ['predictions'], 'decoder': 'yolov8', 'parameters': {}}
    bundle = write_tiny_bundle(tmp_path, onnx=constant_network([predictions]), output=section)
    compared = []
    suppress = detector_module.class_wise_nms

    def noting(boxes, *others):
        compared.append(len(boxes))
        return suppress(boxes, *others)

    monkeypatch.setattr(detector_module, 'class_wise_nms', noting)
    found, _ = Detector(bundle).detect(
        np.zeros((480, 640, 3), np.uint8), settings=Settings(0.5, 1.0, 10_000)
    )
    assert compared == [MOST_CANDIDATES]
    assert found.left_out == count - MOST_CANDIDATES
    assert found.scores.tolist() == sorted(scores.tolist(), reverse=True)[:MOST_CANDIDATES]
