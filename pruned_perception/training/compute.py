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

"""Where a training computes: the one place that chooses devices, precision and processes."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor, nn

from pruned_perception.errors import UserError
from pruned_perception.pruning.graph.device import CPU, device_of, moved

Network = TypeVar('Network', bound=nn.Module)


class Compute:
    """A device, float32, this process alone.

    The training loop places its networks and batches, surrounds the forward pass and makes the
    gradients through these methods only.

    Args:
        device: by default the one that a network is on.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def copy(self, network: Network) -> Network:
        """Return a copy of a network, where it is to compute."""
        copied = copy.deepcopy(network)
        return copied if self.device is None else copied.to(self.device)

    def placed(self, network: Network) -> Network:
        """Return a network to be judged: itself, or a copy where it is to compute."""
        here = self.device is None or self.device == device_of(network)
        return network if here else self.copy(network)

    def batch(self, batch: Any, network: nn.Module) -> Any:
        """Return a batch of a task's, where the network is."""
        device = device_of(network)
        return batch if device == CPU else moved(batch, device)

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


DEVICES = 'auto, cpu, cuda, cuda:N or mps'


def find_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is what there is: a GPU, or else the CPU.

    Raises:
        UserError: there is no such device; the text says what to install, or which there are.
    """
    kind, _, number = name.partition(':')
    if name == 'auto':
        kind = 'cuda' if torch.cuda.is_available() else 'mps' if _mps() else 'cpu'
        return torch.device('cpu') if kind == 'cpu' else torch.device(kind, 0)
    if kind not in ('cpu', 'cuda', 'mps') or (number and (kind != 'cuda' or not number.isdigit())):
        raise UserError(f'--device {name}: there are {DEVICES}')
    if kind == 'mps' and not _mps():
        raise UserError(f'--device {name}: is for macOS on Apple silicon; this machine has none')
    if kind == 'cuda':
        _check_cuda(name, int(number or 0))
    return torch.device('cpu') if kind == 'cpu' else torch.device(kind, int(number or 0))


def _mps() -> bool:
    return torch.backends.mps.is_available()


def _check_cuda(name: str, number: int) -> None:
    version = torch.__version__.partition('+')[0]
    if torch.version.cuda is None and torch.version.hip is None:
        raise UserError(
            f'--device {name}: PyTorch {torch.__version__} is built for the CPU alone: '
            f'pip install --force-reinstall torch=={version} '
            '--index-url https://download.pytorch.org/whl/cu130'
        )
    if not torch.cuda.is_available():
        raise UserError(
            f'--device {name}: PyTorch finds no GPU; does nvidia-smi show one, with a driver for '
            f'CUDA {torch.version.cuda}?'
        )
    if number >= (count := torch.cuda.device_count()):
        there = ', '.join(f'cuda:{each}' for each in range(count))
        raise UserError(f'--device {name}: is not there; there is {there}')


def use_one_thread(threads: int = 1) -> None:
    """Prepare this process for training beside others.

    One thread: a small net gains little from more, and CPU time is what is counted. Denormal
    numbers are flushed to zero; they slow every product that they are part of.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
