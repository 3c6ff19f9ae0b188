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


"""A task's network → a bundle: what a user's own PyTorch code made, for the robot."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.bundle import Bundle
from pruned_perception.inference.new_bundle import create_bundle
from pruned_perception.pruning.calibration import as_inputs
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.pruning.graph.observation import evaluating, tensors
from pruned_perception.training.exporting import (
    TOLERANCE,
    OnnxExportError,
    difference,
    onnx_bytes,
)
from pruned_perception.training.task import Task

COMPARED_IMAGES = 8


def export_task(
    task: Task,
    network: nn.Module,
    plans: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    **description: Any,
) -> Bundle:
    """Write the bundle of a task's network, pruned or not.

    Args:
        task: whose inputs it takes; on the first images of its calibration set ONNX Runtime is
            compared with PyTorch.
        network: the task's, or what was made of it by `plans`; it runs where it is.
        plans: in order, as plain data; the last one becomes the manifest's pruning record.
        folder: of the bundle.
        description: as of `create_bundle`: labels, decoder, how images are prepared, parent, …

    Raises:
        OnnxExportError: ONNX Runtime computes something else.
        UserError: outputs that no decoder, or another one, understands.
    """
    inputs = task.example_inputs
    names = [f'input_{number}' for number in range(len(inputs))] if len(inputs) > 1 else ['images']
    with evaluating(network), fed_from_cpu(network), torch.no_grad():
        count = len(tensors(network(*inputs)))
    outputs = [f'output_{number}' for number in range(count)] if count > 1 else ['output']
    model = onnx_bytes(network, inputs, names, outputs)
    compared = _first(task.calibration, COMPARED_IMAGES) or inputs
    found = difference(network, model, names, outputs, compared)
    if not found <= TOLERANCE:
        raise OnnxExportError(
            f'ONNX Runtime differs from PyTorch by {found:.2g} of the range (> {TOLERANCE:g})'
        )
    *earlier, last = plans or (None,)
    provenance = {**(description.pop('provenance', None) or {})}
    if earlier:
        provenance['earlier_plans'] = earlier
    return create_bundle(
        f'the network of {Path(folder).name}',
        model,
        folder,
        pruning=last,
        provenance=provenance,
        **description,
    )


def _first(batches: Iterable[Any], images: int) -> tuple[Tensor, ...]:
    """Return the first so many images of batches; none where there are none."""
    parts = [as_inputs(each) for each in islice(batches, images)]
    return tuple(torch.cat(each)[:images] for each in zip(*parts, strict=True))
