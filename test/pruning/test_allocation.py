import networks
import pytest
import torch
from torch import nn

from pruned_perception.pruning import BudgetError, Plan, PruningError, criteria, make_plan
from pruned_perception.pruning.groups import ChannelGroup, Slice


@pytest.mark.parametrize('rule', ['uniform', 'retained_share'])
@pytest.mark.parametrize('macs', [0.9, 0.5, 0.3])
def test_widths_are_blocks_within_the_budget_that_leave_no_room(rule: str, macs: float) -> None:
    model = networks.build(networks.Concatenation)
    plan = make_plan(model, networks.INPUT, macs=macs, block=16, allocation=rule)
    assert plan.macs <= macs * plan.dense_macs
    for name, width in plan.widths.items():
        assert width >= 16
        assert width % 16 == 0
        if width < plan.channels[name]:
            bigger = {**plan.widths, name: width + 16}
            more = make_plan(model, networks.INPUT, widths=bigger)
            assert more.macs > macs * plan.dense_macs, f'{name} had room for another block'


def test_budget_of_everything_keeps_everything() -> None:
    plan = make_plan(networks.build(networks.Residual), networks.INPUT, macs=1.0)
    assert plan.widths == plan.channels


def test_budget_below_one_block_each_says_the_nearest() -> None:
    model = networks.build(networks.Residual)
    with pytest.raises(BudgetError, match='the nearest is') as caught:
        make_plan(model, networks.INPUT, macs=0.01)
    nearest = float(str(caught.value).split('the nearest is ')[1].split()[0])
    plan = make_plan(model, networks.INPUT, macs=nearest)
    assert set(plan.widths.values()) == {16}


def test_random_scores_on_the_same_allocation_differ_only_in_the_channels() -> None:
    model = networks.build(networks.Residual)
    norm = make_plan(model, networks.INPUT, macs=0.4, criterion='filter_l2')
    random = make_plan(model, networks.INPUT, widths=norm.widths, criterion='random', seed=3)
    again = make_plan(model, networks.INPUT, widths=norm.widths, criterion='random', seed=3)
    assert random.widths == norm.widths
    assert random.macs == norm.macs
    assert random.kept != norm.kept
    assert random.kept == again.kept


@pytest.mark.parametrize(('name', 'order'), [('filter_l1', 1), ('filter_l2', 2)])
def test_filter_norm_ranks_filters_by_their_norm(name: str, order: int) -> None:
    layer = nn.Conv2d(2, 3, 1, bias=False)
    # ℓ1 norms 3, 2.8 and 0; ℓ2 norms √5, 2.8 and 0: the two criteria disagree.
    layer.weight.data = torch.tensor([[1.0, 2.0], [2.8, 0.0], [0.0, 0.0]])[:, :, None, None]
    group = ChannelGroup('0', 3, (Slice('0', (0, 1, 2), (0, 1, 2)),), ())
    scores = criteria.get(name).score(nn.Sequential(layer), group, torch.Generator())
    assert scores.argsort(descending=True).tolist() == ([0, 1, 2] if order == 1 else [1, 0, 2])
    assert scores[2] == 0


def test_plan_survives_json() -> None:
    plan = make_plan(networks.build(networks.Residual), networks.INPUT, macs=0.5)
    assert Plan.from_dict(plan.to_dict()) == plan
    assert 'stem.0' in plan.to_text()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'macs': 1.5}, 'share of MACs'),
        ({'macs': 0.5, 'block': 0}, 'block'),
        ({'macs': 0.5, 'criterion': 'magic'}, "unknown criterion 'magic'"),
        ({'macs': 0.5, 'allocation': 'magic'}, "unknown allocation 'magic'"),
        ({'widths': {'nowhere': 3}}, "'nowhere' is no group"),
        ({'widths': {'stem.0': 33}}, '33 cannot be kept'),
        ({}, 'either a budget'),
    ],
)
def test_bad_wishes_are_named(options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        make_plan(networks.build(networks.Residual), networks.INPUT, **options)
