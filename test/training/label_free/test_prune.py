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

"""Pruning without labels ends the same way however often it is interrupted, and never in harm."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from latency_tables import arithmetic_table  # noqa: E402
from tiny_parent import CLASSES, pictures, write_parent  # noqa: E402
from torch import nn  # noqa: E402

from pruned_perception._io import FolderError  # noqa: E402
from pruned_perception._processes import Interrupted  # noqa: E402
from pruned_perception.bundle import Bundle  # noqa: E402
from pruned_perception.inference.detector import Detector  # noqa: E402
from pruned_perception.pruning import (  # noqa: E402
    ErrorBound,
    Latency,
    Macs,
    PruningError,
    count,
)
from pruned_perception.pruning.errors import BudgetError  # noqa: E402
from pruned_perception.pruning.plan import Plan  # noqa: E402
from pruned_perception.training.budget import TrainingBudget  # noqa: E402
from pruned_perception.training.label_free import (  # noqa: E402
    RECIPES,
    LabelFree,
    LabelFreeRecord,
    LabelFreeResult,
    predict_label_free,
    prune_label_free,
)
from pruned_perception.training.label_free.agreement import HeldOut  # noqa: E402
from pruned_perception.training.loop import weights_digest  # noqa: E402
from pruned_perception.training.onnx_import.task import (  # noqa: E402
    bundle_task,
    export_bundle_network,
    import_bundle_network,
)
from pruned_perception.training.pipeline import load_pruned, save_pruned  # noqa: E402
from pruned_perception.training.recipe import Recipe  # noqa: E402
from pruned_perception.training.task import Task  # noqa: E402

RECIPE = LabelFree(cuts=2, round_to=1, batch=4, learning_rate=1e-3)
FRAMES, HELD_OUT = pictures(12, seed=0), pictures(6, seed=1)


@pytest.fixture(scope='module')
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_parent(tmp_path_factory.mktemp('parent'))


def prune(parent: Bundle, **changes: Any) -> LabelFreeResult:
    frames, budget = changes.pop('frames', FRAMES), changes.pop('budget', Macs(0.5))
    options: dict[str, Any] = {
        'recipe': RECIPE,
        'training': TrainingBudget(steps=12),
        'held_out': HELD_OUT,
        **changes,
    }
    return prune_label_free(parent, frames, budget, **options)


@pytest.fixture(scope='module')
def result(parent: Bundle) -> LabelFreeResult:
    return prune(parent)


def test_the_budget_is_met_after_as_many_cuts_as_asked_for(
    parent: Bundle, result: LabelFreeResult, tmp_path: Path
) -> None:
    record, example = result.record, import_bundle_network(parent).example_inputs
    assert count(result.network, example).macs == record.stages[-1].macs
    assert 0.4 * record.dense_macs < record.stages[-1].macs <= 0.5 * record.dense_macs
    assert record.stages[-1].macs < record.stages[0].macs < 0.8 * record.dense_macs
    assert sum(stage.steps for stage in record.stages) == 12
    child = export_bundle_network(
        parent, result.network, [each.to_dict() for each in result.plans], tmp_path, name='child'
    )
    Detector(child).self_check()


def test_milliseconds_of_a_table_are_met_by_as_many_cuts(parent: Bundle, tmp_path: Path) -> None:
    table = arithmetic_table(parent)
    found = prune(parent, budget=Latency(3.0, table), training=None, folder=tmp_path)
    first, second = found.plans
    assert isinstance(first, Plan)
    assert isinstance(second, Plan)
    assert first.predicted_ms is not None
    assert second.predicted_ms is not None
    assert second.predicted_ms <= 3.0 < first.predicted_ms <= math.sqrt(8.0 * 3.0)
    assert '3 ms on a robot' in found.record.to_text()
    slower = dataclasses.replace(table, whole=dataclasses.replace(table.whole, ms=9.0))
    with pytest.raises(FolderError, match='something else'):
        prune(parent, budget=Latency(3.0, slower), training=None, folder=tmp_path)


def test_the_network_is_the_parents_cut_after_the_plans(
    parent: Bundle, result: LabelFreeResult, tmp_path: Path
) -> None:
    save_pruned(tmp_path / 'small.pt', result.network, result.plans)
    again = load_pruned(bundle_task(parent, None), tmp_path / 'small.pt')
    assert weights_digest(again) == weights_digest(result.network)


def test_the_record_is_plain_data_and_what_was_measured(
    parent: Bundle, result: LabelFreeResult
) -> None:
    data = json.loads(json.dumps(result.record.to_dict()))
    assert LabelFreeRecord.from_dict(data) == result.record
    held_out = HeldOut(parent, import_bundle_network(parent), HELD_OUT)
    last = result.record.stages[-1]
    assert held_out.likeness(result.network) == getattr(last, last.kept)
    same = held_out.likeness(import_bundle_network(parent).module)
    assert (same.agreement, same.ap50) == (1, 1)
    assert result.record.agreement == getattr(last, last.kept).agreement
    assert 'refitted' in result.record.to_text()


def test_teaching_brings_it_nearer_to_the_parent(parent: Bundle) -> None:
    recipe = dataclasses.replace(RECIPE, cuts=1, learning_rate=3e-3)
    found = prune(parent, recipe=recipe, training=TrainingBudget(steps=60)).record.stages[0]
    assert found.refitted is not None
    assert found.taught is not None
    assert found.taught.error < found.refitted.error < found.cut.error


def test_what_teaching_spoils_is_not_kept(parent: Bundle) -> None:
    recipe = dataclasses.replace(RECIPE, learning_rate=3.0, ema=None)
    for stage in prune(parent, recipe=recipe).record.stages:
        assert stage.refitted is not None
        assert stage.taught is not None
        assert stage.taught.ap50 < stage.refitted.ap50
        assert stage.kept != 'taught'
        kept = getattr(stage, stage.kept)
        assert kept.ap50 == max(stage.cut.ap50, stage.refitted.ap50)


def test_the_control_has_the_widths_and_random_weights(
    parent: Bundle, result: LabelFreeResult
) -> None:
    recipe = dataclasses.replace(RECIPE, cuts=1, fresh=True, learning_rate=1e-9)
    control = prune(parent, recipe=recipe, training=TrainingBudget(steps=1))
    pruned = prune(parent, recipe=dataclasses.replace(recipe, fresh=False), training=None)
    assert control.plans == pruned.plans
    stage = control.record.stages[0]
    assert stage.kept == 'taught'
    assert stage.taught is not None
    assert stage.refitted is not None
    assert stage.taught.error > 1 > stage.refitted.error  # 1: as bad as a constant


@pytest.mark.parametrize('moment', range(5))
def test_an_interrupted_call_ends_with_the_same_weights(
    parent: Bundle, result: LabelFreeResult, tmp_path: Path, moment: int
) -> None:
    rng = np.random.default_rng(moment)
    interruptions = 0
    while True:
        try:
            found = prune(parent, folder=tmp_path, report=_Alarm(int(rng.integers(1, 6))))
        except Interrupted:
            interruptions += 1
            continue
        break
    assert interruptions
    assert weights_digest(found.network) == weights_digest(result.network)
    stages = [dataclasses.replace(each, cpu_seconds=0) for each in found.record.stages]
    assert stages == [dataclasses.replace(each, cpu_seconds=0) for each in result.record.stages]


class _Alarm:
    """Stops the process, politely, when it is told of progress for the nth time."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, title: str, share: float, remark: str) -> None:
        self.calls -= 1
        if self.calls == 0:
            raise Interrupted('here')


@pytest.mark.parametrize('after', [2, 4, 11])
def test_a_training_that_gets_a_signal_goes_on(
    parent: Bundle,
    result: LabelFreeResult,
    tmp_path: Path,
    after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pruned_perception.training.label_free.views import Views

    drawn = iter(range(1, 1000))
    draw = Views.__next__

    def stopping(views: Views) -> torch.Tensor:
        if next(drawn) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(views)

    monkeypatch.setattr(Views, '__next__', stopping)
    with pytest.raises(Interrupted):
        prune(parent, folder=tmp_path)
    monkeypatch.undo()
    assert weights_digest(prune(parent, folder=tmp_path).network) == weights_digest(result.network)


def test_minutes_are_turned_into_steps_once(parent: Bundle, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, cuts=1)
    training = TrainingBudget(cpu_minutes=0.01)
    first = prune(parent, recipe=recipe, training=training, folder=tmp_path)
    steps = json.loads((tmp_path / '1' / 'steps.json').read_text())['steps']
    assert first.record.stages[0].steps == steps >= 1
    (tmp_path / '1' / 'stage.pt').unlink()
    again = prune(parent, recipe=recipe, training=training, folder=tmp_path)
    assert weights_digest(again.network) == weights_digest(first.network)


def test_a_folder_of_other_work_is_refused(parent: Bundle, tmp_path: Path) -> None:
    training = None
    prune(parent, training=training, folder=tmp_path)
    for change in (
        {'budget': Macs(0.6)},
        {'seed': 1},
        {'frames': pictures(12, seed=5)},
        {'held_out': pictures(6, seed=6)},
        {'training': TrainingBudget(steps=3)},
        {'recipe': dataclasses.replace(RECIPE, cuts=1)},
    ):
        with pytest.raises(FolderError, match='something else'):
            prune(parent, **{'training': training, 'folder': tmp_path, **change})


@pytest.mark.parametrize(
    ('changes', 'error', 'text'),
    [
        ({'frames': []}, PruningError, 'frames: there are none'),
        ({'frames': [FRAMES[0]] * 5}, PruningError, 'show the same'),
        ({'held_out': []}, PruningError, 'held-out frames: there are none'),
        ({'held_out': [*HELD_OUT, FRAMES[3]]}, PruningError, 'picture 6 is picture 3'),
        ({'budget': Macs(0.0001)}, BudgetError, 'nearest'),
        ({'budget': ErrorBound(0.1)}, PruningError, 'MACs, parameters or milliseconds'),
    ],
)
def test_what_cannot_work_is_refused_first(
    parent: Bundle, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        prune(parent, **changes)


def test_a_parent_that_finds_nothing_is_said(tmp_path: Path) -> None:
    blind = write_parent(tmp_path, score=1.0)
    with pytest.raises(PruningError, match='finds nothing on any of the 6'):
        prune(blind)


def test_scores_that_fell_below_the_threshold_are_not_lost_to_ap50(parent: Bundle) -> None:
    network = import_bundle_network(parent)
    held_out = HeldOut(parent, network, HELD_OUT)
    (head,) = (each for each in network.module.modules() if _of_outputs(each))
    with torch.no_grad():
        head.bias[4:] -= 1
    found = held_out.likeness(network.module)
    assert found.agreement < 0.9
    assert found.ap50 == 1


def _of_outputs(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.out_channels == 4 + CLASSES


@pytest.mark.parametrize(
    'field', [{'cuts': 0}, {'features': -1.0}, {'scale': (2.0, 1.0)}, {'allocation': 'luck'}]
)
def test_recipes_are_checked(field: dict[str, Any]) -> None:
    with pytest.raises(PruningError, match=next(iter(field))):
        LabelFree(**field)


def test_named_recipes_are_plain_data() -> None:
    for recipe in RECIPES.values():
        assert LabelFree.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_prediction_is_one_cut_and_refit(parent: Bundle) -> None:
    options: dict[str, Any] = {'recipe': RECIPE, 'held_out': HELD_OUT}
    half, tenth = (
        predict_label_free(parent, FRAMES, Macs(share), **options) for share in (0.8, 0.1)
    )
    once = dataclasses.replace(RECIPE, cuts=1)
    stage = prune(parent, recipe=once, training=None, budget=Macs(0.8)).record.stages[0]
    assert (half.macs, half.refitted) == (stage.macs, stage.refitted)
    assert half.refitted.ap50 > tenth.refitted.ap50
    assert half.pays
    lost = dataclasses.replace(tenth, refitted=dataclasses.replace(tenth.refitted, ap50=0.1))
    assert not lost.pays
    assert 'INT8' in lost.to_text()


def silence(network: nn.Module) -> Task:
    """Train a network to find nothing: what likeness to the parent would never choose."""

    def step(student: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return sum((each**2).mean() for each in student(batch))

    return Task(
        model=network,
        example_inputs=(),
        calibration=(),
        training=lambda seed: iter(lambda: torch.rand(4, 32, 48, 3), None),
        step=step,
        recipe=Recipe(optimiser='adamw', learning_rate=0.03),
    )


def test_somebodys_own_training_takes_the_place_of_the_parents(
    parent: Bundle, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, cuts=1)
    options: dict[str, Any] = {'recipe': recipe, 'training': TrainingBudget(steps=30)}
    found = prune(parent, lessons=silence, folder=tmp_path, **options)
    stage = found.record.stages[0]
    assert stage.taught is not None
    assert stage.refitted is not None
    assert (stage.kept, stage.steps) == ('taught', 30)
    assert stage.taught.ap50 < stage.refitted.ap50
    assert found.record.taught_by.endswith('test_prune:silence')
    assert 'taught by' in found.record.to_text()
    with pytest.raises(FolderError, match='its lessons differ'):
        prune(parent, folder=tmp_path, **options)


@pytest.mark.parametrize('wrong', [None, Task(nn.Identity(), (), ())])
def test_a_training_that_is_none_is_named(parent: Bundle, wrong: Any) -> None:
    def nothing(network: nn.Module) -> Any:
        return wrong

    with pytest.raises(PruningError, match=r'nothing: must return a Task with `training`'):
        prune(parent, lessons=nothing)


def test_layers_of_low_rank_are_fitted_and_exported(parent: Bundle, tmp_path: Path) -> None:
    recipe = LabelFree(ranks=True, round_to=2, batch=4)
    found = prune(parent, recipe=recipe, budget=Macs(0.4), training=None)
    (plan,) = found.plans
    assert isinstance(plan, Plan)
    assert plan.ranks
    example = import_bundle_network(parent).example_inputs
    assert count(found.network, example).macs == plan.macs <= 0.4 * plan.dense_macs
    child = export_bundle_network(parent, found.network, [plan.to_dict()], tmp_path, name='child')
    Detector(child).self_check()
    with pytest.raises(PruningError, match='ranks: must be false where there are several cuts'):
        LabelFree(ranks=True, cuts=2)
