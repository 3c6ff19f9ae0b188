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


"""Whether pictures are prepared as a network wants them: what a few of them tell."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_detector import square_image

from pruned_perception.bundle import Bundle
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.picture_check import Trial, _found_again, doubt, trials


def found(boxes: list[list[float]], scores: list[float], class_ids: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
        np.array(class_ids, int),
    )  # fmt: skip


def test_what_is_at_the_mirrored_place_is_found_again() -> None:
    one = found([[10, 0, 30, 20], [50, 0, 60, 10], [0, 50, 20, 70]], [0.9, 0.8, 0.7], [0, 1, 2])
    other = found([[70, 0, 90, 20], [40, 0, 50, 10], [0, 50, 20, 70]], [0.5, 0.8, 0.7], [0, 0, 2])
    # The first, as sure as the less sure of both; another class; not mirrored.
    assert _found_again(one, other, 100) == pytest.approx(0.5)
    assert _found_again(one, found([], [], []), 100) == 0.0


def trial(options: str, scores: float, again: float, pictures: int = 8) -> Trial:
    return Trial(options, pictures, 9, scores, again, ())


def test_a_saturated_network_is_not_taken_for_a_good_one() -> None:
    own = trial('', 20.0, 17.0)
    assert doubt([own, trial('--std 1 1 1', 60.0, 26.0)]) is None  # sure of anything
    warning = doubt([own, trial('--std 1 1 1', 40.0, 36.0), trial('--color bgr', 45.0, 41.0)])
    assert warning is not None
    assert 'with --color bgr' in warning
    assert 'few pictures' not in warning


def test_a_little_better_is_no_reason_to_warn_and_of_few_pictures_it_is_said() -> None:
    own = trial('', 2.0, 1.8, pictures=2)
    assert doubt([own, trial('--color bgr', 2.4, 2.2, pictures=2)]) is None
    warning = doubt([trial('', 0.0, 0.0, pictures=2), trial('--color bgr', 2.4, 2.2, pictures=2)])
    assert warning is not None
    assert 'few pictures say little' in warning


def test_each_way_is_tried_once_and_a_graph_of_bytes_scales_by_itself(tiny_bundle: Bundle) -> None:
    image = square_image('blue', left=200, top=160, side=120)
    results = trials(tiny_bundle, [(image, 'rgb'), (image, 'rgb')])
    assert [each.options for each in results] == ['', '--color bgr', '--resize letterbox']
    assert results[0].detections == 2
    assert results[0].share == pytest.approx(1.0, abs=1e-3)
    assert results[0].best[0][0] == 2
    assert results[1].best[0][0] == 0
