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

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from other_device import DEVICE, OtherDevice

from pruned_perception.bundle import Bundle
from pruned_perception.pruning import recalibrate
from pruned_perception.training.compute import Compute
from pruned_perception.training.detector import importing
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.data import FrameSet, load_frames
from pruned_perception.training.detector.deployment import Deployed, folded
from pruned_perception.training.detector.export import compare
from pruned_perception.training.detector.importing import (
    BundleImportError,
    deployed_from,
    import_bundle,
    with_batch_norms,
)
from pruned_perception.training.detector.network import ConvBlock, Detector


@pytest.fixture(scope='module')
def frames(shapes_data: Path) -> FrameSet:
    return load_frames(shapes_data / 'validation', tiny.SIZE)


@pytest.fixture(scope='module')
def bundle(
    detector: Detector, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return tiny.bundle(detector, images, tmp_path_factory.mktemp('bundles') / 'dense')


def _blocks(detector: Detector) -> list[ConvBlock]:
    return [module for module in detector.modules() if isinstance(module, ConvBlock)]


def _batch(seed: int) -> torch.Tensor:
    return torch.rand(4, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(seed))


def test_the_checkpoint_computes_what_was_exported(
    bundle: Bundle, detector: Detector, frames: FrameSet
) -> None:
    restored = detector_from(import_bundle(bundle, frames))
    assert restored.architecture == detector.architecture
    with torch.no_grad():
        torch.testing.assert_close(restored(_batch(1)), detector(_batch(1)), atol=1e-3, rtol=1e-3)


def test_on_another_device_it_is_the_same_checkpoint(
    bundle: Bundle,
    detector: Detector,
    images: np.ndarray,
    frames: FrameSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ('CALIBRATION_FRAMES', 'COMPARED_FRAMES'):
        monkeypatch.setattr(importing, name, 4)
    wanted = import_bundle(bundle, frames)
    with OtherDevice():
        found = import_bundle(bundle, frames, Compute(DEVICE))
        there = copy.deepcopy(detector).to(DEVICE)
        compare(there, bundle.onnx_bytes, images[:1])
        assert {each.device for each in Deployed(there).parameters()} == {DEVICE}
        for name, value in found['weights'].items():
            assert value.device == torch.device('cpu')
            torch.testing.assert_close(value, wanted['weights'][name])
    assert found['weights'].keys() == wanted['weights'].keys()


def test_history_comes_with_it(
    detector: Detector, images: np.ndarray, bundle: Bundle, frames: FrameSet, tmp_path: Path
) -> None:
    content = import_bundle(bundle, frames)
    assert (content['steps'], content['cpu_seconds']) == (3, 1.0)
    assert content['data'] == {'train': 'abc', 'frames': 1}
    assert content['experiment'] == tiny.experiment().to_dict()
    assert content['ancestry'] == {
        'bundle': {'name': 'dense', 'sha256': bundle.sha256},
        'earlier_plans': [],
        'cpu_seconds': 0.0,
    }
    plan = {'kept': {}}
    child = tiny.bundle(detector, images, tmp_path / 'child', parent=bundle, plan=plan)
    ancestry = import_bundle(child, frames)['ancestry']
    assert ancestry['plan'] == plan
    assert ancestry['cpu_seconds'] == 2.0


def test_a_training_step_starts_from_the_same_outputs(detector: Detector) -> None:
    plain = folded(detector)
    restored = with_batch_norms(plain, [_batch(1)]).train()
    with torch.no_grad():
        # Statistics of this very batch were measured: normalising with them changes nothing.
        torch.testing.assert_close(restored(_batch(1)), plain(_batch(1)), atol=2e-3, rtol=2e-3)
        assert (restored(_batch(1) / 2) - plain(_batch(1) / 2)).abs().max() > 0.05


def test_scale_and_shift_are_those_of_the_lost_batch_norms(detector: Detector) -> None:
    batch = torch.cat([_batch(1), _batch(2)])
    original = copy.deepcopy(detector)
    generator = torch.Generator().manual_seed(0)
    for block in _blocks(original):
        torch.nn.init.uniform_(block.norm.weight, 0.5, 1.5, generator=generator)
    original = recalibrate(original, [batch])
    restored = with_batch_norms(folded(original), [batch])
    for ours, theirs in zip(_blocks(restored), _blocks(original), strict=True):
        # The running variance is divided by n − 1, that of a batch by n; n is 96 at stride 32.
        torch.testing.assert_close(ours.norm.weight, theirs.norm.weight, atol=0.02, rtol=0.02)
        torch.testing.assert_close(ours.norm.bias, theirs.norm.bias, atol=0.02, rtol=0.02)


def test_weights_have_the_size_that_learning_rates_are_made_for(detector: Detector) -> None:
    torch.manual_seed(1)
    restored = with_batch_norms(folded(detector), [_batch(1)])
    for ours, fresh in zip(_blocks(restored), _blocks(Detector(tiny.ARCHITECTURE)), strict=True):
        assert ours.conv.weight.std().item() == pytest.approx(
            fresh.conv.weight.std().item(), rel=0.15
        )


def test_biases_that_the_exporter_leaves_out_reach_all_their_layers(
    images: np.ndarray, frames: FrameSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    untrained = Detector(tiny.ARCHITECTURE).eval()  # its biases are zeros, or equal at all levels
    bundle = tiny.bundle(untrained, images, tmp_path / 'dense')
    stored = {each.name for each in onnx.load_from_string(bundle.onnx_bytes).graph.initializer}
    assert 'detector.heads.0.class_output.bias' in stored
    assert 'detector.heads.1.class_output.bias' not in stored
    assert 'detector.laterals.0.bias' not in stored
    restored = detector_from(import_bundle(bundle, frames))
    with torch.no_grad():
        torch.testing.assert_close(restored(_batch(1)), untrained(_batch(1)), atol=1e-3, rtol=1e-3)


def _with(bundle: Bundle, change: Callable[[dict], object]) -> Bundle:
    manifest = copy.deepcopy(dict(bundle.manifest))
    change(manifest)
    return dataclasses.replace(bundle, manifest=manifest)


def _rebuilt(bundle: Bundle, change: Callable[[onnx.GraphProto], object]) -> Bundle:
    model = onnx.load_from_string(bundle.onnx_bytes)
    change(model.graph)
    return dataclasses.replace(bundle, onnx_bytes=model.SerializeToString())


def test_other_decoders_are_refused(bundle: Bundle) -> None:
    output = dataclasses.replace(bundle.output, decoder='yolox')
    with pytest.raises(BundleImportError, match=r"manifest\.json: field output\.decoder: 'yolox'"):
        deployed_from(dataclasses.replace(bundle, output=output))


@pytest.mark.parametrize('name', ['architecture', 'training', 'experiment'])
def test_bundles_without_a_record_are_refused(bundle: Bundle, frames: FrameSet, name: str) -> None:
    with pytest.raises(BundleImportError, match=name):
        import_bundle(_with(bundle, lambda manifest: manifest['provenance'].pop(name)), frames)


def test_layers_that_do_not_fit_are_named(bundle: Bundle) -> None:
    def wider(manifest: dict) -> None:
        manifest['provenance']['architecture']['classes'][1] = [48]

    def deeper(manifest: dict) -> None:
        manifest['provenance']['architecture']['backbone'][3] = [32, 32]

    def shallower(manifest: dict) -> None:
        manifest['provenance']['architecture']['backbone'][2] = [32]

    for change, message in (
        (wider, r"weights of 'heads\.1\.class_branch\.0\.conv': \[32, 32, 3, 3\]"),
        (deeper, r"has no convolution 'backbone\.3\.1\.conv'"),
        (shallower, r"'backbone\.2\.1\.conv' is not in the architecture"),
    ):
        with pytest.raises(BundleImportError, match=message):
            deployed_from(_with(bundle, change))


def test_inputs_of_another_size_are_refused(bundle: Bundle) -> None:
    def smaller(manifest: dict) -> None:
        manifest['provenance']['architecture']['input_size'] = [64, 96]

    with pytest.raises(
        BundleImportError, match=r'field input\.shape: \[1, 96, 128, 3\].*\[64, 96\]'
    ):
        deployed_from(_with(bundle, smaller))


def test_a_model_that_computes_something_else_is_refused(bundle: Bundle, frames: FrameSet) -> None:
    def without_negatives(graph: onnx.GraphProto) -> None:
        next(node for node in graph.node if node.op_type == 'Relu').op_type = 'Abs'

    with pytest.raises(BundleImportError, match='computes something else'):
        import_bundle(_rebuilt(bundle, without_negatives), frames)


def test_other_labels_are_refused(bundle: Bundle, frames: FrameSet) -> None:
    other = dataclasses.replace(frames, labels=('ball', 'square', 'triangle'))
    with pytest.raises(BundleImportError, match=r'disc, square.*ball, square'):
        import_bundle(bundle, other)
