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

"""Each criterion on cases that are known by hand, by finite differences or by brute force."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
import trained
from scipy.stats import spearmanr
from torch import Tensor, nn

from pruned_perception.pruning import (
    Macs,
    PruningError,
    Scores,
    Sensitivity,
    allocate,
    criteria,
    make_plan,
    score,
    trace,
)
from pruned_perception.pruning.contributions import contributions, fields, kernel, sampled
from pruned_perception.pruning.criteria import gradients, joint_error

NEED_IMAGES = (
    'compensated_error',
    'quadrants',
    'absolute',
    'summed',
    'joint_error',
    'end_to_end',
    'fisher',
    'centred_fisher',
    'taylor',
    'snip',
    'thinet',
)
IMAGES = [
    torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
]


class Chain(nn.Module):
    """Two layers of eight and six channels, whose second one is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 6, 3, stride=2)
        self.left, self.right = nn.Conv2d(6, 3, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.silu(self.second(self.first(x).tanh()))
        return self.left(x), self.right(x.mean((2, 3)))


def chain() -> Chain:
    """Return the network in double precision, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Chain().double().eval()


CHAIN_IMAGES = [
    torch.randn(count, 2, 7, 7, generator=torch.Generator().manual_seed(count)).double()
    for count in (5, 3)
]


def scored(model: nn.Module, name: str, batches: Any = CHAIN_IMAGES, **options: Any) -> Scores:
    found = score(model, name, example_inputs=(batches[0],), calibration=batches, **options)
    assert isinstance(found, Scores)
    return found


@pytest.mark.parametrize(('name', 'order'), [('filter_l1', 1), ('filter_l2', 2)])
def test_filter_norms_as_by_hand(name: str, order: int) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 2, 1))
    # ℓ1 norms 3, 2.8 and 0; ℓ2 norms √5, 2.8 and 0: the two criteria disagree.
    model[0].weight.data = torch.tensor([[1.0, 2.0], [2.8, 0.0], [0.0, 0.0]])[:, :, None, None]
    values = scored(model, name, [torch.rand(1, 2, 4, 4)]).values['0']
    norms = torch.tensor([3.0, 2.8, 0.0] if order == 1 else [5**0.5, 2.8, 0.0])
    assert values.tolist() == pytest.approx((norms / norms.mean()).tolist())


@pytest.mark.parametrize('groups', [1, 6])
def test_filters_of_transposed_layers_are_their_outputs(groups: int) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(6, 6, 2, groups=groups), nn.Conv2d(6, 2, 1))
    model = nn.Sequential(nn.Conv2d(2, 6, 1), *model) if groups > 1 else model
    up = model[-2]
    up.weight.data = torch.arange(up.weight.numel()).float().reshape(up.weight.shape)
    example = torch.rand(1, model[0].in_channels, 4, 4)
    values = next(iter(scored(model, 'filter_l2', [example]).values.values()))
    # (in, out / groups, …): the second axis is that of outputs, unless each has its own input.
    axes = (0, 2, 3) if groups == 1 else (1, 2, 3)
    norms = up.weight.data.square().sum(axes).sqrt()
    if groups > 1:  # averaged with the first layer's
        first = model[0].weight.data.flatten(1).norm(dim=1)
        wanted = (norms / norms.mean() + first / first.mean()) / 2
    else:
        wanted = norms / norms.mean()
    assert values.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)


def test_norms_of_layers_that_are_added_are_averaged() -> None:
    model = networks.build(networks.Residual)
    values = scored(model, 'filter_l2', networks.INPUT).values['stem.0']
    stem, outer = (
        model.get_submodule(name).weight.data.flatten(1).norm(dim=1)
        for name in ('stem.0', 'outer.0')
    )
    assert torch.allclose(values.float(), (stem / stem.mean() + outer / outer.mean()) / 2)


def test_random_scores_are_uniform_and_depend_on_the_seed() -> None:
    first, again, other = (
        scored(networks.build(networks.Residual), 'random', networks.INPUT, seed=seed).values
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first['stem.0'], other['stem.0'])
    values = torch.cat(list(first.values()))
    assert ((values >= 0) & (values < 1)).all()


class Gates:
    """Factors on what every consumer reads of a channel, to differentiate by hand.

    Centred, a closed gate lets the mean of the channel through.
    """

    def __init__(self, model: nn.Module, *, centred: bool = False) -> None:
        structure = trace(model, (CHAIN_IMAGES[0],))
        self.gates = {name: torch.ones(c).double() for name, c in structure.channels.items()}
        for name, who in structure.readers().items():
            layer = model.get_submodule(name)
            mean = mean_read(model, name) if centred else torch.zeros(()).double()
            layer.register_forward_pre_hook(self._hook(who, isinstance(layer, nn.Linear), mean))

    def _hook(self, who: list, linear: bool, mean: Tensor) -> Callable:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
            factor = torch.ones(inputs[0].shape[-1 if linear else 1]).double()
            for group, part in who:
                factor[list(part.indices)] = self.gates[group.name][list(part.roots)]
            factor = factor if linear else factor[:, None, None]
            return (mean + (inputs[0] - mean) * factor,)

        return hook


def mean_read(model: nn.Module, name: str) -> Tensor:
    """Return the mean of each input of a layer over CHAIN_IMAGES, to be broadcast."""
    read: list[Tensor] = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        for batch in CHAIN_IMAGES:
            model(batch)
    handle.remove()
    everything = torch.cat(read)
    if everything.ndim == 2:
        return everything.mean(0)
    return everything.mean((0, 2, 3))[:, None, None]


def loss_of(outputs: tuple[Tensor, Tensor], index: int, generator: torch.Generator) -> Tensor:
    """Return a sum over the examples, another one for each batch."""
    left, right = outputs
    return (index + 1) * (left.square().sum() + (right[:, 0] * right[:, 1]).sum())


def gate_derivatives(*, centred: bool = False) -> list[dict[str, Tensor]]:
    """Return for each batch, per group, (B, channels) ∂L/∂gate, by central differences."""
    model = chain()
    gates, step, found = Gates(model, centred=centred), 1e-5, []
    for index, batch in enumerate(CHAIN_IMAGES):
        terms = {name: torch.zeros(len(batch), len(g)).double() for name, g in gates.gates.items()}
        for name, gate in gates.gates.items():
            for channel in range(len(gate)):
                for example in range(len(batch)):
                    sides = []
                    for sign in (1, -1):
                        gate[channel] = 1 + sign * step
                        with torch.no_grad():
                            outputs = model(batch[example : example + 1])
                            sides.append(float(loss_of(outputs, index, torch.Generator())))
                    gate[channel] = 1
                    terms[name][example, channel] = (sides[0] - sides[1]) / (2 * step)
        found.append(terms)
    return found


def test_taylor_snip_and_fisher_differentiate_by_gates_on_the_channels() -> None:
    terms = gate_derivatives()
    model = chain()
    taylor, snip, fisher = (
        scored(model, name, loss=loss_of) for name in ('taylor', 'snip', 'fisher')
    )
    for name in taylor.values:
        derivatives = [each[name] for each in terms]
        everything = torch.cat(derivatives)
        assert torch.allclose(taylor.values[name], everything.square().mean(0), rtol=1e-4)
        averages = torch.stack([each.mean(0).abs() for each in derivatives]).mean(0)
        assert torch.allclose(snip.values[name], averages, rtol=1e-4)
        # The whole group's error, and that of the channel that goes first.
        assert fisher.errors is not None
        assert float(fisher.errors[name][0]) == pytest.approx(
            float(everything.sum(1).square().mean()), rel=1e-4
        )
        first = int(fisher.values[name].argmin())
        assert float(fisher.errors[name][-2]) == pytest.approx(
            float(everything[:, first].square().mean()), rel=1e-4
        )
        assert first == int(everything.square().mean(0).argmin())


def test_centred_fisher_lets_a_closed_gate_pass_the_mean() -> None:
    terms = gate_derivatives(centred=True)
    found = scored(chain(), 'centred_fisher', loss=loss_of).errors
    assert found is not None
    for name, errors in found.items():
        everything = torch.cat([each[name] for each in terms])
        whole = float(everything.sum(1).square().mean())
        assert float(errors[0]) == pytest.approx(whole, rel=1e-4)


def test_joint_errors_of_long_fields_are_the_same_by_their_contributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = scored(chain(), 'joint_error')
    monkeypatch.setattr(joint_error, 'LONGEST', 30)  # of the second layer, with 8 · 9
    found = scored(chain(), 'joint_error')
    assert wanted.errors is not None
    assert found.errors is not None
    for name, values in wanted.values.items():
        assert torch.equal(values, found.values[name])
        assert torch.allclose(wanted.errors[name], found.errors[name], rtol=1e-6, atol=1e-9)


def test_few_images_are_projected_several_times() -> None:
    seen: list[int] = []

    class Counting(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            output = super().forward(x)
            if output.requires_grad:
                output.register_hook(lambda _: seen.append(len(x)))
            return output

    model = Counting(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    scored(model, 'centred_fisher', IMAGES)
    assert seen == [6] * gradients.PROJECTIONS * len(IMAGES)


def test_gradients_of_the_user_stay_as_they_were() -> None:
    model = chain()
    loss_of(model(CHAIN_IMAGES[0]), 0, torch.Generator()).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    scored(model, 'taylor')
    assert all(
        torch.equal(parameter.grad, grad)
        for parameter, grad in zip(model.parameters(), before, strict=True)
    )
    frozen = chain().requires_grad_(False)
    for name, values in scored(frozen, 'taylor').values.items():
        assert torch.equal(values, scored(model, 'taylor').values[name])
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_operations_in_place_after_a_layer_has_read_are_not_seen() -> None:
    class InPlace(Chain):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.second(self.first(x).tanh())
            x = nn.functional.silu(x)
            left = self.left(x)
            x *= 3
            return left, self.right(x.mean((2, 3)) / 3)

    wanted, model = chain(), InPlace().double().eval()
    model.load_state_dict(wanted.state_dict())
    for name in ('taylor', 'snip'):
        found, right = (scored(each, name, loss=loss_of).values for each in (model, wanted))
        assert all(torch.allclose(found[group], right[group]) for group in right)


def test_the_default_loss_estimates_the_squared_error_of_the_outputs() -> None:
    """E over random signs of (∂(r·z)/∂gate)² is ‖∂z/∂gate‖²."""
    model = chain()
    structure = trace(model, (CHAIN_IMAGES[0],))
    found = torch.stack(
        [
            scored(model, 'taylor', seed=seed, structure=structure).values['second']
            for seed in range(100)
        ]
    )
    gates, step = Gates(model), 1e-5
    wanted = torch.zeros(6).double()
    images = torch.cat(CHAIN_IMAGES)
    for channel in range(6):
        sides = []
        for sign in (1, -1):
            gates.gates['second'][channel] = 1 + sign * step
            with torch.no_grad():
                sides.append(torch.cat([each.flatten(1) for each in model(images)], 1))
        gates.gates['second'][channel] = 1
        wanted[channel] = ((sides[0] - sides[1]) / (2 * step)).square().sum(1).mean()
    assert ((found.mean(0) - wanted).abs() <= 4.5 * found.std(0) / len(found) ** 0.5).all()


def output_errors(layer: nn.Module, x: Tensor, *, centred: bool) -> Callable[[list[int]], float]:
    """Return P ↦ Σ over outputs and positions of the mean square of Σ_{j ∈ P} u_j."""
    (field,) = sampled(fields(layer, x), kernel(layer), None, None)
    (u,) = contributions(field, kernel(layer))
    u = u.double()

    def error(pruned: list[int]) -> float:
        lost = u[pruned].sum(0)
        if centred:
            lost = lost - lost.mean(0)
        return float(lost.square().sum() / len(lost))

    return error


@pytest.fixture
def readings() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the trained network and the inputs of its layers."""
    model, seen = trained.network(), {}
    handles = [
        layer.register_forward_hook(lambda _, inputs, __, name=name: seen.update({name: inputs[0]}))
        for name, layer in model.named_children()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(trained.examples(40, seed=3)[0])
    for handle in handles:
        handle.remove()
    return model, seen


@pytest.mark.parametrize(('reader', 'group'), [('second', 'first'), ('head', 'third')])
def test_joint_errors_are_those_of_the_layers_outputs(
    readings: tuple[nn.Module, dict[str, Tensor]],
    reader: str,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """tr(W_P G W_Pᵀ) at all positions, relative to P = everything."""
    model, seen = readings
    monkeypatch.setattr(joint_error, 'POSITIONS', 10**6)
    found = scored(model, 'joint_error', [trained.examples(40, seed=3)[0]])
    error = output_errors(model.get_submodule(reader), seen[reader], centred=True)
    order = found.values[group].argsort().tolist()
    whole = error(order)
    wanted = [error(order[:gone]) / whole for gone in range(len(order), -1, -1)]
    assert found.errors is not None
    # Of a growing set, the largest error yet.
    running = torch.tensor(wanted).flip(0).cummax(0).values.flip(0)
    assert found.errors[group].tolist() == pytest.approx(running.tolist(), abs=1e-4)


def test_elimination_takes_the_least_harm_at_every_step() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(6, 4, generator=generator).double()
    form = factors @ factors.T
    scores, errors = joint_error.eliminate(form)
    gone: list[int] = []
    for step in range(6):
        harms = {
            channel: float(form[[*gone, channel]][:, [*gone, channel]].sum())
            for channel in range(6)
            if channel not in gone
        }
        least = min(harms, key=harms.__getitem__)
        assert scores[least] == pytest.approx((step + 1) / 6)
        gone.append(least)
        running = max(float(form[gone[: n + 1]][:, gone[: n + 1]].sum()) for n in range(step + 1))
        assert float(errors[6 - step - 1]) == pytest.approx(running, abs=1e-12)
    assert errors[6] == 0


def test_elimination_in_runs_is_that_of_their_sums() -> None:
    factors = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    form = factors @ factors.T
    scores, errors = joint_error.eliminate(form, unit=2)
    sums = factors.unflatten(0, (3, 2)).sum(1)
    few, fewer = joint_error.eliminate(sums @ sums.T)
    assert scores.tolist() == few.repeat_interleave(2).tolist()
    assert errors.tolist() == pytest.approx([float(fewer[kept // 2]) for kept in range(7)])


def test_elimination_is_close_to_the_best_subset() -> None:
    """Greedy against all subsets, on a layer's own form: never below, seldom far above."""
    model = trained.network()
    found = scored(model, 'joint_error', [trained.examples(40, seed=3)[0]])
    assert found.errors is not None
    subject = criteria.Subject(model, trained.structure(), [trained.examples(40, seed=3)[0]])
    moments = joint_error.field_moments(subject, joint_error.POSITIONS)['second']
    form = joint_error.quadratic_form(kernel(model.second)[0].double(), moments.covariance)
    form = form[:10, :10] / form.sum()
    _, errors = joint_error.eliminate(form)
    for gone in range(1, 6):
        best = min(
            float(form[list(subset)][:, list(subset)].sum())
            for subset in itertools.combinations(range(10), gone)
        )
        assert best - 1e-12 <= float(errors[10 - gone]) <= 1.5 * best + 1e-6


class Twins(nn.Module):
    """Ten channels: of the first two, the same, the first output is the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Conv2d(3, 10, 1, bias=False)
        self.reader = nn.Conv2d(10, 2, 1)
        self.source.weight.data.abs_()
        self.source.weight.data[1] = self.source.weight.data[0]
        weights = torch.zeros(2, 10)
        weights[0, :2], weights[1, 2:] = torch.tensor([1.0, -1.0]), 5.0
        self.reader.weight.data = weights[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.source(x))


def test_joint_error_finds_channels_that_cancel_and_sensitivities_do_not() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Twins()
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    joint = scored(model, 'joint_error', [x])
    assert joint.errors is not None
    plan = allocate(joint, widths={'source': 8})
    assert plan.kept['source'] == tuple(range(2, 10))
    # Either of them alone would be missed.
    errors = joint.errors['source']
    assert 0 < float(errors[9]) == pytest.approx(float(errors[8]))
    with torch.no_grad():
        assert torch.allclose(plan.apply(model)(x), model(x), atol=1e-5)
    for name in ('absolute', 'quadrants', 'summed'):
        found = score(model, name, example_inputs=(x,), calibration=[x])
        assert {0, 1} < set(allocate(found, widths={'source': 8}, delta=0.1).kept['source'])


def test_joint_error_ignores_what_a_bias_can_replace() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1))
    model[0].weight.data[0] = 0  # constant, large, and read with large weights
    model[0].bias.data[0] = 100.0
    model[1].weight.data[:, 0] = 5.0
    x = torch.rand(10, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    found = scored(model, 'joint_error', [x])
    assert found.errors is not None
    assert int(found.values['0'].argmin()) == 0
    assert float(found.errors['0'][2]) == pytest.approx(0, abs=1e-4)
    assert int(scored(model, 'thinet', [x]).values['0'].argmax()) == 0, 'uncentred'


def test_thinet_eliminates_by_uncentred_sums_of_contributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one output there is no choice of outputs: the first to go is known."""
    model = nn.Sequential(nn.Conv2d(2, 5, 1), nn.ReLU(), nn.Conv2d(5, 1, 1))
    x = torch.randn(30, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(joint_error, 'THINET_POSITIONS', 10**6)
    found = scored(model, 'thinet', [x]).values['0']
    with torch.no_grad():
        error = output_errors(model[2], model[1](model[0](x)), centred=False)
    gone: list[int] = []
    for channel in found.argsort().tolist():
        rest = [each for each in range(5) if each not in gone]
        assert error([*gone, channel]) == pytest.approx(min(error([*gone, e]) for e in rest))
        gone.append(channel)


def test_end_to_end_errors_are_those_of_the_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1))
    x = torch.randn(10, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = scored(model, 'end_to_end', [x])
    assert found.errors is not None
    order = found.values['0'].argsort().tolist()
    with torch.no_grad():
        hidden, wanted = model[0](x), model(x)
        mean = hidden.mean((0, 2, 3), keepdim=True)
        scale = (wanted - wanted.mean(0)).square().sum()
        errors = []
        for gone in range(5):
            replaced = hidden.clone()
            replaced[:, order[:gone]] = mean[:, order[:gone]].expand_as(replaced[:, order[:gone]])
            errors.append(float((model[1](replaced) - wanted).square().sum() / scale))
    largest = torch.tensor(errors).cummax(0).values.flip(0)
    assert found.errors['0'].tolist() == pytest.approx(largest.tolist(), abs=1e-5)


@pytest.mark.parametrize('name', criteria.names())
def test_training_mode_changes_nothing_and_is_restored(name: str) -> None:
    model = networks.build(networks.Residual)
    options: dict[str, Any] = {'example_inputs': networks.INPUT, 'calibration': IMAGES}
    wanted = score(model, name, **options)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    model.get_submodule('inner').eval()
    found = score(model, name, **options)
    assert found.to_dict() == wanted.to_dict()
    assert [model.training, model.inner.training, model.outer.training] == [True, False, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


@pytest.mark.parametrize('name', criteria.names())
def test_every_criterion_makes_a_plan_that_survives_json(name: str) -> None:
    found = score(
        trained.network(), name, example_inputs=trained.EXAMPLE, calibration=trained.batches(16, 2)
    )
    again = type(found).from_dict(found.to_dict())
    assert again.to_dict() == found.to_dict()
    plans = [allocate(each, Macs(0.5), round_to=4) for each in (found, again)]
    assert plans[0] == plans[1]
    assert plans[0].criterion == name
    assert 'first' in found.to_text()
    if isinstance(found, Sensitivity):
        assert found.definition == name


def test_criteria_that_look_at_data_find_the_channels_that_matter() -> None:
    """Against the error of each channel alone, at the output of the trained network."""
    model, images = trained.network(), trained.examples(48, seed=4)[0]
    with torch.no_grad():
        wanted, truth = model(images), []
        for channel in range(32):
            handle = model.head.register_forward_pre_hook(
                lambda _, inputs, channel=channel: inputs[0].index_fill(
                    1, torch.tensor([channel]), float(inputs[0][:, channel].mean())
                )
            )
            truth.append(float((model(images) - wanted).square().sum()))
            handle.remove()
    for name in ('joint_error', 'end_to_end', 'fisher', 'taylor', 'summed', 'absolute'):
        found = score(model, name, example_inputs=trained.EXAMPLE, calibration=[images])
        assert spearmanr(found.values['third'].numpy(), truth).statistic > 0.25, name


@pytest.mark.parametrize('name', NEED_IMAGES)
def test_missing_calibration_sets_are_named(name: str) -> None:
    with pytest.raises(PruningError, match=f'{name!r} needs a calibration set'):
        score(networks.build(networks.Residual), name, example_inputs=networks.INPUT)


def test_criteria_of_weights_need_no_images() -> None:
    without = set(criteria.names()) - set(NEED_IMAGES)
    assert without == {'filter_l1', 'filter_l2', 'random'}
    for name in without:
        found = score(networks.build(networks.Residual), name, example_inputs=networks.INPUT)
        assert all(values.std() > 0 for values in found.values.values()), name


def write(folder: Path, text: str) -> str:
    path = folder / 'mine.py'
    path.write_text(textwrap.dedent(text), encoding='utf-8')
    return str(path)


def test_a_criterion_of_the_users_own_is_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        from __future__ import annotations

        from dataclasses import dataclass

        import torch


        @dataclass
        class Order:
            last: int


        def score(subject):
            order = Order(last=1)
            return subject.scores(
                'mine',
                {
                    name: torch.arange(count) * order.last
                    for name, count in subject.structure.channels.items()
                },
            )
        """,
    )
    model = networks.build(networks.Residual)
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5), criterion=path, round_to=4)
    assert plan.criterion == 'mine'
    for name, kept in plan.kept.items():
        assert kept == tuple(range(32 - len(kept), 32)), name
    plan.apply(model)


def ascending(subject: criteria.Subject) -> dict[str, torch.Tensor]:
    """Score channels by their place."""
    return {name: torch.arange(count) for name, count in subject.structure.channels.items()}


class Ascending:
    """The same, with errors that stay level: whatever goes costs nothing."""

    def __call__(self, subject: criteria.Subject) -> Scores:
        levels = {n: torch.zeros(count + 1) for n, count in subject.structure.channels.items()}
        return subject.scores('ascending', ascending(subject), levels)


@pytest.mark.parametrize(
    ('criterion', 'name', 'allocation'),
    [
        (ascending, 'ascending', 'uniform'),
        (Ascending(), 'ascending', 'least_error'),
        (lambda subject: subject.sensitivity('absolute'), 'absolute', 'equal_error'),
    ],
)
def test_any_callable_is_a_criterion_and_says_how_to_allocate_by_it(
    criterion: criteria.Criterion, name: str, allocation: str
) -> None:
    model = networks.build(networks.Residual)
    images = [torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))]
    options = {'budget': Macs(0.5), 'round_to': 4, 'calibration': images}
    plan = make_plan(model, networks.INPUT, criterion=criterion, **options)
    assert (plan.criterion, plan.allocation) == (name, allocation)
    if name == 'ascending':
        for group, kept in plan.kept.items():
            assert kept == tuple(range(32 - len(kept), 32)), group
    by_it = make_plan(
        model, networks.INPUT, criterion='filter_l2', allocation_by=criterion, **options
    )
    assert (by_it.criterion, by_it.allocation) == ('filter_l2', allocation)


@pytest.mark.parametrize('found', [None, torch.ones(3), [1, 2]])
def test_callables_that_return_something_else_are_named(found: object) -> None:
    def mine(subject: criteria.Subject) -> object:
        return found

    with pytest.raises(PruningError, match=f"criterion 'mine': returned a {type(found).__name__}"):
        make_plan(
            networks.build(networks.Residual), networks.INPUT, budget=Macs(0.5), criterion=mine
        )


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x = 1', r'a criterion is a function score\(subject\); there is none'),
        ('score = 1', 'there is none'),
        ('raise ValueError("no luck")', 'cannot be imported: no luck'),
        ('def score(subject', 'cannot be imported'),
    ],
)
def test_files_that_are_no_criterion_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PruningError, match=message) as caught:
        criteria.get(path)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('magic', "unknown criterion 'magic'; there are .*quadrants.*or give a Python file"),
        ('nowhere/mine.py', 'nowhere/mine.py: no such file'),
    ],
)
def test_unknown_criteria_are_named(name: str, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        criteria.get(name)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'stem.0': torch.ones(31), 'inner.0': torch.ones(32)},
            r"'stem.0' has 32 channels.*\(31,\)",
        ),
        ({'inner.0': torch.ones(32)}, "'stem.0' has 32 channels, scores: None"),
        ({'stem.0': -torch.ones(32), 'inner.0': torch.ones(32)}, "'stem.0' must be finite and ≥ 0"),
        ({'stem.0': torch.full((32,), torch.nan), 'inner.0': torch.ones(32)}, 'must be finite'),
    ],
)
def test_scores_that_cannot_be_are_refused(values: dict, message: str) -> None:
    structure = trace(networks.build(networks.Residual), networks.INPUT)
    with pytest.raises(PruningError, match=message):
        criteria.Subject(nn.Identity(), structure).scores('mine', values)
