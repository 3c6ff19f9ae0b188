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

"""How errors travel down a chain of ReLU layers, and how many weights a bound then needs."""

from __future__ import annotations

import dataclasses
import doctest
import itertools
import json
import math
from collections.abc import Callable

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning import PruningError
from pruned_perception.pruning.sparsity import coreset
from pruned_perception.pruning.sparsity.coreset import (
    CoresetBound,
    MeasuredChain,
    coreset_bound,
    draw_coreset,
    layer_errors,
    measure_chain,
)

DELTA = 0.1


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
def inputs() -> Tensor:
    return torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def trained(inputs: Tensor) -> nn.Sequential:
    """Learns which of four quadrants of the image is brightest."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    labels = functional.avg_pool2d(inputs.sum(1), 2).flatten(1).argmax(1)
    _train(model, lambda: functional.cross_entropy(model(inputs), labels), steps=150, rate=0.05)
    model.eval()
    assert (model(inputs).argmax(1) == labels).float().mean() > 0.9, 'nothing was learnt'
    return model


@pytest.fixture(scope='module')
def measured(trained: nn.Sequential, inputs: Tensor) -> MeasuredChain:
    return measure_chain(trained, inputs.split(16))


def _linear(*weights: list[list[float]]) -> nn.Sequential:
    """Return a chain without biases."""
    modules: list[nn.Module] = []
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight.data = torch.tensor(weight)
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def _relative_error(network: nn.Module, exact: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        z = exact(x)
        return float(((network(x) - z) / z).abs().max())


def test_cancellation_and_errors_of_a_chain_by_hand() -> None:
    model = _linear([[3.0, -2.0], [1.0, 1.0]], [[4.0, -1.0]])
    # On (1, 1) z¹ = (1, 2): V¹ = (5, 2), so Δ¹ = 5. z² = 2 with V² = 6: Δ² = 3.
    measured = measure_chain(model, [torch.ones(1, 2)])
    assert measured.cancellations == pytest.approx((5.0, 3.0))
    bound = coreset_bound(measured, epsilon=0.6)
    assert [layer.epsilon for layer in bound.layers] == pytest.approx([0.01, 0.05])
    assert [layer.name for layer in bound.layers] == ['0', '2']
    assert measured.events == 2 * (2 + 1)


def test_bias_counts_for_what_an_output_is_but_not_for_what_is_drawn() -> None:
    model = _linear([[3.0, -2.0]])
    model[0].bias = nn.Parameter(torch.tensor([9.0]))
    assert measure_chain(model, [torch.ones(1, 2)]).cancellations == (1.0,)  # V / z = 5 / 10
    model[0].bias = nn.Parameter(torch.tensor([-0.5]))
    assert measure_chain(model, [torch.ones(1, 2)]).cancellations == pytest.approx((10.0,))


def test_output_that_cancels_to_zero_makes_everything_before_it_vacuous() -> None:
    model = _linear([[1.0, 1.0], [1.0, 2.0]], [[3.0, -2.0], [1.0, 1.0]], [[1.0, 1.0]])
    bound = coreset_bound(measure_chain(model, [torch.ones(1, 2)]), epsilon=0.5)
    assert [layer.cancellation for layer in bound.layers] == [1.0, math.inf, 1.0]
    assert [layer.epsilon for layer in bound.layers] == [0.0, 0.0, pytest.approx(1 / 12)]
    assert [layer.active for layer in bound.layers] == [4, 4, 1]
    assert [layer.draws for layer in bound.layers][:2] == [math.inf, math.inf]
    assert bound.layers[1].kept == 4
    assert 'vacuous: an output cancels to zero' in bound.to_text()


def test_text_says_where_nothing_can_be_pruned(measured: MeasuredChain) -> None:
    bound = coreset_bound(measured, epsilon=0.5)
    assert all(layer.vacuous for layer in bound.layers)
    assert bound.to_text().count('vacuous: no fewer draws than active weights') == 3


def test_layer_of_many_equal_weights_can_be_pruned() -> None:
    model = _linear([[1.0] * 5000])
    bound = coreset_bound(measure_chain(model, [torch.ones(1, 5000)]), epsilon=0.5)
    (layer,) = bound.layers
    assert layer.cancellation == pytest.approx(1.0)
    assert not layer.vacuous
    assert layer.kept < 0.1 * layer.weights
    assert 'vacuous' not in bound.to_text()


def test_folded_chain_computes_what_the_network_does(
    trained: nn.Sequential, measured: MeasuredChain, inputs: Tensor
) -> None:
    folded = measured.chain.network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(inputs).float(), trained(inputs), atol=1e-5)


def _push_sides(measured: MeasuredChain, errors: tuple[float, ...], seed: int) -> nn.Module:
    """Return the chain with each side of each neuron wrong by its layer's error, up or down."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(*measured.chain.network)
    for name, error in zip(measured.chain.layers, errors, strict=True):
        layer = measured.chain.layers[name]
        wrong = nn.Parameter(layer.weight.clone())
        for sign in (1, -1):
            up = torch.randint(2, (len(wrong),), generator=generator).double() * 2 - 1
            factor = 1 + error * up.view(-1, *[1] * (wrong.ndim - 1))
            wrong.data = torch.where(layer.weight * sign > 0, layer.weight * factor, wrong.data)
        pushed = type(layer).__new__(type(layer))
        pushed.__dict__ = {**layer.__dict__, '_parameters': {**layer._parameters, 'weight': wrong}}
        network[int(name)] = pushed
    return network


def test_errors_of_all_sides_at_once_stay_within_the_end_to_end_error(
    measured: MeasuredChain, inputs: Tensor
) -> None:
    exact, cancellations = measured.chain.network, measured.cancellations
    right = layer_errors(0.9, cancellations)
    without_cancellation = layer_errors(0.9, [1.0] * len(cancellations))
    for seed in range(10):
        assert _relative_error(_push_sides(measured, right, seed), exact, inputs) <= 0.9
        wrong = _push_sides(measured, without_cancellation, seed)
        assert _relative_error(wrong, exact, inputs) > 0.9


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.floats(0.01, 0.99),
    st.integers(0, 10**6),
)
def test_errors_stay_within_the_bound_for_any_chain(
    widths: list[int], epsilon: float, seed: int
) -> None:
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    x = torch.randn(5, widths[0])
    measured = measure_chain(nn.Sequential(*modules[:-1]), [x])
    if math.prod(measured.cancellations) > 1e8:
        return  # rounding would decide
    pushed = _push_sides(measured, layer_errors(epsilon, measured.cancellations), seed)
    assert _relative_error(pushed, measured.chain.network, x) <= epsilon * (1 + 1e-6)


@pytest.fixture(scope='module')
def narrow() -> tuple[MeasuredChain, Tensor]:
    """Return a trained chain whose draws can be counted, and the input that cancels most."""
    torch.manual_seed(2)
    x = torch.randn(8, 4)
    target = torch.stack((x.sum(1), (x[:, 0] - x[:, 1]).abs()), dim=1)
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2))
    _train(model, lambda: functional.mse_loss(model(x), target), steps=300, rate=0.01)
    assert ((model(x) - target) ** 2).mean(0).lt(0.1 * target.var(0)).all(), 'nothing was learnt'
    return measure_chain(model, [x]), x[model(x).abs().amin(1).argmin()][None]


def _failures(measured: MeasuredChain, bound: CoresetBound, x: Tensor) -> int:
    """Return for how many of 200 drawn chains the claim about one input fails."""
    exact = measured.chain.network
    drawn = (draw_coreset(measured, bound, seed=seed) for seed in range(200))
    return sum(_relative_error(one, exact, x) > bound.epsilon for one in drawn)


def test_drawn_chains_keep_the_end_to_end_error(narrow: tuple[MeasuredChain, Tensor]) -> None:
    measured, x = narrow
    bound = coreset_bound(measured, epsilon=0.5, delta=DELTA)
    changed = draw_coreset(measured, bound, seed=0)
    assert _relative_error(changed, measured.chain.network, x) > 0, 'nothing was drawn'
    assert _failures(measured, bound, x) <= DELTA * 200


def test_drawn_chains_without_the_cancellation_factors_fail(
    narrow: tuple[MeasuredChain, Tensor],
) -> None:
    measured, x = narrow
    ones = (1.0,) * len(measured.cancellations)
    naive = dataclasses.replace(measured, cancellations=ones)
    bound = coreset_bound(naive, epsilon=0.5, delta=DELTA)
    assert _failures(measured, bound, x) > DELTA * 200


def test_bound_survives_json(measured: MeasuredChain) -> None:
    bound = coreset_bound(measured, epsilon=0.5)
    assert CoresetBound.from_dict(json.loads(json.dumps(bound.to_dict()))) == bound
    with pytest.raises(PruningError, match=r'field CoresetBound\.\w+ is missing'):
        CoresetBound.from_dict({'epsilon': 0.5})


def test_bound_of_another_chain_is_refused(measured: MeasuredChain) -> None:
    other = measure_chain(_linear([[1.0]]), [torch.ones(1, 1)])
    with pytest.raises(PruningError, match='another chain'):
        draw_coreset(measured, coreset_bound(other, epsilon=0.5), seed=0)


def test_documented_numbers_are_right() -> None:
    assert doctest.testmod(coreset).attempted > 0
    assert doctest.testmod(coreset).failed == 0


@pytest.mark.parametrize('epsilon', [0.0, 1.0])
def test_error_outside_its_domain_is_refused(epsilon: float) -> None:
    with pytest.raises(PruningError, match=r'epsilon must be in \(0, 1\)'):
        layer_errors(epsilon, [1.0])


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 14 * 14, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.flatten(functional.relu(self.first(x)), 1))


def test_functional_relu_and_flatten_are_understood() -> None:
    model = _Functional()
    (x,) = networks.INPUT
    chain = measure_chain(model, [x]).chain
    assert list(chain.names.values()) == ['first', 'last']
    assert torch.allclose(chain.network(x).float(), model(x), atol=1e-6)


def _chain(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *modules)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (networks.Residual(), r'inner\.0 branches'),
        (_chain(nn.SiLU(), nn.Conv2d(4, 4, 3)), r'1 \(SiLU\) does not keep'),
        (_chain(nn.Conv2d(4, 4, 3)), '1 follows another weight layer without a ReLU'),
        (_chain(nn.AvgPool2d(2), nn.ReLU()), '1 averages values of both signs'),
        (_chain(nn.ReLU(), nn.BatchNorm2d(4)), '2 follows no weight layer'),
        (_chain(nn.ReLU(), nn.ConvTranspose2d(4, 4, 3)), r'2 \(ConvTranspose2d\)'),
        (nn.Sequential(nn.ReLU()), 'has no convolution or linear layer'),
    ],
)
def test_what_is_no_chain_is_refused_and_named(model: nn.Module, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        measure_chain(model, networks.INPUT)


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Scaled(_Shared):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 2


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (_Shared(), 'layer is used twice'),
        (_Branching(), '_Branching: cannot be traced'),
        (_Scaled(), 'mul is no operation'),
    ],
)
def test_forward_that_is_no_chain_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        measure_chain(model, [torch.ones(1, 3)])
