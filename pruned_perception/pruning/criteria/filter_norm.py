"""Norms of filters, shared by the criteria `filter_l1` and `filter_l2`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruned_perception.pruning.groups import ChannelGroup


@torch.no_grad()
def filter_norms(model: nn.Module, group: ChannelGroup, order: int) -> Tensor:
    """Return (channels,): the norm of each channel's filter, averaged over coupled producers.

    Each producer's norms are divided by their mean first, since layers differ in scale.
    """
    modules = dict(model.named_modules())
    total = torch.zeros(group.channels)
    for producer in group.producers:
        layer = modules[producer.layer]
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else None
        weight = layer.weight if weight is None else weight
        assert isinstance(weight, Tensor)
        norms = weight.detach().flatten(1).norm(p=order, dim=1)[list(producer.indices)]
        share = norms / norms.mean().clamp(min=1e-12)
        total.index_add_(0, torch.tensor(producer.roots), share.float())
    return total / len(group.producers)
