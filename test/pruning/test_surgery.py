import networks
import pytest
import torch
from torch import nn

from pruned_perception.pruning import (
    PruningError,
    count,
    find_groups,
    make_plan,
    mask_channels,
    prune,
    slice_channels,
)

KINDS = pytest.mark.parametrize('kind', networks.ALL, ids=lambda kind: kind.__name__)


def _random_choice(model: nn.Module, seed: int = 0) -> dict[str, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    groups = find_groups(model, networks.INPUT)
    return {
        group.name: sorted(
            torch.randperm(group.channels, generator=generator)[: group.channels // 2].tolist()
        )
        for group in groups.prunable
    }


@KINDS
def test_sliced_network_computes_what_the_masked_one_does(kind: type[nn.Module]) -> None:
    model = networks.build(kind)
    kept = _random_choice(model)
    assert kept, 'nothing to prune in this network'
    sliced = slice_channels(model, networks.INPUT, kept)
    masked = mask_channels(model, find_groups(model, networks.INPUT), kept)
    with torch.no_grad():
        difference = (sliced(*networks.INPUT) - masked(*networks.INPUT)).abs().max()
        effect = (model(*networks.INPUT) - masked(*networks.INPUT)).abs().max()
    assert difference <= 1e-5
    assert effect > 1e-3, 'the mask changed nothing: the comparison would prove nothing'


@KINDS
def test_original_is_untouched(kind: type[nn.Module]) -> None:
    model = networks.build(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    slice_channels(model, networks.INPUT, _random_choice(model))
    assert model.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


@KINDS
@pytest.mark.parametrize('rule', ['uniform', 'retained_share'])
def test_plan_predicts_the_real_cost(kind: type[nn.Module], rule: str) -> None:
    model = networks.build(kind)
    plan = make_plan(model, networks.INPUT, macs=0.6, block=8, allocation=rule)
    small = prune(model, plan, networks.INPUT)
    assert count(small, networks.INPUT).macs == plan.macs <= 0.6 * plan.dense_macs


def test_outputs_are_never_offered() -> None:
    groups = find_groups(networks.build(networks.Residual), networks.INPUT)
    assert groups.kept == {'head': 'reaches the output of the network'}


def test_grouped_convolutions_are_kept_and_named() -> None:
    groups = find_groups(networks.build(networks.Grouped), networks.INPUT)
    assert set(groups.kept) == {'stem.0', 'grouped.0', 'head'}
    assert 'grouped convolution' in groups.kept['stem.0']
    assert [group.name for group in groups.prunable] == ['last.0']


def test_frozen_parameters_are_pruned_too_and_stay_frozen() -> None:
    model = networks.build(networks.Residual).requires_grad_(False)
    small = slice_channels(model, networks.INPUT, {'inner.0': list(range(8))})
    assert small.get_submodule('inner.0').out_channels == 8
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_layers_to_keep_are_kept() -> None:
    model = networks.build(networks.Residual)
    groups = find_groups(model, networks.INPUT, keep=['inner.0'])
    assert groups.kept['inner.0'] == 'asked to keep inner.0'
    with pytest.raises(PruningError, match="'inner' is no convolution"):
        find_groups(model, networks.INPUT, keep=['inner'])


def test_plan_that_changes_the_outputs_is_refused() -> None:
    model = networks.build(networks.Residual)
    with pytest.raises(PruningError, match='changes the outputs'):
        slice_channels(model, networks.INPUT, {'head': [0, 1]})


@pytest.mark.parametrize('kept', [[], [0, 99]])
def test_impossible_channels_are_refused(kept: list[int]) -> None:
    with pytest.raises(PruningError, match=r'inner\.0'):
        slice_channels(networks.build(networks.Residual), networks.INPUT, {'inner.0': kept})


def test_network_that_cannot_run_is_refused() -> None:
    with pytest.raises(PruningError, match='cannot be traced'):
        find_groups(nn.Conv2d(4, 8, 3), networks.INPUT)
