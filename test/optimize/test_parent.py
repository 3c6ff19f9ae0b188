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

"""What may be given as the detector."""

from __future__ import annotations

import sys

import onnxruntime
import pytest
import torch
from tiny_detector import HEIGHT, WIDTH
from wide_detector import Wide

from pruned_perception.bundle import load_family, write_bundle
from pruned_perception.errors import UserError
from pruned_perception.optimize import import_detector

DESCRIBED = {
    'decoder': 'anchor_free',
    'parameters': {'strides': [8]},
    'prepared': {'score': 0.5, 'iou': 0.3},
}


def test_a_task_of_pytorch_becomes_the_dense_member(place, tmp_path, monkeypatch):
    source = (
        'import torch\n'
        'from wide_detector import Wide\n'
        'from pruned_perception.training import Task\n'
        'def task():\n'
        f'    images = torch.zeros(1, {HEIGHT}, {WIDTH}, 3, dtype=torch.uint8)\n'
        '    return Task(Wide(), (images,), ())\n'
        'def number():\n'
        '    return 3\n'
    )
    (tmp_path / 'mydetector.py').write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(1)
    torch.save(Wide().state_dict(), tmp_path / 'weights.pt')
    bundle, network = import_detector(
        'mydetector:task', tmp_path / 'family', labels=('red', 'green', 'blue'),
        weights=tmp_path / 'weights.pt', described=DESCRIBED,
    )  # fmt: skip
    assert bundle.name == 'dense'
    assert bundle.cost.macs > 0
    torch.manual_seed(1)
    session = onnxruntime.InferenceSession(bundle.onnx_bytes)
    picture = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    (found,) = session.run(None, {bundle.input.name: picture.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), Wide()(picture), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.module(picture), Wide()(picture), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='returned int; a module or a Task is needed'):
        import_detector('mydetector:number', tmp_path / 'other', labels=('a',))
    sys.modules.pop('mydetector')


def test_a_pruned_member_becomes_the_dense_one_of_a_family_of_its_own(place, tmp_path):
    dense, _ = import_detector(str(place.dense), tmp_path / 'first')
    manifest = {**dense.manifest, 'name': 'small',
                'parent': {'name': 'dense', 'sha256': dense.sha256}}  # fmt: skip
    small = {**manifest, 'cost': {'parameters': 1, 'macs': 1}}
    write_bundle(tmp_path / 'first' / 'small', dense.onnx_bytes + b'', small)
    bundle, _ = import_detector(str(tmp_path / 'first' / 'small'), tmp_path / 'second')
    assert bundle.manifest['parent'] is None
    assert bundle.manifest['provenance']['made_of']['name'] == 'dense'
    assert load_family(tmp_path / 'second').members[0].name == 'dense'


def test_weights_belong_to_a_module(place, tmp_path):
    with pytest.raises(UserError, match='belongs to package'):
        import_detector(str(place.dense), tmp_path / 'f', weights=tmp_path / 'w.pt')
