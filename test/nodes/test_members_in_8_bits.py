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

"""A family under a budget: members in 8 bits run where they are right and faster, never else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')
pytest.importorskip('onnx', reason="quantisation needs onnx: extra 'train'")

from tiny_detector import square_image, write_tiny_bundle

from pruned_perception.bundle import Bundle, load_family, write_bundle
from pruned_perception.inference.errors import DeviationError
from pruned_perception.inference.reference import packed, sampled
from pruned_perception.nodes import diagnostics, perception
from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS, ParameterError
from pruned_perception.nodes.perception import DetectorPipeline
from pruned_perception.quantization import quantize_bundle

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a family of `dense` and `dense-int8`."""
    folder = tmp_path_factory.mktemp('family')
    dense = write_tiny_bundle(folder / 'dense', name='dense')
    images = [square_image('red', left, 40, 120) for left in (0, 80, 160)]
    quantize_bundle(dense, images, folder / 'dense-int8', held_out=images[:1])
    return folder


def values(**changes: Any) -> dict[str, Any]:
    return {
        **{row.name: row.default for row in PERCEPTION_PARAMETERS},
        'latency_budget_ms': 100.0,
        **changes,
    }


def pipeline(
    members: Sequence[Bundle],
    monkeypatch: pytest.MonkeyPatch,
    costs: Sequence[float] = (2.0, 1.0),
    **changes: Any,
) -> DetectorPipeline:
    """Return the pipeline, warmed up, with `costs` as if they had been measured."""
    monkeypatch.setattr(perception, 'calibrate', lambda detectors: list(costs)[: len(detectors)])
    made = DetectorPipeline(members, values(**changes))
    made.check(values(**changes))
    made.warm_up()
    return made


def elsewhere(folder: Path, to: Path) -> Bundle:
    """Return the member in 8 bits as if it had been made on a processor of other results."""
    member = load_family(folder).member('dense-int8')
    manifest = json.loads(json.dumps(member.manifest))
    manifest['quantization']['check'][0]['values'] = packed(sampled(np.zeros((1, 192, 7))))
    return write_bundle(to, member.onnx_bytes, manifest)


def test_where_it_is_faster_it_is_a_member_like_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load_family(folder)
    made = pipeline(family.members, monkeypatch, latency_budget_ms=1.5)
    assert made.contract is not None
    assert made.contract.member == 'dense-int8'
    assert made.warnings == []
    assert made.description['execution_provider'] == 'cpu'


@pytest.mark.parametrize('cost', [2.0, 2.5])
def test_where_it_is_not_faster_it_never_runs(
    cost: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the one in float, as if it were the more accurate one.
    dense, in_8_bits = load_family(folder).members
    made = pipeline((in_8_bits, dense), monkeypatch, costs=(cost, 2.0))
    assert made.description['model'] == 'dense'
    assert made.contract is None  # there is no choice
    assert made.warnings == [
        f'dense-int8 is left out: {cost:.3g} ms in 8 bits, dense 2 ms in float: INT8 does not pay '
        'on this processor'
    ]
    with pytest.raises(ParameterError, match=r"'dense-int8' is left out here: .* does not pay"):
        made.check(values(active_member='dense-int8'))


def test_one_that_computes_something_else_here_is_left_out_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = load_family(folder).member('dense')
    moved = elsewhere(folder, tmp_path / 'moved')
    small = write_tiny_bundle(
        tmp_path / 'small',
        name='small',
        macs=1,
        parent={'name': dense.name, 'sha256': dense.sha256},
    )
    made = pipeline((dense, moved, small), monkeypatch, costs=(3.0, 1.0))
    (warning,) = made.warnings
    assert 'dense-int8 is left out' in warning
    assert 'something else on this processor' in warning
    contract = made.contract
    assert contract is not None
    assert list(contract.expected_ms) == ['dense', 'small']
    status = diagnostics.contract(contract, 100.0)
    assert 'something else' in status.values['dense-int8_left_out']
    assert status.level == diagnostics.OK  # the robot sees with what is left


def test_alone_it_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviationError, match='something else on this processor'):
        DetectorPipeline([elsewhere(folder, tmp_path / 'moved')], values())


def test_diagnostics_warn_where_another_provider_runs_than_the_one_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = load_family(folder).members[0]
    made = DetectorPipeline([dense], values(execution_provider='cuda, cpu'))
    status = diagnostics.model(made.description, diagnostics.Failures())
    assert status.level == diagnostics.WARN
    assert status.message == (
        'dense is running; execution provider cpu in place of cuda: not there'
    )
    assert status.values['execution_provider'] == 'cpu'
    assert list(made.warnings) == ['execution provider cpu in place of cuda: not there']
