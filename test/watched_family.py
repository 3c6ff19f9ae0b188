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

"""A family whose members have certificates that a node can watch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_detector import tiny_onnx, write_tiny_bundle

# Certificates are made by the off-line stage: tests of what uses them skip without it.
pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from pruned_perception.bundle import Bundle, record_evidence
from pruned_perception.datasets.fingerprints import Fingerprints
from pruned_perception.pruning.certificate import certify_counts


def certificate(parent: Bundle, child: Bundle, *, kind: str = 'lost') -> dict[str, Any]:
    """Return one of forty drives of a frame with one object, none of which was lost."""
    n = 40
    return certify_counts(
        {kind: (np.zeros(n, int), np.ones(n, int))},
        clusters=np.arange(n),
        longest={'objects': 1, 'frames': 1},
        holdout=Fingerprints.of((), map(str, range(n))),
        used={},
        record={
            'parent': {'name': parent.name, 'sha256': parent.sha256},
            'child': {'name': child.name, 'sha256': child.sha256},
            'score_threshold': 0.5,
            'iou_threshold': 0.5,
        },
    ).to_dict()


def write_family(folder: Path) -> Path:
    """Write a dense net, `good` that shows the same, and `bad` whose boxes are too small."""
    dense = write_tiny_bundle(folder / 'dense', name='dense', macs=3000)
    parent = {'name': dense.name, 'sha256': dense.sha256}
    good = write_tiny_bundle(folder / 'good', name='good', macs=2000, gain=39.0, parent=parent)
    bad = write_tiny_bundle(
        folder / 'bad', name='bad', macs=1000, onnx=tiny_onnx(scale=0.4), parent=parent
    )
    for child in (good, bad):
        record_evidence(child, 'certificate', certificate(dense, child))
    return folder
