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

"""Which decoder outputs ask for, where their names, types and shapes leave no doubt.

Every reading that fits is found; `bundle create` takes a single one, and asks where there are
several: outputs of one shape may mean different things, and a wrong reading gives wrong boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pruned_perception.inference.decoders import _grid

STRIDES = (8, 16, 32)
STRIDES_PLUS = (8, 16, 32, 64)
YOLOV7 = 'batch x0 y0 x1 y1 class score'
YOLO_NAS = 'batch x0 y0 x1 y1 score class'
PADDLE = 'class score x0 y0 x1 y1'
OPENVINO = 'batch class score x0 y0 x1 y1'


@dataclass(frozen=True)
class Output:
    """An output of the graph, for one image: `is_whole` where its numbers are integers."""

    name: str
    shape: tuple[int, ...]
    is_whole: bool = False


@dataclass(frozen=True)
class Graph:
    """What is known of a detector whose decoder is not."""

    outputs: tuple[Output, ...]
    inputs: tuple[str, ...]
    input_size: tuple[int, int]
    classes: int
    takes_batches: bool = True


@dataclass(frozen=True)
class Reading:
    """One way to read the outputs: decoder, its parameters, the outputs in its order, and whose."""

    decoder: str
    outputs: tuple[str, ...]
    whose: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    """What its authors do with images otherwise than `conventions` says of the decoder."""


# Bytes over 255 in colours as they are seen; RT-DETR takes images stretched.
_SCALED = {'color': 'rgb', 'mean': (0.0, 0.0, 0.0), 'std': (255.0, 255.0, 255.0)}
_RTDETR = {**_SCALED, 'resize': 'stretch', 'iou': 1.0}
_YOLOV5 = {**_SCALED, 'align': 'center', 'score': 0.25, 'iou': 0.45}


def readings(graph: Graph) -> list[Reading]:
    """Return all readings that fit."""
    rules: dict[int, Callable[[Graph], Iterator[Reading]]] = {1: _one, 2: _two, 3: _three, 4: _four}
    found = list(rules.get(len(graph.outputs), lambda _: iter(()))(graph))
    return found + list(_per_stride(graph))


def _one(graph: Graph) -> Iterator[Reading]:
    [output] = graph.outputs
    classes, shape, name = graph.classes, output.shape, (output.name,)
    cells = sum(_grid.cell_counts(graph.input_size, STRIDES))
    plus = sum(_grid.cell_counts(graph.input_size, STRIDES_PLUS))
    if len(shape) == 4 and shape[:2] == (1, 5 + classes) and shape[:2] != (1, 1):
        yield Reading('fastestdet', name, 'FastestDet')
    if len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == 7:
        parameters = {'columns': OPENVINO, 'normalized': True}
        yield Reading('end_to_end', name, 'SSD of Caffe or OpenVINO', parameters)
    rows, columns = shape[-2:] if len(shape) in (2, 3) else (0, 0)
    if len(shape) == 3 and shape[0] != 1:
        return
    if rows == 4 + classes and columns != rows:
        yield Reading('yolov8', name, 'YOLOv8, v9, 11')
    if rows == plus and columns == classes + 32:
        parameters = {'strides': list(STRIDES_PLUS), 'cell_centre': 0}
        yield Reading('nanodet', name, 'NanoDet-Plus', parameters, {'resize': 'stretch'})
    if rows == cells and columns == classes + 32:
        yield Reading('nanodet', name, 'NanoDet')
    if columns == 5 + classes and rows == 3 * cells:
        yield Reading('yolox', name, 'YOLOv5', {'decoded': True}, _YOLOV5)
    if columns == 5 + classes and rows == cells:
        yield Reading('yolox', name, "YOLOX, by its export script's default")
        yield Reading('yolox', name, 'YOLOX with --decode_in_inference, YOLOv6', {'decoded': True})
    if columns == 4 + classes and rows == cells:
        yield Reading('anchor_free', name, 'our own')
        yield Reading('ppyoloe', name, 'PP-YOLOE with exclude_post_process')
    if columns == 4 + classes and 0 < rows <= 1000 and rows != cells:
        yield Reading('detr', name, "Ultralytics' RT-DETR", {'activation': 'none'}, _RTDETR)
    if columns == 6 and rows not in (cells, plus, 3 * cells):
        if len(shape) == 3 or not graph.takes_batches:
            yield Reading('end_to_end', name, "YOLOv10, YOLO26, Ultralytics' nms=True")
        if len(shape) == 2:
            yield Reading('end_to_end', name, 'PaddleDetection', {'columns': PADDLE})
    if columns == 7 and rows not in (cells, plus, 3 * cells):
        yield Reading('end_to_end', name, "YOLOv7's --end2end", {'columns': YOLOV7})
        yield Reading('end_to_end', name, 'YOLO-NAS, flat', {'columns': YOLO_NAS})


def _two(graph: Graph) -> Iterator[Reading]:
    for first, second in (graph.outputs, graph.outputs[::-1]):
        names, classes = (first.name, second.name), graph.classes
        a, b = _three_dimensions(first), _three_dimensions(second)
        if b[2] == 4 and a[1] == b[1] and a[2] == classes + 1 and 'logits' in first.name:
            yield Reading('detr', names, 'DETR')
        if b[2] == 4 and a[1] == b[1] and a[2] == classes and 'logits' in first.name:
            yield Reading('detr', names, 'Deformable DETR, RT-DETR', {'activation': 'sigmoid'})
        if a[2] == 4 and 'logits' not in second.name:
            if b[1:] == (classes, a[1]) != (a[1], classes):
                yield Reading('ppyoloe', names, 'PP-YOLOE with exclude_nms')
            if b[1] == a[1] and b[2] == classes + 1:
                yield Reading('ssd', names, 'SSD with a background in column 0')
                yield Reading('detr', names[::-1], 'DETR')
            if b[1] == a[1] and b[2] == classes:
                yield Reading('ssd', names, 'SSD without a background', {'first_label': 0})
                yield Reading('detr', names[::-1], 'RT-DETR', {'activation': 'sigmoid'})
        if first.shape[-1:] == (6,) and second.is_whole and second.shape in ((1,), (1, 1)):
            yield Reading('end_to_end', names, 'PaddleDetection', {'columns': PADDLE})


def _three(graph: Graph) -> Iterator[Reading]:
    found = _boxes_scores_labels(graph.outputs)
    if found is None:
        return
    detr = 'orig_target_sizes' in graph.inputs
    if detr:
        yield Reading('ssd', found, 'RT-DETR, D-FINE', {'first_label': 0}, _RTDETR)
        return
    whose = 'torchvision, where label 0 is the background'
    yield Reading('ssd', found, whose, prepared=_SCALED)
    if graph.takes_batches:
        yield Reading('ssd', found, 'others, whose first class is 0', {'first_label': 0})


def _four(graph: Graph) -> Iterator[Reading]:
    counts = [each for each in graph.outputs if each.shape in ((1,), (1, 1))]
    if len(counts) != 1:
        return
    found = _boxes_scores_labels([each for each in graph.outputs if each not in counts])
    if found is None:
        return
    order = (counts[0].name, *found)
    if any(name.startswith(('detection_', 'num_detections')) for name in order):
        tensorflow = {'box_format': 'yxyx', 'normalized': True, 'first_label': 1}
        yield Reading('efficient_nms', order, "TensorFlow's detection API", tensorflow)
    else:
        yield Reading('efficient_nms', order, 'EfficientNMS, YOLO-NAS')


def _per_stride(graph: Graph) -> Iterator[Reading]:
    """NanoDet with outputs per stride."""
    for strides, centre, whose in ((STRIDES, 0.5, 'NanoDet'), (STRIDES_PLUS, 0, 'NanoDet-Plus')):
        if len(graph.outputs) != 2 * len(strides):
            continue
        shapes = {each.shape: each.name for each in graph.outputs}
        counts = _grid.cell_counts(graph.input_size, strides)
        for bins in (8, 11, 17):
            wanted = [(1, count, graph.classes) for count in counts]
            wanted += [(1, count, 4 * bins) for count in counts]
            if len(shapes) == len(wanted) and set(shapes) == set(wanted):
                parameters = {'strides': list(strides), 'cell_centre': centre}
                yield Reading('nanodet', tuple(shapes[each] for each in wanted), whose, parameters)


def _boxes_scores_labels(outputs: Sequence[Output]) -> tuple[str, str, str] | None:
    """Return the names of boxes, scores and labels, told apart by shape, then type, then name."""
    boxes = [each for each in outputs if each.shape[-1:] == (4,) and len(each.shape) > 1]
    rest = [each for each in outputs if each not in boxes]
    if len(boxes) != 1 or any(each.shape != boxes[0].shape[:-1] for each in rest):
        return None
    labels = [each for each in rest if each.is_whole]
    labels = labels or [each for each in rest if 'class' in each.name or 'label' in each.name]
    scores = [each for each in rest if each not in labels]
    if len(labels) != 1 or len(scores) != 1:
        return None
    return boxes[0].name, scores[0].name, labels[0].name


def _three_dimensions(output: Output) -> tuple[int, int, int]:
    """Return the shape with its batch, (-1, -1, -1) where that is not three dimensions."""
    shape = output.shape if len(output.shape) != 2 else (1, *output.shape)
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (-1, -1, -1)
