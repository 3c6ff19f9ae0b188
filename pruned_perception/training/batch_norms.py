# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Batch norms put back where export has folded them into the convolutions.

A folded convolution with weights w and bias b does not say what its batch norm was, and need not:
for any mean μ and variance σ² of its outputs without bias, and any scale c,

    weights c·w, running statistics c·μ and c²σ², scale √(c²σ² + ε)/c, shift b + μ

compute the same in eval mode. With μ and σ² measured on images, a training step starts from the
same outputs as well, since those are the statistics that its batches have; scale and shift are
then those of the lost batch norm, up to the choice of images. c is arbitrary (what follows a
batch norm does not depend on it), but a learning rate acts relative to the size of the weights:
each layer's get the size that they have in an untrained net (He et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from pruned_perception.errors import UserError
from pruned_perception.pruning.calibration import Batch, as_inputs
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.graph.observation import observed, run

Convolution = nn.Conv2d | nn.ConvTranspose2d


@torch.no_grad()
def norm_after(
    conv: Convolution, mean: Tensor, variance: Tensor, momentum: float | None = 0.1
) -> nn.BatchNorm2d:
    """Split a convolution into one without bias, in place, and the batch norm that is returned.

    Args:
        conv: loses its bias; its weights get the size of fresh ones.
        mean: (channels,) of its outputs without bias.
        variance: (channels,) of its outputs.
        momentum: of the batch norm's running statistics.
    """
    weight = conv.weight
    norm = nn.BatchNorm2d(
        conv.out_channels, momentum=momentum, device=weight.device, dtype=weight.dtype
    ).eval()
    size = conv.weight.square().mean().sqrt()
    scale = _fresh_size(conv) / size.clamp(min=1e-12)
    conv.weight.mul_(scale)
    mean, variance = mean.to(weight), variance.to(weight)
    norm.running_mean = scale * mean
    norm.running_var = scale.square() * variance
    norm.weight.copy_((norm.running_var + norm.eps).sqrt() / scale)
    norm.bias.copy_(mean if conv.bias is None else conv.bias + mean)
    conv.bias = None
    return norm


def _fresh_size(conv: Convolution) -> float:
    """Return the root mean square of the layer's weights before any training."""
    return math.sqrt(2 * conv.groups / (conv.out_channels * conv.weight[0, 0].numel()))


def convolution_statistics(
    model: nn.Module, names: Collection[str], calibration: Iterable[Batch]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean (without bias) and variance (channels,) of the named convolutions' outputs.

    The network runs where it is; the sums are made, and returned, on the CPU.

    Raises:
        UserError: there are no images.
    """
    biases = {name: getattr(model.get_submodule(name), 'bias', None) for name in names}
    counts: dict[str, int] = {}
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        variance, mean = torch.var_mean(output, dim=(0, 2, 3), correction=0)
        mean = mean.to(CPU).double()
        if (bias := biases[name]) is not None:
            mean -= bias.detach().to(CPU).double()
        count = output[:, 0].numel()
        counts[name] = counts.get(name, 0) + count
        sums[name] = sums.get(name, 0) + count * mean
        squares[name] = squares.get(name, 0) + count * (variance.to(CPU) + mean.square())

    with observed(model, names, observe):
        run(model, (as_inputs(batch) for batch in calibration))
    if names and not counts:
        raise UserError('calibration: there are no images')
    found = {}
    for name, count in counts.items():
        mean = sums[name] / count
        variance = (squares[name] / count - mean.square()).clamp(min=0)
        found[name] = (mean.float(), variance.float())
    return found
