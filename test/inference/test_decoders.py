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


CASES = {
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
    if name == 'nanodet':  # and NanoDet's sides are not negative
        moved = []
        for slot, (_, _, w, h), score, k in found:
            column, row, s = cell_of(slot)
            moved.append((slot, ((column + 0.5) * s + 1, (row + 0.5) * s - 1, w, h), score, k))
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
    'name', sorted(CASES.keys() - {'ssd labels', 'ssd torchvision', 'ssd tensorflow'})
)
@pytest.mark.parametrize('classes', [1, CLASSES + 1])
def test_another_number_of_labels_is_refused_where_the_outputs_tell(name, classes):
    decoder_name, encode, parameters = CASES[name]
    shapes = [each.shape for each in encode([])]
    with pytest.raises(ValueError, match='needed'):
        decoders.get(decoder_name).check(shapes, parameters, SIZE, classes)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('shapes', [[(1, 7)], [(5,)], [()], [(1, 1, 1)], [(1, 2, 3, 4)] * 2])
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
