"""Norms of filters, shared by the criteria `filter_l1` and `filter_l2`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import kernel
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.graph.groups import ChannelGroup


@torch.no_grad()
def filter_norms(subject: Subject, *, order: int) -> dict[str, Tensor]:
    """Return per group (channels,) the norm of each channel's filter, averaged over producers.

    Each producer's norms are divided by their mean first, since layers differ in scale.
    """
    modules = dict(subject.model.named_modules())
    return {
        group.name: _norms(modules, group, order) for group in subject.structure.groups.prunable
    }


def _norms(modules: dict[str, nn.Module], group: ChannelGroup, order: int) -> Tensor:
    total = torch.zeros(group.channels)
    for producer in group.producers:
        filters = kernel(modules[producer.layer]).flatten(0, 1).flatten(1)  # (f, c/groups · κ)
        norms = filters.norm(p=order, dim=1)[list(producer.indices)]
        share = norms / norms.mean().clamp(min=1e-12)
        total.index_add_(0, torch.tensor(producer.roots), share.float())
    return total / len(group.producers)
