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

"""Real detectors and the shipped bundles: imported, cut to half, exported, run as bundles."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from third_party import DETECTORS, coco_images, write_third_party  # noqa: E402

from pruned_perception.bundle import Bundle, load_bundle  # noqa: E402
from pruned_perception.inference.detector import Detector  # noqa: E402
from pruned_perception.pruning import Macs, make_plan  # noqa: E402
from pruned_perception.training.onnx_import import disagreement  # noqa: E402
from pruned_perception.training.onnx_import.task import (  # noqa: E402
    Images,
    bundle_task,
    export_bundle_network,
    import_bundle_network,
)

MODELS = Path(__file__).resolve().parents[3] / 'models' / 'warehouse'
GROUPS = {'yolox': 67, 'nanodet': 92, 'fastestdet': 81}


@pytest.fixture(scope='module', params=DETECTORS)
def bundle(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return write_third_party(request.param, shared_data, tmp_path_factory.mktemp('bundle'))


@pytest.mark.shared_data
def test_third_party_detectors_agree_with_onnx_runtime_on_pictures(
    bundle: Bundle, shared_data: Path
) -> None:
    network = import_bundle_network(bundle)
    assert network.one_batch is None
    images = torch.cat(list(Images(bundle, shared_data / 'coco128_train' / 'images', 4)))
    assert disagreement(network, bundle.onnx_bytes, (images,)) <= 2e-4
    with torch.no_grad():
        together, alone = network.module(images), network.module(images[2:3])
    if not isinstance(together, tuple):
        together, alone = (together,), (alone,)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[2:3], other, rtol=1e-4, atol=1e-4)


@pytest.mark.shared_data
def test_third_party_detectors_are_halved_through_shuffles_and_splits(
    bundle: Bundle, shared_data: Path, tmp_path: Path
) -> None:
    images = shared_data / 'coco128_train' / 'images'
    task = bundle_task(bundle, images, 4)
    plan = make_plan(task.model, task.example_inputs, budget=Macs(0.5), round_to=1)
    assert len(plan.channels) == GROUPS[bundle.name]
    assert plan.macs == pytest.approx(0.5 * plan.dense_macs, rel=0.01)
    small = plan.apply(task.model)  # compares with the masked network
    (batch,) = task.calibration
    child = export_bundle_network(
        bundle, small, [plan.to_dict()], tmp_path, name='half', inputs=batch
    )
    assert child.manifest['parent'] == {'name': bundle.name, 'sha256': bundle.sha256}
    assert child.cost.macs == plan.macs
    assert child.output == bundle.output
    Detector(child).self_check()


@pytest.mark.shared_data
def test_what_was_not_pruned_finds_the_same_boxes(
    bundle: Bundle, shared_data: Path, tmp_path: Path
) -> None:
    network = import_bundle_network(bundle)
    child = export_bundle_network(bundle, network.module, [], tmp_path, name='same')
    parent, same = Detector(bundle), Detector(child)
    found = 0
    for image, _ in coco_images(shared_data, 3):
        wanted, _ = parent.detect(image)
        got, _ = same.detect(image)
        found += len(wanted.scores)
        np.testing.assert_array_equal(got.class_ids, wanted.class_ids)
        np.testing.assert_allclose(got.boxes, wanted.boxes, atol=0.1)
    assert found > 0


@pytest.mark.parametrize('member', ['dense', 'tenth'])
def test_shipped_bundles(member: str, tmp_path: Path) -> None:
    shipped = load_bundle(MODELS / member)
    network = import_bundle_network(shipped)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, *shipped.input.shape[1:]), generator=generator)
    images = images.to(torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert disagreement(network, shipped.onnx_bytes, (images,)) <= 2e-4
    child = export_bundle_network(shipped, network.module, [], tmp_path, name='same', inputs=images)
    assert child.cost == shipped.cost
    Detector(child).self_check()
