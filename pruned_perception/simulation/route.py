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

"""A closed route in a file, and how a robot follows it from the poses that it is told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pruned_perception.errors import UserError
from pruned_perception.simulation.robot import LOOK_AHEAD, State, ahead, spaced, steer
from pruned_perception.simulation.scene import Array

LOST = 3 * LOOK_AHEAD
"""Farther than this from the point it steers for, a robot was put elsewhere: metres."""


def route_text(route: Array) -> bytes:
    """Return a route, points of shape (N, 2), as a file: x,y in metres a line."""
    return ''.join(f'{x:.3f},{y:.3f}\n' for x, y in route.tolist()).encode()


def read_route(path: Path) -> Array:
    """Return the points of a closed route, shape (N, 2); raises UserError naming file and line."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else 'not a text file'
        raise UserError(f'cannot read the route {path}: {reason}') from error
    points = []
    for number, line in enumerate(lines, 1):
        try:
            x, y = (float(word) for word in line.split(','))
        except ValueError:
            x = math.nan
        if not (math.isfinite(x) and math.isfinite(y)):
            raise UserError(f'{path}, line {number}: {line!r} is not a point x,y in metres')
        points.append((x, y))
    if len(points) < 3:
        raise UserError(f'{path} has {len(points)} points: a closed route needs three')
    return np.array(points)


class Follower:
    """Says how fast to drive and turn at a pose, so as to go round a closed route."""

    def __init__(self, route: Array) -> None:
        self._route = spaced(route)
        self._next: int | None = None

    def command(self, state: State, speed: float) -> tuple[float, float]:
        """Return linear and angular speed (m/s, rad/s) at a pose.

        It joins the route at the nearest point; again where it was put elsewhere (a reset).
        """
        here = (state.x, state.y)
        if self._next is None or math.dist(here, self._route[self._next]) > LOST:
            self._next = int(np.linalg.norm(self._route - here, axis=1).argmin())
        self._next = ahead(self._route, here, self._next)
        x, y = self._route[self._next]
        return steer(state, (float(x), float(y)), speed)
