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

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pruned_perception.simulation.ground_truth import VisibleObject, rectangles, silhouette_area
from pruned_perception.simulation.scene import (
    Box,
    Camera,
    Ellipsoid,
    Part,
    Pose,
    SceneObject,
    Surface,
    object_outlines,
)


@given(arrays(np.uint8, (9, 13), elements=st.integers(0, 4)))
def test_rectangles_bound_the_pixels_of_every_number(numbers: np.ndarray) -> None:
    boxes, pixels = rectangles(numbers, 4)
    for number in range(1, 5):
        rows, columns = np.nonzero(numbers == number)
        assert pixels[number - 1] == len(rows)
        if len(rows):
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert tuple(boxes[number - 1]) == expected
        else:
            assert not boxes[number - 1].any()


def silhouette(shape: object, distance: float, camera: Camera) -> float:
    item = SceneObject('it', (Part(shape, Surface()),))  # type: ignore[arg-type]
    return silhouette_area(object_outlines(item), Pose((distance, 0, 0)), camera, Pose())


@pytest.mark.parametrize('distance', [2.0, 5.0, 12.0])
def test_silhouette_of_a_cube_is_its_near_face(distance: float) -> None:
    camera = Camera()
    side = camera.focal / (distance - 0.5)
    assert silhouette(Box((1, 1, 1)), distance, camera) == pytest.approx(side**2, rel=0.03)


def test_silhouette_of_a_sphere_is_a_disc() -> None:
    camera = Camera()
    expected = math.pi * (camera.focal * math.tan(math.asin(0.5 / 5.0))) ** 2
    assert silhouette(Ellipsoid((0.5, 0.5, 0.5)), 5.0, camera) == pytest.approx(expected, rel=0.06)


def test_silhouette_counts_overlapping_parts_once() -> None:
    part = Part(Box((1, 1, 1)), Surface())
    camera = Camera()
    one = object_outlines(SceneObject('one', (part,)))
    two = object_outlines(SceneObject('two', (part, part)))
    pose = Pose((4.0, 0.3, 0.1))
    assert silhouette_area(two, pose, camera, Pose()) == silhouette_area(one, pose, camera, Pose())


@pytest.mark.parametrize(
    ('box', 'visible', 'counts'),
    [
        ((0, 0, 40, 30), 0.9, True),
        ((0, 0, 40, 7), 0.9, False),
        ((0, 0, 40, 30), 0.2, False),
    ],
)
def test_slivers_and_hidden_objects_do_not_count(
    box: tuple[float, float, float, float], visible: float, counts: bool
) -> None:
    assert VisibleObject('it', 0, box, visible).counts is counts
