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

"""The reference picture is the same everywhere, and what is compared is spread over outputs."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

from pruned_perception.inference.reference import (
    VALUES,
    deviations,
    packed,
    reference_picture,
    sampled,
)

DIGEST = '5580515caa09616881658a2774bfcd12e7c668c773c5d05478836386d6d1370b'


def test_the_picture_is_the_same_on_every_machine() -> None:
    picture = reference_picture(96, 128)
    assert picture.shape == (96, 128, 3)
    assert picture.std() > 40
    assert hashlib.sha256(picture.tobytes()).hexdigest() == DIGEST


def test_values_are_from_all_over_an_output() -> None:
    output = np.arange(10 * VALUES, dtype=np.float32).reshape(1, -1, 10)
    found = sampled(output)
    assert len(found) == VALUES
    assert found[0] == 0
    assert found[-1] >= output.max() - 10
    assert len(sampled(np.zeros((1, 3)))) == 3


def test_deviations_are_root_means_of_squares() -> None:
    check = [{'values': packed(np.array([1, 2], np.float32)), 'tolerance': 0.5}]
    assert deviations(check, [np.array([[1.0, 4.0]])]) == [(pytest.approx(2**0.5), 0.5)]


def test_other_shapes_are_said() -> None:
    check = [{'values': base64.b64encode(bytes(8)).decode(), 'tolerance': 0.5}]
    with pytest.raises(ValueError, match='2 values are recorded, the output has 3'):
        deviations(check, [np.zeros(3)])
    with pytest.raises(ValueError, match='1 outputs are recorded, the network has 2'):
        deviations(check, [np.zeros(2), np.zeros(2)])
