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

"""Calibration sets: batches of inputs without labels, checked and fingerprinted as they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import CalibrationRecord

# One batch: the network's positional inputs, the first dimension of each counting the examples. Any
# but the first may be None, where the network takes that.
Batch = Tensor | Sequence[Tensor]


class CheckedBatches:
    """Batches of inputs that are checked and hashed while somebody iterates over them.

    Nothing is kept, so memory does not grow with the set. Iterate once, then ask for `record`.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        example_inputs: Sequence[Tensor],
        *,
        name: str = 'calibration set',
    ) -> None:
        """Take the batches, the network's example inputs, and what to call them in errors."""
        self._batches, self._example, self._name = batches, tuple(example_inputs), name
        self._digest, self._images = hashlib.sha256(), 0

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield each batch as the network's positional inputs.

        Raises:
            PruningError: an input of another shape or type, NaN or infinity, or no batch at all.
        """
        self._digest, self._images = hashlib.sha256(), 0
        for index, batch in enumerate(self._batches):
            inputs = as_inputs(batch)
            self._check(index, inputs)
            if not len(inputs[0]):
                continue
            _update(self._digest, inputs)
            self._images += inputs[0].shape[0]
            yield inputs
        if not self._images:
            raise PruningError(f'{self._name}: empty; give at least one batch of inputs')

    @property
    def record(self) -> CalibrationRecord:
        """Size and hash of what has been iterated over."""
        return CalibrationRecord(self._images, self._digest.hexdigest())

    def _check(self, index: int, inputs: tuple[Tensor, ...]) -> None:
        where = f'{self._name}: batch {index}'
        if len(inputs) != len(self._example):
            raise PruningError(
                f'{where} has {len(inputs)} inputs, the network takes {len(self._example)}'
            )
        if len(sizes := {each.shape[:1] for each in inputs if each is not None}) > 1:
            raise PruningError(f'{where} has inputs with {sorted(map(tuple, sizes))} examples')
        for each, example in zip(inputs, self._example, strict=True):
            if (each is None) != (example is None):
                raise PruningError(f'{where} has None where the example inputs have a tensor')
            if each is None:
                continue
            if each.shape[1:] != example.shape[1:] or each.dtype != example.dtype:
                raise PruningError(
                    f'{where} is {each.dtype} {tuple(each.shape)}, the example input '
                    f'{example.dtype} {tuple(example.shape)}: all but the first dimension must be '
                    'the same'
                )
        check_finite(inputs, where)


def check_finite(inputs: Sequence[Tensor], where: str) -> None:
    """Raise PruningError where there are NaN or infinite values; `where` names the inputs."""
    if not all(torch.isfinite(each).all() for each in inputs if each is not None):
        raise PruningError(f'{where} has values that are NaN or infinite')


def as_inputs(batch: Batch) -> tuple[Tensor, ...]:
    """Return a batch as positional inputs; raise PruningError where it is something else."""
    inputs = (batch,) if isinstance(batch, Tensor) else batch
    if (
        isinstance(inputs, Sequence)
        and inputs
        and isinstance(inputs[0], Tensor)
        and all(each is None or isinstance(each, Tensor) for each in inputs)
    ):
        return tuple(inputs)
    raise PruningError(
        f'a batch must be a tensor or a tuple of tensors, got {type(batch).__name__}; leave '
        'labels out (None may stand for any tensor but the first)'
    )


def fingerprint(batches: Iterable[Batch]) -> str:
    """Return the SHA-256 of the inputs, in their order, whatever the batches' sizes."""
    digest = hashlib.sha256()
    for batch in batches:
        _update(digest, as_inputs(batch))
    return digest.hexdigest()


def _update(digest: Any, inputs: tuple[Tensor, ...]) -> None:
    """Feed example by example, so that the batches' sizes make no difference."""
    for example in zip(*(each for each in inputs if each is not None), strict=True):
        for each in example:
            update_fingerprint(digest, each)


def update_fingerprint(digest: Any, inputs: Tensor) -> None:
    """Feed a tensor's bytes, in row-major order, to a `hashlib` object."""
    # As bytes before NumPy sees them, which has no bfloat16.
    digest.update(inputs.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
