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

"""Checkpoints of detectors: what they say of the net and of where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruned_perception.datasets import Dataset
from pruned_perception.datasets.fingerprints import SEEN, Fingerprints, fingerprints
from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.checkpoint import CheckpointError
from pruned_perception.training.detector.architecture import Architecture
from pruned_perception.training.detector.network import Detector

PRETRAINED_KEY = 'pretrained'
"""Of an ancestry: the weights that others trained, and that its first net started from."""


def detector_from(content: Mapping[str, Any], path: object = 'checkpoint') -> Detector:
    """Return the detector (averaged weights) of a checkpoint, in eval mode.

    The net is rebuilt from its widths, whatever surgery made them.
    """
    try:
        model = Detector(Architecture.from_dict(content['architecture']))
        model.load_state_dict(content['weights'])
    except (KeyError, TypeError, RuntimeError, PruningError) as error:
        raise CheckpointError(
            f'{path}: the weights do not fit the architecture: {error}'
        ) from error
    return model.eval()


def total_cpu_seconds(content: Mapping[str, Any]) -> float:
    """Return the CPU time of a checkpoint's training and of its whole ancestry."""
    return content['cpu_seconds'] + content['ancestry'].get('cpu_seconds', 0.0)


def plans_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plans by which a checkpoint's net was made of its dense ancestor, in order."""
    ancestry = content['ancestry']
    plans = [*ancestry.get('earlier_plans', ()), ancestry.get('plan')]
    return [each for each in plans if each is not None]


def seen(parent: Mapping[str, Any], **sets: Dataset) -> dict[str, Any]:
    """Return, by name, the record of all that a net and its ancestors were fitted or chosen on.

    Args:
        parent: a checkpoint, or nothing.
            An old one, without such a record, leaves an entry of which nothing is known.
        sets: by name ('training', 'validation', 'calibration'), what the net itself has seen.

    Raises:
        DataError: a picture is missing or broken.
    """
    recorded = dict(parent.get(SEEN, {'earlier training': None} if parent else {}))
    for name, notes in sets.items():
        former = recorded.get(name)
        found = fingerprints(notes)
        recorded[name] = (
            found if former is None else found | Fingerprints.from_dict(former)
        ).to_dict()
    return recorded


def descent(parent: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ancestry of a net that was made of a checkpoint's by a plan."""
    started = parent['ancestry'].get(PRETRAINED_KEY)
    return ({} if started is None else {PRETRAINED_KEY: started}) | {
        'plan': plan,
        'earlier_plans': plans_of(parent),
        'cpu_seconds': total_cpu_seconds(parent),
    }
