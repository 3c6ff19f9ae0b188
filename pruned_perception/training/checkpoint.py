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

"""Checkpoints: tensors and plain data in a file, read without unpickling anything else.

All have `format` and `weights`, a state dict; beside it,

* of a training: `steps`, `cpu_seconds`; `identity` and, unless it is `finished`, `resume`;
* of a pruned network: `plans`, by which it was cut;
* of a detector: its `architecture`, `labels`, `experiment`, `data` and `ancestry`.
"""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.errors import UserError

FORMAT = 2


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another format."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data; an interruption leaves the former file or the new one."""
    with errors_of_writing(path, CheckpointError), replacing(path) as temporary:
        try:
            torch.save({'format': FORMAT, **content}, temporary)
        except RuntimeError as error:  # how PyTorch says that the disk is full
            first = next(iter(str(error).splitlines()), '')
            raise CheckpointError(
                f'{path}: cannot be written; is the disk full? {first}'
            ) from error


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as checkpoints have it: on the CPU, contiguous."""
    return {name: value.cpu().contiguous() for name, value in network.state_dict().items()}


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote; nothing but tensors and plain data is ever loaded.

    Of a file of the former format, the weights and what is said of them; a training cannot go on
    from one.
    """
    path = Path(path)
    try:
        content = load_tensors(path)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path}: no such checkpoint; train it first') from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: not a checkpoint, or damaged: only tensors and plain data are loaded, since '
            'other pickles can run code'
        ) from error
    except OSError as error:
        raise CheckpointError(f'{path}: not a checkpoint, or damaged: {error}') from error
    if not isinstance(content, dict) or content.get('format') not in (1, FORMAT):
        raise CheckpointError(f'{path}: not a checkpoint of format {FORMAT}')
    for former in ('state_dict', 'model'):
        if content['format'] == 1 and former in content:
            content.setdefault('weights', content.pop(former))
    if not isinstance(content.get('weights'), dict):
        raise CheckpointError(f'{path}: not a checkpoint: it has no weights')
    return content


# What PyTorch's readers of old formats raise on files of any other kind, a text for example.
_OF_OTHER_FILES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def load_tensors(path: Path) -> Any:
    """Return what a file of PyTorch's holds, if that is tensors and plain data.

    Raises:
        pickle.UnpicklingError: it is something else, which could run code.
        OSError: no such file, or one that is damaged.
    """
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except _OF_OTHER_FILES as error:
        raise OSError(next(iter(str(error).splitlines()), type(error).__name__)) from error
