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

"""Batches on their way into a training: drawn, made (ahead, by other processes), shared out."""

from __future__ import annotations

import collections
import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pruned_perception._processes import die_with_parent
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import mapped
from pruned_perception.training.memory import examples
from pruned_perception.training.processes import Alone
from pruned_perception.training.recipe import Recipe

AHEAD = 2
"""Batches per worker that are made before they are needed."""
LIGHT = 2**16
"""Bytes of a tensor that a worker sends as they are: sharing memory takes a connection for each."""


@dataclass(frozen=True)
class Part:
    """A batch, or this process's part of one."""

    batch: Any
    share: float = 1.0
    """Of the batch's examples."""
    cpu_seconds: float = 0.0
    """That another process took to make it."""

    def pin_memory(self) -> Part:
        """Return the part in memory that a GPU copies from by itself; PyTorch's loader asks."""
        return replace(self, batch=mapped(self.batch, Tensor.pin_memory))


class Feed:
    """Endless parts of a task's batches: the same ones, however many workers make them.

    Args:
        batches: what `training` of a task returned, see `Task.training`.
        recipe: that they follow.
        fraction: number of steps → the fraction of the budget that is used up by then.
        processes: among which batches are shared out.
        workers: processes that make batches ahead, of what can `draw` and `make` them.
        pinned: in memory that a GPU copies from by itself.
    """

    def __init__(
        self,
        batches: Iterator[Any],
        recipe: Recipe,
        fraction: Callable[[int], float],
        processes: Alone,
        *,
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        self.batches: Any = batches
        self.recipe, self.fraction, self.processes = recipe, fraction, processes
        self.follows = _follows(batches, recipe)
        self.drawn = hasattr(batches, 'draw')
        self.stateful = hasattr(batches, 'load_state_dict')
        if self.drawn and not (self.stateful and hasattr(batches, 'make')):
            raise PruningError(
                'training: batches that can `draw` need make, state_dict and load_state_dict, too'
            )
        self.workers, self.pinned = workers if self.drawn else 0, pinned
        self.steps = 0
        self.ahead: collections.deque[Any] = collections.deque()
        self.state: Any = None
        self.loader: Iterator[Part] | None = None

    def next(self) -> Part:
        """Return the part of the next batch."""
        if self.workers:
            return self._made_ahead()
        if self.drawn and self.processes.count > 1:
            return _made(self.batches, *self._draw())
        self._follow()
        try:
            batch = next(self.batches)
        except StopIteration:
            raise PruningError(
                'training: the data ended; `training` must go on for ever, epoch after epoch'
            ) from None
        return Part(batch) if self.processes.count == 1 else self._cut(batch)

    def state_dict(self) -> Any:
        """Return the place in the data after the last part; None where the data know of none."""
        if not self.stateful:
            return None
        return self.batches.state_dict() if self.state is None else self.state

    def load_state_dict(self, state: Any, steps: int) -> None:
        """Go on after so many steps, where `state_dict` was called."""
        if state is not None:
            self.batches.load_state_dict(state)
            self.steps = steps
        else:
            for _ in range(steps):
                self.next()

    def close(self) -> None:
        """End the workers."""
        self.loader = None

    def _follow(self) -> None:
        if self.follows:
            self.batches.follow(self.recipe, self.fraction(self.steps))
        self.steps += 1

    def _draw(self) -> tuple[list[Any], float]:
        """Return what this process's part of the next batch is made of, and its share."""
        self._follow()
        drawn = self.batches.draw()
        mine = drawn[self.processes.part(len(drawn))]
        return mine, len(mine) / len(drawn)

    def _cut(self, batch: Any) -> Part:
        """Return this process's part of a batch that every process has."""
        count = examples(batch)
        if not count:
            raise PruningError(
                'several processes: the tensors of a batch have different lengths, so that it '
                'cannot be shared out; give what `training` returns the methods draw and make'
            )
        part = self.processes.part(count)
        mine = mapped(batch, lambda each: each[part])
        return Part(mine, (part.stop - part.start) / count)

    def _made_ahead(self) -> Part:
        if self.loader is None:
            with _one_opencv_thread():
                self.loader = iter(self._loader())
        try:
            part = next(self.loader)
        except RuntimeError as error:
            if 'DataLoader worker' not in str(error):
                raise
            raise PruningError(
                f'training: a process that makes batches died ({error}); is there too little '
                'memory? The same call goes on from the last checkpoint; --workers says how many'
            ) from error
        self.state = self.ahead.popleft()
        return part

    def _loader(self) -> DataLoader[Part]:
        methods = torch.multiprocessing.get_all_start_methods()
        return DataLoader(
            _Making(self.batches),
            sampler=_Drawing(self),  # in this process, in order: workers draw nothing
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.workers,
            prefetch_factor=AHEAD,
            worker_init_fn=functools.partial(_prepare_worker, die_with_parent()),
            pin_memory=self.pinned,
            generator=torch.Generator(),  # else it draws from the training's random numbers
            # Frames are mapped from a file: a fork shares them, a pickle would copy them.
            multiprocessing_context='fork' if 'fork' in methods else None,
        )


class _Drawing:
    """What batches are made of, ahead of the training; each draw's place in the data is kept."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __iter__(self) -> Iterator[tuple[list[Any], float]]:
        while True:
            drawn = self.feed._draw()
            self.feed.ahead.append(self.feed.batches.state_dict())
            yield drawn


class _Making(Dataset[Part]):
    """What was drawn → a part, in a worker."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __getitem__(self, drawn: tuple[list[Any], float]) -> Part:
        part = _made(self.batches, *drawn, counted=True)
        return replace(part, batch=mapped(part.batch, _light))


def _made(batches: Any, drawn: list[Any], share: float, *, counted: bool = False) -> Part:
    began = time.process_time()
    batch = batches.make(drawn)
    return Part(batch, share, time.process_time() - began if counted else 0.0)


def _light(tensor: Tensor) -> Any:
    """Return what arrives as the tensor; where it is light, the bytes go through the pipe."""
    plain = tensor.layout == torch.strided and not (tensor.requires_grad or tensor.is_quantized)
    return _Bytes(tensor) if plain and 0 < tensor.nbytes <= LIGHT else tensor


class _Bytes:
    """A tensor that is pickled by value, and is one again where it arrives."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> Any:
        data = self.tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return _from_bytes, (data, self.tensor.dtype, tuple(self.tensor.shape))


def _from_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _as_it_is(part: Any) -> Any:
    return part


def _prepare_worker(die: Callable[[], None] | None, number: int) -> None:
    """Let Ctrl-C reach the training alone; the worker ends with it, however that may end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if die is not None:
        die()


@contextlib.contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Let workers be forked while OpenCV has no threads: they would wait for copies of them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _follows(batches: Any, recipe: Recipe) -> bool:
    """Return whether the batches follow a recipe; raise PruningError where they would have to."""
    if not hasattr(batches, 'follow'):
        if recipe.batch is not None or recipe.phases:
            raise PruningError(
                'batch, phases: the batches of the task are as they are; give what `training` '
                'returns a method follow(recipe, fraction) that is called before each'
            )
        return False
    if not hasattr(batches, 'load_state_dict'):
        raise PruningError(
            'training: batches that follow a recipe need state_dict and load_state_dict, too'
        )
    return True
