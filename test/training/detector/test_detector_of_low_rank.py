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

"""Our detector with layers that are two: rebuilt from plain data, exported, imported again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from pruned_perception.bundle import load_bundle
from pruned_perception.cli.main import main
from pruned_perception.datasets import read_dataset
from pruned_perception.inference.detector import Detector as RobotDetector
from pruned_perception.pruning import Macs, Plan, PruningError, count, prune, recalibrate
from pruned_perception.training.checkpoint import read_checkpoint, save_checkpoint, weights_of
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.importing import import_bundle
from pruned_perception.training.detector.network import Detector

EXAMPLE = (torch.zeros(1, 3, *tiny.SIZE),)


def batch(seed: int = 0) -> torch.Tensor:
    return torch.rand(4, 3, *tiny.SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope='module')
def detector() -> Detector:
    """Return one of few channels, with statistics measured."""
    torch.manual_seed(0)
    thin = dataclasses.replace(
        tiny.ARCHITECTURE,
        backbone=((8,), (8,), (16,), (16,), (16,)),
        neck=16,
        boxes=((16,),) * 3,
        classes=((16,),) * 3,
    )
    found = recalibrate(Detector(thin).eval(), [batch(k) for k in range(2)])
    assert isinstance(found, Detector)
    return found


@pytest.fixture(scope='module')
def made(detector: Detector) -> tuple[Detector, Plan]:
    small, plan, _ = prune(
        detector,
        EXAMPLE,
        Macs(0.5),
        [batch(k) for k in range(4)],
        ranks=True,
        round_to=4,
        tuned=True,
    )
    assert isinstance(small, Detector)
    assert plan.ranks
    return small, plan


def test_it_is_rebuilt_from_its_architecture(made: tuple[Detector, Plan]) -> None:
    small, plan = made
    data = json.loads(json.dumps(small.architecture.to_dict()))
    assert data['ranks'] == plan.ranks
    again = Detector(Architecture.from_dict(data)).eval()
    again.load_state_dict(small.state_dict())
    assert again.architecture == small.architecture
    assert torch.equal(again(batch()), small(batch()))
    assert 'ranks' not in tiny.ARCHITECTURE.to_dict()
    name = next(iter(plan.ranks))
    with pytest.raises(PruningError, match=f'{name} has no rank of 999'):
        Detector(Architecture.from_dict({**data, 'ranks': {name: 999}}))


def test_the_bundle_has_the_same_inputs_and_outputs_and_can_be_imported(
    made: tuple[Detector, Plan], detector: Detector, images: np.ndarray, shapes_data: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    small, plan = made
    dense = tiny.bundle(detector, images, tmp_path / 'dense')
    child = tiny.bundle(small, images, tmp_path / 'small', parent=dense, plan=plan.to_dict())
    assert (child.input, child.output) == (dense.input, dense.output)
    assert child.manifest['pruning']['ranks'] == plan.ranks
    assert child.cost.macs == plan.macs == count(small, EXAMPLE).macs
    RobotDetector(load_bundle(tmp_path / 'small')).self_check()

    restored = detector_from(import_bundle(child, load_frames(shapes_data / 'train', tiny.SIZE)))
    assert restored.architecture == small.architecture
    torch.testing.assert_close(restored(batch()), small(batch()), atol=1e-3, rtol=1e-3)


def test_prune_writes_a_checkpoint_that_fine_tuning_goes_on_from(
    detector: Detector, shapes_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, small, tuned = (tmp_path / f'{name}.pt' for name in ('dense', 'small', 'tuned'))
    content: dict[str, Any] = {
        'experiment': tiny.experiment().to_dict(),
        'architecture': detector.architecture.to_dict(),
        'weights': weights_of(detector),
        'labels': list(read_dataset(shapes_data / 'train').labels),
        'data': {'train': 'abc', 'frames': 1},
        'steps': 3,
        'cpu_seconds': 1.0,
        'ancestry': {},
    }
    save_checkpoint(dense, content)
    command = ['prune', str(dense), '--macs', '0.7', '--ranks', '--round-to', '4', '--images', '24']
    data = str(shapes_data / 'train')
    assert main([*command, '--calibration', data, '--out', str(small)]) == 0
    assert 'layers become two' in capsys.readouterr().out
    ranks = read_checkpoint(small)['architecture']['ranks']
    assert ranks
    found = json.loads(small.with_suffix('.json').read_text())
    assert found['outcome']['refit']
    assert found['plan']['ranks'] == ranks
    assert found['plan']['macs'] <= 0.7 * found['plan']['dense_macs']

    command = ['finetune', str(small), '--train', data, '--steps', '2', '--out', str(tuned)]
    assert main([*command, '--validation', str(shapes_data / 'validation')]) == 0
    assert read_checkpoint(tuned)['architecture']['ranks'] == ranks
    capsys.readouterr()

    ranked = ['prune', str(dense), '--macs', '0.5', '--ranks', '--criterion', 'filter_l2']
    assert main([*ranked, '--calibration', data, '--out', str(small)]) == 1
    assert 'compensated_error, which does' in capsys.readouterr().err
