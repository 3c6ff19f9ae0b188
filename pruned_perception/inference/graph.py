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

"""What an ONNX graph takes beside the image, and what its outputs are for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.bundle import InputSpec
from pruned_perception.inference import engine

TYPES = {
    'tensor(uint8)': np.uint8,
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(int32)': np.int32,
    'tensor(int64)': np.int64,
    'tensor(double)': np.float64,
}


def constant(node: Any, values: Sequence[float]) -> NDArray[Any]:
    """Return `values` in type and shape of the graph's input `node`; open dimensions are 1.

    Raises ValueError where they do not fit.
    """
    shape = [size if isinstance(size, int) else 1 for size in node.shape]
    if node.type not in TYPES or int(np.prod(shape)) != len(values):
        raise ValueError(f'{node.name!r} is {node.type} {node.shape}, not {list(values)}')
    return np.array(values, TYPES[node.type]).reshape(shape)


def suggested_constants(node: Any, size: tuple[int, int]) -> Sequence[float] | None:
    """Return what a graph's input means by its name, for an image of `size` (height, width).

    Boxes are to come back in pixels of the network's input, so that is the image's size, and its
    scale is 1. None where the name says nothing.
    """
    height, width = size
    return {
        'scale_factor': [1, 1],  # PaddleDetection
        'im_shape': [height, width],
        'image_shape': [height, width],  # YOLOv3 of the ONNX model zoo
        'orig_target_sizes': [width, height],  # RT-DETR, D-FINE
    }.get(node.name)


def black(session: Any, spec: InputSpec) -> dict[str, NDArray[Any]]:
    """Return the inputs for a black image; raises ValueError where a constant does not fit."""
    nodes = {node.name: node for node in session.get_inputs()}
    feeds: dict[str, NDArray[Any]] = {spec.name: np.zeros(spec.shape, spec.dtype)}
    feeds.update({name: constant(nodes[name], each) for name, each in spec.constants.items()})
    return feeds


def first_run(
    session: Any, names: Sequence[str], spec: InputSpec, file: str, time_limit_s: float
) -> dict[str, NDArray[Any]]:
    """Return the outputs for a black image.

    Raises InferenceError where the run fails, ValueError where a constant does not fit.
    """
    found = engine.run(session, names, black(session, spec), name=file, time_limit_s=time_limit_s)
    fixed = {node.name: node.shape for node in session.get_outputs()}
    outputs = one_image(dict(zip(names, found, strict=True)), spec, fixed)
    return dict(zip(names, outputs, strict=True))


def one_image(
    outputs: Mapping[str, NDArray[Any]], spec: InputSpec, fixed: Mapping[str, Sequence[Any]]
) -> list[NDArray[Any]]:
    """Return the outputs for the first image of a batch, half precision as single.

    `fixed` are the outputs' shapes in the graph. Where these do not say that the first dimension is
    the batch, it is in outputs of three dimensions and more: rows of objects may be as many.
    """
    found = []
    for name, output in outputs.items():
        if output.dtype == np.float16:
            output = output.astype(np.float32)
        if spec.batch > 1 and output.ndim and len(output) == spec.batch:
            said = fixed[name][:1] and fixed[name][0] == spec.batch
            if said or output.ndim > 2:
                output = output[:1]
        found.append(output)
    return found
