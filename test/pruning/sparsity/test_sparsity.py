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

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor, nn

from pruned_perception.pruning import BudgetError, PruningError
from pruned_perception.pruning.budget import Params
from pruned_perception.pruning.sparsity import SparsityPlan, make_plan, names
from pruned_perception.pruning.sparsity import plan as plan_module
from pruned_perception.pruning.sparsity.plan import bitmask_bytes, csr_bytes

METHODS = pytest.mark.parametrize('method', names())


def _network() -> nn.Sequential:
    """2,672 weights in layers of every kind, 52 other parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),  # 432 + 16
        nn.BatchNorm2d(16),  # 32
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=4, bias=False),  # 576
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, stride=2, bias=False),  # 1,152
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 4),  # 512 + 4
    ).eval()


IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TOTAL, WEIGHTS = 2724, 2672


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets)


def _data(method: str) -> dict:
    if method == 'snip':
        targets = torch.arange(8) % 4
        return {'loss': _loss, 'calibration': [(IMAGES, targets)]}
    return {'calibration': IMAGES.split(4)} if method.startswith('sipp') else {}


def _plan(method: str, share: float = 0.4, **options: object) -> SparsityPlan:
    return make_plan(
        _network(), criterion=method, budget=Params(share), **{**_data(method), **options}
    )


@METHODS
@pytest.mark.parametrize('scope', ['network', 'layer'])
@pytest.mark.parametrize('share', [1.0, 0.6, 0.3])
def test_applied_weights_are_those_that_the_plan_counts(
    method: str, scope: str, share: float
) -> None:
    plan = _plan(method, share, scope=scope)
    sparse = plan.apply(_network())
    for name, kept in plan.counts.items():
        assert int((sparse.get_submodule(name).weight != 0).sum()) == kept
    left = TOTAL - WEIGHTS + sum(plan.counts.values())
    assert plan.share == pytest.approx(left / TOTAL)
    assert left <= share * TOTAL


@pytest.mark.parametrize('method', ['magnitude', 'random', 'snip', 'sipp_deterministic'])
def test_rankings_use_the_whole_budget(method: str) -> None:
    assert sum(_plan(method, 0.3).counts.values()) == int(0.3 * TOTAL) - (TOTAL - WEIGHTS)


@METHODS
def test_whole_budget_changes_no_output(method: str) -> None:
    model = _network()
    sparse = _plan(method, 1.0).apply(model)
    assert torch.equal(sparse(IMAGES), model(IMAGES))


@METHODS
def test_original_is_untouched(method: str) -> None:
    model = _network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = make_plan(model, criterion=method, budget=Params(0.4), **_data(method))
    sparse = plan.apply(model)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert sparse.training


@METHODS
def test_plan_is_reproducible_and_survives_json(method: str) -> None:
    plan = _plan(method, seed=5)
    assert _plan(method, seed=5) == plan
    again = SparsityPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    for (name, one), other in zip(
        plan.apply(_network()).named_parameters(),
        again.apply(_network()).parameters(),
        strict=True,
    ):
        assert torch.equal(one, other), name


def test_altered_mask_is_found_out() -> None:
    data = _plan('magnitude').to_dict()
    data['layers'][0]['bits'] = data['layers'][1]['bits']
    with pytest.raises(PruningError, match=r'SparsityPlan\.layers\[0\]\.mask_sha256: does not'):
        SparsityPlan.from_dict(data)


def test_plain_data_of_something_else_is_refused() -> None:
    with pytest.raises(PruningError, match=r'field SparsityPlan\.\w+ is missing'):
        SparsityPlan.from_dict({'method': 'magnitude'})


def test_text_says_what_is_kept_and_that_nothing_gets_faster() -> None:
    text = _plan('sipp_random', ignored_layers=['0']).to_text()
    assert 'run no faster' in text
    assert 'vacuous' in text
    assert text.endswith('kept whole: asked to keep')


def test_one_threshold_for_the_network_or_one_share_for_each_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[5.0, -6.0, 7.0, 8.0]])
    model[1].weight.data = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    network = make_plan(model, criterion='magnitude', budget=Params(0.5))
    layer = make_plan(model, criterion='magnitude', budget=Params(0.5), scope='layer')
    assert network.counts == {'0': 4, '1': 0}
    assert layer.layers[0].mask.tolist() == [[False, False, True, True]]
    assert layer.layers[1].mask.tolist() == [[False, False, True, True]]


def test_snip_ranks_by_the_change_of_the_loss() -> None:
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, -2.0, 1.0]])
    inputs = torch.tensor([[0.1, 0.5, 4.0]])  # ∂L/∂w of L = Σ y: |w x| is 0.3, 1 and 4
    plan = make_plan(
        nn.Sequential(model),
        criterion='snip',
        budget=Params(0.7),
        calibration=[inputs],
        loss=lambda network, x: network(x).sum(),
    )
    assert plan.layers[0].mask.tolist() == [[False, True, True]]


def test_zeros_that_are_there_already_are_never_kept() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False))
    model[0].weight.data[:, :5] = 0
    plan = make_plan(model, criterion='random', budget=Params(0.8))
    assert plan.counts == {'0': 50}
    assert not plan.layers[0].mask[:, :5].any()


def test_random_weights_under_another_methods_allocation() -> None:
    plan = _plan('magnitude', 0.3)
    random = make_plan(_network(), criterion='random', counts=plan.counts)
    assert random.counts == plan.counts
    assert random.layers[0].mask_sha256 != plan.layers[0].mask_sha256


def test_sizes_are_those_of_real_arrays() -> None:
    weight = torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    plan = make_plan(_holding(weight), criterion='magnitude', budget=Params(0.05))
    sparse = (weight * plan.layers[0].mask).numpy()
    values = sparse[sparse != 0]
    mask = np.packbits(sparse != 0)
    assert bitmask_bytes(6000, 300, 4) == mask.nbytes + values.nbytes
    csr = scipy.sparse.csr_matrix(sparse)
    columns, pointers = csr.indices.astype(np.uint16), csr.indptr.astype(np.uint32)
    compressed = csr.data.nbytes + columns.nbytes + pointers.nbytes
    assert csr_bytes(20, 300, 300, 4) == compressed
    assert plan.compressed_bytes == min(compressed, mask.nbytes + values.nbytes) < 24000
    assert plan.dense_bytes == weight.numel() * 4


def test_documented_sizes_are_right() -> None:
    assert doctest.testmod(plan_module).attempted > 0
    assert doctest.testmod(plan_module).failed == 0


def test_what_is_hardly_pruned_is_stored_dense() -> None:
    plan = make_plan(_holding(torch.randn(20, 300)), criterion='magnitude', budget=Params(0.99))
    assert plan.compressed_bytes == plan.dense_bytes


def _holding(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    return nn.Sequential(layer)


@pytest.mark.parametrize('method', ['magnitude', 'sipp_random', 'sipp_hybrid'])
def test_budget_that_cannot_be_met_says_the_nearest(method: str) -> None:
    with pytest.raises(BudgetError, match='nearest budget is') as caught:
        _plan(method, 0.01)
    nearest = float(str(caught.value).split('the nearest budget is ')[1].split()[0])
    plan = _plan(method, nearest)
    assert plan.share <= nearest
    with pytest.raises(BudgetError):
        _plan(method, nearest - 0.0005)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'criterion': 'magic'}, "unknown method 'magic'"),
        ({'scope': 'neuron'}, "unknown scope 'neuron'"),
        ({'ignored_layers': ['nowhere']}, "'nowhere' is no convolution"),
        ({'ignored_layers': ['0', '3', '5', '9']}, 'no convolution or linear layer to prune'),
        ({'criterion': 'snip'}, 'give `loss`'),
        ({'criterion': 'snip', 'loss': _loss}, 'give `calibration`'),
        ({'criterion': 'sipp_hybrid'}, 'give `calibration`'),
        ({'criterion': 'sipp_hybrid', 'calibration': []}, 'empty'),
        ({'criterion': 'sipp_random', 'calibration': [IMAGES / 0]}, 'NaN or infinite'),
        ({'positions': 0}, 'at least 1 per image'),
        ({'delta': 1.5}, r'delta must be in \(0, 1\)'),
        ({'counts': {'0': 3}}, 'either a budget'),
        ({'budget': None, 'counts': {'0': 3}}, "'3' must be a layer"),
        ({'budget': None, 'counts': dict.fromkeys(['0', '3', '5', '9'], 577)}, '577 cannot'),
    ],
)
def test_bad_wishes_are_named(options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        make_plan(_network(), **{'criterion': 'magnitude', 'budget': Params(0.5), **options})


def test_loss_without_finite_gradient_is_named() -> None:
    with pytest.raises(PruningError, match='0: the loss has no finite gradient'):
        make_plan(
            _network(),
            criterion='snip',
            budget=Params(0.5),
            calibration=[IMAGES],
            loss=lambda model, x: (model(x) * torch.inf).sum(),
        )


def test_shared_weights_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(PruningError, match='1 shares its weight with 0'):
        make_plan(model, criterion='magnitude', budget=Params(0.5))


def test_layer_that_is_never_called_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 1))
    calibration = [torch.rand(2, 4)]
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    with pytest.raises(PruningError, match=r'1\.out_proj: the network never calls it'):
        make_plan(
            model, criterion='sipp_deterministic', budget=Params(0.9), calibration=calibration
        )


def test_plan_of_another_network_is_refused() -> None:
    plan = _plan('magnitude')
    with pytest.raises(PruningError, match="'0' is \\(4, 3\\), planned for"):
        plan.apply(nn.Sequential(nn.Linear(3, 4)))
    with pytest.raises(PruningError, match="'0' is no layer"):
        plan.apply(nn.Sequential(nn.ReLU()))
