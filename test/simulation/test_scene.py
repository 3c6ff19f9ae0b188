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

from pruned_perception.simulation.scene import (
    LABELS,
    Box,
    Camera,
    Capsule,
    Cylinder,
    Ellipsoid,
    Frustum,
    Part,
    Pose,
    SceneObject,
    Surface,
    between,
    extents,
    footprint,
    labels,
    outline,
)

ANGLE = st.floats(-math.pi, math.pi)
PLACE = st.floats(-20, 20)


def rotate(quaternion: tuple[float, float, float, float], vector: np.ndarray) -> np.ndarray:
    w, axis = quaternion[0], np.array(quaternion[1:])
    return vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)


def test_labels_are_the_eight_of_the_warehouse_in_order() -> None:
    assert labels() == LABELS
    assert LABELS[0] == 'person' and LABELS[6] == 'fire_extinguisher' and len(LABELS) == 8


@given(st.tuples(ANGLE, ANGLE, ANGLE))
def test_quaternion_and_matrix_are_the_same_rotation(rotation: tuple[float, float, float]) -> None:
    pose = Pose(rotation=rotation)
    vector = np.array([0.3, -1.2, 2.0])
    assert rotate(pose.quaternion(), vector) == pytest.approx(pose.matrix()[:3, :3] @ vector)


def test_rotation_is_roll_pitch_yaw_about_fixed_axes() -> None:
    turned = Pose(rotation=(math.pi / 2, 0.0, math.pi / 2)).matrix()[:3, :3] @ [0.0, 1.0, 0.0]
    assert turned == pytest.approx([0.0, 0.0, 1.0])  # roll lifts y to z; yaw leaves z alone


@given(st.tuples(PLACE, PLACE, PLACE), st.tuples(PLACE, PLACE, PLACE))
def test_between_reaches_from_start_to_end(
    start: tuple[float, float, float], end: tuple[float, float, float]
) -> None:
    length, pose = between(start, end)
    ends = np.array([[0, 0, -length / 2, 1], [0, 0, length / 2, 1]]) @ pose.matrix().T
    assert ends[0, :3] == pytest.approx(start, abs=1e-6)
    assert ends[1, :3] == pytest.approx(end, abs=1e-6)


@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        (Box((1.0, 2.0, 3.0)), (1.0, 2.0, 3.0)),
        (Cylinder(0.5, 2.0), (1.0, 1.0, 2.0)),
        (Capsule(0.5, 2.0), (1.0, 1.0, 3.0)),
        (Ellipsoid((1.0, 2.0, 3.0)), (2.0, 4.0, 6.0)),
        (Frustum(0.5, 0.1, 2.0), (1.0, 1.0, 2.0)),
    ],
)
def test_outline_spans_the_shape(shape: object, size: tuple[float, float, float]) -> None:
    assert np.ptp(outline(shape), axis=0) == pytest.approx(size, rel=0.02)  # type: ignore[arg-type]


def test_camera_projects_what_lies_left_and_above_to_the_upper_left() -> None:
    camera = Camera(640, 480, math.radians(90.0))
    assert camera.focal == pytest.approx(240.0)
    eye = Pose((1.0, 0.0, 0.0))
    points = np.array([[3.0, 0.0, 0.0], [3.0, 1.0, 0.5]])
    assert camera.project(points, eye) == pytest.approx(np.array([[320, 240], [200, 180]]))


def test_camera_projects_in_its_own_frame() -> None:
    camera = Camera()
    eye = Pose((2.0, 1.0, 0.7), (0.0, 0.2, 2.0))
    ahead = (eye.matrix() @ [4.0, 0.0, 0.0, 1.0])[:3]
    assert camera.project(ahead[None], eye)[0] == pytest.approx([320.0, 240.0])


def test_points_behind_the_camera_project_to_finite_places() -> None:
    behind = Camera().project(np.array([[-1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), Pose())
    assert np.isfinite(behind).all()


@given(st.floats(0.2, 4.0), st.floats(0.2, 4.0))
def test_footprint_covers_the_floor_area(length: float, width: float) -> None:
    item = SceneObject('plate', (Part(Box((length, width, 0.1)), Surface()),))
    low, high = extents(item)
    discs = footprint(item)
    grid = np.stack(np.meshgrid(*np.linspace(low[:2], high[:2], 25).T), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(grid[:, None] - discs[None, :, :2], axis=2) - discs[:, 2]
    assert (distance.min(axis=1) <= 1e-9).all()
