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

"""Divergence: nothing where nothing changed, and weight for what is seen alone."""

from __future__ import annotations

import numpy as np
import pytest

from pruned_perception.inference.detections import Candidates
from pruned_perception.inference.divergence import divergence, relative_error


def candidates(*rows: tuple[float, float, float, float, float, int]) -> Candidates:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Candidates(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


SEEN = (0.0, 0.0, 10.0, 10.0, 0.8, 0)
BACKGROUND = (5.0, 5.0, 6.0, 6.0, 1e-4, 1)


def test_the_same_answers_do_not_diverge() -> None:
    same = [candidates(SEEN, BACKGROUND)]
    assert divergence(same, same) == 0


def test_scores_and_overlap_count_alike() -> None:
    parent = [candidates(SEEN)]
    assert divergence(parent, [candidates((0, 0, 10, 10, 0.7, 0))]) == pytest.approx(0.1, abs=1e-6)
    assert divergence(parent, [candidates((0, 0, 10, 9, 0.8, 0))]) == pytest.approx(0.1, abs=1e-6)


def test_another_class_is_no_overlap() -> None:
    assert divergence([candidates(SEEN)], [candidates((0, 0, 10, 10, 0.8, 2))]) == pytest.approx(1)


def test_background_counts_for_nothing() -> None:
    moved = (50.0, 50.0, 60.0, 60.0, 2e-4, 2)
    found = divergence([candidates(SEEN, BACKGROUND)], [candidates(SEEN, moved)])
    assert found < 1e-6


def test_what_is_invented_counts() -> None:
    parent = [candidates((0, 0, 10, 10, 0.0, 0))]
    assert divergence(parent, [candidates(SEEN)]) == pytest.approx(0.8)


def test_networks_that_suppress_by_themselves_are_compared_by_overlap() -> None:
    parent = [candidates(SEEN, (20, 20, 30, 30, 0.5, 1))]
    child = [candidates((1, 0, 11, 10, 0.8, 0), (20, 20, 30, 30, 0.5, 1), (0, 0, 9, 9, 0.8, 2))]
    weights = 0.64 + 0.25
    assert divergence(parent, child) == pytest.approx(0.64 * (1 - 90 / 110) / weights, abs=1e-6)
    assert divergence(parent, [candidates()]) > 1


def test_relative_error_is_relative_to_the_spread() -> None:
    parent = [[np.array([0.0, 2.0], np.float32)]]
    assert relative_error(parent, parent) == 0
    assert relative_error(parent, [[np.array([0.0, 2.2], np.float32)]]) == pytest.approx(
        0.2 / 2**0.5, abs=1e-6
    )
