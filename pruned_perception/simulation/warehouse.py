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

"""Random warehouse halls: walls, floor, scenery, a stock of labelled objects, light."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pruned_perception.simulation import catalogue, palette
from pruned_perception.simulation.scene import (
    LABELS,
    Array,
    Box,
    Color,
    Light,
    Lighting,
    Part,
    Pose,
    Scene,
    SceneObject,
    Surface,
    footprint,
)
from pruned_perception.simulation.splits import Split

WALL_HEIGHT = 5.0
STOCK = 16  # labelled objects per hall: two of every label
GAP = 0.15  # metres kept free between footprints


class FloorPlan:
    """Which parts of a hall's floor are taken, as discs x, y, radius."""

    def __init__(self, size: tuple[float, float]) -> None:
        self.size = size
        self.discs: Array = np.empty((0, 3))

    def free(self, discs: Array, margin: float = GAP) -> bool:
        """Return whether discs, shape (N, 3), lie inside the hall and touch nothing."""
        reach = np.abs(discs[:, :2]) + discs[:, 2:]
        if (reach > np.asarray(self.size) / 2).any():
            return False
        apart = np.linalg.norm(discs[:, None, :2] - self.discs[None, :, :2], axis=2)
        return bool((apart > discs[:, None, 2] + self.discs[None, :, 2] + margin).all())

    def take(self, discs: Array) -> None:
        """Mark discs as taken."""
        self.discs = np.concatenate([self.discs, discs])

    def copy(self) -> FloorPlan:
        """Return an independent copy."""
        plan = FloorPlan(self.size)
        plan.discs = self.discs
        return plan


def placed(discs: Array, x: float, y: float, yaw: float) -> Array:
    """Return an object's footprint discs, moved to a place on the floor."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    moved = discs.copy()
    moved[:, 0] = x + cos * discs[:, 0] - sin * discs[:, 1]
    moved[:, 1] = y + sin * discs[:, 0] + cos * discs[:, 1]
    return moved


def scatter(
    items: list[SceneObject], plan: FloorPlan, rng: np.random.Generator, tries: int = 40
) -> list[SceneObject]:
    """Place objects anywhere free, and return those that found room; `plan` is updated."""
    result = []
    for item in items:
        discs = footprint(item)
        for _ in range(tries):
            x, y = (rng.uniform(-extent / 2, extent / 2) for extent in plan.size)
            yaw = rng.uniform(-math.pi, math.pi)
            spot = placed(discs, x, y, yaw)
            if plan.free(spot):
                plan.take(spot)
                result.append(moved(item, Pose((x, y, 0.0), (0.0, 0.0, yaw))))
                break
    return result


def moved(item: SceneObject, pose: Pose) -> SceneObject:
    """Return the object at another pose."""
    return SceneObject(item.name, item.parts, item.label, pose)


def lighting(split: Split, rng: np.random.Generator) -> Lighting:
    """Draw light: ambient and viewer's level, and one or two lamps, the first casting shadows."""

    def shade(level: float) -> Color:
        warm = split.uniform(rng, -0.12, 0.12)
        return (level * (1 + warm), level, level * (1 - warm))

    lamps = []
    for index in range(int(rng.integers(1, 3))):
        azimuth = split.uniform(rng, -math.pi, math.pi)
        elevation = split.uniform(rng, math.radians(45), math.radians(85))
        direction = (
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            -math.sin(elevation),
        )
        level = split.uniform(rng, 0.25, 0.75) * (1.0 if index == 0 else 0.5)
        lamps.append(Light(direction, shade(level), shadow=index == 0))
    ambient = shade(split.uniform(rng, 0.25, 0.6))
    viewer = shade(split.uniform(rng, 0.1, 0.4))
    return Lighting(ambient, viewer, tuple(lamps))


def _shell(size: tuple[float, float], split: Split, rng: np.random.Generator) -> SceneObject:
    """Return floor, walls, wall panels, floor marks and ceiling lamps."""
    length, width = size
    thick = 0.1
    floor = palette.textured(split, rng, half_period=(0.8, 4.0))
    wall = (
        palette.textured(split, rng, half_period=(0.8, 4.0))
        if rng.random() < 0.6
        else palette.surface(split, rng, palette.MUTED)
    )
    parts = [Part(Box((length, width, thick)), floor, Pose((0, 0, -thick / 2)))]
    # A wall's own z is its normal, because textures are laid on the plane of x and y.
    for extent, distance, yaw in (
        (length, width / 2, 0.0),
        (length, width / 2, math.pi),
        (width, length / 2, math.pi / 2),
        (width, length / 2, -math.pi / 2),
    ):
        away = (distance + thick / 2) * np.array([-math.sin(yaw), math.cos(yaw)])
        pose = Pose((away[0], away[1], WALL_HEIGHT / 2), (math.pi / 2, 0.0, yaw))
        parts.append(Part(Box((extent + 2 * thick, WALL_HEIGHT, thick)), wall, pose))
        for _ in range(int(rng.integers(0, 4))):
            panel, high = rng.uniform(0.4, 2.2), rng.uniform(0.3, 2.2)
            along = rng.uniform(-0.5, 0.5) * (extent - panel)
            x = away[0] * distance / (distance + thick / 2) + along * math.cos(yaw)
            y = away[1] * distance / (distance + thick / 2) + along * math.sin(yaw)
            look = (
                palette.textured(split, rng, palette.ANY, (0.3, 1.5))
                if rng.random() < 0.4
                else palette.surface(split, rng)
            )
            z = rng.uniform(high / 2, 3.0)
            place = Pose((x, y, z), (math.pi / 2, 0.0, yaw))
            parts.append(Part(Box((panel, high, 0.04)), look, place))
    mark = palette.surface(
        split, rng, palette.SAFETY_YELLOW if rng.random() < 0.5 else palette.PALE
    )
    for _ in range(int(rng.integers(0, 4))):
        if rng.random() < 0.5:
            shape, pose = Box((length, 0.1, 0.004)), Pose((0, rng.uniform(-0.4, 0.4) * width, 0))
        else:
            shape, pose = Box((0.1, width, 0.004)), Pose((rng.uniform(-0.4, 0.4) * length, 0, 0))
        parts.append(Part(shape, mark, pose))
    lamp = Surface((1.0, 1.0, 0.95), emission=0.9)
    for x in np.arange(-length / 2 + 1.5, length / 2, 3.0):
        for y in np.arange(-width / 2 + 1.5, width / 2, 4.0):
            parts.append(Part(Box((1.2, 0.15, 0.06)), lamp, Pose((x, y, WALL_HEIGHT - 0.5))))
    return SceneObject('hall', tuple(parts))


def _scenery(
    size: tuple[float, float], split: Split, rng: np.random.Generator
) -> list[SceneObject]:
    kinds = sorted(catalogue.SCENERY)
    count = int(rng.integers(5, 11))
    return [
        SceneObject(
            f'scenery_{index}', catalogue.SCENERY[kinds[rng.integers(len(kinds))]](split, rng)
        )
        for index in range(count)
    ]


def build(
    split: Split,
    seed: int,
    layout: int,
    stock: int = STOCK,
    keep_free: Callable[[tuple[float, float]], Array] | None = None,
) -> Scene:
    """Return the hall number `layout` of a split and seed, its objects scattered on the floor.

    `stock` labelled objects are made, every label in turn; those without room are left out.
    `keep_free` returns for the hall's size the floor, discs x, y, radius, that stays empty.
    """
    rng = split.rng(seed, layout)
    size = (split.uniform(rng, 12.0, 28.0), split.uniform(rng, 10.0, 22.0))
    plan = FloorPlan(size)
    if keep_free is not None:
        plan.take(keep_free(size))
    scenery = scatter(_scenery(size, split, rng), plan, rng)
    items = [
        catalogue.labelled(LABELS[index % len(LABELS)], f'object_{index}', split, rng)
        for index in range(stock)
    ]
    return Scene(
        name=f'{split.name}-{seed}-{layout}',
        size=size,
        structures=(_shell(size, split, rng), *scenery),
        objects=tuple(scatter(items, plan, rng, tries=200)),
        lighting=lighting(split, rng),
        ceiling=palette.color(split, rng, palette.MUTED),
    )


def floor_plan(scene: Scene) -> FloorPlan:
    """Return the floor plan of a scene's scenery, without its labelled objects."""
    plan = FloorPlan(scene.size)
    for item in scene.structures[1:]:
        x, y, _ = item.pose.position
        plan.take(placed(footprint(item), x, y, item.pose.rotation[2]))
    return plan
