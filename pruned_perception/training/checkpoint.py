"""Checkpoints: tensors and plain data in a file, read without unpickling anything else."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.errors import UserError

FORMAT = 1


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another format."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data; an interruption leaves the former file or the new one."""
    with errors_of_writing(path, CheckpointError), replacing(path) as temporary:
        torch.save({'format': FORMAT, **content}, temporary)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote; nothing but tensors and plain data is ever loaded."""
    path = Path(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path}: no such checkpoint; train it first') from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: not a checkpoint, or damaged: only tensors and plain data are loaded, since '
            'other pickles can run code'
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f'{path}: not a checkpoint, or damaged: {first}') from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise CheckpointError(f'{path}: not a checkpoint of format {FORMAT}')
    return content
