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

"""Teaching without labels on a device that is not the CPU: see `other_device` for how."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from other_device import DEVICE, OtherDevice  # noqa: E402
from test_losses import SIZE, outputs  # noqa: E402
from tiny_parent import pictures, write_parent  # noqa: E402

from pruned_perception.bundle import Bundle  # noqa: E402
from pruned_perception.pruning import Macs, Plan, make_plan, recalibrate  # noqa: E402
from pruned_perception.pruning.graph.device import device_of, moved  # noqa: E402
from pruned_perception.pruning.refit import refit  # noqa: E402
from pruned_perception.training.budget import TrainingBudget  # noqa: E402
from pruned_perception.training.compute import Compute  # noqa: E402
from pruned_perception.training.label_free import (  # noqa: E402
    LabelFree,
    LabelFreeResult,
    predict_label_free,
    prune_label_free,
)
from pruned_perception.training.label_free.losses import (  # noqa: E402
    DECODERS,
    deviations,
    output_loss,
    projection,
)
from pruned_perception.training.label_free.views import inputs_of  # noqa: E402
from pruned_perception.training.loop import weights_digest  # noqa: E402
from pruned_perception.training.onnx_import import OnnxNetwork  # noqa: E402
from pruned_perception.training.onnx_import.task import import_bundle_network  # noqa: E402

FRAMES, HELD_OUT = pictures(6, seed=0), pictures(3, seed=1)
RECIPE = LabelFree(round_to=4, batch=3, learning_rate=1e-3)


@pytest.fixture(scope='module')
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_parent(tmp_path_factory.mktemp('parent'))


def described(parent: Bundle, decoder: str) -> Bundle:
    output = dataclasses.replace(parent.output, decoder=decoder, parameters={})
    shape = tuple({'H': SIZE[0], 'W': SIZE[1]}.get(a, 1) for a in parent.input.layout)
    return dataclasses.replace(
        parent, output=output, input=dataclasses.replace(parent.input, shape=shape)
    )


@pytest.mark.parametrize('raw', [False, True])
@pytest.mark.parametrize('name', DECODERS)
def test_losses_and_projections_are_those_of_the_cpu(parent: Bundle, name: str, raw: bool) -> None:
    bundle, theirs = described(parent, name), outputs(name)
    ours = [each + 0.05 for each in theirs]
    scales = [each.std(0, keepdim=True) + 0.1 for each in theirs] if raw else None
    loss, project = output_loss(bundle, scales), projection(bundle, scales)

    def figures(ours: Any, theirs: Any) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        found = [*loss(ours, theirs, SIZE).values(), project(ours, 0, generator)]
        assert {each.device for each in found} == {ours[0].device}
        return [each.item() for each in found]

    wanted = figures(ours, theirs)
    with OtherDevice():
        found = figures(moved(ours, DEVICE), moved(theirs, DEVICE))
    assert found == pytest.approx(wanted, rel=1e-5)


def prune(parent: Bundle, compute: Compute, **changes: Any) -> LabelFreeResult:
    options = {'training': TrainingBudget(steps=3), 'recipe': RECIPE, 'held_out': HELD_OUT}
    return prune_label_free(parent, FRAMES, Macs(0.5), compute=compute, **(options | changes))


@pytest.mark.parametrize('changes', [{}, {'raw': True, 'fresh': True}])
def test_a_network_taught_elsewhere_is_the_same_and_comes_back(
    parent: Bundle, changes: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(RECIPE, **changes)
    here = prune(parent, Compute(torch.device('cpu')), recipe=recipe)
    with OtherDevice():
        there = prune(parent, Compute(DEVICE), recipe=recipe)
        assert device_of(there.network) == torch.device('cpu')
        assert weights_digest(there.network) == weights_digest(here.network)
    assert _untimed(there) == _untimed(here)
    assert there.plans == here.plans


def test_what_was_begun_on_one_device_ends_on_another(parent: Bundle, tmp_path: Path) -> None:
    def stopping(title: str, share: float, remark: str) -> None:
        if remark not in ('choosing what goes', 'fitting layers'):
            raise KeyboardInterrupt

    whole = prune(parent, Compute(torch.device('cpu')))
    with OtherDevice(), pytest.raises(KeyboardInterrupt):
        prune(parent, Compute(DEVICE), folder=tmp_path, report=stopping)
    assert (tmp_path / '1' / 'cut.pt').is_file()
    ended = prune(parent, Compute(torch.device('cpu')), folder=tmp_path)
    assert weights_digest(ended.network) == weights_digest(whole.network)


def test_a_prediction_is_the_same(parent: Bundle) -> None:
    options: dict[str, Any] = {'recipe': RECIPE, 'held_out': HELD_OUT}
    wanted = predict_label_free(parent, FRAMES, Macs(0.5), **options)
    with OtherDevice():
        compute = Compute(DEVICE)
        assert predict_label_free(parent, FRAMES, Macs(0.5), compute=compute, **options) == wanted


def test_the_network_runs_where_it_is(parent: Bundle) -> None:
    """Deviations, the criterion's gradients, the refit: none of them on a copy on the CPU."""
    images = inputs_of(parent.input, FRAMES, len(FRAMES), 2)
    network = import_bundle_network(parent)
    wanted = deviations(network.module, images)
    with OtherDevice():
        network = _on_device(network)
        seen: list[Any] = []
        layer = next(each for each in network.module.modules() if not list(each.children()))
        layer.register_forward_hook(lambda module, args, out: seen.append(out.device))
        for one, other in zip(wanted, deviations(network.module, images), strict=True):
            assert other.device == torch.device('cpu')
            torch.testing.assert_close(one, other)
        assert set(seen) == {DEVICE}
        plan: Plan = make_plan(
            network.module,
            network.example_inputs,
            budget=Macs(0.6),
            criterion='compensated_error',
            round_to=1,
            calibration=images,
            loss=projection(parent),
        )
        seen.clear()
        small = recalibrate(plan.apply(network.module), images)
        fitted = refit(network.module, small, plan, images)
        assert device_of(fitted) == DEVICE
        assert seen.count(DEVICE) >= len(images)


def _on_device(network: OnnxNetwork) -> OnnxNetwork:
    return dataclasses.replace(network, module=network.module.to(DEVICE))


def _untimed(result: LabelFreeResult) -> Any:
    data = json.loads(json.dumps(result.record.to_dict()))
    for stage in data['stages']:
        del stage['cpu_seconds']
    return data
