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

"""Bundle → checkpoint: a shipped detector that can be pruned, fine-tuned and exported again.

Export folds everything constant into the convolutions; here it is taken apart again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.bundle import Bundle
from pruned_perception.errors import UserError
from pruned_perception.pruning.graph.device import device_of
from pruned_perception.pruning.lowrank.factorisation import Factored
from pruned_perception.training.batch_norms import convolution_statistics, norm_after
from pruned_perception.training.checkpoint import weights_of
from pruned_perception.training.compute import Compute
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.checkpoint import PRETRAINED_KEY, SEEN, seen
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.deployment import Deployed, undeployed
from pruned_perception.training.detector.export import COMPARED_FRAMES, ExportError, compare
from pruned_perception.training.detector.network import ConvBlock, Detector
from pruned_perception.training.detector.task import CALIBRATION_FRAMES, FrameBatches


class BundleImportError(UserError):
    """A bundle that is not one of our detector, or whose model is not what its manifest says."""


def import_bundle(
    bundle: Bundle, frames: FrameSet, compute: Compute | None = None
) -> dict[str, Any]:
    """Return the checkpoint of a bundle's detector, as a finished run would have written it.

    The history in the manifest comes with it (experiment, steps, CPU time of its whole ancestry,
    plans), so that what is made of it counts all that went into it.

    Args:
        bundle: of our detector, as `export_bundle` wrote it.
        frames: like those it was trained on; the statistics of the batch norms are measured on
            some of them, and the result is compared with the bundle's model on the first.
        compute: where that is done, by default on the CPU.

    Raises:
        BundleImportError: another decoder, no record of architecture or training, weights that do
            not fit the architecture, other labels than the data's, or other outputs than the
            bundle's.
    """
    provenance = bundle.manifest['provenance']
    plain = (compute or Compute()).placed(undeployed(deployed_from(bundle)))
    if frames.labels != bundle.labels:
        raise BundleImportError(
            f'{bundle.path}: its labels ({", ".join(bundle.labels)}) are not those of the '
            f'calibration data ({", ".join(frames.labels)})'
        )
    detector = with_batch_norms(plain, FrameBatches(frames, CALIBRATION_FRAMES))
    try:
        compare(detector, bundle.onnx_bytes, frames.images[:COMPARED_FRAMES])
    except ExportError as error:
        raise BundleImportError(
            f'{bundle.onnx_path}: computes something else than the detector with its weights: '
            f'{error}'
        ) from error
    ancestry = {
        'bundle': {'name': bundle.name, 'sha256': bundle.sha256},
        'earlier_plans': provenance.get('earlier_plans', []),
    }
    if PRETRAINED_KEY in provenance:
        ancestry[PRETRAINED_KEY] = provenance[PRETRAINED_KEY]
    if bundle.manifest['pruning'] is not None:
        ancestry['plan'] = bundle.manifest['pruning']
    try:
        training = provenance['training']
        return {
            'experiment': provenance['experiment'],
            'architecture': detector.architecture.to_dict(),
            'labels': list(bundle.labels),
            'data': {'train': training['annotations_sha256'], 'frames': training['frames']},
            'weights': weights_of(detector),
            'steps': training['steps'],
            'cpu_seconds': training['cpu_seconds'],
            SEEN: seen(
                {SEEN: provenance.get(SEEN) or {f'training of {bundle.name}': None}},
                calibration=frames.notes,
            ),
            'ancestry': {**ancestry, 'cpu_seconds': training['cpu_seconds_of_parents']},
        }
    except (KeyError, TypeError) as error:
        raise BundleImportError(
            f'{bundle.manifest_path}: field provenance: {error} is missing: without it, nobody '
            'could say how long this net was trained'
        ) from error


@torch.no_grad()
def deployed_from(bundle: Bundle) -> Deployed:
    """Return the bundle's model as a module, built from its manifest and its ONNX weights.

    Raises:
        BundleImportError: another decoder, no architecture, or an input or layer that does not
            fit it.
    """
    if bundle.output.decoder != 'anchor_free':
        raise BundleImportError(
            f'{bundle.manifest_path}: field output.decoder: {bundle.output.decoder!r} is not our '
            "detector's 'anchor_free'; its network cannot be rebuilt from the bundle"
        )
    data = bundle.manifest['provenance'].get('architecture')
    if not isinstance(data, dict):
        raise BundleImportError(
            f'{bundle.manifest_path}: field provenance.architecture is missing: not made by '
            '`pruned-perception export`; its network cannot be rebuilt from the bundle'
        )
    architecture = Architecture.from_dict(data)
    if (bundle.input.height, bundle.input.width) != architecture.input_size:
        raise BundleImportError(
            f'{bundle.manifest_path}: field input.shape: {list(bundle.input.shape)} is not the '
            f'input size of its architecture, {list(architecture.input_size)}'
        )
    deployed = Deployed(Detector(architecture)).eval()
    found = _convolutions(bundle)
    for name, layer in deployed.detector.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if name not in found:
            raise BundleImportError(
                f'{bundle.onnx_path}: has no convolution {name!r}, which is in the architecture '
                f'of {bundle.manifest_path}; was it quantised or renamed?'
            )
        for what, ours, theirs in zip(
            ('weights', 'biases'), (layer.weight, layer.bias), found.pop(name), strict=True
        ):
            if ours is None:  # the first of two
                continue
            if ours.shape != theirs.shape:
                raise BundleImportError(
                    f'{bundle.onnx_path}: {what} of {name!r}: {list(theirs.shape)}, but the '
                    f'architecture of {bundle.manifest_path} has {list(ours.shape)}'
                )
            ours.copy_(theirs)
    if found:
        raise BundleImportError(
            f'{bundle.onnx_path}: convolution {min(found)!r} is not in the architecture of '
            f'{bundle.manifest_path}'
        )
    return deployed


def with_batch_norms(plain: Detector, calibration: Iterable[Tensor]) -> Detector:
    """Return the detector (in eval mode) that `plain`, whose batch norms are folded, was made of.

    Args:
        plain: see `deployment.folded`; untouched.
        calibration: batches (B, 3, H, W) of images in 0…1.
    """
    detector = Detector(plain.architecture).to(device_of(plain)).eval()
    layers = dict(plain.named_modules())
    blocks = [name for name, module in layers.items() if isinstance(module, ConvBlock)]
    statistics = convolution_statistics(plain, [f'{name}.conv' for name in blocks], calibration)
    for name, module in list(detector.named_modules()):
        if isinstance(module, ConvBlock):
            assert isinstance(module.norm, nn.BatchNorm2d)
            conv = copy.deepcopy(layers[f'{name}.conv'])
            last = conv.both[1] if isinstance(conv, Factored) else conv
            assert isinstance(last, nn.Conv2d)
            mean, variance = statistics[f'{name}.conv']
            module.norm = norm_after(last, mean, variance, module.norm.momentum)
            module.conv = conv
        elif isinstance(module, nn.Conv2d | Factored) and module.bias is not None:
            module.load_state_dict(layers[name].state_dict())
    return detector


def _convolutions(bundle: Bundle) -> dict[str, tuple[Tensor, Tensor]]:
    """Return weights and biases of the ONNX model's convolutions by the names of our layers.

    Weights are named after their parameters. Biases need the way through the nodes: equal ones
    are stored once, under the name of the first, and zeros not at all.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError("importing needs onnx: pip install 'pruned_perception[train]'") from error
    graph = onnx.load_from_string(bundle.onnx_bytes).graph
    stored = {each.name: each for each in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(stored[name]).copy())

    found = {}
    for node in graph.node:
        names = node.input[1:]
        if node.op_type == 'Conv' and set(names) <= set(stored):
            name = names[0].removeprefix('detector.').removesuffix('.weight')
            weight, *bias = map(tensor, names)
            found[name] = (weight, bias[0] if bias else torch.zeros(len(weight)))
    return found
