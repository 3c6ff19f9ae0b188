"""ℓ2 norm of the filters that make a channel.

Source: Li et al., Pruning filters for efficient ConvNets (ICLR 2017), section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruned_perception.pruning.criteria.filter_norm import filter_norms
from pruned_perception.pruning.groups import ChannelGroup


def score(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """Return (channels,) ℓ2 norms, relative to their layer's mean."""
    return filter_norms(model, group, order=2)
