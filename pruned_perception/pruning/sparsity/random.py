"""Random weights: with another method's counts per layer, the control for its choice."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.sparsity.selection import Choice, Request, keep_highest


def choose(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep weights uniformly at random."""
    scores = {
        name: torch.rand(layer.weight.shape, generator=request.generator)
        for name, layer in layers.items()
    }
    return Choice(keep_highest(layers, scores, request))
