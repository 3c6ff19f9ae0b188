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

"""What is offered where pruning does not pay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pruned_perception.bundle import load_bundle
from pruned_perception.inference.detector import Detector
from pruned_perception.optimize.alternatives import at_lower_resolution

TENTH = Path(__file__).resolve().parents[2] / 'models' / 'warehouse' / 'tenth'


def test_sizes_that_the_exporter_wrote_down_follow_a_lower_resolution(tmp_path):
    parent = load_bundle(TENTH)
    smaller = at_lower_resolution(parent, tmp_path, share=0.5)
    assert smaller is not None
    assert (smaller.input.height, smaller.input.width) == (128, 192)
    assert smaller.cost.macs < 0.3 * parent.cost.macs
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    (outputs,) = Detector(smaller).outputs(picture)
    assert outputs.shape[1] == sum((128 // s) * (192 // s) for s in (8, 16, 32))


def test_a_graph_that_is_bound_to_its_size_has_no_lower_resolution(place, tmp_path):
    assert at_lower_resolution(load_bundle(place.dense), tmp_path) is None
