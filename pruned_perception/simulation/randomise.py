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

"""Random views of a hall: camera, light, and the objects set up before the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pruned_perception.simulation.ground_truth import MIN_SIDE
from pruned_perception.simulation.scene import (
    Array,
    Camera,
    Lighting,
    Pose,
    Scene,
    SceneObject,
    extents,
    footprint,
)
from pruned_perception.simulation.splits import Split
from pruned_perception.simulation.warehouse import FloorPlan, floor_plan, lighting, placed

# Apparent size of the objects set up before the camera, the longer side in pixels: most from the
# first range, a few from the second; each is logarithmic, limited by the hall. About 28 % of the
# boxes come out below 48 pixels.
FAR_SIZE, NEAR_SIZE = (17.0, 128.0), (128.0, 400.0)
NEAR_SHARE = 0.15
NEAREST = 0.8  # metres


@dataclass(frozen=True)
class View:
    """One frame to be rendered: camera, light, and every object's pose (None: not there)."""

    camera: Camera
    eye: Pose
    lighting: Lighting
    shadows: bool
    poses: dict[str, Pose | None]


def _eye(plan: FloorPlan, rng: np.random.Generator) -> Pose | None:
    """Return a camera pose with free floor around it that looks across the hall, or None."""
    for _ in range(100):
        places = [
            [rng.uniform(-extent / 2 + 0.3, extent / 2 - 0.3) for extent in plan.size]
            for _ in range(2)
        ]
        x, y = max(places, key=lambda place: math.hypot(*place))  # the outer one sees farther
        if plan.free(np.array([[x, y, 0.25]])):
            yaw = math.atan2(-y, -x) + rng.normal(0, 0.4)
            height, pitch = rng.uniform(0.25, 1.5), rng.uniform(-0.05, 0.3)
            return Pose((x, y, height), (rng.normal(0, 0.03), pitch, yaw))
    return None


class ViewMaker:
    """Draws views of one hall."""

    def __init__(self, scene: Scene, split: Split) -> None:
        self._scene = scene
        self._split = split
        self._plan = floor_plan(scene)
        self._footprints = {item.name: footprint(item) for item in scene.objects}
        self._extents = {item.name: np.subtract(*extents(item)[::-1]) for item in scene.objects}

    def draw(self, rng: np.random.Generator) -> View:
        """Return a random view; objects without room are left out."""
        plan = self._plan.copy()
        eye = _eye(plan, rng) or Pose((0.0, 0.0, 1.0))
        x, y, _ = eye.position
        plan.take(np.array([[x, y, 0.4]]))
        camera = replace(self._scene.camera, fovy=math.radians(rng.uniform(50.0, 66.0)))
        poses: dict[str, Pose | None] = {item.name: None for item in self._scene.objects}
        wanted = int(rng.integers(5, 14))
        order = rng.permutation(len(self._scene.objects))[:wanted]
        for index in order:
            item = self._scene.objects[index]
            poses[item.name] = self._set_up(item, camera, eye, plan, rng)
        # Half the frames have diffuse light: without shadows they cost half the time, too.
        shadows = rng.random() < 0.5
        return View(camera, eye, lighting(self._split, rng), shadows, poses)

    def _set_up(
        self,
        item: SceneObject,
        camera: Camera,
        eye: Pose,
        plan: FloorPlan,
        rng: np.random.Generator,
    ) -> Pose | None:
        """Return a free place before the camera at which the object has a random size."""
        dx, dy, dz = self._extents[item.name]
        size = max(dx, dy, dz)
        half = math.atan(camera.width / 2 / camera.focal)
        discs: Array = self._footprints[item.name]
        low, high = NEAR_SIZE if rng.random() < NEAR_SHARE else FAR_SIZE
        # No side should come out so small that the object would not count.
        thinnest = min(dx, dy, dz + 0.08 * max(dx, dy))  # flat things are seen from above
        farthest = thinnest * camera.focal / (1.2 * MIN_SIDE)
        for attempt in range(24):
            if attempt % 6 == 0:  # keep the size for some tries: near places are free more often
                apparent = math.exp(rng.uniform(math.log(low), math.log(high)))
            distance = min(max(camera.focal * size / apparent, NEAREST + discs[0, 2]), farthest)
            bearing = eye.rotation[2] + rng.uniform(-1.05, 1.05) * half
            x = eye.position[0] + distance * math.cos(bearing)
            y = eye.position[1] + distance * math.sin(bearing)
            yaw = rng.uniform(-math.pi, math.pi)
            spot = placed(discs, x, y, yaw)
            if plan.free(spot, margin=0.02):
                plan.take(spot)
                return Pose((x, y, 0.0), (0.0, 0.0, yaw))
        return None
