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

"""Boxes of the visible objects, from the segmentation image and the objects' outlines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.simulation.scene import (
    LABELS,
    Array,
    Camera,
    Pose,
    SceneObject,
    object_outlines,
)

# What is smaller or more hidden is marked as crowd: neither a miss nor a false alarm.
MIN_SIDE = 8.0  # pixels
MIN_VISIBLE = 0.3  # of the object's outline, including what lies outside the image
MIN_PIXELS = 12  # fewer: not annotated at all


@dataclass(frozen=True)
class VisibleObject:
    """An object in an image: box x, y, width, height in pixels; visible share of its outline."""

    name: str
    class_id: int
    box: tuple[float, float, float, float]
    visible: float

    @property
    def counts(self) -> bool:
        """Whether a detector should find it: large enough and not too hidden."""
        return self.shows(MIN_VISIBLE)

    def shows(self, min_visible: float) -> bool:
        """Whether it is large enough, and at least this share of it is visible."""
        return min(self.box[2:]) >= MIN_SIDE and self.visible >= min_visible


def rectangles(numbers: NDArray[np.uint8], count: int) -> tuple[Array, Array]:
    """Return the bounding rectangles and pixel counts of the numbers 1…count in an image.

    Rectangles are x0, y0, x1, y1, shape (count, 4), ends exclusive; all zero where a number does
    not occur.
    """
    boxes = np.zeros((count, 4))
    pixels = np.bincount(numbers.ravel(), minlength=count + 1)[1 : count + 1]
    for index in np.flatnonzero(pixels):
        x, y, width, height = cv2.boundingRect((numbers == index + 1).view(np.uint8))
        boxes[index] = (x, y, x + width, y + height)
    return boxes, pixels.astype(float)


def silhouette_area(outlines: tuple[Array, ...], pose: Pose, camera: Camera, eye: Pose) -> float:
    """Return the pixels that an object would cover if nothing hid it and the image had no edge.

    Every part is convex, so its projection is the convex hull of its projected outline points.
    """
    transform = pose.matrix()
    solid = np.concatenate(outlines) @ transform[:3, :3].T + transform[:3, 3]
    points = camera.project(solid, eye)
    ends = np.cumsum([len(part) for part in outlines])
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    scale = min(4.0, 128 / max(float(extent.max()), 1e-3))
    size = np.ceil(extent * scale).astype(int) + 2
    canvas = np.zeros((size[1], size[0]), np.uint8)
    # Fixed-point coordinates: fillConvexPoly would otherwise round to whole pixels.
    fixed = np.round(((points - low) * scale + 0.5) * 16).astype(np.int32)
    for polygon in np.split(fixed, ends[:-1]):
        cv2.fillConvexPoly(canvas, cv2.convexHull(polygon), 1, shift=4)
    return float(np.count_nonzero(canvas)) / scale**2


class BoxFinder:
    """Finds the boxes of a scene's objects; keeps their outlines."""

    def __init__(self, objects: tuple[SceneObject, ...]) -> None:
        self._objects = objects
        self._outlines = [object_outlines(item) for item in objects]

    def find(
        self,
        numbers: NDArray[np.uint8],
        camera: Camera,
        eye: Pose,
        poses: Mapping[str, Pose | None] | None = None,
    ) -> list[VisibleObject]:
        """Return the visible objects of an image of object numbers, seen from `eye`.

        `poses` are those of objects that have moved since the scene was made.
        """
        boxes, pixels = rectangles(numbers, len(self._objects))
        found = []
        for index, item in enumerate(self._objects):
            if pixels[index] < MIN_PIXELS:
                continue
            assert item.label is not None
            pose = (poses or {}).get(item.name) or item.pose
            whole = silhouette_area(self._outlines[index], pose, camera, eye)
            x0, y0, x1, y1 = boxes[index]
            found.append(
                VisibleObject(
                    name=item.name,
                    class_id=LABELS.index(item.label),
                    box=(float(x0), float(y0), float(x1 - x0), float(y1 - y0)),
                    visible=round(min(1.0, float(pixels[index]) / max(whole, 1.0)), 3),
                )
            )
        return found
