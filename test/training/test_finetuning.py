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

import contextlib
import dataclasses
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import blobs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruned_perception._io import FolderError, locked
from pruned_perception._processes import Interrupted
from pruned_perception.pruning import PruningError
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from pruned_perception.training.compute import Compute
from pruned_perception.training.distillation import Distillation, agreement_loss
from pruned_perception.training.loop import finetune, train
from pruned_perception.training.recipe import Phase, Recipe, make_optimiser
from pruned_perception.training.scratch import reinitialised

BUDGET = TrainingBudget(steps=12)
FAST = Recipe(learning_rate=0.05)


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = _state(first), _state(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize('during', ['step', 'evaluate'])
def test_a_signal_during_the_last_step_or_validation_is_obeyed(tmp_path: Path, during: str) -> None:
    task = blobs.task()
    calls: list[int] = []

    def stopped(function: Any, at: int) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*arguments)

        return call

    last = {'step': 12, 'evaluate': 1}[during]
    task = dataclasses.replace(task, **{during: stopped(getattr(task, during), last)})
    options = {'recipe': FAST, 'validations': 1, 'folder': tmp_path / 'run'}
    with pytest.raises(Interrupted, match='after 12 steps'):
        train(task.model, task, BUDGET, **options)
    finished = train(task.model, task, BUDGET, **options)
    assert (finished.steps, len(calls)) == (12, last)  # all of it was saved


def test_it_learns_and_leaves_the_original_alone() -> None:
    task = blobs.task()
    before = _state(task.model)
    tuned = finetune(task.model, task, TrainingBudget(steps=80), recipe=FAST)
    assert blobs.accuracy(task.model.eval(), 2)['accuracy'] < 0.4
    assert blobs.accuracy(tuned, 2)['accuracy'] > 0.8
    assert not tuned.training
    assert all(torch.equal(before[name], value) for name, value in _state(task.model).items())
    assert all(each.grad is None for each in task.model.parameters())


def test_learning_rate_warms_up_falls_and_starts_again_with_each_call() -> None:
    rates: list[float] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]['lr'])
            return super().step(closure)

    task = blobs.task(optimiser=lambda net, rate: Recorder(net.parameters(), lr=rate))
    recipe = Recipe(learning_rate=0.1, warm_up=0.25, final=0.05)
    for _ in range(2):
        finetune(task.model, task, BUDGET, recipe=recipe)
    assert rates[:12] == rates[12:]
    assert rates[:12] == [recipe.rate(step / 12) for step in range(12)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[3] == pytest.approx(0.1)
    assert rates[3:12] == sorted(rates[3:12], reverse=True)


def test_the_default_optimiser_is_sgd_that_spares_frozen_layers() -> None:
    model = blobs.network()
    model.first.requires_grad_(False)
    group = make_optimiser(model, Recipe(learning_rate=0.2)).param_groups[0]
    assert (group['lr'], group['momentum'], group['weight_decay']) == (0.2, 0.9, 5e-4)
    tuned = finetune(model, blobs.task(), BUDGET, recipe=FAST)
    assert torch.equal(tuned.first.weight, model.first.weight)
    assert not torch.equal(tuned.second.weight, model.second.weight)


def test_groups_of_an_optimiser_keep_their_own_rates() -> None:
    seen = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group['lr'] for group in self.param_groups])
            return super().step(closure)

    def optimiser(net: nn.Module, rate: float) -> torch.optim.Optimizer:
        head = list(net.head.parameters())
        rest = [each for each in net.parameters() if all(each is not other for other in head)]
        return Recorder([{'params': head, 'lr': 10 * rate}, {'params': rest}], lr=rate)

    task = blobs.task(optimiser=optimiser)
    finetune(task.model, task, BUDGET)
    assert [head / rest for head, rest in seen] == pytest.approx([10] * 12)


def test_a_seed_makes_it_repeatable_and_global_generators_are_put_back() -> None:
    task = blobs.task()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, again, other = (finetune(task.model, task, BUDGET, seed=seed) for seed in (3, 3, 4))
    assert _same(first, again)
    assert not _same(first, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


class Placed:
    """Batches that can be put back to their place, and that count how many were drawn."""

    drawn = 0

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __next__(self) -> tuple[Tensor, Tensor]:
        Placed.drawn += 1
        return blobs.examples(16, self.generator)

    def state_dict(self) -> dict[str, Tensor]:
        return {'generator': self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state['generator'])


class Sized(Placed):
    """Batches as large as the recipe says, and noisier in its second phase."""

    def follow(self, recipe: Recipe, fraction: float) -> None:
        self.count, self.phase = recipe.batch, recipe.phase(fraction)
        seen.append((fraction, self.phase.scale))

    def __next__(self) -> tuple[Tensor, Tensor]:
        images, labels = blobs.examples(self.count, self.generator)
        return images * self.phase.scale[0], labels


seen: list[tuple[float, tuple[float, float]]] = []
PHASES = (Phase(0.5, (8, 8), (1.0, 1.0)), Phase(1, (8, 8), (2.0, 2.0)))
MASK = torch.arange(8 * 8 * 3 * 3).reshape(8, 8, 3, 3) % 3 == 0
# What a training can be asked to do: fields of the task, and options of `train`.
KINDS: dict[str, tuple[dict, dict]] = {
    'plain': ({}, {}),
    'own optimiser': (
        {'optimiser': lambda net, rate: torch.optim.AdamW(net.parameters(), rate)},
        {},
    ),
    'average and clipping': (
        {},
        {'recipe': Recipe(optimiser='adamw', learning_rate=0.02, ema=0.9, clip=0.5)},
    ),
    'teacher': ({}, {'teacher': blobs.network(), 'distillation': Distillation(2.0, 3.0)}),
    'masks and average': (
        {},
        {'masks': {'second.weight': MASK}, 'recipe': Recipe(learning_rate=0.05, ema=0.8)},
    ),
    'validation': ({}, {'validations': 3}),
    'source with a state': ({'training': Placed}, {}),
    'phases': (
        {'training': Sized},
        {'recipe': Recipe(learning_rate=0.05, batch=8, phases=PHASES)},
    ),
}


@pytest.mark.parametrize('kind', KINDS)
def test_an_interrupted_run_ends_exactly_where_an_unbroken_one_does(
    tmp_path: Path, kind: str
) -> None:
    """The step draws from all global generators, and the optimiser has momentum."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        factor = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand())  # noqa: NPY002
        return factor * blobs.step(model, batch)

    fields, options = KINDS[kind]
    task = blobs.task(step=step, **fields)
    options = {'recipe': FAST, **options}
    calls: list[int] = []
    stops: set[int] = set()
    whole = finetune(task.model, task, BUDGET, folder=tmp_path / 'whole', **options)
    calls.clear()
    stops |= {4, 9}
    for _ in range(2):
        with pytest.raises(Interrupted):
            finetune(task.model, task, BUDGET, folder=tmp_path / 'broken', **options)
    resumed = finetune(task.model, task, BUDGET, folder=tmp_path / 'broken', **options)
    assert len(calls) == 12
    assert _same(whole, resumed)


@pytest.mark.parametrize('kind', ['plain', 'average and clipping', 'validation', 'phases'])
def test_a_run_that_crashed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr('pruned_perception.training.loop.CHECKPOINT_SECONDS', 0.0)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == crash:
            raise RuntimeError
        return blobs.step(model, batch)

    fields, options = KINDS[kind]
    task = blobs.task(step=step, **fields)
    options = {'recipe': FAST, **options}
    calls, crash = [], 0
    whole = finetune(task.model, task, BUDGET, **options)
    calls.clear()
    crash = 9
    with pytest.raises(RuntimeError):
        finetune(task.model, task, BUDGET, folder=tmp_path, **options)
    resumed = finetune(task.model, task, BUDGET, folder=tmp_path, **options)
    assert len(calls) == 12 + 1
    assert _same(whole, resumed)


def test_a_source_that_can_be_put_back_draws_nothing_twice(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if Placed.drawn == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return blobs.step(model, batch)

    Placed.drawn = 0
    task = blobs.task(step=step, training=Placed)
    with pytest.raises(Interrupted):
        finetune(task.model, task, BUDGET, folder=tmp_path)
    finetune(task.model, task, BUDGET, folder=tmp_path)
    assert Placed.drawn == 12


def test_an_interrupted_run_may_go_on_for_another_budget(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return blobs.step(model, batch)

    task = blobs.task()
    with pytest.raises(Interrupted, match='after 1 steps'):
        train(task.model, blobs.task(step=step), BUDGET, folder=tmp_path)
    assert train(task.model, task, TrainingBudget(steps=3), folder=tmp_path).steps == 3


def test_phases_and_batch_reach_the_source_and_need_one_that_follows() -> None:
    seen.clear()
    recipe = Recipe(batch=8, phases=PHASES)
    task = blobs.task(training=Sized, recipe=recipe)
    finetune(task.model, task, TrainingBudget(steps=4))
    assert seen == [(0.0, (1.0, 1.0)), (0.25, (1.0, 1.0)), (0.5, (2.0, 2.0)), (0.75, (2.0, 2.0))]
    with pytest.raises(PruningError, match=r'follow\(recipe, fraction\)'):
        finetune(task.model, blobs.task(), BUDGET, recipe=recipe)


def test_the_average_of_the_weights_is_as_by_hand() -> None:
    states: list[Tensor] = []

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        states.append(model.head.weight.detach().clone())
        return blobs.step(model, batch)

    task = blobs.task(step=step)
    recipe = Recipe(learning_rate=0.05, ema=0.5)
    averaged = finetune(task.model, task, TrainingBudget(steps=6), recipe=recipe)
    states.clear()
    last = finetune(task.model, task, TrainingBudget(steps=6), recipe=FAST)
    expected = states[0]
    for number, state in enumerate([*states[1:], last.head.weight.detach()], start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * state
    torch.testing.assert_close(averaged.head.weight.detach(), expected)
    assert all(each.requires_grad for each in averaged.parameters())


def test_gradients_are_clipped_and_a_broken_batch_is_left_out() -> None:
    norms, losses = [], []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            gradients = [each.grad for each in self.param_groups[0]['params']]
            norms.append(float(nn.utils.get_total_norm(gradients)))
            return super().step(closure)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses.append(1)
        return blobs.step(model, batch) * (float('inf') if len(losses) == 3 else 1.0)

    task = blobs.task(step=step, optimiser=lambda net, rate: Recorder(net.parameters(), lr=rate))
    tuned = finetune(task.model, task, TrainingBudget(steps=6), recipe=Recipe(clip=0.1))
    assert len(losses) == 6
    assert norms == pytest.approx([0.1] * 5, rel=1e-3)
    assert all(each.isfinite().all() for each in tuned.parameters())


def test_losses_by_name_are_summed_and_logged(tmp_path: Path) -> None:
    def parts(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        loss = blobs.step(model, batch)
        return {'half': loss / 2, 'other_half': loss / 2}

    task, named = blobs.task(), blobs.task(step=parts)
    budget = TrainingBudget(steps=40)
    one = finetune(task.model, task, budget, recipe=FAST)
    other = train(task.model, named, budget, recipe=FAST, folder=tmp_path, validations=2)
    assert _same(one, other.network)
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    steps = [line for line in lines if line['kind'] == 'step']
    assert [line['step'] for line in steps] == [20, 40]
    assert steps[0]['total'] == pytest.approx(2 * steps[0]['half'], rel=1e-3)
    checks = [line for line in lines if line['kind'] == 'validation']
    assert [line['step'] for line in checks] == [20, 40]
    assert checks[1]['accuracy'] == pytest.approx(other.figures['accuracy'], rel=1e-3)


def test_devices_and_precision_come_in_at_one_place() -> None:
    """Networks, batches, the forward pass and gradients go through it, and nothing else."""
    calls = []

    class Recording(Compute):
        def copy(self, network: nn.Module) -> nn.Module:
            calls.append('copy')
            return super().copy(network)

        def batch(self, batch: Any, network: nn.Module) -> Any:
            calls.append('batch')
            return batch

        def forward(self) -> contextlib.AbstractContextManager:
            calls.append('forward')
            return torch.autocast('cpu', torch.bfloat16)

        def backward(self, loss: Tensor) -> None:
            calls.append('backward')
            loss.backward()

    task = blobs.task()
    options = {'teacher': task.model, 'recipe': FAST}
    exact = finetune(task.model, task, TrainingBudget(steps=2), **options)
    rough = finetune(task.model, task, TrainingBudget(steps=2), compute=Recording(), **options)
    assert calls == ['copy', 'copy', *['batch', 'forward', 'backward'] * 2]
    for name, value in exact.state_dict().items():
        torch.testing.assert_close(rough.state_dict()[name], value, atol=0.05, rtol=0.05)
    assert not _same(exact, rough)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    task = blobs.task()
    first = finetune(task.model, task, BUDGET, folder=tmp_path)
    idle = blobs.task(step=lambda model, batch: pytest.fail('trained again'))
    again = train(task.model, idle, BUDGET, folder=tmp_path)
    assert _same(first, again.network)
    assert again.steps == 12
    assert again.cpu_seconds > 0


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    task = blobs.task()
    with locked(tmp_path), pytest.raises(FolderError, match='in use'):
        finetune(task.model, task, BUDGET, folder=tmp_path)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'seed': 1}, 'seed'),
        ({'budget': TrainingBudget(steps=5)}, 'budget'),
        ({'recipe': Recipe(learning_rate=1e-3)}, 'recipe'),
        ({'teacher': blobs.network()}, 'distillation'),
        ({'model': reinitialised(blobs.network(), seed=5)}, 'initial'),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path: Path, change: dict, named: str) -> None:
    task = blobs.task()
    options: dict = {'model': task.model, 'task': task, 'budget': BUDGET, 'folder': tmp_path}
    finetune(**options)
    with pytest.raises(FolderError, match=f'its {named} differ'):
        finetune(**{**options, **change})


def test_checkpoints_hold_tensors_and_plain_data_only(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'owned'),)

    task = blobs.task()
    finetune(task.model, task, BUDGET, folder=tmp_path / 'run')
    assert torch.load(tmp_path / 'run' / 'training.pt', weights_only=True)['steps'] == 12
    save_checkpoint(tmp_path / 'run' / 'training.pt', {'model': Payload()})
    with pytest.raises(CheckpointError, match='not a checkpoint, or damaged'):
        finetune(task.model, task, BUDGET, folder=tmp_path / 'run')
    assert not (tmp_path / 'owned').exists()
    with pytest.raises(CheckpointError, match='no such'):
        read_checkpoint(tmp_path / 'absent.pt')


def test_loss_that_is_not_finite_stops_with_its_step() -> None:
    calls = []

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return blobs.step(model, batch) * (float('nan') if len(calls) == 7 else 1.0)

    task = blobs.task(step=step)
    with pytest.raises(PruningError, match='the loss is nan at step 7'):
        finetune(task.model, task, BUDGET)


def test_weights_that_are_not_finite_are_not_returned() -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (
            blobs.step(model, batch)
            + (model.head.bias - model.head.bias.detach()).abs().sqrt().sum()
        )

    task = blobs.task(step=step)
    with pytest.raises(PruningError, match=r'head\.bias is not finite after step 1'):
        finetune(task.model, task, TrainingBudget(steps=1))


def test_data_that_end_are_refused() -> None:
    task = blobs.task(training=lambda seed: iter([next(blobs.training(seed))] * 3))
    with pytest.raises(PruningError, match='ended'):
        finetune(task.model, task, BUDGET)


@pytest.mark.parametrize('missing', ['training', 'step'])
def test_task_that_cannot_train_is_refused(missing: str) -> None:
    task = blobs.task(**{missing: None})
    with pytest.raises(PruningError, match='needs `training`'):
        finetune(task.model, task, BUDGET)


def test_network_that_is_wholly_frozen_is_refused() -> None:
    with pytest.raises(PruningError, match='every parameter is frozen'):
        finetune(blobs.network().requires_grad_(False), blobs.task(), BUDGET)


def test_masked_weights_stay_zero() -> None:
    model = blobs.network()
    mask = torch.arange(model.second.weight.numel()).reshape(model.second.weight.shape) % 3 == 0
    with torch.no_grad():
        model.second.weight.mul_(mask)
    tuned = finetune(model, blobs.task(), BUDGET, recipe=FAST, masks={'second.weight': mask})
    assert torch.equal(tuned.second.weight != 0, mask)
    assert not torch.equal(tuned.second.weight, model.second.weight)
    with pytest.raises(PruningError, match=r"'absent' is no parameter"):
        finetune(model, blobs.task(), BUDGET, masks={'absent': mask})


def test_cpu_time_ends_a_run() -> None:
    task = blobs.task()
    shares: list[float] = []
    trained = train(
        task.model,
        task,
        TrainingBudget(cpu_minutes=1e-3),
        report=lambda title, share, remark: shares.append(share),
    )
    assert shares[-1] == 1.0
    assert trained.cpu_seconds >= 0.06
    assert trained.steps >= 1


# Distillation


def test_kl_of_softened_scores_is_as_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p = torch.tensor([1.0, 0.0]).softmax(0)
    expected = 4 * float((p * (p / 0.5).log()).sum())
    assert float(agreement_loss(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(agreement_loss(teacher, teacher, 2.0)) == 0


def test_outputs_that_are_no_scores_are_compared_by_squares() -> None:
    ours = {'boxes': torch.zeros(2, 3, 4), 'more': (torch.ones(2, 1, 5, 5),)}
    theirs = {'boxes': torch.full((2, 3, 4), 2.0), 'more': (torch.zeros(2, 1, 5, 5),)}
    assert float(agreement_loss(ours, theirs, 4.0)) == pytest.approx(4.0 + 1.0)


def test_teacher_pulls_the_student_towards_itself_and_is_untouched() -> None:
    task = blobs.task()
    teacher = finetune(task.model, task, TrainingBudget(steps=60), recipe=FAST)
    before = _state(teacher)

    def no_labels(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return 0.0 * model(batch[0]).sum()

    blind = blobs.task(step=no_labels)
    options = {'budget': TrainingBudget(steps=60), 'recipe': FAST}
    alone = finetune(task.model, blind, **options)
    taught = finetune(
        task.model, blind, **options, teacher=teacher, distillation=Distillation(2.0, 2.0)
    )
    assert blobs.accuracy(alone, 2)['accuracy'] < 0.5
    assert blobs.accuracy(taught, 2)['accuracy'] > 0.7
    assert all(torch.equal(before[name], value) for name, value in _state(teacher).items())
    assert all(each.grad is None for each in teacher.parameters())
    assert all(each.requires_grad for each in teacher.parameters())


def test_teacher_sees_what_the_student_saw() -> None:
    """Not the batch, but what the step made of it; and the student runs once a step."""
    seen: list[Tensor] = []

    class Teacher(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 4)

    given: list[Tensor] = []

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        given.append(batch[0].flip(-1))
        return nn.functional.cross_entropy(model(given[-1]), batch[1])

    task = blobs.task(step=step)
    finetune(task.model, task, TrainingBudget(steps=3), teacher=Teacher())
    assert len(seen) == len(given) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen, given, strict=True))


def test_a_users_own_distillation_loss_is_used() -> None:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        calls.append(student.shape)
        return (student - teacher).abs().mean()

    calls: list[torch.Size] = []
    task = blobs.task(distillation_loss=loss)
    finetune(task.model, task, BUDGET, teacher=task.model)
    assert calls == [(16, 4)] * 12


def test_teacher_without_common_outputs_or_calls_is_refused() -> None:
    task = blobs.task()
    with pytest.raises(PruningError, match='distillation_loss'):
        finetune(task.model, task, BUDGET, teacher=nn.Flatten())
    parts = blobs.task(step=lambda net, batch: net.first(batch[0]).square().mean())
    with pytest.raises(PruningError, match='never calls the network'):
        finetune(task.model, parts, BUDGET, teacher=task.model)


def test_bad_settings_quote_the_value() -> None:
    with pytest.raises(PruningError, match=r'weight: must be a number > 0, got -1'):
        Distillation(weight=-1)
    for field, value in (
        ('learning_rate', 0),
        ('warm_up', 1),
        ('ema', 1.5),
        ('clip', 0),
        ('batch', 0.5),
        ('weight_decay', -1),
        ('channels_last', 'yes'),
        ('phases', []),
    ):
        with pytest.raises(PruningError, match=f'field {field}: must be .*, got'):
            Recipe().changed({field: value})
    with pytest.raises(PruningError, match="unknown optimiser 'lion'; there are sgd, adamw"):
        Recipe().changed({'optimiser': 'lion'})
    with pytest.raises(PruningError, match='a distillation loss of its own'):
        finetune(
            blobs.network(), blobs.task(distillation_loss=lambda a, b: a.sum()), BUDGET,
            teacher=blobs.network(), distillation=Distillation(temperature=2.0),
        )  # fmt: skip
    own = blobs.task(optimiser=lambda net, rate: torch.optim.SGD(net.parameters(), rate))
    with pytest.raises(PruningError, match='the task has an `optimiser` of its own'):
        finetune(own.model, own, BUDGET, recipe=Recipe(weight_decay=0.0))
    for wrong in ({}, {'steps': 0}, {'steps': 5, 'cpu_minutes': 1}, {'steps': True}):
        with pytest.raises(PruningError, match='training budget: exactly one'):
            TrainingBudget(**wrong)
    with pytest.raises(PruningError, match=r'steps: must be an integer, got 1\.5'):
        TrainingBudget(steps=1.5)  # type: ignore[arg-type]
    with pytest.raises(PruningError, match=r'unknown field TrainingBudget\.hours'):
        TrainingBudget.from_dict({'hours': 1})


def test_recipes_are_plain_data() -> None:
    recipe = Recipe(optimiser='adamw', ema=None, batch=4, phases=PHASES, clip=2.0)
    assert Recipe(ema=0.5).changed(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe().changed({'optimiser': {'learning_rate': 1.0}, 'ema': 0.9}) == Recipe(
        learning_rate=1.0, ema=0.9
    )


def test_budgets_are_divided_and_extended_in_their_unit() -> None:
    assert TrainingBudget(steps=10).divided(3) == TrainingBudget(steps=4)
    assert TrainingBudget(cpu_minutes=6).divided(4) == TrainingBudget(cpu_minutes=1.5)
    assert TrainingBudget(steps=10).extended(60.0, 7) == TrainingBudget(steps=17)
    assert TrainingBudget(cpu_minutes=2).extended(90.0, 7) == TrainingBudget(cpu_minutes=3.5)


# From scratch


def test_fresh_weights_know_nothing_and_frozen_layers_stay() -> None:
    task = blobs.task()
    trained = finetune(task.model, task, TrainingBudget(steps=60), recipe=FAST)
    trained.first.requires_grad_(False)
    fresh, again, other = (reinitialised(trained, seed=seed) for seed in (1, 1, 2))
    assert _same(fresh, again)
    assert not _same(fresh, other)
    assert torch.equal(fresh.first.weight, trained.first.weight)
    assert float(fresh.first_norm.running_mean.abs().max()) == 0
    assert (
        blobs.accuracy(trained, 2)['accuracy'] - blobs.accuracy(fresh.eval(), 2)['accuracy'] > 0.3
    )


def test_parameters_that_cannot_be_reset_need_the_users_function() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(PruningError, match=r'Own has parameters but no reset_parameters'):
        reinitialised(nn.Sequential(Own()))

    def initialise(model: nn.Module) -> None:
        model[0].scale.data.fill_(7.0)

    fresh = reinitialised(nn.Sequential(Own()), initialise=initialise)
    assert fresh[0].scale.tolist() == [7.0] * 3
