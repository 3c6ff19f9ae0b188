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

"""Decoders: objects are written into outputs by each format's formula and read back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.inference import decoders
from pruned_perception.inference.decoders import _grid as grid
from pruned_perception.inference.errors import InferenceError

SIZE = (64, 96)  # height, width
CLASSES = 3
STRIDES = (8, 16, 32)
CELLS = sum(grid.cell_counts(SIZE, STRIDES))
QUERIES = 20


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


SPREAD = 6  # slots 0 … 19 lie in cells 0, 6, … 114: in all three strides


def cell_of(slot: int) -> tuple[int, int, int]:
    """Return (column, row, stride) of a slot's cell, counted as the formats do."""
    slot *= SPREAD
    for stride in STRIDES:
        columns, rows = math.ceil(SIZE[1] / stride), math.ceil(SIZE[0] / stride)
        if slot < columns * rows:
            return slot % columns, slot // columns, stride
        slot -= columns * rows
    raise AssertionError(slot)


def anchor_free(objects):
    out = np.zeros((1, CELLS, 4 + CLASSES), np.float32)
    for slot, (x, y, w, h), score, k in objects:
        column, row, stride = cell_of(slot)
        cx, cy = (column + 0.5) * stride, (row + 0.5) * stride
        out[0, SPREAD * slot, :4] = (
            cx - (x - w / 2),
            cy - (y - h / 2),
            x + w / 2 - cx,
            y + h / 2 - cy,
        )
        out[0, SPREAD * slot, 4 + k] = score
    return [out]


def yolox(objects, decoded=False):
    out = np.zeros((1, CELLS, 5 + CLASSES), np.float32)
    for slot, (x, y, w, h), score, k in objects:
        column, row, s = cell_of(slot)
        out[0, SPREAD * slot, :4] = x / s - column, y / s - row, math.log(w / s), math.log(h / s)
        if decoded:
            out[0, SPREAD * slot, :4] = x, y, w, h
        out[0, SPREAD * slot, 4] = 0.95
        out[0, SPREAD * slot, 5 + k] = score / 0.95
    return [out]


def nanodet(objects):
    bins = 33
    scores = np.zeros((1, CELLS, CLASSES), np.float32)
    distances = np.zeros((1, CELLS, 4 * bins), np.float32)
    for slot, (x, y, w, h), score, k in objects:
        column, row, s = cell_of(slot)
        cx, cy = (column + 0.5) * s, (row + 0.5) * s
        sides = [cx - (x - w / 2), cy - (y - h / 2), x + w / 2 - cx, y + h / 2 - cy]
        for side, distance in enumerate(sides):
            # Two neighbouring bins whose mean is the distance, the others almost without weight.
            low, part = divmod(distance / s, 1)
            weights = np.full(bins, 1e-9)
            weights[int(low)] += 1 - part
            weights[int(low) + 1] += part
            distances[0, SPREAD * slot, side * bins : (side + 1) * bins] = np.log(weights)
        scores[0, SPREAD * slot, k] = score
    at = np.cumsum(grid.cell_counts(SIZE, STRIDES))[:-1]
    return [*np.split(scores, at, axis=1), *np.split(distances, at, axis=1)]


def nanodet_plus(objects):
    """As its export script writes it: one output, four strides, cells by their corner."""
    bins, strides = 8, (8, 16, 32, 64)
    out = np.zeros((1, sum(grid.cell_counts(SIZE, strides)), CLASSES + 4 * bins), np.float32)
    for slot, (x, y, w, h), score, k in objects:
        column, row, s = cell_of(slot)
        sides = [column * s - (x - w / 2), row * s - (y - h / 2)]
        sides += [x + w / 2 - column * s, y + h / 2 - row * s]
        for side, distance in enumerate(sides):
            low, part = divmod(distance / s, 1)
            weights = np.full(bins, 1e-9)
            weights[int(low)] += 1 - part
            weights[int(low) + 1] += part
            at = CLASSES + side * bins
            out[0, SPREAD * slot, at : at + bins] = np.log(weights)
        out[0, SPREAD * slot, k] = score
    return [out]


def fastestdet(objects):
    height, width = SIZE[0] // 16, SIZE[1] // 16
    out = np.zeros((1, 5 + CLASSES, height, width), np.float32)
    for slot, (x, y, w, h), score, k in objects:
        row, column = divmod(slot % (height * width), width)
        out[0, 0, row, column] = 0.95
        out[0, 1, row, column] = math.atanh(max(-0.999, min(0.999, x / 16 - column)))
        out[0, 2, row, column] = math.atanh(max(-0.999, min(0.999, y / 16 - row)))
        out[0, 3, row, column] = logit(w / SIZE[1])
        out[0, 4, row, column] = logit(h / SIZE[0])
        out[0, 5 + k, row, column] = (score / 0.95**0.6) ** (1 / 0.4)
    return [out]


def yolov8(objects):
    out = np.zeros((1, 4 + CLASSES, 200), np.float32)
    for slot, box, score, k in objects:
        out[0, :4, slot] = box
        out[0, 4 + k, slot] = score
    return [out]


def corners(box):
    x, y, w, h = box
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2], np.float32)


def ssd(objects, box_format='xyxy', normalized=False, first_label=1, per_class=False, batch=True):
    boxes = np.zeros((QUERIES, 4), np.float32)
    scores = np.zeros((QUERIES, first_label + CLASSES), np.float32)
    if first_label:
        scores[:, 0] = 0.99  # background, never to be returned
    for slot, box, score, k in objects:
        row = np.array(box, np.float32) if box_format == 'cxcywh' else corners(box)
        if box_format == 'yxyx':
            row = row[[1, 0, 3, 2]]
        if normalized:
            scale = [SIZE[0], SIZE[1]] if box_format == 'yxyx' else [SIZE[1], SIZE[0]]
            row = row / np.array(scale * 2, np.float32)
        boxes[slot] = row
        scores[slot, :] = 0
        scores[slot, first_label + k] = score
    outputs = [boxes, scores] if per_class else [boxes, scores.max(axis=1), scores.argmax(axis=1)]
    return [each[None] for each in outputs] if batch else outputs


def detr(objects, activation='softmax'):
    boxes = np.full((1, QUERIES, 4), 0.5, np.float32)
    if activation == 'softmax':
        logits = np.full((1, QUERIES, CLASSES + 1), -20, np.float32)
        logits[0, :, -1] = 0
    else:
        logits = np.full((1, QUERIES, CLASSES), -9, np.float32)
    for slot, (x, y, w, h), score, k in objects:
        boxes[0, slot] = x / SIZE[1], y / SIZE[0], w / SIZE[1], h / SIZE[0]
        if activation == 'softmax':
            logits[0, slot, -1] = math.log(1 - score)
            logits[0, slot, k] = math.log(score)
        else:
            logits[0, slot, k] = logit(score)
    return [logits, boxes]


def detr_in_one(objects):
    """Ultralytics' RT-DETR: (1, 300, 4 + C), scores ready."""
    logits, boxes = detr(objects, activation='sigmoid')
    return [np.concatenate([boxes, 1 / (1 + np.exp(-logits))], axis=2)]


def end_to_end(objects, columns='x0 y0 x1 y1 score class', pad=True, count=False, ones=1):
    """Write a row per object, then rows that mean nothing."""
    table = []
    for _, box, score, k in objects:
        x0, y0, x1, y1 = corners(box)
        row = {'x0': x0, 'y0': y0, 'x1': x1, 'y1': y1, 'score': score, 'class': k, 'batch': 0}
        table.append([row[name] for name in columns.split()])
    junk = {'x0': 1, 'y0': 1, 'x1': 9, 'y1': 9, 'score': 0.99, 'class': -1, 'batch': 0}
    if 'batch' in columns:
        junk.update({'class': 1, 'batch': 1})
    if count:
        junk['class'] = 0
    while pad and len(table) < QUERIES:
        table.append([junk[name] for name in columns.split()])
    rows = np.array(table, np.float32).reshape(*(1,) * ones, len(table), len(columns.split()))
    return [rows, np.array([len(objects)], np.int32)] if count else [rows]


def openvino(objects):
    [rows] = end_to_end(objects, 'batch class score x0 y0 x1 y1', ones=2)
    rows[..., 3:] /= np.array([SIZE[1], SIZE[0]] * 2, np.float32)
    return [rows]


def efficient_nms(objects, dtype=np.int32):
    boxes = np.full((1, QUERIES, 4), 5, np.float32)
    scores = np.full((1, QUERIES), 0.99, np.float32)  # of what is not counted
    classes = np.zeros((1, QUERIES), dtype)
    for place, (_, box, score, k) in enumerate(objects):
        boxes[0, place], scores[0, place], classes[0, place] = corners(box), score, k
    return [np.array([[len(objects)]], np.int32), boxes, scores, classes]


def tensorflow(objects):
    count, boxes, scores, classes = efficient_nms(objects, np.float32)
    boxes = boxes[..., [1, 0, 3, 2]] / np.array([SIZE[0], SIZE[1]] * 2, np.float32)
    return [count[0].astype(np.float32), boxes, scores, classes + 1]


def ppyoloe(objects, in_one=False):
    boxes = np.zeros((1, CELLS, 4), np.float32)
    scores = np.zeros((1, CLASSES, CELLS), np.float32)
    for slot, box, score, k in objects:
        boxes[0, slot], scores[0, k, slot] = corners(box), score
    if in_one:
        return [np.concatenate([boxes, scores.transpose(0, 2, 1)], axis=2)]
    return [boxes, scores]


YOLOV7 = {'columns': 'batch x0 y0 x1 y1 class score'}
PADDLE = {'columns': 'class score x0 y0 x1 y1'}
CASES = {
    'nanodet-plus': (
        'nanodet',
        nanodet_plus,
        {'strides': [8, 16, 32, 64], 'cell_centre': 0},
    ),
    'end to end': ('end_to_end', end_to_end, {}),
    'end to end, none': ('end_to_end', lambda objects: end_to_end(objects, pad=False), {}),
    'yolov7 end to end': (
        'end_to_end',
        lambda objects: end_to_end(objects, YOLOV7['columns'], ones=0),
        YOLOV7,
    ),
    'paddle with its suppression': (
        'end_to_end',
        lambda objects: end_to_end(objects, PADDLE['columns'], ones=0, count=True),
        PADDLE,
    ),
    'openvino ssd': (
        'end_to_end',
        openvino,
        {'columns': 'batch class score x0 y0 x1 y1', 'normalized': True},
    ),
    'efficient nms': ('efficient_nms', efficient_nms, {}),
    'tensorflow detection': (
        'efficient_nms',
        tensorflow,
        {'box_format': 'yxyx', 'normalized': True, 'first_label': 1},
    ),
    'pp-yoloe': ('ppyoloe', ppyoloe, {}),
    'pp-yoloe in one': ('ppyoloe', lambda objects: ppyoloe(objects, in_one=True), {}),
    'rt-detr of ultralytics': ('detr', detr_in_one, {'activation': 'none'}),
    'anchor_free': ('anchor_free', anchor_free, {'strides': [8, 16, 32]}),
    'yolox': ('yolox', yolox, {}),
    'yolox decoded': ('yolox', lambda objects: yolox(objects, decoded=True), {'decoded': True}),
    'nanodet': ('nanodet', nanodet, {}),
    'fastestdet': ('fastestdet', fastestdet, {}),
    'yolov8': ('yolov8', yolov8, {}),
    'ssd labels': ('ssd', ssd, {}),
    'ssd torchvision': ('ssd', lambda objects: ssd(objects, batch=False), {'first_label': 1}),
    'ssd tensorflow': (
        'ssd',
        lambda objects: ssd(objects, box_format='yxyx', normalized=True, first_label=0),
        {'box_format': 'yxyx', 'normalized': True, 'first_label': 0},
    ),
    'ssd per class': (
        'ssd',
        lambda objects: ssd(objects, box_format='cxcywh', normalized=True, per_class=True),
        {'box_format': 'cxcywh', 'normalized': True},
    ),
    'detr': ('detr', detr, {}),
    'rt-detr': (
        'detr',
        lambda objects: detr(objects, activation='sigmoid'),
        {'activation': 'sigmoid'},
    ),
}
# (slot, (centre x, centre y, width, height), score, class); slots small enough for every format.
objects = st.lists(
    st.tuples(
        st.integers(0, 19),
        st.tuples(st.floats(20, 70), st.floats(20, 50), st.floats(4, 20), st.floats(4, 20)),
        st.floats(0.05, 0.93),
        st.integers(0, CLASSES - 1),
    ),
    unique_by=lambda row: row[0],
    max_size=8,
)


def place_near(name, found):
    """Move the centres into reach: FastestDet's lie within a cell of the slot's corner."""
    if name in ('nanodet', 'nanodet-plus'):  # and NanoDet's sides are not negative
        moved = []
        at = 0.5 if name == 'nanodet' else 0
        for slot, (_, _, w, h), score, k in found:
            column, row, s = cell_of(slot)
            moved.append((slot, ((column + at) * s + 1, (row + at) * s - 1, w, h), score, k))
        return moved
    if name != 'fastestdet':
        return found
    moved = []
    for slot, (x, y, w, h), score, k in found:
        row, column = divmod(slot, SIZE[1] // 16)
        moved.append((slot, (16 * column + x / 10, 16 * row + y / 10, w, h), score, k))
    return moved


@pytest.mark.parametrize('name', CASES)
@given(found=objects, threshold=st.floats(0.1, 0.9))
def test_objects_above_the_threshold_are_read_back(name, found, threshold):
    decoder_name, encode, parameters = CASES[name]
    found = place_near(name, found)
    # A score that lies within rounding of the threshold may fall to either side.
    found = [row for row in found if abs(row[2] - threshold) > 1e-3]
    outputs = encode(found)
    decoder = decoders.get(decoder_name)
    decoder.check([each.shape for each in outputs], parameters, SIZE, CLASSES)
    got = decoder.decode(outputs, parameters, SIZE, threshold)

    wanted = [row for row in found if row[2] > threshold]
    assert len(got.scores) == len(wanted)
    assert got.boxes.shape == (len(wanted), 4)
    for _, box, score, k in wanted:
        errors = [
            np.abs(got.boxes[i] - corners(box)).max()
            for i in range(len(got.scores))
            if abs(got.scores[i] - score) < 2e-4 and got.class_ids[i] == k
        ]
        assert min(errors, default=np.inf) < 0.02


@pytest.mark.parametrize('name', CASES)
def test_nothing_found_is_an_empty_result(name):
    decoder_name, encode, parameters = CASES[name]
    got = decoders.get(decoder_name).decode(encode([]), parameters, SIZE, 0.5)
    assert got.boxes.shape == (0, 4)
    assert got.scores.shape == got.class_ids.shape == (0,)
    assert got.class_ids.dtype == np.int64


# Labels that are outputs themselves do not tell how many there are.
@pytest.mark.parametrize(
    'name',
    sorted(
        name
        for name, (decoder, _, _) in CASES.items()
        if decoder not in ('end_to_end', 'efficient_nms')
        and name not in ('ssd labels', 'ssd torchvision', 'ssd tensorflow')
    ),
)
@pytest.mark.parametrize('classes', [1, CLASSES + 1])
def test_another_number_of_labels_is_refused_where_the_outputs_tell(name, classes):
    decoder_name, encode, parameters = CASES[name]
    shapes = [each.shape for each in encode([])]
    with pytest.raises(ValueError, match='needed'):
        decoders.get(decoder_name).check(shapes, parameters, SIZE, classes)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('shapes', [[(1, 11)], [(5,)], [()], [(1, 1, 1)], [(1, 2, 3, 4)] * 2])
def test_other_shapes_are_refused(name, shapes):
    decoder_name, _, parameters = CASES[name]
    with pytest.raises(ValueError, match='needed'):
        decoders.get(decoder_name).check(shapes, parameters, SIZE, CLASSES)


@pytest.mark.parametrize(
    ('decoder', 'parameters', 'message'),
    [
        ('anchor_free', {'stride': [8]}, "unknown parameter 'stride'; known are: strides"),
        ('anchor_free', {'strides': 8}, "'strides' must be a list of integers above 0, not 8"),
        ('anchor_free', {'strides': [0]}, "'strides' must be a list of integers above 0"),
        ('yolox', {'decoded': 1}, "'decoded' must be true or false, not 1"),
        ('nanodet', {'cell_centre': 'x'}, "'cell_centre' must be a number"),
        ('ssd', {'box_format': 'xywh'}, "'box_format' must be one of xyxy, yxyx, cxcywh"),
        ('ssd', {'first_label': -1}, "'first_label' must be 0 or more"),
        ('ssd', {'first_label': True}, "'first_label' must be an integer"),
        ('detr', {'activation': 'relu'}, "'activation' must be one of softmax, sigmoid"),
        ('yolov8', {'x': 1}, "unknown parameter 'x'; known are: none"),
        ('nanodet', {'bins': 1}, "'bins' must be 2 or more"),
        ('end_to_end', {'columns': 'x0 y0 x1 y1 score'}, "'columns' must name x0, y0, x1, y1"),
        ('end_to_end', {'columns': 'x0 y0 x1 y1 score score class'}, "'columns' must name"),
        ('end_to_end', {'first_label': -1}, "'first_label' must be 0 or more"),
        ('efficient_nms', {'box_format': 'xywh'}, "'box_format' must be one of xyxy"),
    ],
)
def test_wrong_parameters_are_named(decoder, parameters, message):
    with pytest.raises(ValueError, match=message):
        decoders.get(decoder).check([(1, 1, 1)], parameters, SIZE, CLASSES)


def test_an_unknown_decoder_lists_the_known_ones():
    with pytest.raises(InferenceError, match=r"unknown decoder 'centernet'.*anchor_free, .*yolox"):
        decoders.get('centernet')


def test_every_decoder_has_a_case_here():
    assert {decoder for decoder, _, _ in CASES.values()} == set(decoders.names())


def test_odd_input_sizes_have_cells_for_what_is_left_over():
    assert grid.cell_counts((304, 400), (8, 16, 32)) == [38 * 50, 19 * 25, 10 * 13]
    places, strides = grid.cells((304, 400), (8, 16, 32))
    assert len(places) == len(strides) == 1900 + 475 + 130
    assert places[-1].tolist() == [12, 9]
