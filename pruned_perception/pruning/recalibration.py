"""Batch-norm statistics of a pruned network, measured again."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruned_perception.pruning.calibration import Batch, as_inputs

Network = TypeVar('Network', bound=nn.Module)


@torch.no_grad()
def recalibrate(model: Network, calibration: Iterable[Batch]) -> Network:
    """Return a copy of `model` whose batch norms hold the statistics of `calibration`.

    Cutting channels changes the inputs of every later layer; the plain average over the batches
    (no momentum, nothing of the old statistics) puts means and variances right without labels.
    The copy is in the mode of the original.

    Args:
        model: a network with batch norm; one without is copied as it is.
        calibration: batches of inputs.
    """
    adjusted = copy.deepcopy(model)
    norms = [each for each in adjusted.modules() if isinstance(each, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    adjusted.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for batch in calibration:
        adjusted(*as_inputs(batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return adjusted.train(model.training)
