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

from pruned_perception.simulation import warehouse
from pruned_perception.simulation.robot import (
    CAMERA_MOUNT,
    CORRIDOR,
    MAX_LINEAR,
    RADIUS,
    Robot,
    State,
    advance,
    corridor,
    loop,
)
from pruned_perception.simulation.scene import Scene
from pruned_perception.simulation.splits import SPLITS

PERIOD = 1 / 15


@pytest.fixture(scope='module')
def hall() -> Scene:
    return warehouse.build(SPLITS['test'], 0, 0, stock=48, keep_free=corridor)


def drive(robot: Robot, seconds: float, start: float = 0.0) -> np.ndarray:
    times = start + PERIOD * np.arange(round(seconds / PERIOD) + 1)
    states = [robot.step(float(now)) for now in times]
    return np.array([(state.x, state.y, state.yaw) for state in states])


def from_route(points: np.ndarray, scene: Scene) -> np.ndarray:
    return np.linalg.norm(points[:, None, :2] - loop(scene.size)[None], axis=2).min(axis=1)


@given(st.floats(-2, 2), st.floats(-3, 3))
def test_an_arc_equals_many_small_straight_steps(linear: float, angular: float) -> None:
    exact = advance(State(1.0, 2.0, 0.5), linear, angular, 1.0)
    x, y, yaw = 1.0, 2.0, 0.5
    for _ in range(4000):
        x += linear / 4000 * math.cos(yaw + angular / 8000)
        y += linear / 4000 * math.sin(yaw + angular / 8000)
        yaw += angular / 4000
    assert (exact.x, exact.y) == pytest.approx((x, y), abs=1e-5)
    assert math.cos(exact.yaw - yaw) == pytest.approx(1.0)


def test_a_full_circle_returns_to_its_start() -> None:
    end = advance(State(0.0, 0.0, 0.0), 1.0, math.pi / 2, 4.0)
    assert (end.x, end.y) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_the_camera_sits_before_and_above_the_robot() -> None:
    pose = State(1.0, 2.0, math.pi / 2).camera_pose()
    assert pose.position == pytest.approx((1.0, 2.0 + CAMERA_MOUNT.position[0], 0.75))


def test_the_robot_drives_whole_laps_inside_its_corridor(hall: Scene) -> None:
    robot = Robot(hall, speed=1.0)
    length = len(loop(hall.size)) * 0.2
    path = drive(robot, 1.6 * length)
    assert not robot.blocked
    assert (from_route(path, hall) < CORRIDOR - RADIUS + 0.1).all()
    turned = np.unwrap(path[:, 2])
    assert turned[-1] - turned[0] > 2 * math.pi  # at least one lap, counter-clockwise


def test_commands_take_over_while_they_arrive(hall: Scene) -> None:
    robot = Robot(hall)
    drive(robot, 1.0)
    before = robot.state
    for now in np.arange(1.0, 2.0, PERIOD):
        robot.command(0.0, 1.0, float(now))
        robot.step(float(now))
    assert (robot.state.x, robot.state.y) == pytest.approx((before.x, before.y))
    assert robot.state.yaw - before.yaw == pytest.approx(1.0, abs=0.1)


def test_after_the_last_command_the_robot_goes_back_to_its_route(hall: Scene) -> None:
    robot = Robot(hall)
    drive(robot, 2.0)
    for now in np.arange(2.0, 3.5, PERIOD):  # to the left, off the route
        robot.command(0.0 if now < 2.8 else 0.5, 1.8 if now < 2.8 else 0.0, float(now))
        robot.step(float(now))
    path = drive(robot, 20.0, start=3.5)
    assert from_route(path[-1:], hall)[0] < 0.3
    assert math.dist(path[-1][:2], path[0][:2]) > 2.0, 'the robot has stayed behind'


def test_without_a_route_the_robot_stops_after_the_timeout(hall: Scene) -> None:
    robot = Robot(hall, follow_route=False)
    robot.step(0.0)
    robot.command(0.5, 0.0, 0.0)
    path = drive(robot, 3.0)
    driven = math.dist(path[0][:2], path[-1][:2])
    assert driven == pytest.approx(0.5 * robot.command_timeout, abs=0.5 * PERIOD + 1e-6)


def test_walls_and_objects_stop_the_robot(hall: Scene) -> None:
    robot = Robot(hall, follow_route=False)
    now = 0.0
    while now < 60.0:
        robot.command(1.5, 0.0, now)
        robot.step(now)
        now += PERIOD
    assert robot.blocked
    assert abs(robot.state.x) <= hall.size[0] / 2 - RADIUS
    assert abs(robot.state.y) <= hall.size[1] / 2 - RADIUS
    robot.command(0.0, 1.0, now)
    turned = robot.step(now).yaw
    assert robot.step(now + PERIOD).yaw != turned, 'it could not even turn'


@pytest.mark.parametrize(('linear', 'expected'), [(1e9, MAX_LINEAR), (math.nan, 0.0)])
def test_impossible_commands_are_limited(hall: Scene, linear: float, expected: float) -> None:
    robot = Robot(hall, follow_route=False)
    robot.step(0.0)
    robot.command(linear, 0.0, 0.0)
    start = robot.state
    moved = robot.step(PERIOD)
    assert math.dist((start.x, start.y), (moved.x, moved.y)) == pytest.approx(expected * PERIOD)


def test_a_long_pause_is_no_leap(hall: Scene) -> None:
    robot = Robot(hall, speed=1.0)
    robot.step(0.0)
    before = robot.state
    assert robot.step(30.0) == before
