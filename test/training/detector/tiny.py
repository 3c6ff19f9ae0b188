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

"""A detector and an experiment small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapes

from pruned_perception.bundle import Bundle
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.experiment import Experiment, experiment_from
from pruned_perception.training.detector.export import export_bundle
from pruned_perception.training.detector.network import Detector

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


def bundle(
    detector: Detector,
    images: np.ndarray,
    folder: Path,
    *,
    parent: Bundle | None = None,
    plan: dict[str, Any] | None = None,
) -> Bundle:
    """Export a detector of shapes as if a run of three steps and a second had trained it."""
    content = {
        'labels': list(shapes.LABELS),
        'experiment': experiment().to_dict(),
        'architecture': detector.architecture.to_dict(),
        'data': {'train': 'abc', 'frames': 1},
        'steps': 3,
        'cpu_seconds': 1.0,
        'ancestry': {} if plan is None else {'plan': plan, 'cpu_seconds': 2.0},
    }
    return export_bundle(
        content, detector, images, folder, name=folder.name, parent=parent, provenance={}
    )
