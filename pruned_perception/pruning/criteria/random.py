"""Random scores: with another criterion's allocation, the control for its choice of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruned_perception.pruning.groups import ChannelGroup


def score(model: nn.Module, group: ChannelGroup, generator: torch.Generator) -> Tensor:
    """Return (channels,) uniform draws from 0…1."""
    return torch.rand(group.channels, generator=generator)
