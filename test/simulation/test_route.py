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

"""A closed route, its file, and following it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pruned_perception.errors import UserError
from pruned_perception.simulation.robot import State, advance, build_scene, loop
from pruned_perception.simulation.route import Follower, read_route, route_text

PERIOD = 1 / 30


def drive(follower: Follower, state: State, seconds: float) -> np.ndarray:
    places = []
    for _ in range(round(seconds / PERIOD)):
        state = advance(state, *follower.command(state, 1.0), PERIOD)
        places.append((state.x, state.y, state.yaw))
    return np.array(places)


def distances(places: np.ndarray, route: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[:, None, :2] - route[None, :, :2], axis=2).min(axis=1)


def test_a_route_is_read_as_it_was_written(tmp_path: Path) -> None:
    route = loop((12.0, 9.0))
    (tmp_path / 'route.csv').write_bytes(route_text(route))
    np.testing.assert_allclose(read_route(tmp_path / 'route.csv'), route, atol=5e-4)


def test_the_shipped_route_goes_round_the_hall() -> None:
    shipped = read_route(Path(__file__).resolve().parents[2] / 'worlds' / 'warehouse_route.csv')
    places = drive(Follower(shipped), State(*shipped[0], 2.0), 60.0)
    assert distances(places, shipped).max() < 0.4
    assert distances(shipped, places).max() < 0.4  # all of it
    np.testing.assert_allclose(shipped, loop(build_scene(0).size), atol=5e-4)


def test_a_robot_that_was_put_elsewhere_joins_the_route_again() -> None:
    route = loop((12.0, 9.0))
    follower = Follower(route)
    drive(follower, State(*route[0], 2.0), 3.0)
    opposite = route[len(route) // 2]
    places = drive(follower, State(*opposite, 0.0), 10.0)
    assert distances(places, route).max() < 1.0
    # From there on along the route, and not back across the hall to where it was.
    turned = np.unwrap(np.arctan2(places[:, 1], places[:, 0]))
    assert turned[-1] - turned[0] > math.pi / 2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('1,2\n3\n5,6\n', r"line 2: '3' is not a point x,y"),
        ('1,2\n3,nan\n5,6\n', 'line 2'),
        ('1,2\n3,4\n', 'has 2 points.*needs three'),
    ],
)
def test_a_broken_route_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'route.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_route(path)
    with pytest.raises(UserError, match='cannot read the route'):
        read_route(tmp_path / 'nowhere.csv')
