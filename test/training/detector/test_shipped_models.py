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

from pathlib import Path

import numpy as np
import pytest
import torch

from pruned_perception.bundle import Bundle, Family, load_family
from pruned_perception.inference.detector import Detector as RobotDetector
from pruned_perception.inference.errors import DeviationError
from pruned_perception.inference.processor import DOT_PRODUCTS
from pruned_perception.pruning import Plan, count
from pruned_perception.pruning.certificate import Certificate, read_certificate
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.deployment import folded
from pruned_perception.training.detector.network import Detector

MODELS = Path(__file__).resolve().parents[3] / 'models'
FAMILIES = {name: load_family(MODELS / name) for name in ('robocup', 'warehouse')}
EVERY = [bundle for family in FAMILIES.values() for bundle in family.members]


def _each(bundles: list[Bundle]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        'bundle', bundles, ids=lambda bundle: f'{bundle.path.parent.name}/{bundle.name}'
    )


def _family(bundle: Bundle) -> Family:
    return FAMILIES[bundle.path.parent.name]


MEMBERS = _each(EVERY)
CHANGED = _each([each for family in FAMILIES.values() for each in family.members[1:]])
PRUNED = _each([each for each in EVERY if each.manifest['pruning'] is not None])
IN_8_BITS = _each([each for each in EVERY if 'quantization' in each.manifest])


def test_sizes_stay_within_what_a_repository_can_bear() -> None:
    sizes = [len(bundle.onnx_bytes) / 2**20 for bundle in EVERY]
    assert max(sizes) <= 8
    assert sum(sizes) <= 40


@MEMBERS
def test_manifest_holds_the_evidence(bundle: Bundle) -> None:
    evaluation = next(e for e in bundle.manifest['evaluation'] if e['net'] == 'member')
    assert evaluation['images'] >= {'warehouse': 1000, 'robocup': 147}[bundle.path.parent.name]
    assert evaluation['small']['boxes'] >= evaluation['boxes'] / 4
    assert evaluation['ap50_interval'][0] <= evaluation['ap50'] <= evaluation['ap50_interval'][1]
    (latency,) = bundle.manifest['latency']
    assert latency['configuration']['threads'] == 1
    assert latency['compared_with'] == _family(bundle).members[0].name


@MEMBERS
def test_cost_and_architecture_in_the_manifest_agree(bundle: Bundle) -> None:
    architecture = Architecture.from_dict(bundle.manifest['provenance']['architecture'])
    cost = count(folded(Detector(architecture)), (torch.zeros(1, 3, *architecture.input_size),))
    assert (cost.macs, cost.parameters) == (bundle.cost.macs, bundle.cost.parameters)
    if bundle.manifest['pruning'] is not None:
        assert bundle.manifest['pruning']['macs'] == cost.macs


@MEMBERS
def test_an_empty_picture_holds_nothing(bundle: Bundle) -> None:
    try:
        detector = RobotDetector(bundle)
    except DeviationError as error:
        pytest.skip(f'INT8 is for other processors: {error}')
    found, _ = detector.detect(np.full((480, 640, 3), 114, np.uint8))
    assert len(found) == 0


@pytest.mark.parametrize(
    ('family', 'names'),
    [
        ('warehouse', ('dense', 'half', 'quarter', 'sixth', 'tenth', 'twelfth')),
        ('robocup', ('dense', 'half', 'quarter', 'eighth')),
    ],
)
def test_every_member_in_float_comes_in_8_bits_too(family: str, names: tuple[str, ...]) -> None:
    every = [each for name in names for each in (name, f'{name}-int8')]
    assert [bundle.name for bundle in FAMILIES[family].members] == every


def test_what_a_family_starts_from_is_shipped() -> None:
    """Else its recipe would make another one."""
    start = FAMILIES['robocup'].members[0].manifest['provenance']['pretrained']
    (shipped,) = (each for each in EVERY if each.sha256 == start['sha256'])
    assert (shipped.path.parent.name, shipped.name) == (start['weights'], start['bundle'])


@IN_8_BITS
def test_a_member_in_8_bits_is_of_its_float_and_says_for_which_kernels(bundle: Bundle) -> None:
    section = bundle.manifest['quantization']
    source = _family(bundle).member(section['source']['name'])
    assert section['source']['sha256'] == source.sha256
    assert bundle.name == f'{source.name}-int8'
    assert section['made_on']['arithmetic'] in DOT_PRODUCTS
    assert len(bundle.onnx_bytes) < len(source.onnx_bytes) / 2


@PRUNED
def test_a_pruned_member_carries_its_plans_down_from_the_dense_one(bundle: Bundle) -> None:
    plans, root = _plans(bundle), _family(bundle).members[0]
    before = _plans(root)  # of a teacher that is no member
    assert plans[: len(before)] == before
    assert all(plan.dense_macs == root.cost.macs for plan in plans[len(before) :][:1])
    assert [plan.macs for plan in plans[:-1]] == [plan.dense_macs for plan in plans[1:]]


def _plans(bundle: Bundle) -> list[Plan]:
    last = bundle.manifest['pruning']
    plans = [
        *bundle.manifest['provenance'].get('earlier_plans', []),
        *([] if last is None else [last]),
    ]
    return [Plan.from_dict(each) for each in plans]


@CHANGED
def test_a_changed_member_is_certified_against_the_dense_one(bundle: Bundle) -> None:
    data = bundle.manifest['certificate']
    assert data['record']['parent']['sha256'] == _family(bundle).members[0].sha256
    assert data['record']['child']['sha256'] == bundle.sha256
    certificate = read_certificate(data)
    if isinstance(certificate, Certificate) and certificate.unit == 'venue':
        assert 'Of a new venue this says next to nothing' in ' '.join(certificate.reach())
    elif isinstance(certificate, Certificate):
        assert certificate.headline.bound is not None
        assert certificate.headline.bound < 0.5
    else:
        assert 'dead-band of ±0.1' in certificate.to_text()
