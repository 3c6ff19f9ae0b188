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

"""The scene as plain data: shapes, surfaces, poses, objects, lights. No simulator in here.

Conventions are those of ROS (REP-103) and SDF: metres, radians, x forward, y left, z up; a pose's
rotation is roll, pitch, yaw about the fixed axes; sizes are full extents; cylinders, capsules and
frusta stand along their own z. Everything is frozen, so that a scene can be shared and compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = tuple[float, float, float]
Color: TypeAlias = tuple[float, float, float]  # red, green, blue in 0…1
Array: TypeAlias = NDArray[np.float64]

# The order is the class id everywhere: annotations, training, ground truth.
LABELS: tuple[str, ...] = (
    'person',
    'box',
    'cone',
    'barrel',
    'pallet',
    'chair',
    'fire_extinguisher',
    'barrier',
)


def labels() -> tuple[str, ...]:
    """Return the labels of the simulated warehouse; the position is the class id."""
    return LABELS


@dataclass(frozen=True)
class Pose:
    """Position in metres and rotation as roll, pitch, yaw in radians (fixed axes, as in SDF)."""

    position: Vector = (0.0, 0.0, 0.0)
    rotation: Vector = (0.0, 0.0, 0.0)

    def matrix(self) -> Array:
        """Return the homogeneous transform, shape (4, 4), from this frame to its parent."""
        (cr, cp, cy), (sr, sp, sy) = np.cos(self.rotation), np.sin(self.rotation)
        transform = np.eye(4)
        transform[:3, :3] = (
            (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
            (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
            (-sp, cp * sr, cp * cr),
        )
        transform[:3, 3] = self.position
        return transform

    def quaternion(self) -> tuple[float, float, float, float]:
        """Return the rotation as a unit quaternion w, x, y, z."""
        (cr, cp, cy) = (math.cos(angle / 2) for angle in self.rotation)
        (sr, sp, sy) = (math.sin(angle / 2) for angle in self.rotation)
        return (
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        )


@dataclass(frozen=True)
class Box:
    """A cuboid of full extents x, y, z."""

    size: Vector


@dataclass(frozen=True)
class Cylinder:
    """A cylinder along z."""

    radius: float
    length: float


@dataclass(frozen=True)
class Capsule:
    """A cylinder of `length` along z with a hemisphere on either end."""

    radius: float
    length: float


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of the given semi-axes; a sphere where they are equal."""

    radii: Vector


@dataclass(frozen=True)
class Frustum:
    """A truncated cone along z."""

    bottom_radius: float
    top_radius: float
    length: float


Shape: TypeAlias = Box | Cylinder | Capsule | Ellipsoid | Frustum


@dataclass(frozen=True)
class Texture:
    """A procedural, repeating image: see `textures.paint`."""

    pattern: str
    colors: tuple[Color, Color]
    seed: int
    half_period: (
        float  # metres; one repetition covers twice that, as MuJoCo's texrepeat is over 2 m
    )


@dataclass(frozen=True)
class Surface:
    """What a part looks like; `color` multiplies the texture where there is one."""

    color: Color = (1.0, 1.0, 1.0)
    texture: Texture | None = None
    specular: float = 0.2
    shininess: float = 0.2
    emission: float = 0.0


@dataclass(frozen=True)
class Part:
    """One primitive of an object, posed in the object's frame."""

    shape: Shape
    surface: Surface
    pose: Pose = Pose()


@dataclass(frozen=True)
class SceneObject:
    """A rigid composition of parts that stands on its frame's z = 0; no label: scenery."""

    name: str
    parts: tuple[Part, ...]
    label: str | None = None
    pose: Pose = Pose()


@dataclass(frozen=True)
class Light:
    """A directional light; `color` carries the intensity."""

    direction: Vector
    color: Color
    shadow: bool = False


@dataclass(frozen=True)
class Lighting:
    """All light of a scene: ambient, from the viewer, and directional lights."""

    ambient: Color
    viewer: Color
    lights: tuple[Light, ...]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion that looks along its frame's x axis."""

    width: int = 640
    height: int = 480
    fovy: float = math.radians(54.0)  # vertical field of view; 68.4° horizontally

    @property
    def focal(self) -> float:
        """Focal length in pixels; pixels are square."""
        return self.height / 2 / math.tan(self.fovy / 2)

    def project(self, points: Array, pose: Pose, near: float = 0.05) -> Array:
        """Return the image coordinates, shape (N, 2), of world points, shape (N, 3).

        The image spans 0…width and 0…height (a pixel's centre is at +0.5). Points behind the
        plane `near` are moved onto it, so that outlines stay finite.
        """
        transform = pose.matrix()
        local = (points - transform[:3, 3]) @ transform[:3, :3]
        depth = np.maximum(local[:, 0], near)
        centre = np.array([self.width / 2, self.height / 2])
        return centre - self.focal * local[:, 1:3] / depth[:, None]


@dataclass(frozen=True)
class Scene:
    """A hall with everything in it; `size` is its inner floor, centred on the origin."""

    name: str
    size: tuple[float, float]
    structures: tuple[SceneObject, ...]
    objects: tuple[SceneObject, ...]
    lighting: Lighting
    ceiling: Color = (0.5, 0.5, 0.5)
    camera: Camera = field(default_factory=Camera)


def between(start: Vector, end: Vector) -> tuple[float, Pose]:
    """Return length and pose of a z-aligned shape that reaches from `start` to `end`."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    dx, dy, dz = b - a
    length = float(np.linalg.norm(b - a))
    x, y, z = (a + b) / 2
    pitch, yaw = math.atan2(math.hypot(dx, dy), dz), math.atan2(dy, dx)
    return length, Pose((float(x), float(y), float(z)), (0.0, pitch, yaw))


def _ring(radius: float, z: float, count: int = 16) -> Array:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(count, z)], axis=1)


def _unit_sphere() -> Array:
    latitudes = np.radians([-90, -60, -30, 0, 30, 60, 90])
    return np.concatenate([_ring(math.cos(a), math.sin(a), 12) for a in latitudes])


_SPHERE = _unit_sphere()
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2


def outline(shape: Shape) -> Array:
    """Return points, shape (N, 3), whose convex hull is the shape (curves sampled finely)."""
    match shape:
        case Box(size):
            return _CORNERS * size
        case Cylinder(radius, length):
            return np.concatenate([_ring(radius, -length / 2), _ring(radius, length / 2)])
        case Capsule(radius, length):
            ends = np.array([[0, 0, -length / 2], [0, 0, length / 2]])
            return (ends[:, None] + radius * _SPHERE).reshape(-1, 3)
        case Ellipsoid(radii):
            return _SPHERE * radii
        case Frustum(bottom, top, length):
            return np.concatenate([_ring(bottom, -length / 2), _ring(top, length / 2)])


def object_outlines(item: SceneObject) -> tuple[Array, ...]:
    """Return every part's outline points, each of shape (N, 3), in the object's frame."""
    outlines = []
    for part in item.parts:
        transform = part.pose.matrix()
        outlines.append(outline(part.shape) @ transform[:3, :3].T + transform[:3, 3])
    return tuple(outlines)


def extents(item: SceneObject) -> tuple[Array, Array]:
    """Return the lowest and the highest corner, shape (3,) each, in the object's frame."""
    points = np.concatenate(object_outlines(item))
    return points.min(axis=0), points.max(axis=0)


def footprint(item: SceneObject) -> Array:
    """Return discs x, y, radius, shape (N, 3), that cover the object's floor area, in its frame.

    Long objects are covered by a row of discs along their long side.
    """
    low, high = extents(item)
    size = (high - low)[:2]
    long = int(np.argmax(size))
    count = max(1, math.ceil(size[long] / max(size[1 - long], 0.3)))
    step = size[long] / count
    discs = np.empty((count, 3))
    discs[:, long] = low[long] + step * (np.arange(count) + 0.5)
    discs[:, 1 - long] = (low + high)[1 - long] / 2
    discs[:, 2] = math.hypot(step, size[1 - long]) / 2
    return discs
