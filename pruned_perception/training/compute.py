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

"""Where a training computes: the one place that knows of devices, precision and processes."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor, nn

Network = TypeVar('Network', bound=nn.Module)


class Compute:
    """The CPU, float32, this process alone.

    The training loop places its networks and batches, surrounds the forward pass and makes the
    gradients through these methods only.
    """

    def network(self, network: Network) -> Network:
        """Return the network, where it is to compute."""
        return network

    def batch(self, batch: Any) -> Any:
        """Return a batch of a task's, where the network is."""
        return batch

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of a forward pass: its precision."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Give the parameters their gradients, the same ones in all processes."""
        loss.backward()


class BrainFloats(Compute):
    """The CPU in mixed precision: products in bfloat16.

    Where the processor has instructions for it, a step is nearly twice as fast. Weights,
    gradients and norms' statistics stay float32.
    """

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of a forward pass: its precision."""
        return torch.autocast('cpu', torch.bfloat16)


def fastest() -> Compute:
    """Return what computes training steps fastest on this machine."""
    known = (
        getattr(torch.cpu, name, lambda: False)()
        for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    )
    return BrainFloats() if any(known) else Compute()


def use_one_thread(threads: int = 1) -> None:
    """Prepare this process for training beside others.

    One thread: a small net gains little from more, and CPU time is what is counted. Denormal
    numbers are flushed to zero; they slow every product that they are part of.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
