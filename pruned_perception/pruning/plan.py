"""A plan: which channels of which group are kept. Nothing is pruned yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning import criteria
from pruned_perception.pruning.allocation import CostModel, Widths, allocate
from pruned_perception.pruning.cost import count
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.surgery import find_groups, slice_channels


@dataclass(frozen=True)
class Plan:
    """Kept channels of each group, how they were chosen, and what the network will cost."""

    criterion: str
    allocation: str
    block: int
    seed: int
    dense_macs: int
    macs: int
    channels: dict[str, int]
    kept: dict[str, tuple[int, ...]]
    not_pruned: dict[str, str]

    @property
    def widths(self) -> Widths:
        """Return how many channels each group keeps."""
        return {name: len(indices) for name, indices in self.kept.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for checkpoints and manifests."""
        data = asdict(self)
        data['kept'] = {name: list(indices) for name, indices in self.kept.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Read what `to_dict` wrote."""
        try:
            kept = {name: tuple(indices) for name, indices in data['kept'].items()}
            return cls(**{**data, 'kept': kept})
        except (KeyError, TypeError, AttributeError) as error:
            raise PruningError(f'not a plan: {error}') from error

    def to_text(self) -> str:
        """Return a table: kept channels of each group."""
        width = max(map(len, self.kept), default=5)
        lines = [
            f'{self.criterion} scores, {self.allocation} allocation, blocks of {self.block}: '
            f'{self.macs:,} of {self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%})',
            f'{"group":{width}}  channels  kept',
        ]
        lines += [
            f'{name:{width}}  {self.channels[name]:8d}  {len(indices):4d}'
            for name, indices in self.kept.items()
        ]
        lines += [f'{name:{width}}  kept whole: {why}' for name, why in self.not_pruned.items()]
        return '\n'.join(lines)


def make_plan(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    macs: float | None = None,
    widths: Mapping[str, int] | None = None,
    criterion: str = 'filter_l2',
    allocation: str = 'uniform',
    block: int = 16,
    seed: int = 0,
    keep: Collection[str] = (),
) -> Plan:
    """Choose the channels to keep.

    Args:
        model: the dense network; untouched.
        example_inputs: its positional inputs, batch of one.
        macs: share of the dense multiply-accumulates that may remain.
        widths: instead of `macs`: the channels that each group keeps, for example another
            plan's `widths`, so that two criteria are compared under one allocation.
        criterion: what scores the channels, see `criteria.names()`.
        allocation: how the budget is divided, see `allocation.RULES`.
        block: kept channels are multiples of this, with a floor of one block.
        seed: of random criteria.
        keep: layers whose outputs must stay, beside those of the network.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: unknown names, impossible widths, or a network that cannot be traced.
    """
    if (macs is None) == (widths is None):
        raise PruningError('give either a budget of MACs or widths')
    groups = find_groups(model, example_inputs, keep=keep)
    generator = torch.Generator().manual_seed(seed)
    score = criteria.get(criterion).score
    scores = {group.name: score(model, group, generator) for group in groups.prunable}
    dense = count(model, example_inputs)
    cost = CostModel(groups, dense, _inputs(model))
    if macs is not None:
        widths = allocate(scores, cost, macs, block=block, rule=allocation)
    else:
        assert widths is not None
        allocation = 'given'
        _check_widths(widths, cost.channels)
    kept = {
        name: tuple(sorted(scores[name].topk(wanted).indices.tolist()))
        for name, wanted in widths.items()
    }
    return Plan(
        criterion=criterion,
        allocation=allocation,
        block=block,
        seed=seed,
        dense_macs=dense.macs,
        macs=cost.macs(widths),
        channels=cost.channels,
        kept=kept,
        not_pruned=groups.kept,
    )


def prune(model: nn.Module, plan: Plan, example_inputs: Sequence[Tensor]) -> nn.Module:
    """Return a new, physically smaller network after `plan`; the original is untouched.

    Raises:
        PruningError: the plan does not fit the network.
        RuntimeError: the network does not cost what was planned (a defect of ours).
    """
    small = slice_channels(model, example_inputs, plan.kept)
    real = count(small, example_inputs).macs
    if real != plan.macs:
        raise RuntimeError(f'planned {plan.macs} MACs, but the pruned network has {real}')
    return small


def _inputs(model: nn.Module) -> dict[str, int]:
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            inputs[name] = module.in_features
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs[name] = module.in_channels
    return inputs


def _check_widths(widths: Mapping[str, int], channels: Mapping[str, int]) -> None:
    for name, wanted in widths.items():
        if name not in channels:
            raise PruningError(f'widths: {name!r} is no group of this network')
        if not 1 <= wanted <= channels[name]:
            raise PruningError(
                f'widths: {name!r} has {channels[name]} channels, {wanted} cannot be kept'
            )
