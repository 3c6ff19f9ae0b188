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

import dataclasses
import json
from pathlib import Path

import blobs
import pytest
import torch
from torch import nn

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import Interrupted
from pruned_perception.pruning import ErrorBound, Macs, Params, PruningError, count
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.errors import BudgetError
from pruned_perception.pruning.presets import PRESETS
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.loop import finetune
from pruned_perception.training.method import (
    Channels,
    Function,
    LowRank,
    Method,
    PruningRecord,
    Scratch,
    Sparsity,
    budget_entry,
    budget_from,
    pruned,
    read_method,
)
from pruned_perception.training.pipeline import (
    PipelineRecord,
    architecture,
    loses_at_most,
    prune_and_finetune,
)
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task

CHANNELS = Method(Channels('absolute', allocation='equal_error', round_to=1))
REFITTED = Method(dataclasses.replace(CHANNELS.how, refit=True))
FAST = Recipe(learning_rate=0.05)
STEPS = TrainingBudget(steps=8)
CHANNELS_THEN_RANKS = dataclasses.replace(
    CHANNELS, schedule='cascade', iterations=2, then=LowRank('alds')
)
TWICE = {'schedule': 'cascade', 'iterations': 2}
KINDS = {
    'channels': (CHANNELS, Macs(0.5)),
    'refit': (REFITTED, Macs(0.5)),
    'criterion with another allocation': (
        Method(Channels('taylor', 'equal_error', 'summed', round_to=1)),
        Params(0.5),
    ),
    'low rank': (Method(LowRank('alds')), Macs(0.6)),
    'sparsity': (Method(Sparsity('sipp_deterministic')), Params(0.5)),
    'sparsity by gradients': (Method(Sparsity('snip')), Params(0.5)),
    'function': (
        Method(Function('test_pipeline:half', {'layer': 'second'})),
        Macs(0.5),
    ),
}


def half(task: Task, budget: Budget, seed: int, *, layer: str) -> nn.Module:
    """Prune as somebody else's library would: every second channel of a layer."""
    from pruned_perception.pruning import slice_channels

    channels = task.model.get_submodule(layer).out_channels
    return slice_channels(task.model, task.example_inputs, {layer: list(range(0, channels, 2))})


@pytest.fixture(scope='module')
def trained() -> Task:
    """Return the task with a trained parent."""
    task = blobs.task()
    model = finetune(task.model, task, TrainingBudget(steps=120), recipe=FAST)
    return dataclasses.replace(task, model=model)


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_meets_its_budget_and_leaves_the_parent_alone(
    kind: str, trained: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, budget = KINDS[kind]
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    small, record = pruned(trained, method.how, budget, seed=1)
    cost = count(small, trained.example_inputs)
    zeros = sum(int((~mask).sum()) for mask in record.masks.values())
    assert (record.macs, record.parameters) == (cost.macs, cost.parameters - zeros)
    assert (record.dense_macs, record.dense_parameters) == (
        count(trained.model, trained.example_inputs).macs,
        sum(each.numel() for each in trained.model.parameters()),
    )
    share = {
        'macs': record.macs / record.dense_macs,
        'params': record.parameters / record.dense_parameters,
    }[budget_entry(budget)[0]]
    assert share <= budget.share or kind == 'function'
    assert share < 0.9
    after = trained.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = PruningRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again.to_dict() == record.to_dict()
    assert again.to_text() == record.to_text()


def test_errors_in_records_name_the_plan_and_its_field(trained: Task) -> None:
    _, found = prune_and_finetune(trained, CHANNELS, Macs(0.5))
    data = found.to_dict()
    record = data['stages'][0]['pruning']
    record['plan']['kept']['first'] = [0, 1.5]
    wanted = r'stages\[0\]\.pruning: field Plan\.kept\.first\[1\]: must be an integer, got 1\.5'
    with pytest.raises(PruningError, match=wanted):
        PipelineRecord.from_dict(data)
    with pytest.raises(PruningError, match="kind: unknown plan 'x'; there are channels, low_rank"):
        PruningRecord.from_dict({**record, 'kind': 'x'})
    del record['plan']
    with pytest.raises(PruningError, match=r'field PruningRecord\.plan is missing'):
        PruningRecord.from_dict(record)


def test_refit_and_recalibration_are_done_when_asked(trained: Task) -> None:
    plain, _ = pruned(trained, CHANNELS.how, Macs(0.4), recalibrated=False)
    recalibrated, _ = pruned(trained, CHANNELS.how, Macs(0.4))
    refitted, _ = pruned(trained, REFITTED.how, Macs(0.4))
    assert torch.equal(plain.second.weight, recalibrated.second.weight)
    assert not torch.equal(plain.second_norm.running_mean, recalibrated.second_norm.running_mean)
    assert not torch.equal(plain.second.weight, refitted.second.weight)


def test_methods_are_plain_data() -> None:
    for method, _ in KINDS.values():
        assert read_method(json.loads(json.dumps(method.to_dict()))) == method
    data = {'schedule': 'cascade', 'iterations': 3, 'distill': {'weight': 2.0}}
    data['ignored_layers'] = ['head']
    method = read_method(data)
    assert method.distill == Distillation(2.0)
    assert read_method(method.to_dict()) == method
    assert read_method({'distill': True}).distill == Distillation()
    control = Scratch('ours', learning_rate=0.1)
    assert read_method(json.loads(json.dumps(control.to_dict()))) == control
    composed = json.loads(json.dumps(CHANNELS_THEN_RANKS.to_dict()))
    assert read_method(composed) == CHANNELS_THEN_RANKS


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ({'criterium': 'x'}, 'unknown field m.criterium; known: allocation, '),
        ({'criterion': 'x'}, "field m.criterion: unknown criterion 'x'"),
        ({'criterion': 3}, 'field m.criterion: must be a text, got 3'),
        ({'allocation': 'x'}, "field m.allocation: unknown allocation 'x'; there are uniform"),
        ({'allocation_by': 'x'}, "field m.allocation_by: unknown criterion 'x'"),
        ({'selection': 'x'}, "field m.selection: unknown selection 'x'; there are deterministic"),
        ({'round_to': 0}, 'field m.round_to: must be at least 1 channel'),
        ({'round_to': 1.5}, 'field m.round_to: must be an integer, got 1.5'),
        ({'refit': 'yes'}, 'field m.refit: must be true or false'),
        ({'ignored_layers': 'head'}, 'field m.ignored_layers: must be a list of texts'),
        ({'keep': ['head']}, 'field m.keep: is called ignored_layers now'),
        ({'block': 16}, 'field m.block: is called round_to now'),
        ({'method': 'x'}, "field m.method: unknown 'x'; there are pfp"),
        ({'method': 'alds', 'kind': 'channels'}, "m.method: 'alds' is of kind 'low_rank'"),
        ({'method': 'alds', 'selection': 'mixed'}, "m.selection: belongs to kind 'channels', not"),
        ({'kind': 'x'}, "field m.kind: unknown kind 'x'"),
        ({'kind': 'low_rank'}, 'field m.criterion is missing'),
        ({'kind': 'low_rank', 'criterion': 'x'}, 'm.criterion: unknown low-rank'),
        ({'kind': 'sparsity', 'criterion': 'x'}, "field m.criterion: unknown .*'x'"),
        (
            {'kind': 'sparsity', 'criterion': 'snip', 'refit': True},
            "refit: belongs to kind 'channels'",
        ),
        ({'kind': 'function'}, 'field m.function is missing'),
        ({'kind': 'scratch'}, 'field m.of is missing'),
        ({'kind': 'scratch', 'of': 'x', 'distill': True}, 'unknown field m.distill'),
        ({'of': 'other'}, "field m.of: belongs to kind 'scratch', not to 'channels'"),
        ({'schedule': 'x'}, "field m.schedule: unknown schedule 'x'"),
        ({'schedule': 'cascade'}, 'field m.iterations: 1 with schedule'),
        ({'iterations': 2}, 'field m.iterations: 2 with schedule'),
        ({'learning_rate': 0}, 'field m.learning_rate: must be > 0'),
        (
            {'kind': 'low_rank', 'criterion': 'svd', 'schedule': 'cascade', 'iterations': 2},
            'field m.schedule: low rank is chosen at once',
        ),
        ({'distill': {'heat': 3}}, r'unknown field m\.distill\.heat'),
        ({'distill': 3}, r'field m\.distill: must be a mapping, got 3'),
        ({'distill': {'weight': 0}}, r'field m\.distill\.weight: must be a number > 0, got 0'),
        ({'learning_rate': float('inf')}, r'field m\.learning_rate: must be > 0 and finite'),
        ({'max_loss': float('nan')}, r'field m\.max_loss: must be ≥ 0 and finite, got nan'),
        ({'ignored_layers': ['head', 3]}, r'field m\.ignored_layers\[1\]: must be a text, got 3'),
        ({'method': ['pfp']}, 'field m.method: unknown'),
        ({'max_loss': -1}, 'field m.max_loss: must be ≥ 0'),
        ({'then': {}}, 'give a schedule'),
        ({**TWICE, 'then': 'alds'}, 'field m.then: must be a mapping'),
        ({**TWICE, 'then': {'kind': 'low_rank', 'criterion': 'x'}}, 'm.then.criterion: unknown'),
        ({**TWICE, 'then': {'kind': 'sparsity', 'criterion': 'snip'}}, r'm.then.kind: unknown'),
        ({**TWICE, 'then': {'learning_rate': 0.1}}, r'm.then\.learning_rate: is of the whole'),
        ({**TWICE, 'then': TWICE}, r'm.then\.schedule: is of the whole'),
    ],
)
def test_bad_methods_name_the_field(data: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        read_method(data, 'm.')


def test_presets_set_what_is_not_given() -> None:
    published = read_method({'method': 'pfp'})
    assert published == Method(Channels('quadrants', 'equal_error', None, 'mixed', 1))
    own = read_method({'method': 'pfp', 'selection': 'deterministic', 'round_to': 16})
    assert own.how == Channels('quadrants', 'equal_error', None, 'deterministic', 16)
    for name, preset in PRESETS.items():
        assert read_method({'method': name}).how.kind == preset.kind


def test_budgets_have_names_in_files() -> None:
    for budget in (Macs(0.5), Params(0.25), ErrorBound(0.1)):
        assert budget_from(*budget_entry(budget)) == budget
    with pytest.raises(BudgetError, match='macs must be a number'):
        budget_from('macs', 'half')
    with pytest.raises(BudgetError, match="unknown unit 'flops'"):
        budget_from('flops', 0.5)


@pytest.mark.parametrize(
    ('method', 'budget', 'message'),
    [
        (Method(Sparsity('magnitude')), Macs(0.5), 'must be of parameters'),
        (
            Method(LowRank('svd')),
            ErrorBound(0.1),
            'must be of MACs, parameters or milliseconds',
        ),
        (Method(Function('test_pipeline:absent')), Macs(0.5), 'absent'),
        (Method(Function('blobs')), Macs(0.5), 'package.module:function'),
    ],
)
def test_budgets_and_kinds_that_do_not_fit_are_refused(
    method: Method, budget: Budget, message: str, trained: Task
) -> None:
    with pytest.raises(PruningError, match=message):
        pruned(trained, method.how, budget)


# The pipeline


@pytest.mark.parametrize(('schedule', 'steps'), [('cascade', [4, 4, 4]), ('replicate', [12] * 3)])
def test_cuts_are_by_equal_factors_and_steps_as_the_schedule_says(
    schedule: str, steps: list[int], trained: Task
) -> None:
    method = dataclasses.replace(CHANNELS, schedule=schedule, iterations=3)
    small, record = prune_and_finetune(
        trained, method, Macs(0.3), training=TrainingBudget(steps=12), recipe=FAST
    )
    dense = count(trained.model, trained.example_inputs).macs
    shares = [stage.pruning.macs / dense for stage in record.stages]
    for number, share in enumerate(shares, start=1):
        assert share <= 0.3 ** (number / 3)
        assert share > 0.7 * 0.3 ** (number / 3)
    assert [stage.steps for stage in record.stages] == steps
    assert count(small, trained.example_inputs).macs == record.stages[-1].pruning.macs
    # Each plan is of the network that the fine-tuning before made: its parent is that network.
    for before, after in zip(record.stages, record.stages[1:], strict=False):
        assert after.pruning.dense_macs == before.pruning.macs
    assert PipelineRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert len(record.to_text().splitlines()) == 4


def test_last_cut_may_be_another_kind_and_meets_the_budget(trained: Task) -> None:
    small, record = prune_and_finetune(
        trained, CHANNELS_THEN_RANKS, Macs(0.4), training=STEPS, recipe=FAST
    )
    dense = count(trained.model, trained.example_inputs).macs
    channels, ranks = (stage.pruning for stage in record.stages)
    assert (channels.kind, ranks.kind) == ('channels', 'low_rank')
    assert 0.4 < channels.macs / dense <= 0.4**0.5
    assert 0.3 < ranks.macs / dense <= 0.4
    assert ranks.dense_macs == channels.macs
    assert count(small, trained.example_inputs).macs == ranks.macs
    assert [stage.steps for stage in record.stages] == [4, 4]
    assert PipelineRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_sensitivities_are_measured_again_on_the_current_network(
    trained: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pruned_perception.training import method as configuration

    scored = []
    planner = configuration.Planner

    def recorded(model, *args, **options):
        scored.append(model)
        return planner(model, *args, **options)

    monkeypatch.setattr(configuration, 'Planner', recorded)
    method = dataclasses.replace(CHANNELS, schedule='cascade', iterations=2)
    tuned = []

    def accept(small: nn.Module) -> bool:
        tuned.append(small)
        return True

    prune_and_finetune(trained, method, Macs(0.4), training=STEPS, recipe=FAST, accept=accept)
    assert scored[0] is trained.model
    assert scored[1] is tuned[0]


def test_sparsity_in_a_cascade_ends_at_the_budget_with_zeros_that_stay(trained: Task) -> None:
    method = Method(Sparsity('magnitude'), schedule='cascade', iterations=2)
    small, record = prune_and_finetune(trained, method, Params(0.5), training=STEPS, recipe=FAST)
    masks = record.stages[-1].pruning.masks
    weights = dict(small.named_parameters())
    for name, mask in masks.items():
        assert not weights[name][~mask].any()
    left = sum(each.numel() for each in weights.values()) - sum(
        int((~mask).sum()) for mask in masks.values()
    )
    total = record.stages[0].pruning.dense_parameters
    assert left == record.stages[-1].pruning.parameters
    assert 0.48 * total < left <= 0.5 * total
    earlier = record.stages[0].pruning.masks
    assert all(not (masks[name] & ~earlier[name]).any() for name in masks)


def test_fine_tuning_regains_what_the_cut_lost(trained: Task) -> None:
    _, record = prune_and_finetune(
        trained, CHANNELS, Macs(0.06), training=TrainingBudget(steps=40), recipe=FAST
    )
    stage = record.stages[0]
    assert stage.after['accuracy'] > stage.before['accuracy'] + 0.03


def test_without_fine_tuning_it_prunes_only(trained: Task) -> None:
    small, record = prune_and_finetune(trained, CHANNELS, Macs(0.5), recalibrated=False)
    assert record.steps == 0
    assert record.stages[0].before == record.stages[0].after
    assert count(small, trained.example_inputs).macs == record.stages[0].pruning.macs


def test_parent_teaches_where_asked(trained: Task) -> None:
    teachers = []

    def loss(student, teacher):
        teachers.append(teacher)
        return (student - teacher).square().mean()

    method = dataclasses.replace(CHANNELS, distill=Distillation(), schedule='cascade', iterations=2)
    task = dataclasses.replace(trained, distillation_loss=loss)
    prune_and_finetune(task, method, Macs(0.5), training=STEPS)
    assert len(teachers) == 8
    # Always the parent, which is sure of itself, never the network of the cut before.
    assert min(float(each.softmax(1).amax(1).mean()) for each in teachers) > 0.7
    with pytest.raises(PruningError, match='needs fine-tuning'):
        prune_and_finetune(task, method, Macs(0.5))


def test_it_ends_with_the_last_network_that_a_rule_accepted(trained: Task) -> None:
    seen = []

    def accept(small: nn.Module) -> bool:
        seen.append(small)
        return len(seen) <= 2

    method = dataclasses.replace(CHANNELS, schedule='cascade', iterations=4)
    small, record = prune_and_finetune(trained, method, Macs(0.2), training=STEPS, accept=accept)
    assert small is seen[1]
    assert [stage.accepted for stage in record.stages] == [True, True, False]
    assert record.accepted == record.stages[:2]
    assert record.steps == 6  # the third was trained, too
    assert 'not accepted' in record.to_text()


def test_the_parent_is_returned_where_nothing_is_accepted(trained: Task) -> None:
    small, record = prune_and_finetune(trained, CHANNELS, Macs(0.5), accept=lambda small: False)
    assert small is trained.model
    assert record.accepted == ()


def test_rule_on_accuracy_compares_with_the_parent() -> None:
    values = iter([0.9, 0.86, 0.84])
    task = blobs.task(evaluate=lambda net: {'accuracy': next(values), 'other': 7.0})
    accept = loses_at_most(0.05, task)
    assert accept(task.model)
    assert not accept(task.model)
    with pytest.raises(PruningError, match='`evaluate`'):
        loses_at_most(0.05, blobs.task(evaluate=None))


def test_a_methods_own_rule_ends_its_iterations(trained: Task) -> None:
    method = dataclasses.replace(CHANNELS, schedule='cascade', iterations=6, max_loss=0.02)
    small, record = prune_and_finetune(trained, method, Macs(0.1))
    parent = blobs.accuracy(trained.model, 2)['accuracy']
    assert blobs.accuracy(small.eval(), 2)['accuracy'] >= parent - 0.02
    assert len(record.accepted) < 6
    assert record.stages[-1].after['accuracy'] < parent - 0.02


@pytest.mark.parametrize(
    'kind', ['channels', 'low rank', 'sparsity', 'function', 'channels then ranks']
)
def test_an_interrupted_pipeline_ends_exactly_where_an_unbroken_one_does(
    kind: str, trained: Task, tmp_path: Path
) -> None:
    method, budget = {**KINDS, 'channels then ranks': (CHANNELS_THEN_RANKS, Macs(0.4))}[kind]
    if kind in ('channels', 'sparsity'):
        method = dataclasses.replace(method, schedule='cascade', iterations=2)
    whole, expected = prune_and_finetune(
        trained, method, budget, training=STEPS, recipe=FAST, seed=3
    )
    calls: list[int] = []
    stops = {3, 6}

    def step(model, batch):
        calls.append(1)
        if len(calls) in stops:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return blobs.step(model, batch)

    task = dataclasses.replace(trained, step=step)
    options = {'training': STEPS, 'recipe': FAST, 'seed': 3, 'folder': tmp_path / 'run'}
    for _ in stops:
        with pytest.raises(Interrupted):
            prune_and_finetune(task, method, budget, **options)
    resumed, record = prune_and_finetune(task, method, budget, **options)
    assert len(calls) == 8
    assert _same(whole, resumed)
    figures = [(stage.before, stage.after, stage.steps) for stage in record.stages]
    assert figures == [(stage.before, stage.after, stage.steps) for stage in expected.stages]
    idle = dataclasses.replace(trained, step=None, training=trained.training, evaluate=None)
    with pytest.raises(PruningError, match='needs `training`'):
        prune_and_finetune(idle, method, budget, training=STEPS)
    again, finished = prune_and_finetune(task, method, budget, **options)
    assert len(calls) == 8
    assert _same(again, resumed)
    assert finished == record


def test_folders_in_use_or_of_another_method_are_refused(trained: Task, tmp_path: Path) -> None:
    options = {'training': STEPS, 'folder': tmp_path / 'run'}
    prune_and_finetune(trained, CHANNELS, Macs(0.5), **options)
    with pytest.raises(FolderError, match='another network, method, budget or seed'):
        prune_and_finetune(trained, CHANNELS, Macs(0.4), **options)
    with pytest.raises(FolderError, match='another network, method, budget or seed'):
        prune_and_finetune(trained, CHANNELS, Macs(0.5), seed=1, **options)
    with locked(tmp_path / 'run'), pytest.raises(FolderError, match='in use'):
        prune_and_finetune(trained, CHANNELS, Macs(0.5), **options)


@pytest.mark.parametrize('kind', ['channels', 'low rank', 'function', 'channels then ranks'])
def test_architecture_can_be_made_again_from_the_record(kind: str, trained: Task) -> None:
    method, budget = {**KINDS, 'channels then ranks': (CHANNELS_THEN_RANKS, Macs(0.4))}[kind]
    if kind == 'channels':
        method = dataclasses.replace(method, schedule='replicate', iterations=2)
    small, record = prune_and_finetune(trained, method, budget, training=STEPS, seed=2)
    record = PipelineRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    again = architecture(trained, method, budget, 2, record)
    shapes = [(name, value.shape) for name, value in small.state_dict().items()]
    assert [(name, value.shape) for name, value in again.state_dict().items()] == shapes


def test_iterations_towards_an_error_are_refused(trained: Task) -> None:
    method = dataclasses.replace(CHANNELS, schedule='cascade', iterations=2)
    with pytest.raises(PruningError, match='cuts to a share'):
        prune_and_finetune(trained, method, ErrorBound(0.5))


@pytest.mark.parametrize('figures', [{}, {'accuracy': float('nan')}])
def test_figures_that_say_nothing_are_refused(figures: dict, trained: Task) -> None:
    task = dataclasses.replace(trained, evaluate=lambda net: figures)
    with pytest.raises(PruningError, match='figures'):
        prune_and_finetune(task, CHANNELS, Macs(0.5))
