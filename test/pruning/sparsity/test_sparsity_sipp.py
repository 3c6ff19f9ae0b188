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

"""Sensitivities of weights, and the guarantees of what is kept by them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning.bounds import sample_complexity
from pruned_perception.pruning.budget import Params
from pruned_perception.pruning.sparsity import make_plan
from pruned_perception.pruning.sparsity.selection import find_layers, from_kernel
from pruned_perception.pruning.sparsity.sensitivity import (
    Claim,
    LayerSensitivity,
    Side,
    certain,
    drawn,
    fit,
    level,
    sides_of,
    smaller,
    weight_sensitivities,
)


def _measure(
    model: nn.Module, batches: list[Tensor], positions: int | None = None, seed: int = 0
) -> dict[str, LayerSensitivity]:
    found, _ = weight_sensitivities(
        model,
        find_layers(model),
        batches,
        positions=positions,
        generator=torch.Generator().manual_seed(seed),
    )
    return found


def _in_weights_shape(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    layers = find_layers(model)
    found = _measure(model, batches)
    return {name: from_kernel(layers[name], each.values) for name, each in found.items()}


def _neuron(weights: list[float]) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(len(weights), 1))
    model[0].weight.data = torch.tensor([weights])
    return model


def _absolute(layer: nn.Module) -> nn.Module:
    """Return the layer with |w| and no bias: on |a| it computes V."""
    size = copy.deepcopy(layer)
    size.weight.data.abs_()
    size.bias = None
    return size


def _train(model: nn.Module, loss: Callable[[], Tensor], *, steps: int, rate: float) -> None:
    """Gradient steps with momentum (torch.optim takes seconds to import)."""
    parameters = list(model.parameters())
    speeds = [torch.zeros_like(each) for each in parameters]
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(), parameters)
        with torch.no_grad():
            for each, speed, gradient in zip(parameters, speeds, gradients, strict=True):
                each -= rate * speed.mul_(0.9).add_(gradient)


@pytest.fixture(scope='module')
def images() -> tuple[Tensor, Tensor]:
    """Squares of two colours somewhere on noise, 2 × 8 × 8; the class is the quarter it is in."""
    generator = torch.Generator().manual_seed(3)
    x = 0.3 * torch.randn(192, 2, 8, 8, generator=generator)
    where = torch.randint(6, (192, 2), generator=generator)
    colour = torch.randint(2, (192,), generator=generator)
    for image, (row, column), channel in zip(x, where.tolist(), colour.tolist(), strict=True):
        image[channel, row : row + 3, column : column + 3] += 1.5
    return x, (where[:, 0] > 2) * 2 + (where[:, 1] > 2)


@pytest.fixture(scope='module')
def trained(images: tuple[Tensor, Tensor]) -> nn.Sequential:
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2),
        nn.SiLU(),
        nn.ConvTranspose2d(16, 8, 2, stride=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    )
    x, y = images
    _train(model, lambda: functional.cross_entropy(model(x), y), steps=100, rate=0.05)
    model.eval()
    assert (model(x).argmax(1) == y).float().mean() > 0.9, 'nothing was learnt'
    return model


def test_sensitivity_of_a_neuron_by_hand() -> None:
    model = _neuron([2.0, 1.0, -3.0, 4.0])
    batches = [torch.tensor([[1.0, 2.0, 5.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0, 0.0]])]
    # Positive side: 2, 2 and 0 of 4, then 6, 0 and 0 of 6. The negative weight is alone.
    assert _measure(model, batches)['0'].values.tolist() == [[[1.0, 0.5, 1.0, 0.0]]]
    assert _measure(model, batches[:1])['0'].values.tolist() == [[[0.5, 0.5, 1.0, 0.0]]]


def test_negative_activations_count_by_their_size() -> None:
    found = _measure(_neuron([2.0, 1.0]), [torch.tensor([[-1.0, 2.0]])])['0']
    assert found.values.tolist() == [[[0.5, 0.5]]]
    assert found.signed
    assert not _measure(_neuron([2.0, 1.0]), [torch.tensor([[0.0, 2.0]])])['0'].signed


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(4, 4, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(4, 6, (1, 3), groups=2, padding='same', padding_mode='reflect'),
        nn.ConvTranspose2d(4, 4, (2, 3), stride=2, padding=1, output_padding=1, groups=2),
        nn.Linear(6, 5),
    ],
    ids=['strided', 'grouped', 'transposed', 'linear'],
)
def test_sensitivity_is_the_share_that_the_layer_itself_gives_a_single_weight(
    layer: nn.Module,
) -> None:
    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    (found,) = _in_weights_shape(nn.Sequential(layer), [x]).values()
    probe = _absolute(layer)
    weight, sign = probe.weight.data.clone(), layer.weight.detach().sign()
    with torch.no_grad():
        for index in np.ndindex(*weight.shape):
            probe.weight.data = torch.zeros_like(weight)
            probe.weight.data[index] = weight[index]
            one = probe(x.abs())
            probe.weight.data = weight * (sign == sign[index])
            side = probe(x.abs())
            assert found[index] == pytest.approx(float((one / side).nan_to_num().max()), rel=1e-4)


def test_batches_of_any_size_give_the_same_sensitivities(
    trained: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0][:24]
    whole, split = _measure(trained, [x]), _measure(trained, list(x.split(7)))
    for name, each in whole.items():
        assert split[name].events == each.events
        assert torch.allclose(split[name].values, each.values, rtol=1e-4, atol=1e-6)


def test_sampled_positions_estimate_from_below(
    trained: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    exact = _measure(trained, [images[0][:32]])
    estimate = _measure(trained, [images[0][:32]], positions=8)
    for name in ('0', '3', '5'):
        assert (estimate[name].values <= exact[name].values + 1e-6).all()
        assert estimate[name].values.sum() > 0.5 * exact[name].values.sum()


def test_events_are_both_sides_of_each_output_at_each_position(trained: nn.Module) -> None:
    found = _measure(trained, [torch.rand(3, 2, 8, 8)])
    expected = {'0': 12 * 64, '3': 16 * 9, '5': 8 * 36, '8': 4}
    assert {name: each.events for name, each in found.items()} == {
        name: 2 * outputs for name, outputs in expected.items()
    }


@pytest.mark.parametrize('method', ['sipp_deterministic', 'sipp_hybrid'])
def test_bound_of_what_is_kept_for_certain_holds_on_the_calibration_set(
    method: str, trained: nn.Sequential, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0][:64]
    plan = make_plan(trained, criterion=method, budget=Params(0.8), calibration=[x], positions=None)
    assert all(not each.values for each in plan.layers), 'something was drawn'
    sparse = plan.apply(trained)
    checked = 0
    with torch.no_grad():
        for dense, small in zip(trained, sparse, strict=True):
            bound = next((e.bound for e in plan.layers if dense is trained[int(e.name)]), None)
            if bound is not None:
                error, size = (small(x) - dense(x)).abs(), _absolute(dense)(x.abs())
                slack = 1e-5 * size.max()
                assert (error <= bound * size + slack).all()
                if bound > 0.01:
                    assert not (error <= 0.05 * bound * size + slack).all(), 'far from tight'
                    checked += 1
            x = dense(x)
    assert checked >= 2


def _sides(trained: nn.Sequential, x: Tensor, layer: str) -> tuple[list[Side], Claim]:
    found = _measure(trained, [x])
    layers = {layer: trained[int(layer)]}
    return sides_of(layers, found), Claim(found[layer].events, 0.1, 1.0)


def _drawn_weight(layer: nn.Module, sides: list[Side], draws: list[int], seed: int) -> Tensor:
    """Return the layer's weight with each side drawn so many times."""
    rng = np.random.default_rng(seed)
    factors = torch.zeros(layer.weight.numel(), dtype=torch.float64)
    for side, m in zip(sides, draws, strict=True):
        factors[side.indices] = side.draw(m, rng)
    return from_kernel(layer, factors) * layer.weight.detach()


def test_drawn_weights_are_unbiased(trained: nn.Sequential, images: tuple[Tensor, Tensor]) -> None:
    sides, _ = _sides(trained, images[0][:48], '3')
    rng = np.random.default_rng(0)
    draws, repeats = 20, 2000
    for side in sides[:8]:
        factors = torch.stack([side.draw(draws, rng) for _ in range(repeats)])
        p = side.probabilities
        deviation = ((1 - p) / (p * draws * repeats)).sqrt()
        expected = p * draws * repeats > 10  # below, the sum is no normal variable
        z = ((factors.mean(0) - 1) / deviation)[expected]
        assert expected.sum() > 10
        assert z.abs().max() < 5
        assert z.mean().abs() < 0.5


@pytest.mark.parametrize('layer', ['3', '5'])
def test_random_bound_holds_and_with_a_tenth_of_the_draws_it_fails(
    layer: str, trained: nn.Sequential, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0][:48]
    sides, claim = _sides(trained, x, layer)
    epsilon, dense = 0.3, trained[int(layer)]
    draws = [drawn(side, epsilon, claim).draws or 0 for side in sides]
    with torch.no_grad():
        inputs = trained[: int(layer)](x).double()
        size = _absolute(dense).double()(inputs.abs())
        exact = copy.deepcopy(dense).double()(inputs)
        failures = {1: 0, 10: 0}
        for divisor in failures:
            probe = copy.deepcopy(dense).double()
            fewer = [max(1, m // divisor) for m in draws]
            for seed in range(200):
                probe.weight.data = _drawn_weight(dense, sides, fewer, seed)
                one = seed % len(x)  # the claim is about one input at a time
                error = (probe(inputs[one : one + 1]) - exact[one]).abs()
                failures[divisor] += bool((error > epsilon * size[one] + 1e-9).any())
    assert failures[1] <= 0.1 * 200
    assert failures[10] > 0.1 * 200


def test_plan_draws_what_it_promises(trained: nn.Sequential, images: tuple[Tensor, Tensor]) -> None:
    """The bounds that a plan states hold for the network that it makes."""
    x = images[0][:48]
    for seed in range(3):
        plan = make_plan(
            trained,
            criterion='sipp_random',
            budget=Params(0.7),
            calibration=[x],
            positions=None,
            delta=0.1,
            seed=seed,
        )
        sparse, a = plan.apply(trained), x
        bounds = {each.name: each.bound for each in plan.layers}
        with torch.no_grad():
            for (name, dense), small in zip(trained.named_children(), sparse, strict=True):
                if name in bounds:
                    size = _absolute(dense)(a.abs())
                    assert ((small(a) - dense(a)).abs() <= bounds[name] * size + 1e-5).all()
                a = dense(a)


def _wide() -> nn.Sequential:
    """Two neurons whose inputs all matter alike, two that live on few of theirs."""
    model = nn.Sequential(nn.Linear(1500, 4, bias=False))
    few = 0.98 ** torch.arange(1500.0)
    model[0].weight.data = torch.stack((torch.ones(1500), -torch.ones(1500), few, -few))
    return model


@pytest.mark.parametrize('share', [0.1, 0.2, 0.5, 0.8])
def test_hybrid_bound_is_never_worse_than_either(share: float) -> None:
    bounds = {}
    for method in ('sipp_random', 'sipp_deterministic', 'sipp_hybrid'):
        plan = make_plan(
            _wide(),
            criterion=method,
            budget=Params(share),
            calibration=[torch.ones(2, 1500)],
            delta=0.1,
        )
        assert plan.share <= share
        bounds[method] = plan.layers[0].bound
    assert bounds['sipp_hybrid'] <= min(bounds['sipp_random'], bounds['sipp_deterministic'])
    if share < 0.8:
        smallest = min(bounds['sipp_random'], bounds['sipp_deterministic'])
        assert bounds['sipp_hybrid'] < 0.95 * smallest, 'the hybrid gained nothing'


def _side(sensitivities: list[float]) -> Side:
    values = torch.tensor(sensitivities, dtype=torch.float64).sort(descending=True).values
    return Side('layer', torch.arange(len(values)), values, signed=False)


SIDES = st.lists(
    st.lists(st.floats(0.001, 1.0), min_size=1, max_size=12), min_size=1, max_size=5
).map(lambda many: [_side(one) for one in many])


@settings(max_examples=25, deadline=None)
@given(SIDES, st.floats(0, 1), st.sampled_from([certain, drawn, smaller]))
def test_division_keeps_at_most_what_is_wanted_with_one_error(sides, share, way) -> None:
    wanted = len(sides) + int(share * (sum(map(len, sides)) - len(sides)))
    claim = Claim(10, 0.1, 1.0)
    parts = fit(way, sides, wanted, claim)
    assert sum(part.kept for part in parts) <= wanted + 1e-6
    for part in parts:
        if part.draws is None:
            assert part.error == pytest.approx(float(part.side.tails[int(part.kept)]))
        else:
            total = part.side.total
            assert part.draws == sample_complexity(part.error, total, 10, delta=0.1)


@settings(max_examples=25, deadline=None)
@given(SIDES, st.floats(0, 1))
def test_level_division_has_the_smallest_largest_error(sides, share) -> None:
    wanted = len(sides) + int(share * (sum(map(len, sides)) - len(sides)))
    claim = Claim(10, 0.1, 1.0)
    parts = level(sides, wanted, claim)
    assert sum(part.kept for part in parts) == wanted
    error = max(part.error for part in parts)
    if error > 0 and wanted > len(sides):
        needed = [certain(side, error * (1 - 1e-9), claim).kept for side in sides]
        assert sum(needed) > wanted, 'a smaller error was within the budget'


def test_allowance_for_future_inputs_scales_the_bound_of_what_is_kept_for_certain() -> None:
    options = {
        'criterion': 'sipp_deterministic',
        'budget': Params(0.5),
        'calibration': [torch.ones(2, 1500)],
    }
    one, two = (make_plan(_wide(), K=K, **options).layers[0] for K in (1.0, 2.0))
    assert two.bits == one.bits
    assert two.bound == pytest.approx(2 * one.bound)


def test_allowance_for_future_inputs_leaves_the_division_of_draws_alone() -> None:
    sides = [_side([0.5] * 40), _side([0.9, *[0.05] * 60]), _side([1.0, 0.5, 0.25])]
    once, thrice = (fit(drawn, sides, 60, Claim(10, 0.1, K)) for K in (1.0, 3.0))
    assert [part.draws for part in thrice] == pytest.approx(
        [p.draws for p in once], rel=0.01, abs=1
    )
    assert thrice[0].error > 1.5 * once[0].error
