"""Checkpoints of detectors: tensors and plain data only, read with `weights_only=True`."""

from __future__ import annotations

from typing import Any

from pruned_perception.training.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.network import Detector

__all__ = ['CheckpointError', 'detector_from', 'read_checkpoint', 'save_checkpoint']


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
