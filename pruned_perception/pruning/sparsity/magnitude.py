"""Weight magnitude: keep the weights that are largest in absolute value.

Sources: Han et al., Learning both weights and connections (NeurIPS 2015); with one threshold for
the whole network Renda et al., Comparing rewinding and fine-tuning (ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.sparsity.selection import Choice, Request, keep_highest


def choose(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep the largest |w|."""
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    return Choice(keep_highest(layers, scores, request))
