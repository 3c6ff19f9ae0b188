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

"""The parent teaches: its outputs and its layers' outputs on views of unlabelled frames."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from pruned_perception.bundle import Bundle, InputSpec
from pruned_perception.inference.detector import Detector
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.pruning.graph.observation import observed, tensors
from pruned_perception.pruning.plan import Plan
from pruned_perception.pruning.refit import kept_outputs
from pruned_perception.pruning.structure import Structure
from pruned_perception.training.label_free.agreement import Picture
from pruned_perception.training.label_free.losses import output_loss, relative_error
from pruned_perception.training.label_free.recipe import LabelFree
from pruned_perception.training.label_free.views import ViewBatch, Views, part_of
from pruned_perception.training.onnx_import import OnnxNetwork
from pruned_perception.training.recipe import Phase, Recipe
from pruned_perception.training.task import Task

CLIP = 10.0


def teaching_task(
    bundle: Bundle,
    network: OnnxNetwork,
    small: fx.GraphModule,
    pairs: Mapping[str, tuple[str, Tensor | None]],
    frames: Sequence[Picture],
    recipe: LabelFree,
    scales: Sequence[Tensor] | None = None,
) -> Task:
    """Return the task of teaching `small`: its batches are views, its step asks the parent.

    Args:
        bundle: the parent.
        network: its network, on the device on which `small` will be taught.
        small: made of it, with batch norms.
        pairs: see `layer_pairs`.
        frames: BGR pictures.
        recipe: what the views are like, and how much which loss counts.
        scales: of raw outputs, where the loss is to be theirs; see `deviations`.
    """
    teacher = copy.deepcopy(network.module).eval().requires_grad_(False)
    teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    spec, loss = bundle.input, output_loss(bundle, scales)
    phases = phases_of(spec, teacher, recipe)
    things = found_in(bundle, frames) if len(phases) > 1 else ()
    layers = list(pairs) if recipe.features else []
    turns = max(1, min(recipe.turns, len(layers)))

    def training(seed: int) -> Iterator[ViewBatch]:
        return Views(spec, frames, recipe, seed, things)

    def step(student: nn.Module, batch: ViewBatch) -> dict[str, Tensor]:
        followed = {name: pairs[name] for name in layers[batch.number % turns :: turns]}
        with torch.no_grad():
            wanted, theirs = _followed(teacher, batch.inputs, list(followed))
        found, ours = _followed(student, batch.inputs, [name for name, _ in followed.values()])
        height, width = (batch.inputs.shape[spec.layout.index(each)] for each in 'HW')
        losses = {n: recipe.outputs * v for n, v in loss(found, wanted, (height, width)).items()}
        if followed:
            errors = []
            for name, (own, kept) in followed.items():
                target = theirs[name] if kept is None else theirs[name][:, kept]
                errors.append(relative_error(ours[own], target))
            losses['features'] = recipe.features * torch.stack(errors).mean()
        return losses

    return Task(
        model=small,
        example_inputs=network.example_inputs,
        calibration=(),
        training=training,
        step=step,
        recipe=Recipe(
            optimiser='adamw',
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            ema=recipe.ema,
            clip=CLIP,
            channels_last=True,
            phases=phases,
        ),
    )


def phases_of(spec: InputSpec, teacher: nn.Module, recipe: LabelFree) -> tuple[Phase, ...]:
    """Return parts of the frames, then whole ones; only these where the network takes no others."""
    whole, part = (spec.height, spec.width), part_of(spec)
    last = Phase(1.0, whole, recipe.scale)
    if not recipe.close or part == whole or not _takes(teacher, spec, part, recipe.batch):
        return (last,)
    return Phase(recipe.close, part, recipe.scale), last


def pixels_seen(spec: InputSpec, phases: Sequence[Phase]) -> float:
    """Return the share of an input's pixels that a step looks at, over all phases.

    >>> from types import SimpleNamespace
    >>> parts = Phase(0.75, (192, 256), (1, 1)), Phase(1.0, (288, 384), (1, 1))
    >>> round(pixels_seen(SimpleNamespace(height=288, width=384), parts), 2)
    0.58
    """
    began = seen = 0.0
    for phase in phases:
        seen += (phase.until - began) * phase.size[0] * phase.size[1]
        began = phase.until
    return seen / (spec.height * spec.width)


def _takes(network: nn.Module, spec: InputSpec, size: tuple[int, int], batch: int) -> bool:
    """Say whether the network computes inputs of another size, and all of its outputs follow it."""
    views = Views(spec, [np.zeros((*size, 3), np.uint8)], LabelFree(batch=batch, colours=0), 0)
    whole = next(views).inputs
    views.size = size
    try:
        with torch.no_grad(), fed_from_cpu(network):
            found = [tensors(network(x)) for x in (whole, next(views).inputs)]
    except (RuntimeError, ValueError, IndexError):  # what sizes in the graph lead to
        return False
    return all(a.ndim == b.ndim and a.numel() > b.numel() > 0 for a, b in zip(*found, strict=True))


def layer_pairs(
    parent: nn.Module, structure: Structure, plan: Plan, normed: nn.Module
) -> dict[str, tuple[str, Tensor | None]]:
    """Return, by the parent's convolution, what computes the same in the pruned network.

    Beside its name: which of the parent's channels it has, None for all.
    Convolutions that make the network's outputs are left to the loss on outputs.
    """
    kept = kept_outputs(parent, structure, plan)
    modules = dict(normed.named_modules())
    found = {}
    for name, layer in parent.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            norms = (norm for norm in (f'{name}_norm', f'{name}.1_norm') if norm in modules)
            if norm := next(norms, None):  # the second: of a layer that became two
                found[name] = (norm, kept.get(name))
    return found


def found_in(bundle: Bundle, frames: Sequence[Picture]) -> list[NDArray[Any]]:
    """Return the middles (n, 2) of what a bundle finds in each frame, x, y in its pixels."""
    detector = Detector(bundle)
    boxes = [detector.detect(frame)[0].boxes for frame in frames]
    return [(each[:, :2] + each[:, 2:]) / 2 for each in boxes]


def _followed(
    network: nn.Module, inputs: Tensor, names: Sequence[str]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return the network's outputs, and those of the named modules."""
    found: dict[str, Tensor] = {}

    def note(name: str, x: Tensor, output: Tensor) -> None:
        found[name] = output

    with observed(network, names, note):
        outputs = tensors(network(inputs))
    return outputs, found
