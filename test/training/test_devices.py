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

"""Training and judging on a device that is not the CPU: see `other_device` for how, without one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import blobs
import pytest
import torch
from other_device import DEVICE, OtherDevice
from torch import Tensor, nn

from pruned_perception.errors import UserError
from pruned_perception.pruning import Macs, PruningError, recalibrate
from pruned_perception.pruning.graph.device import device_of, fed_from_cpu, moved
from pruned_perception.training.batch_norms import convolution_statistics
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.compute import Compute, find_device
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.augmentation import Batch
from pruned_perception.training.detector.loss import detection_loss, distillation_loss
from pruned_perception.training.detector.network import Detector
from pruned_perception.training.distillation import Distillation
from pruned_perception.training.loop import train
from pruned_perception.training.method import read_method
from pruned_perception.training.pipeline import prune_and_finetune
from pruned_perception.training.random_state import random_state, set_random_state
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.scratch import reinitialised
from pruned_perception.training.task import figures_of

ARCHITECTURE = Architecture(
    input_size=(64, 96),
    num_classes=3,
    backbone=((8,), (8,), (8, 8), (8,), (8,)),
    neck=8,
    boxes=((8,),) * 3,
    classes=((8,),) * 3,
)
ALL_OF_IT = Recipe(optimiser='adamw', ema=0.5, clip=1.0, channels_last=True)
CUT = read_method({'criterion': 'filter_l2', 'round_to': 1, 'distill': True})


def _same(one: nn.Module, other: nn.Module) -> bool:
    states = [{k: v.cpu() for k, v in each.state_dict().items()} for each in (one, other)]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def _on_device(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(DEVICE)


def test_the_stand_in_refuses_what_a_device_refuses() -> None:
    network, (images,) = blobs.network(), blobs.task().example_inputs
    with OtherDevice():
        network = network.to(DEVICE)
        assert device_of(network) == DEVICE
        assert network(images.to(DEVICE)).device == DEVICE
        with pytest.raises(RuntimeError, match='on the same device'):
            network(images)
        with pytest.raises(RuntimeError, match='on the same device'):
            torch.ones(3, device=DEVICE) + torch.ones(3)
        with pytest.raises(TypeError, match='to numpy'):
            torch.ones(3, device=DEVICE).numpy()
        assert torch.ones(3, device=DEVICE).cpu().numpy().sum() == 3


def test_a_training_elsewhere_is_the_same_training_and_comes_back(tmp_path: Path) -> None:
    task, budget = blobs.task(), TrainingBudget(steps=4)
    mask = torch.arange(8) < 4
    options: dict[str, Any] = {
        'recipe': ALL_OF_IT,
        'teacher': task.model,
        'distillation': Distillation(0.5),
        'masks': {'first.bias': mask},
        'validations': 2,
    }
    here = train(task.model, task, budget, **options)
    with OtherDevice():
        there = train(task.model, task, budget, **options, compute=Compute(DEVICE), folder=tmp_path)
        assert device_of(there.network) == torch.device('cpu')
        assert there.figures == here.figures
        assert _same(here.network, there.network)
        follows = train(_on_device(task.model), task, budget, **options)
        assert device_of(follows.network) == DEVICE
        assert _same(here.network, follows.network)
    assert here.network.first.bias[4:].abs().max() == 0
    for value in read_checkpoint(tmp_path / 'training.pt')['weights'].values():
        assert value.device.type == 'cpu'


@pytest.mark.parametrize('first', [DEVICE, None])
def test_a_training_begun_on_one_device_ends_on_another(
    tmp_path: Path, first: torch.device | None
) -> None:
    second = None if first else DEVICE

    def dying(model: nn.Module, batch: Any) -> Tensor:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return blobs.step(model, batch)

    task, budget, recipe = blobs.task(step=dying), TrainingBudget(steps=6), Recipe(ema=0.5)
    steps: list[int] = []
    with OtherDevice():
        whole = train(task.model, blobs.task(), budget, recipe=recipe)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('pruned_perception.training.loop.CHECKPOINT_SECONDS', -1.0)
            with pytest.raises(KeyboardInterrupt):
                train(
                    task.model, task, budget, recipe=recipe, folder=tmp_path, compute=Compute(first)
                )
        ended = train(
            task.model, task, budget, recipe=recipe, folder=tmp_path, compute=Compute(second)
        )
    assert len(steps) == 3 + 4
    assert _same(whole.network, ended.network)


@pytest.mark.parametrize('given', [True, False])
def test_pruning_and_finetuning_follow_the_parents_device_or_the_one_that_is_given(
    given: bool,
) -> None:
    task, budget = blobs.task(), TrainingBudget(steps=3)
    here, record = prune_and_finetune(task, CUT, Macs(0.5), training=budget)
    with OtherDevice():
        parent = task.model if given else _on_device(task.model)
        there, other = prune_and_finetune(
            dataclasses.replace(task, model=parent),
            CUT,
            Macs(0.5),
            training=budget,
            compute=Compute(DEVICE) if given else None,
        )
        assert device_of(there) == device_of(parent)
        assert _same(here, there)
    assert other.stages[0].after == record.stages[0].after
    assert other.stages[0].pruning.plan == record.stages[0].pruning.plan


def test_what_judges_or_measures_a_network_takes_inputs_of_the_cpu() -> None:
    task = blobs.task()
    wanted = figures_of(task.evaluate, task.model)
    measured = recalibrate(task.model, task.calibration)
    statistics = convolution_statistics(task.model, ['first'], task.calibration)
    with OtherDevice():
        network = _on_device(task.model)
        assert figures_of(task.evaluate, network) == wanted
        assert device_of(reinitialised(network)) == DEVICE
        again = recalibrate(network, task.calibration)
        assert device_of(again) == DEVICE
        assert _same(measured, again)
        for one, other in zip(
            statistics['first'],
            convolution_statistics(network, ['first'], task.calibration)['first'],
            strict=True,
        ):
            assert torch.equal(one, other.cpu())
        with fed_from_cpu(network):
            assert network(*task.example_inputs).device.type == 'cpu'
        with pytest.raises(RuntimeError, match='on the same device'):
            network(*task.example_inputs)


def _boxes(images: Tensor) -> Batch:
    return Batch(
        images,
        torch.tensor([[[8.0, 8, 40, 40]], [[30.0, 10, 60, 50]]]),
        torch.zeros(2, 1, dtype=torch.int64),
        torch.ones(2, 1, dtype=torch.bool),
        torch.zeros(2, 1, dtype=torch.bool),
    )


def _detector_and_boxes() -> tuple[Detector, Batch]:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    return Detector(ARCHITECTURE), _boxes(images)


def test_our_detectors_losses_are_computed_where_its_outputs_are() -> None:
    network, batch = _detector_and_boxes()
    raw = network(batch.images)
    wanted = detection_loss(raw, batch) | distillation_loss(raw, raw.detach(), (64, 96))
    with OtherDevice():
        there = Compute(DEVICE).copy(network)
        own = Compute(DEVICE).batch(batch, there)
        assert {each.device for each in vars(own).values()} == {DEVICE}
        raw = there(own.images)
        found = detection_loss(raw, own) | distillation_loss(raw, raw.detach(), (64, 96))
        for name, value in found.items():
            assert value.device == DEVICE
            assert value.item() == pytest.approx(wanted[name].item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('precision', [torch.bfloat16, torch.float16])
def test_our_detectors_losses_are_of_single_precision_whatever_its_products_are_in(
    precision: torch.dtype,
) -> None:
    network, batch = _detector_and_boxes()
    raw = network(batch.images)
    wanted = detection_loss(raw, batch) | distillation_loss(raw, raw.detach(), (64, 96))
    with torch.autocast('cpu', precision):
        raw = network(batch.images)
        found = detection_loss(raw, batch) | distillation_loss(raw, raw.detach(), (64, 96))
    assert raw.dtype == precision
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(wanted[name].item(), rel=0.05, abs=1e-3)
    torch.stack(list(found.values())).sum().backward()


def test_batches_of_any_form_are_moved_and_the_cpus_are_left_alone() -> None:
    @dataclasses.dataclass(frozen=True)
    class Pair:
        image: Tensor
        name: str

    value = Pair(torch.ones(2), 'a')
    batch = {'pair': value, 'many': [torch.ones(1), (torch.zeros(1), None)], 'count': 3}
    assert Compute().batch(batch, blobs.network()) is batch
    with OtherDevice():
        found = moved(batch, DEVICE)
        assert found['pair'].image.device == found['many'][1][0].device == DEVICE
        assert (found['pair'].name, found['many'][1][1], found['count']) == ('a', None, 3)
        assert moved(found, DEVICE)['pair'].image is found['pair'].image


@pytest.mark.parametrize(('most', 'said'), [(5, 'batches of 4 fit'), (0, 'no part of it fits')])
def test_out_of_memory_says_what_fits_and_leaves_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, said: str
) -> None:
    steps: list[int] = []

    def small(model: nn.Module, batch: Any) -> Tensor:
        steps.append(len(batch[0]))
        if len(steps) > 2 and len(batch[0]) > most:
            raise torch.OutOfMemoryError('CUDA out of memory.')
        return blobs.step(model, batch)

    monkeypatch.setattr('pruned_perception.training.loop.CHECKPOINT_SECONDS', -1.0)
    task, budget = blobs.task(step=small), TrainingBudget(steps=6)
    message = rf'too little memory for the batch of step 3 \(16 examples\); {said}'
    with pytest.raises(PruningError, match=message):
        train(task.model, task, budget, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if 'training' in path.name] == ['training.pt']
    assert read_checkpoint(tmp_path / 'training.pt')['steps'] == 2
    ended = train(task.model, blobs.task(), budget, folder=tmp_path)
    assert _same(ended.network, train(task.model, blobs.task(), budget).network)


def test_random_numbers_of_a_device_are_put_back_with_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [torch.zeros(3, dtype=torch.uint8)]
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    monkeypatch.setattr(torch.mps, 'get_rng_state', lambda: own[-1])
    monkeypatch.setattr(torch.mps, 'set_rng_state', own.append)
    monkeypatch.setattr(torch.mps, 'manual_seed', lambda seed: own.append(own[-1] + 1))
    state = random_state()
    own.append(own[-1] + 1)
    set_random_state(state)
    assert torch.equal(own[-1], own[0])


# Names of devices


@pytest.mark.parametrize(
    ('name', 'there', 'message'),
    [
        ('gpu', {}, '--device gpu: there are auto, cpu, cuda, cuda:N or mps'),
        ('cpu:1', {}, '--device cpu:1: there are'),
        ('cuda:x', {}, '--device cuda:x: there are'),
        (
            'cuda',
            {'build': None},
            'for the CPU alone: pip install --force-reinstall torch==',
        ),
        ('cuda', {'build': '13.0', 'count': 0}, 'PyTorch finds no GPU; does nvidia-smi show one'),
        ('cuda:2', {'build': '13.0', 'count': 2}, 'is not there; there is cuda:0, cuda:1'),
        ('mps', {}, 'macOS on Apple silicon'),
    ],
)
def test_devices_that_are_not_there_are_refused_with_the_way_out(
    name: str, there: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, **there)
    with pytest.raises(UserError, match=message):
        find_device(name)


def test_auto_is_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch)
    assert find_device('auto') == find_device('cpu') == torch.device('cpu')
    _machine(monkeypatch, build='13.0', count=2)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', True)
    assert find_device('auto') == torch.device('cuda', 0)
    assert not torch.backends.cudnn.allow_tf32  # float32 is to mean that, whoever chose the GPU
    assert find_device('auto') == find_device('cuda') == torch.device('cuda', 0)
    assert find_device('cuda:1') == torch.device('cuda', 1)


def _machine(monkeypatch: pytest.MonkeyPatch, build: str | None = None, count: int = 0) -> None:
    monkeypatch.setattr(torch.version, 'cuda', build)
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: count > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
