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

"""Experiments that prune to milliseconds by the latency table of a robot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml
from latency_tables import arithmetic_table

from pruned_perception._io import FolderError, write_json
from pruned_perception.inference.latency_table import LatencyTable
from pruned_perception.pruning.errors import BudgetError
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.experiment import (
    Experiment,
    ExperimentError,
    experiment_from,
    read_experiment,
)
from pruned_perception.training.detector.runs import Folders, run_experiment


@pytest.fixture(autouse=True)
def _one_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('pruned_perception.training.detector.runs.VALIDATIONS', 1)


@pytest.fixture
def folders(shapes_data: Path, tmp_path: Path) -> Folders:
    """Return folders in which a dense net was trained."""
    folders = Folders(tmp_path, shapes_data, tmp_path / 'runs')
    run_experiment(tiny.experiment(budget={'steps': 1}), folders)
    return folders


@pytest.fixture
def table(folders: Folders) -> LatencyTable:
    """Return the dense net's table, of 8 ms as a whole."""
    path = folders.final('tiny')
    frames = load_frames(folders.data / 'train', tiny.SIZE, labelled=False)
    detector = detector_from(read_checkpoint(path), path)
    return arithmetic_table(
        tiny.bundle(detector, frames.images[:4], folders.experiments / 'bundle'), block=8
    )


def child(folders: Folders, table: LatencyTable, ms: float = 4.0) -> Experiment:
    """Return an experiment that prunes the dense net, read from its file."""
    write_json(folders.experiments / 'robot.json', table.to_dict())
    path = folders.experiments / 'small.yaml'
    prune = {'ms': ms, 'table': 'robot.json', 'criterion': 'filter_l1', 'round_to': 8}
    fields = {'architecture': None, 'parent': 'tiny', 'prune': prune, 'budget': {'steps': 1}}
    path.write_text(yaml.safe_dump(tiny.experiment_data('small', **fields)))
    return read_experiment(path)


def test_an_experiment_prunes_to_milliseconds(folders: Folders, table: LatencyTable) -> None:
    experiment = child(folders, table)
    assert experiment_from(experiment.to_dict(), folders.experiments) == experiment
    content = read_checkpoint(run_experiment(experiment, folders).checkpoint)
    plan = content['ancestry']['plan']
    assert 3.0 < plan['predicted_ms'] <= 4.0  # as much as there is
    assert content['experiment']['prune']['ms'] == 4.0
    assert content['experiment']['prune']['table'] == 'robot.json'


def test_another_table_is_another_cut(folders: Folders, table: LatencyTable) -> None:
    run_experiment(child(folders, table), folders)
    folders.final('small').unlink()
    slower = replace(table, whole=replace(table.whole, ms=9.0))
    with pytest.raises(FolderError, match='another network, method, budget'):
        run_experiment(child(folders, slower), folders)


def test_an_unfinished_table_is_refused(folders: Folders, table: LatencyTable) -> None:
    with pytest.raises(ExperimentError, match=r'small.yaml: .*unfinished'):
        child(folders, replace(table, complete=False))


def test_a_budget_that_no_member_meets_says_the_nearest(
    folders: Folders, table: LatencyTable
) -> None:
    with pytest.raises(BudgetError, match=r'0\.01 ms .* nearest'):
        run_experiment(child(folders, table, 0.01), folders)
