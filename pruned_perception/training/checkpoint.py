"""Checkpoints: tensors and plain data only, read with `weights_only=True`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from pruned_perception.errors import UserError
from pruned_perception.training.architecture import Architecture
from pruned_perception.training.detector import Detector

FORMAT = 1


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of another format."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that an interruption leaves the former file or the new one."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({'format': FORMAT, **content}, temporary)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be written: {error.strerror}') from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote; nothing but tensors and plain data is ever loaded."""
    path = Path(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f'{path}: no such checkpoint; train it first') from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(
            f'{path}: not a checkpoint, or damaged: {_first_line(error)}'
        ) from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise CheckpointError(f'{path}: not a checkpoint of format {FORMAT}')
    return content


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def detector_from(content: dict[str, Any], path: object = 'checkpoint') -> Detector:
    """Return the detector (averaged weights) of a checkpoint, in eval mode.

    The net is rebuilt from its widths, whatever surgery made them.
    """
    try:
        model = Detector(Architecture.from_dict(content['architecture']))
        model.load_state_dict(content['weights'])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f'{path}: the weights do not fit the architecture: {error}'
        ) from error
    return model.eval()
