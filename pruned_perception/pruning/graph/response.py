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

"""Global response norm, which divides by a mean over channels and can be cut all the same.

x + γ x n + β with n_c = ‖x_c‖ / (mean over channels of ‖x‖ + ε), norms over positions: Woo et al.,
ConvNeXt V2 (CVPR 2023), there behind the wide layer of every block. Channels that are zero at its
input add nothing to the sum in that mean: with k of c channels left, γ and ε times c / k make the
same of the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_EPS = 1e-6  # where a module does not say


@torch.no_grad()
def response_axis(module: nn.Module) -> int | None:
    """Return the axis of channels, −3 or −1, if a module is a global response norm.

    It is told by what it computes: definitions differ, and none is PyTorch's.
    """
    own = dict(module.named_parameters(recurse=False))
    if own.keys() != {'weight', 'bias'} or next(module.children(), None) is not None:
        return None
    weight, bias = own['weight'], own['bias']
    channels = weight.numel()
    if channels < 2 or weight.shape != bias.shape or max(weight.shape) != channels:
        return None
    generator = torch.Generator().manual_seed(0)
    for axis, shape in ((-3, (1, channels, 2, 3)), (-1, (1, 2, 3, channels))):
        x = torch.rand(shape, generator=generator).to(weight)
        wide = [channels if each == axis % 4 else 1 for each in range(4)]
        norms = x.norm(dim=[each for each in (1, 2, 3) if each != axis % 4], keepdim=True)
        shares = norms / (norms.mean(axis, keepdim=True) + getattr(module, 'eps', _EPS))
        wanted = x + weight.reshape(wide) * x * shares + bias.reshape(wide)
        try:
            found = module(x)
        except Exception:  # whatever it is, it is none
            continue
        same = isinstance(found, Tensor) and found.shape == x.shape
        # Of weights that are zero, as before training, nothing shows; then it is let alone.
        if same and weight.any() and torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
            return axis
    return None


@torch.no_grad()
def keep_response(module: Any, before: int, left: int) -> None:
    """Let a norm of which `left` of `before` channels are left compute what it did with zeros."""
    module.weight.mul_(before / left)
    if hasattr(module, 'eps'):
        module.eps *= before / left
