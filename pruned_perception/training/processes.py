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

"""The processes of one training: what they share out, add up and agree on.

PyTorch's own collectives between processes that its own launcher, `torchrun`, has started: gloo
between CPUs, NCCL between GPUs; nothing else is installed or asked. Its `DistributedDataParallel`
is not used: it hears one `forward` alone, while a user's step function may call any part of the
network, and a teacher listens to it. Instead each process computes the gradients of its part of a
batch, and one sum over all of them is every process's gradient.

What depends on the whole batch is computed of the whole batch: batch norms in training mode are
synchronised (those in evaluation mode are frozen, and stay so), and losses that are sums over
something else than examples are divided by `whole_batch`. So the weights are those that one process
would have, up to rounding, and but for random numbers that a step draws by itself.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruned_perception.errors import UserError

T = TypeVar('T')
R = TypeVar('R')

START_S = 60.0  # until all processes have been heard of
SILENCE_S = 60.0  # after which a process, or its machine, counts as lost
BEAT_S = 0.5
GRACE_S = 3.0  # for an orderly end, once another process is lost


class ProcessLostError(UserError):
    """Another process of this training has ended, or is no longer heard."""

    def __init__(self) -> None:
        super().__init__(
            'training: another process of it has ended, or is no longer heard (its own message '
            'says why); the same command goes on from the last checkpoint, if it has a folder'
        )


class Alone:
    """One process: there is nobody to ask."""

    rank, count = 0, 1

    def first(self, function: Callable[[], R]) -> R:
        """Return in all processes what a function returns, or raises, in the first one."""
        return function()

    def total(self, values: Sequence[float]) -> list[float]:
        """Return sums over the processes, in double precision."""
        return list(values)

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return [value]

    def part(self, examples: int) -> slice:
        """Return which of a batch's examples are this process's; sizes differ by one at most."""
        return slice(0, examples)

    def seed(self, seed: int) -> int:
        """Return the seed of this process's own random numbers."""
        return seed

    def forward(self, share: float) -> contextlib.AbstractContextManager[Any]:
        """Return the context of a forward pass of this share of the batch."""
        return contextlib.nullcontext()

    def add_gradients(self, network: nn.Module) -> None:
        """Give each parameter the sum of its gradients in all processes."""


class Together(Alone):
    """One of several processes that were started by `torchrun`; see `joined`."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    def first(self, function: Callable[[], R]) -> R:
        """Return in all processes what a function returns, or raises, in the first one."""
        box: list[Any] = [None, None]
        error: Exception | None = None
        if self.rank == 0:
            try:
                box[0] = function()
            except Exception as raised:
                error, box[1] = raised, str(raised)
        _collective(dist.broadcast_object_list, box, src=0, device=torch.device('cpu'))
        if error is not None:
            raise error
        if box[1] is not None:
            raise UserError(f'process 0: {box[1]}')
        return box[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return sums over the processes, in double precision."""
        sums = torch.tensor(values, dtype=torch.float64)
        _collective(dist.all_reduce, sums)
        return [float(each) for each in sums]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [None] * self.count
        _collective(dist.all_gather_object, values, value)
        return values

    def part(self, examples: int) -> slice:
        """Return which of a batch's examples are this process's; sizes differ by one at most."""
        if examples < self.count:
            raise UserError(
                f'training: a batch of {examples} examples for {self.count} processes; start '
                'fewer, or give larger batches'
            )
        return slice(examples * self.rank // self.count, examples * (self.rank + 1) // self.count)

    def seed(self, seed: int) -> int:
        """Return the seed of this process's own random numbers."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    @contextlib.contextmanager
    def forward(self, share: float) -> Iterator[None]:
        """Synchronise batch norms, and let `whole_batch` know the share."""
        _shares.append(share)
        try:
            with _SynchronisedNorms():
                yield
        finally:
            _shares.pop()

    def add_gradients(self, network: nn.Module) -> None:
        """Give each parameter the sum of its gradients in all processes.

        A parameter that has none in any of them has none afterwards.
        """
        parameters = [each for each in network.parameters() if each.requires_grad]
        kinds = dict.fromkeys((each.dtype, each.device) for each in parameters)
        for kind in kinds:  # in the same order everywhere
            self._add([each for each in parameters if (each.dtype, each.device) == kind])

    def _add(self, parameters: list[nn.Parameter]) -> None:
        like = parameters[0]
        known = like.new_tensor([each.grad is not None for each in parameters])
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([known, *(each.reshape(-1) for each in found)])
        _collective(dist.all_reduce, flat)
        counts, *sums = flat.split([len(parameters), *(each.numel() for each in parameters)])
        for parameter, count, total in zip(parameters, counts.tolist(), sums, strict=True):
            if count == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))


ALONE = Alone()
_here: list[Alone] = [ALONE]
_shares: list[float] = []


def current() -> Alone:
    """Return the processes that this one is one of."""
    return _here[-1]


def started_together() -> bool:
    """Return whether `torchrun` has started this process beside others."""
    return int(os.environ.get('WORLD_SIZE', '1')) > 1


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Alone]:
    """Join the other processes that `torchrun` has started; alone, there is nothing to do.

    Where one of them dies, all others end: by an error where they wait for it, and after a moment
    of grace wherever they are.

    Raises:
        UserError: the others are not there in time, or the device has no collectives.
    """
    if not started_together():
        yield ALONE
        return
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'several processes: on cpu or cuda, not on {device.type}')
    backend = 'cpu:gloo,cuda:nccl' if device.type == 'cuda' else 'gloo'
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=START_S))
        beats = dist.new_group(backend='gloo', timeout=datetime.timedelta(seconds=SILENCE_S))
    except (RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), '')
        raise UserError(
            f'several processes: the others do not answer; was this started by torchrun? {reason}'
        ) from error
    together = Together()
    watch = _Watch(beats, together.count)
    watch.start()
    _here.append(together)
    try:
        yield together
    finally:
        _here.pop()
    watch.leave()  # not after an error: then the others are to notice
    dist.destroy_process_group()


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Compute in this process alone for a while: a function that the others do not call."""
    _here.append(ALONE)
    try:
        yield
    finally:
        _here.pop()


class _Watch(threading.Thread):
    """Hears the others' signs of life, also while the process is busy with something else."""

    def __init__(self, group: Any, count: int) -> None:
        super().__init__(daemon=True)
        self.group, self.count = group, count
        self.leaving = False

    def run(self) -> None:
        try:
            while True:
                beat = torch.tensor([1.0 if self.leaving else 0.0])
                dist.all_reduce(beat, group=self.group)
                if beat.item() == self.count:
                    return
                time.sleep(BEAT_S)
        except RuntimeError:
            time.sleep(GRACE_S)
            print(f'pruned-perception: error: {ProcessLostError()}', file=sys.stderr, flush=True)
            os._exit(1)

    def leave(self) -> None:
        """Wait until all others have come to the end as well."""
        self.leaving = True
        self.join()


def in_parts(items: Iterable[T], function: Callable[[T], R]) -> list[R]:
    """Return a function of each item, in order; processes of one training share the work.

    For `evaluate` and `test` of a task: figures that are computed of these records are exactly
    those of one process. An `evaluate` without it is computed by every process, with the same
    result. All processes must come here, with the same items.

    >>> in_parts([1, 2, 3], str)
    ['1', '2', '3']
    """
    here, items = current(), list(items)
    mine = [function(each) for each in items[here.rank :: here.count]]
    every = here.gathered(mine)
    return [every[index % here.count][index // here.count] for index in range(len(items))]


def whole_batch(value: Tensor, *, least: float) -> Tensor:
    """Return what a loss is divided by that is a sum over something else than examples.

    That is a number, like that of the objects, summed over the batch: `least` or more. Of several
    processes each has a part of the batch, and a loss counts by its share of the examples: what is
    returned makes up for that.

    >>> whole_batch(torch.tensor(0.25), least=1)
    tensor(1.)
    """
    if not _shares:
        return value.clamp(min=least)
    value = value.clone()
    _collective(dist.all_reduce, value)
    return value.clamp(min=least) * _shares[-1]


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        value = value.clone()
        _collective(dist.all_reduce, value)
        return value

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous().clone()
        _collective(dist.all_reduce, gradient)
        return gradient


class _SynchronisedNorms(TorchFunctionMode):
    """Batch norms in training mode normalise by the statistics of the whole batch.

    Wherever the network calls one: modules, and what files say of them, stay as they are. PyTorch's
    `SyncBatchNorm` does the same on GPUs alone.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return `torch.nn.functional.batch_norm`, with the statistics of all processes' inputs."""
    if not training:
        return nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
    others = [n for n in range(x.ndim) if n != 1]
    shape = [-1 if n == 1 else 1 for n in range(x.ndim)]
    values = x.float()
    count = values.new_tensor([x.numel() / x.shape[1]])
    sums = _Sum.apply(torch.cat([values.sum(others), count]))
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(others)) / total
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (total / (total - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    normalised = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(x.dtype)


def _collective(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Do something together with the others; raise ProcessLostError where one of them is gone."""
    try:
        function(*args, **kwargs)
    except RuntimeError as error:
        raise ProcessLostError from error
