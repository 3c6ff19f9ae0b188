"""SNIP: keep the weights whose removal would change the loss most, to first order.

Removing w means multiplying it by c = 0 instead of 1; |∂L/∂c| at c = 1 is |w · ∂L/∂w|.
Source: Lee et al., SNIP: single-shot network pruning based on connection sensitivity (ICLR 2019).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from pruned_perception.pruning.contributions import Layer
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.sparsity.selection import Choice, Request, keep_highest


def choose(model: nn.Module, layers: Mapping[str, Layer], request: Request) -> Choice:
    """Keep the largest |w · ∂L/∂w|, L the sum of the loss over the calibration batches.

    Gradients are taken on a copy in evaluation mode, so that batch norms stay as they are.

    Raises:
        PruningError: no loss or no batches were given, or a layer has no finite gradient.
    """
    if request.loss is None:
        raise PruningError('snip looks at gradients: give `loss`, (model, batch) → scalar')
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    probe.zero_grad(set_to_none=True)
    with torch.enable_grad():
        for batch in request.batches('snip'):
            request.loss(probe, batch).backward()
    scores = {}
    for name, layer in layers.items():
        gradient = probe.get_parameter(f'{name}.weight').grad
        if gradient is None or not gradient.isfinite().all():
            raise PruningError(
                f'{name}: the loss has no finite gradient there; mend the loss, or name the layer '
                'in `keep`'
            )
        scores[name] = (layer.weight.detach() * gradient).abs()
    return Choice(keep_highest(layers, scores, request))
