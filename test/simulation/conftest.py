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

"""What the simulation's tests share: a small scene, and whether this machine can render."""

from __future__ import annotations

import math

import pytest

from pruned_perception.errors import UserError
from pruned_perception.simulation.scene import (
    Box,
    Camera,
    Light,
    Lighting,
    Part,
    Pose,
    Scene,
    SceneObject,
    Surface,
)


@pytest.fixture(scope='session')
def rendering() -> None:
    """Skip where there is no MuJoCo or no off-screen OpenGL driver."""
    from pruned_perception.simulation.driver import open_context

    try:
        open_context(640, 480)
    except UserError as error:
        pytest.skip(str(error))


def block(name: str, label: str, color: tuple[float, float, float], pose: Pose) -> SceneObject:
    """Return a cube of one metre that stands on its frame's z = 0."""
    part = Part(Box((1.0, 1.0, 1.0)), Surface(color, emission=0.5), Pose((0.0, 0.0, 0.5)))
    return SceneObject(name, (part,), label, pose)


@pytest.fixture
def blocks() -> Scene:
    """Return a hall with a red and a blue cube, 6 m and 9 m along x."""
    floor = Part(Box((40.0, 40.0, 0.1)), Surface((0.4, 0.4, 0.4)), Pose((0.0, 0.0, -0.05)))
    return Scene(
        name='blocks',
        size=(40.0, 40.0),
        structures=(SceneObject('hall', (floor,)),),
        objects=(
            block('red', 'box', (1.0, 0.0, 0.0), Pose((6.5, 1.5, 0.0))),
            block('blue', 'barrel', (0.0, 0.0, 1.0), Pose((9.5, -2.0, 0.0))),
        ),
        lighting=Lighting(
            ambient=(0.4, 0.4, 0.4),
            viewer=(0.2, 0.2, 0.2),
            lights=(Light((0.0, 0.0, -1.0), (0.3, 0.3, 0.3), shadow=True),),
        ),
        camera=Camera(fovy=math.radians(60.0)),
    )
