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

"""A differential-drive robot on a hall's floor: kinematics, a closed route, velocity commands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pruned_perception.simulation.scene import Array, Pose, Scene, footprint
from pruned_perception.simulation.splits import SPLITS
from pruned_perception.simulation.warehouse import FloorPlan, build, floor_plan, placed

STOCK = 48  # labelled objects in the hall
HALLS = 6  # seed of the robot's halls; no data set of the project is made from it
RADIUS = 0.3  # of the robot's round body, metres
CORRIDOR = 0.55  # half the width of what is kept free along the route, metres
CAMERA_MOUNT = Pose((0.15, 0.0, 0.75), (0.0, 0.08, 0.0))  # in the robot's frame
MAX_LINEAR, MAX_ANGULAR = 1.5, 2.0  # m/s, rad/s
LOOK_AHEAD = 0.6  # metres between the robot and the point that it steers for
LONGEST_STEP = 0.5  # seconds; after a longer pause the robot has not moved on


@dataclass(frozen=True)
class State:
    """Place and heading on the floor: metres and radians."""

    x: float
    y: float
    yaw: float

    def camera_pose(self) -> Pose:
        """Return the pose of the robot's camera in the hall."""
        x, y, z = CAMERA_MOUNT.position
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        roll, pitch, yaw = CAMERA_MOUNT.rotation
        return Pose(
            (self.x + cos * x - sin * y, self.y + sin * x + cos * y, z),
            (roll, pitch, self.yaw + yaw),
        )


def loop(size: tuple[float, float], spacing: float = 0.2) -> Array:
    """Return a closed route, points of shape (N, 2), for a hall of the given length and width.

    A rounded rectangle half as long and wide as the hall, counter-clockwise.
    """
    half = np.asarray(size) / 4
    radius = float(min(1.5, half.min()))
    corners = []
    for index, (sx, sy) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        angles = np.linspace(0, math.pi / 2, 12) + index * math.pi / 2
        centre = (half - radius) * (sx, sy)
        corners.append(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return spaced(np.concatenate(corners), spacing)


def spaced(route: Array, spacing: float = 0.2) -> Array:
    """Return a closed route, points of shape (N, 2), as points about `spacing` metres apart."""
    outline = np.concatenate([route, route[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    places = np.linspace(0, along[-1], max(8, round(along[-1] / spacing)), endpoint=False)
    return np.stack([np.interp(places, along, outline[:, k]) for k in (0, 1)], axis=1)


def corridor(size: tuple[float, float]) -> Array:
    """Return the floor, as discs x, y, radius of shape (N, 3), to be kept free for `loop`."""
    route = loop(size)
    return np.column_stack([route, np.full(len(route), CORRIDOR)])


def build_scene(seed: int) -> Scene:
    """Return the robot's hall: one of the test split's, with a free corridor for the route."""
    return build(SPLITS['test'], HALLS, seed, stock=STOCK, keep_free=corridor)


def advance(state: State, linear: float, angular: float, duration: float) -> State:
    """Return the state after driving at constant speeds (m/s, rad/s): an exact arc."""
    turn = angular * duration
    # sinc keeps the chord of the arc exact through turn = 0.
    chord = linear * duration * float(np.sinc(turn / (2 * math.pi)))
    heading = state.yaw + turn / 2
    yaw = (state.yaw + turn + math.pi) % (2 * math.pi) - math.pi
    return State(state.x + chord * math.cos(heading), state.y + chord * math.sin(heading), yaw)


def steer(state: State, target: tuple[float, float], speed: float) -> tuple[float, float]:
    """Return the linear and angular speed that lead towards a point; slower while turning."""
    bearing = math.atan2(target[1] - state.y, target[0] - state.x)
    error = (bearing - state.yaw + math.pi) % (2 * math.pi) - math.pi
    angular = min(max(2.0 * error, -MAX_ANGULAR), MAX_ANGULAR)
    return speed * max(0.0, math.cos(error)) ** 2, angular


def ahead(route: Array, here: tuple[float, float], index: int) -> int:
    """Return the next point of a closed route, from `index` on, that is `LOOK_AHEAD` away."""
    for _ in range(len(route)):
        if math.dist(here, route[index]) > LOOK_AHEAD:
            break
        index = (index + 1) % len(route)
    return index


class Robot:
    """Drives the route, or as commanded while commands arrive; objects and walls stop it.

    After the last command it goes back the way it came, and on along the route. Times are seconds
    of any monotonic clock.
    """

    def __init__(self, scene: Scene, *, speed: float = 0.6, follow_route: bool = True) -> None:
        self.speed = speed
        self.follow_route = follow_route
        self.command_timeout = 0.5
        self.blocked = False
        self._route = loop(scene.size)
        self._floor = _obstacles(scene)
        ahead = self._route[1] - self._route[0]
        x, y = self._route[0]
        self.state = State(float(x), float(y), math.atan2(ahead[1], ahead[0]))
        self._next = 1
        self._trail: list[tuple[float, float]] = []
        self._command = (0.0, 0.0)
        self._commanded_at = -math.inf
        self._now: float | None = None

    def command(self, linear: float, angular: float, now: float) -> None:
        """Drive at these speeds (m/s, rad/s) for the next `command_timeout` seconds.

        Speeds beyond the robot's are limited; a command that is not finite is a stop.
        """
        if not (math.isfinite(linear) and math.isfinite(angular)):
            linear = angular = 0.0
        self._command = (
            min(max(linear, -MAX_LINEAR), MAX_LINEAR),
            min(max(angular, -MAX_ANGULAR), MAX_ANGULAR),
        )
        self._commanded_at = now

    def step(self, now: float) -> State:
        """Move on to the time `now` and return the state there."""
        duration = 0.0 if self._now is None else now - self._now
        self._now = now
        if not 0.0 < duration <= LONGEST_STEP:
            return self.state
        commanded = now - self._commanded_at <= self.command_timeout
        if commanded:
            self._mark_trail()
            linear, angular = self._command
        elif self.follow_route:
            linear, angular = steer(self.state, self._target(), self.speed)
        else:
            return self.state
        moved = advance(self.state, linear, angular, duration)
        here = np.array([[moved.x, moved.y, RADIUS]])
        self.blocked = not self._floor.free(here, margin=0.0)
        if self.blocked:  # it can still turn on the spot, and so get away
            moved = State(self.state.x, self.state.y, moved.yaw)
        self.state = moved
        return self.state

    def _mark_trail(self) -> None:
        """Remember the way back to the route."""
        here = (self.state.x, self.state.y)
        if not self._trail or math.dist(here, self._trail[-1]) > 0.2:
            self._trail.append(here)

    def _target(self) -> tuple[float, float]:
        here = (self.state.x, self.state.y)
        while self._trail:
            if math.dist(here, self._trail[-1]) > 0.1:
                return self._trail[-1]
            self._trail.pop()
        self._next = ahead(self._route, here, self._next)
        x, y = self._route[self._next]
        return float(x), float(y)


def _obstacles(scene: Scene) -> FloorPlan:
    """Return the floor plan of everything that stands in the hall."""
    plan = floor_plan(scene)
    for item in scene.objects:
        x, y, _ = item.pose.position
        plan.take(placed(footprint(item), x, y, item.pose.rotation[2]))
    return plan
