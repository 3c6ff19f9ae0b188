"""A detector and an experiment small enough for tests."""

from __future__ import annotations

from typing import Any

from pruned_perception.training.architecture import Architecture
from pruned_perception.training.experiment import Experiment, experiment_from

SIZE = (96, 128)

ARCHITECTURE = Architecture(
    input_size=SIZE,
    num_classes=3,
    backbone=((16,), (16,), (32, 32), (32,), (32,)),
    neck=32,
    boxes=((32,),) * 3,
    classes=((32,),) * 3,
)


def experiment_data(name: str = 'tiny', **fields: Any) -> dict[str, Any]:
    """Return what an experiment's YAML holds."""
    data = {
        'name': name,
        'data': {'train': 'train', 'validation': 'validation'},
        'architecture': ARCHITECTURE.to_dict(),
        'budget': {'steps': 12},
        'batch': 4,
        'phases': [{'until': 1, 'size': list(SIZE), 'scale': [0.8, 1.25]}],
    }
    data |= fields
    return {key: value for key, value in data.items() if value is not None}


def experiment(name: str = 'tiny', **fields: Any) -> Experiment:
    """Return a small experiment."""
    return experiment_from(experiment_data(name, **fields))
