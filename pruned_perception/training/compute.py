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
import os
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor, nn

from pruned_perception.errors import UserError
from pruned_perception.pruning.graph.device import CPU, device_of, mapped, moved
from pruned_perception.training.processes import ALONE, Alone, started_together

Network = TypeVar('Network', bound=nn.Module)


class Compute:
    """A device, a precision, and the processes that compute together.

    The training loop places its networks and batches, surrounds the forward pass and makes the
    gradients through these methods only.

    Args:
        device: by default the one that a network is on.
        precision: of products, torch.float32, bfloat16 or float16. Weights, gradients, norms'
            statistics, and all figures stay float32; float16 has a scaled loss, and gives way to
            bfloat16 or float32 where a loss is too large for it.
        processes: that share out batches; see `processes.joined`.
        workers: how many more processes make batches ahead, of data that can be made by others.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        *,
        precision: torch.dtype = torch.float32,
        processes: Alone = ALONE,
        workers: int = 0,
    ) -> None:
        self.device, self.precision = device, precision
        self.processes, self.workers = processes, workers

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
        if device == CPU:
            return batch
        if device.type != 'cuda':
            return moved(batch, device)
        return mapped(batch, lambda each: each.to(device, non_blocking=True))

    def forward(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of a forward pass: its precision."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast((self.device or CPU).type, self.precision)

    def backward(self, loss: Tensor) -> None:
        """Give the parameters the gradients of a loss."""
        loss.backward()

    def scaler(self) -> torch.amp.GradScaler | None:
        """Return what keeps small gradients from vanishing, where the precision needs that."""
        if self.precision != torch.float16:
            return None
        return torch.amp.GradScaler((self.device or CPU).type)

    @property
    def safer(self) -> Compute:
        """The same in a precision of a wider range than float16."""
        wide = torch.bfloat16 if has_bfloat16(self.device or CPU) else torch.float32
        safer = copy.copy(self)
        safer.precision = wide
        return safer

    def in_precision(self, name: str) -> Compute:
        """Return the same in the precision of that name, of `PRECISIONS`."""
        other = copy.copy(self)
        other.precision = PRECISIONS[name]
        return other

    @property
    def alone(self) -> Compute:
        """The same in this process only."""
        alone = copy.copy(self)
        alone.processes = ALONE
        return alone

    @property
    def channels_last(self) -> bool:
        """Whether that memory format is the one of convolutions' fast kernels: mixed, on a GPU."""
        mixed = self.precision != torch.float32
        return mixed and self.device is not None and self.device.type == 'cuda'


def fastest(device: torch.device | None = None) -> Compute:
    """Return what computes training steps fastest on a device; by default the CPU.

    Where the processor has instructions for products in bfloat16, a step is nearly twice as fast.
    """
    if device is None or device == CPU:
        return Compute(precision=torch.bfloat16 if has_bfloat16(CPU) else torch.float32)
    return Compute(device, precision=find_precision('auto', device))


PRECISIONS = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


def find_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of that name; `auto` is float32 on the CPU, and mixed on a GPU.

    There it is bfloat16, or float16 where the GPU has no bfloat16.
    """
    if name != 'auto':
        return PRECISIONS[name]
    if device.type != 'cuda':
        return torch.float32
    return torch.bfloat16 if has_bfloat16(device) else torch.float16


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for products in bfloat16."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    return any(getattr(torch.cpu, each, lambda: False)() for each in known)


def workers_for(device: torch.device) -> int:
    """Return how many processes are to make batches ahead, unless somebody says otherwise.

    None for the CPU, which is busy with the steps; a GPU waits for what one core can make.
    """
    if device.type == 'cpu':
        return 0
    together = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return max(1, min(MOST_WORKERS, (cores or 1) // together - 1))


MOST_WORKERS = 8
DEVICES = 'auto, cpu, cuda, cuda:N or mps'


def find_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is what there is: a GPU, or else the CPU.

    Raises:
        UserError: there is no such device; the text says what to install, or which there are.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if _mps() else 'cpu'
    kind, _, number = name.partition(':')
    if kind not in ('cpu', 'cuda', 'mps') or (number and (kind != 'cuda' or not number.isdigit())):
        raise UserError(f'--device {name}: there are {DEVICES}')
    if kind == 'mps' and not _mps():
        raise UserError(f'--device {name}: is for macOS on Apple silicon; this machine has none')
    index = int(number or _own_gpu())
    if kind == 'cuda':
        if number and started_together():
            raise UserError(f'--device {name}: several processes have a GPU each; give cuda')
        _check_cuda(name, index)
        # Float32 is to mean that: what decides or certifies must not depend on the device.
        torch.backends.cudnn.allow_tf32 = False
    return torch.device('cpu') if kind == 'cpu' else torch.device(kind, index)


def _own_gpu() -> int:
    """Return the number of this process's GPU: each that torchrun has started has one."""
    return int(os.environ.get('LOCAL_RANK', '0'))


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
