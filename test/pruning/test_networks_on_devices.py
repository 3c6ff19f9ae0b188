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

"""Every public function that takes a network, with one that is not on the CPU.

See `other_device` for how, where there is no such device. What is chosen and measured is the same.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import blobs
import pytest
import torch
from other_device import DEVICE, OtherDevice
from torch import nn

from pruned_perception import pruning, training
from pruned_perception.pruning import (
    Macs,
    Params,
    Plan,
    Planner,
    certificate,
    criteria,
    lowrank,
    measurement,
    refit,
    sparsity,
)
from pruned_perception.pruning.graph.device import device_of
from pruned_perception.training.exporting import onnx_bytes
from pruned_perception.training.scratch import reinitialised

TASK = blobs.task()
INPUTS, IMAGES = TASK.example_inputs, TASK.calibration[:2]
WITHOUT_IMAGES = ('filter_l1', 'filter_l2', 'random')
WIDTHS = {'criterion': 'filter_l2', 'round_to': 1}


def _loss(outputs: Any, index: int, generator: torch.Generator) -> Any:
    return outputs.square().sum()


def _plan(net: nn.Module, criterion: str = 'filter_l2', **options: Any) -> Plan:
    return pruning.make_plan(
        net, INPUTS, budget=Macs(0.6), criterion=criterion, calibration=IMAGES, round_to=1,
        **options,
    )  # fmt: skip


def _smaller(net: nn.Module) -> nn.Module:
    return pruning.slice_channels(net, INPUTS, {'first': [0, 1, 2, 5], 'second': [1, 2, 3]})


CASES: dict[str, Callable[[nn.Module], Any]] = {
    'count': lambda net: pruning.count(net, INPUTS),
    'trace': lambda net: pruning.trace(net, INPUTS).to_dict(),
    'find_groups': lambda net: pruning.find_groups(net, INPUTS),
    'slice_channels': _smaller,
    'mask_channels': lambda net: pruning.mask_channels(
        net, pruning.find_groups(net, INPUTS), {'first': [0, 1, 2, 5]}
    ),
    'estimate_sensitivity': lambda net: pruning.estimate_sensitivity(
        net, IMAGES, example_inputs=INPUTS
    ).to_dict(),
    'recalibrate': lambda net: pruning.recalibrate(net, IMAGES),
    'output_error': lambda net: pruning.output_error(net, _smaller(net), IMAGES),
    'prune': lambda net: pruning.prune(net, INPUTS, Macs(0.6), IMAGES, **WIDTHS, refit=True)[:2],
    'finish': lambda net: pruning.finish(net, _smaller(net), IMAGES)[0],
    'make_plan': _plan,
    'score': lambda net: pruning.score(
        net, 'joint_error', example_inputs=INPUTS, calibration=IMAGES
    ),
    'Planner': lambda net: Planner(
        net, INPUTS, calibration=IMAGES, **WIDTHS
    ).plan(Macs(0.6)).to_dict(),
    'Plan.apply': lambda net: _plan(TASK.model).apply(net, IMAGES),
    'refit': lambda net: refit.refit(net, _plan(net).apply(net), _plan(net), IMAGES),
    'measure_errors': lambda net: measurement.measure_errors(net, _plan(net), IMAGES).to_dict(),
    'certify': lambda net: certificate.compare(net, _smaller(net), IMAGES),
    'reinitialised': reinitialised,
    'onnx_bytes': lambda net: onnx_bytes(copy.deepcopy(net), INPUTS, ['x'], ['y']),
    **{
        f'criterion {name}': lambda net, name=name: _plan(net, name, loss=_loss).to_dict()
        for name in criteria.names()
    },
    **{
        f'low rank {name}': lambda net, name=name: lowrank.get(name)(
            net, INPUTS, Macs(0.6), calibration=IMAGES
        ).to_dict()
        for name in lowrank.names()
    },
    **{
        f'sparsity {name}': lambda net, name=name: sparsity.make_plan(
            net, criterion=name, budget=Params(0.6), calibration=IMAGES,
            loss=lambda model, batch: model(batch).square().sum(),
        ).apply(net)
        for name in sparsity.names()
    },
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_the_result_is_the_same_wherever_the_network_is(name: str) -> None:
    wanted = CASES[name](copy.deepcopy(TASK.model))
    with OtherDevice():
        network = copy.deepcopy(TASK.model).to(DEVICE)
        found = CASES[name](network)
        assert device_of(network) == DEVICE
        for one, other in itertools.zip_longest(_parts(wanted), _parts(found)):
            if isinstance(one, nn.Module):
                assert device_of(other) == DEVICE
                states = [each.state_dict() for each in (one, other)]
                assert list(states[0]) == list(states[1])
                for key, value in states[0].items():
                    torch.testing.assert_close(states[1][key].cpu(), value)
            else:
                assert repr(one) == repr(other)


MEASURING = [
    'estimate_sensitivity', 'measure_errors', 'certify', 'output_error', 'recalibrate', 'refit',
    'finish', 'score',
    *(f'criterion {name}' for name in criteria.names() if name not in WITHOUT_IMAGES),
]  # fmt: skip


@pytest.mark.parametrize('name', MEASURING)
def test_what_measures_runs_the_network_where_it_is(name: str) -> None:
    """Not a copy on the CPU: the head, which nothing but images reaches, is hooked."""
    seen = set()
    with OtherDevice():
        network = copy.deepcopy(TASK.model).to(DEVICE)
        network.head.register_forward_hook(
            lambda module, args, out: seen.add((out.device, len(out)))
        )
        CASES[name](network)
    assert any(device == DEVICE for device, _ in seen)
    assert all(device == DEVICE for device, images in seen if images == len(IMAGES[0]))


def _parts(result: Any) -> Iterator[Any]:
    yield from result if type(result) is tuple else (result,)


def test_no_public_function_that_takes_a_network_is_left_out() -> None:
    """Those of training are in `test/training/test_devices.py`."""
    elsewhere = {'finetune', 'train', 'load_pruned', 'save_pruned', 'pruned', 'prune_and_finetune'}
    functions = {
        name: inspect.signature(each).parameters.values()
        for module in (pruning, training)
        for name in module.__all__
        if inspect.isfunction(each := getattr(module, name)) or each is Planner
    }
    public = {
        name
        for name, parameters in functions.items()
        if {'nn.Module', 'Network'} & {each.annotation for each in parameters}
    }
    assert len(public) > 12
    assert public - elsewhere <= set(CASES)
