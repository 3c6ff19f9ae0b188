"""Scaling what consumers read of drawn channels, so that their outputs stay right on average."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from pruned_perception.pruning.graph.groups import ChannelGroups


@torch.no_grad()
def scale_inputs(
    model: nn.Module, groups: ChannelGroups, factors: Mapping[str, Mapping[int, float]]
) -> nn.Module:
    """Return a copy whose consumers' weights are multiplied by their input channels' factors.

    Args:
        model: the dense network.
        groups: its groups.
        factors: per group, channel → factor; channels that are left out stay as they are.
    """
    scaled = copy.deepcopy(model)
    modules = dict(scaled.named_modules())
    for name, own in factors.items():
        for consumer in groups[name].consumers:
            layer = modules[consumer.layer]
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)
            if getattr(layer, 'groups', 1) > 1:  # depthwise: passes channels on to who reads them
                continue
            factor = torch.ones(weight.shape[0 if isinstance(layer, nn.ConvTranspose2d) else 1])
            for index, root in zip(consumer.indices, consumer.roots, strict=True):
                factor[index] = own.get(root, 1.0)
            axis = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
            shape = [-1 if each == axis else 1 for each in range(weight.ndim)]
            weight.mul_(factor.reshape(shape).to(weight.dtype))
    return scaled
