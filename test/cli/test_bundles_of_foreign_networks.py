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

"""`bundle create` on networks as others export them: recognised, or asked about; to the pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from constant_networks import constant_network

from pruned_perception.bundle import load_bundle
from pruned_perception.cli.main import main
from pruned_perception.inference import Detector

HEIGHT, WIDTH = 64, 96
LABELS = ('red', 'green', 'blue', 'pink', 'grey')
CELLS = 8 * 12 + 4 * 6 + 2 * 3
# Corners in pixels of the input, score, class.
OBJECTS = (((10, 12, 30, 40), 0.9, 1), ((50.5, 8.25, 82, 33), 0.7, 4))
OTHER = ((0, 0, 90, 60), 0.99, 2)  # of another image of a batch, or not counted


def corners(found: Any = OBJECTS) -> np.ndarray:
    return np.array([box for box, _, _ in found], np.float32).reshape(-1, 4)


def centres(found: Any = OBJECTS) -> np.ndarray:
    boxes = corners(found)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def scores(found: Any = OBJECTS, rows: int = len(OBJECTS)) -> np.ndarray:
    table = np.zeros((rows, len(LABELS)), np.float32)
    for row, (_, score, label) in enumerate(found):
        table[row, label] = score
    return table


def filled(table: np.ndarray, rows: int) -> np.ndarray:
    """Return the table with rows of noughts below."""
    return np.concatenate([table, np.zeros((rows - len(table), table.shape[1]), np.float32)])


def of_rows(columns: str, found: Any = OBJECTS, batch: int = 0) -> np.ndarray:
    """Return a row per object with these columns."""
    table = []
    for (x0, y0, x1, y1), score, label in found:
        values = {'x0': x0, 'y0': y0, 'x1': x1, 'y1': y1, 'score': score, 'class': label}
        table.append([{**values, 'batch': batch}[name] for name in columns.split()])
    return np.array(table, np.float32)


def yolov8(found: Any = OBJECTS, dtype: str = 'float32') -> np.ndarray:
    table = np.concatenate([centres(found), scores(found, len(found))], axis=1)
    return filled(table, CELLS).T[None].astype(dtype)


def nanodet_plus() -> np.ndarray:
    """As the official export: (1, N, C + 32), strides 8 to 64, cells by their corner."""
    bins, strides = 8, (8, 16, 32, 64)
    sizes = [(-(-HEIGHT // s), -(-WIDTH // s)) for s in strides]
    out = np.zeros((1, sum(h * w for h, w in sizes), len(LABELS) + 4 * bins), np.float32)
    for (x0, y0, x1, y1), score, label in OBJECTS:
        column, row = int((x0 + x1) / 2 // 8), int((y0 + y1) / 2 // 8)
        at = row * sizes[0][1] + column
        out[0, at, label] = score
        for side, distance in enumerate(
            (8 * column - x0, 8 * row - y0, x1 - 8 * column, y1 - 8 * row)
        ):
            low, part = divmod(distance / 8, 1)
            weights = np.full(bins, 1e-9)
            weights[int(low)] += 1 - part
            weights[int(low) + 1] += part
            first = len(LABELS) + side * bins
            out[0, at, first : first + bins] = np.log(weights)
    return out


@dataclass(frozen=True)
class Case:
    """A network, and what it is recognised as."""

    outputs: dict[str, Any]
    decoder: str
    image: tuple[tuple[int | str, ...], str] = ((1, 3, HEIGHT, WIDTH), 'float32')
    parameters: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    network: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, tuple[float, ...]] = field(default_factory=dict)


SIZE = np.array([WIDTH, HEIGHT] * 2, np.float32)
YOLOV7 = 'batch x0 y0 x1 y1 class score'
PADDLE = 'class score x0 y0 x1 y1'
PLUS = {'strides': [8, 16, 32, 64], 'cell_centre': 0}
CASES = {
    'NanoDet-Plus': Case({'output': nanodet_plus()}, 'nanodet', parameters=PLUS),
    '[1, 300, 6]': Case(
        {'output0': filled(of_rows('x0 y0 x1 y1 score class'), 300)[None]}, 'end_to_end'
    ),
    'N × 7 of YOLOv7': Case(
        {'output': of_rows(YOLOV7)},
        'end_to_end',
        parameters={'columns': YOLOV7},
        options=('--decoder', 'end_to_end', '--parameter', f'columns="{YOLOV7}"'),
        network={'open_rows': ['output']},
    ),
    'Ultralytics RT-DETR': Case(
        {'output0': filled(np.concatenate([centres() / SIZE, scores()], axis=1), 300)[None]},
        'detr',
        parameters={'activation': 'none'},
    ),
    'RT-DETR with orig_target_sizes': Case(
        {
            'labels': np.array([[1, 4]], np.int64),
            'boxes': corners()[None] / SIZE,
            'scores': np.array([[0.9, 0.7]], np.float32),
        },
        'ssd',
        parameters={'first_label': 0},
        network={
            'others': {'orig_target_sizes': ((1, 2), 'int64')},
            'sized': {'boxes': 'orig_target_sizes'},
        },
        constants={'orig_target_sizes': (WIDTH, HEIGHT)},
    ),
    'PP-YOLOE without its suppression': Case(
        {
            'boxes': filled(corners(), CELLS)[None],
            'scores': filled(scores(), CELLS).T[None],
        },
        'ppyoloe',
        network={
            'others': {'scale_factor': ((1, 2), 'float32')},
            'sized': {'boxes': 'scale_factor'},
        },
        constants={'scale_factor': (1, 1)},
    ),
    'PP-YOLOE with its suppression': Case(
        {
            'multiclass_nms3_0.tmp_0': of_rows(PADDLE, [*OBJECTS, OTHER]),
            'multiclass_nms3_0.tmp_2': np.array([2], np.int32),
        },
        'end_to_end',
        parameters={'columns': PADDLE},
        network={
            'others': {'im_shape': ((1, 2), 'float32'), 'scale_factor': ((1, 2), 'float32')},
            'open_rows': ['multiclass_nms3_0.tmp_0'],
        },
        constants={'im_shape': (HEIGHT, WIDTH), 'scale_factor': (1, 1)},
    ),
    'EfficientNMS': Case(
        {
            'num_dets': np.array([[2]], np.int32),
            'det_boxes': corners([*OBJECTS, OTHER])[None],
            'det_scores': np.array([[0.9, 0.7, 0.99]], np.float32),
            'det_classes': np.array([[1, 4, 2]], np.int32),
        },
        'efficient_nms',
    ),
    'float16': Case(
        {'output0': yolov8(dtype='float16')},
        'yolov8',
        image=((1, 3, HEIGHT, WIDTH), 'float16'),
    ),
    'a batch of 4': Case(
        {'output0': np.concatenate([yolov8(), *[yolov8([OTHER])] * 3])},
        'yolov8',
        image=((4, 3, HEIGHT, WIDTH), 'float32'),
    ),
    'a batch of 4 in rows': Case(
        {'output': np.concatenate([of_rows(YOLOV7), of_rows(YOLOV7, [OTHER] * 2, batch=1)])},
        'end_to_end',
        image=((4, 3, HEIGHT, WIDTH), 'float32'),
        parameters={'columns': YOLOV7},
        options=('--decoder', 'end_to_end', '--parameter', f'columns="{YOLOV7}"'),
        network={'open_rows': ['output']},
    ),
    'CHW, with a batch in the output': Case(
        {'output0': yolov8()}, 'yolov8', image=((3, HEIGHT, WIDTH), 'float32')
    ),
    'CHW, without': Case({'output0': yolov8()[0]}, 'yolov8', image=((3, HEIGHT, WIDTH), 'float32')),
    'HWC bytes': Case({'output0': yolov8()[0]}, 'yolov8', image=((HEIGHT, WIDTH, 3), 'uint8')),
    'HWC, open size': Case(
        {'output0': yolov8()[0]},
        'yolov8',
        image=(('height', 'width', 3), 'float32'),
        options=('--size', str(HEIGHT), str(WIDTH)),
    ),
    'torchvision': Case(
        {
            'boxes': corners(),
            'labels': np.array([2, 5], np.int64),
            'scores': np.array([0.9, 0.7], np.float32),
        },
        'ssd',
        image=((3, HEIGHT, WIDTH), 'float32'),
    ),
}


def create(tmp_path: Path, network: bytes, *options: str) -> int:
    (tmp_path / 'network.onnx').write_bytes(network)
    (tmp_path / 'labels.txt').write_text('\n'.join(LABELS))
    command = ['bundle', 'create', str(tmp_path / 'network.onnx'), str(tmp_path / 'bundle')]
    command += ['--labels', str(tmp_path / 'labels.txt'), '--resize', 'stretch', *options]
    return main(command)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_foreign_networks_are_recognised_and_decoded_to_the_pixel(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = constant_network(case.image, case.outputs, **case.network)
    assert create(tmp_path, network, *case.options) == 0, capsys.readouterr().err
    bundle = load_bundle(tmp_path / 'bundle')
    assert bundle.output.decoder == case.decoder
    assert bundle.output.parameters == case.parameters
    assert bundle.input.constants == case.constants
    image = np.zeros((2 * HEIGHT, 3 * WIDTH, 3), np.uint8)
    detections, _ = Detector(bundle).detect(image)
    assert detections.class_ids.tolist() == [label for _, _, label in OBJECTS]
    tolerance = 0.05 if 'float16' in case.image else 0.01
    assert detections.boxes == pytest.approx(corners() * [3, 2, 3, 2], abs=tolerance)
    assert detections.scores == pytest.approx([0.9, 0.7], abs=1e-3)


@pytest.mark.parametrize(
    ('outputs', 'words'),
    [
        (
            {'output': of_rows(YOLOV7)},
            ['--parameter \'columns="batch x0 y0 x1 y1 class score"\'', 'YOLO-NAS, flat'],
        ),
        (
            {'output': np.zeros((1, CELLS, 5 + len(LABELS)), np.float32)},
            ['--decoder yolox --parameter decoded=true   YOLOX with --decode_in_inference'],
        ),
        (
            {
                'boxes': corners()[None],
                'scores': np.array([[0.9, 0.7]], np.float32),
                'labels': np.array([[1, 4]], np.int64),
            },
            ['--decoder ssd --outputs boxes scores labels   torchvision', 'first_label=0'],
        ),
        (
            {'a': np.zeros((1, 7, 4), np.float32), 'b': np.zeros((1, 7, len(LABELS)), np.float32)},
            ['--decoder detr', '--decoder ssd'],
        ),
    ],
)
def test_what_may_mean_several_things_is_asked(
    outputs: dict[str, Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(tmp_path, constant_network(((1, 3, HEIGHT, WIDTH), 'float32'), outputs)) == 1
    said = capsys.readouterr().err
    assert 'Whose network is it?' in said
    for each in words:
        assert each in said
    assert not (tmp_path / 'bundle').exists()


def test_what_means_nothing_that_is_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {'output': np.zeros((1, 17, 23), np.float32)}
    assert create(tmp_path, constant_network(((1, 3, HEIGHT, WIDTH), 'float32'), outputs)) == 1
    assert 'outputs output (1, 17, 23), with 5 labels, are none of the kinds' in (
        capsys.readouterr().err
    )


def test_an_input_that_means_nothing_by_its_name_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = constant_network(
        ((1, 3, HEIGHT, WIDTH), 'float32'),
        {'output0': yolov8()},
        others={'gamma': ((1, 2), 'float32')},
    )
    assert create(tmp_path, network) == 1
    assert '--constant gamma=[…]' in capsys.readouterr().err
    assert create(tmp_path, network, '--constant', 'gamma=[1]') == 1
    assert "'gamma' is tensor(float) [1, 2], not [1]" in capsys.readouterr().err
    assert create(tmp_path, network, '--constant', 'delta=[1]') == 1
    assert '--constant delta: it has no such input' in capsys.readouterr().err
    assert create(tmp_path, network, '--constant', 'gamma=[1, 2.5]') == 0
    assert load_bundle(tmp_path / 'bundle').input.constants == {'gamma': (1, 2.5)}


def test_a_batch_costs_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {'output0': np.concatenate([yolov8()] * 4)}
    assert create(tmp_path, constant_network(((4, 3, HEIGHT, WIDTH), 'float32'), outputs)) == 0
    assert 'takes 4 images at once' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('Ultralytics RT-DETR', ('rgb', (0, 0, 0), (255, 255, 255))),
        ('RT-DETR with orig_target_sizes', ('rgb', (0, 0, 0), (255, 255, 255))),
        ('NanoDet-Plus', ('bgr', (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))),
        ('[1, 300, 6]', ('rgb', (0, 0, 0), (255, 255, 255))),
        ('torchvision', ('rgb', (0, 0, 0), (255, 255, 255))),
        ('HWC bytes', ('rgb', (0, 0, 0), (1, 1, 1))),
    ],
)
def test_images_are_prepared_as_the_authors_of_the_network_do(
    name: str, expected: tuple[Any, ...], tmp_path: Path
) -> None:
    """Not as others do whose outputs look alike; a graph that takes bytes scales by itself."""
    case = CASES[name]
    network = constant_network(case.image, case.outputs, **case.network)
    assert create(tmp_path, network, *case.options) == 0
    spec = load_bundle(tmp_path / 'bundle').input
    assert (spec.color, spec.mean, spec.std) == expected
