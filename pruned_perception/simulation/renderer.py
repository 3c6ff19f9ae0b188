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

"""A MuJoCo camera in a scene: colour images and which object every pixel belongs to."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pruned_perception.simulation import mujoco_model
from pruned_perception.simulation.driver import load_mujoco, open_context
from pruned_perception.simulation.randomise import View
from pruned_perception.simulation.scene import Lighting, Pose, Scene, object_outlines

# MuJoCo's cameras look along -z with y up; ours along x with z up.
_CAMERA_AXES = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

_HIDDEN_GROUP = 5  # of the geom groups 0…5, `MjvOption` shows only 0 to 2 by default


class Renderer:
    """Renders one scene; poses, light and camera can change from frame to frame.

    All calls must come from the thread that made it (an OpenGL context belongs to one thread),
    and only one renderer of a process can be in use at a time; call `close` before the next.

    Raises
    ------
    UserError
        If MuJoCo or an off-screen OpenGL driver is missing.
    """

    def __init__(self, scene: Scene) -> None:
        self._mujoco = mujoco = load_mujoco()
        self.scene = scene
        width, height = scene.camera.width, scene.camera.height
        self._gl = open_context(width, height)
        self._model = mujoco_model.build_model(scene)
        self._data = mujoco.MjData(self._model)
        self._scene = mujoco.MjvScene(self._model, maxgeom=self._model.ngeom + 64)
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._pixels = np.empty((height, width, 3), np.uint8)
        self._bodies = {}
        self._absent = np.zeros(self._model.nbody, bool)
        self._radius = np.zeros(self._model.nbody)  # of a sphere around each body's origin
        for item in (*scene.structures, *scene.objects):
            body = self._bodies[item.name] = self._model.body(item.name).id
            points = np.concatenate(object_outlines(item))
            self._radius[body] = np.linalg.norm(points, axis=1).max()
        numbers = np.zeros(self._model.nbody, np.uint8)
        for number, item in enumerate(scene.objects, start=1):
            numbers[self._bodies[item.name]] = number
        self._geom_numbers = numbers[self._model.geom_bodyid]

    def show(self, view: View) -> NDArray[np.uint8]:
        """Set up a view, and return its image (see `image`); `object_numbers` is then its own."""
        for name, pose in view.poses.items():
            self.place(name, pose)
        self.light(view.lighting)
        self.look(view.eye, view.camera.fovy, shadows=view.shadows)
        return self.image()

    def place(self, name: str, pose: Pose | None) -> None:
        """Move an object; None takes it out of sight."""
        body = self._bodies[name]
        self._absent[body] = pose is None
        if pose is not None:
            self._model.body_pos[body] = pose.position
            self._model.body_quat[body] = pose.quaternion()

    def light(self, lighting: Lighting) -> None:
        """Change the light; of the scene's lamps, those that `lighting` lacks stay as they are."""
        self._model.vis.headlight.ambient[:] = lighting.ambient
        self._model.vis.headlight.diffuse[:] = lighting.viewer
        for index, lamp in enumerate(lighting.lights[: self._model.nlight]):
            self._model.light_dir[index] = lamp.direction
            self._model.light_pos[index] = -max(self.scene.size) * np.asarray(lamp.direction)
            self._model.light_diffuse[index] = lamp.color
            self._model.light_specular[index] = 0.3 * np.asarray(lamp.color)

    def look(self, pose: Pose, fovy: float | None = None, *, shadows: bool = True) -> None:
        """Put the camera at a pose and take over all changes since the last frame.

        `fovy` is the vertical field of view in radians, the scene camera's by default. Shadows
        double the time of an image.
        """
        mujoco, model = self._mujoco, self._model
        fovy = self.scene.camera.fovy if fovy is None else fovy
        rotation = pose.matrix()[:3, :3] @ _CAMERA_AXES
        mujoco.mju_mat2Quat(model.cam_quat[0], rotation.ravel())
        model.cam_pos[0] = pose.position
        model.cam_fovy[0] = np.degrees(fovy)
        mujoco.mj_kinematics(model, self._data)
        mujoco.mj_camlight(model, self._data)
        # On a software renderer every object costs, even behind the camera; but what is out of
        # sight may throw its shadow into the image.
        hidden = self._absent if shadows else self._absent | ~self._in_view(pose, fovy)
        model.geom_group[:] = np.where(hidden[model.geom_bodyid], _HIDDEN_GROUP, 0)
        mujoco.mjv_updateScene(
            model,
            self._data,
            self._options,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows

    def image(self) -> NDArray[np.uint8]:
        """Return what the camera sees, RGB, uint8 of shape (height, width, 3)."""
        return np.ascontiguousarray(self._render(segmentation=False)[::-1])

    def object_numbers(self) -> NDArray[np.uint8]:
        """Return for every pixel the number of the scene's object, from 1; 0 is scenery.

        Shape (height, width); the objects' numbers are their places in `scene.objects` plus 1.
        """
        pixels = self._render(segmentation=True)
        # The colour is the geom's segmentation id + 1, lowest byte first; two bytes are plenty.
        colors = pixels[..., 0] | pixels[..., 1].astype(np.uint16) << 8
        return self._number_table()[colors[::-1]]

    def close(self) -> None:
        """Free the GPU's memory of this scene; the process's OpenGL context is kept."""
        self._context.free()

    def _in_view(self, pose: Pose, fovy: float) -> NDArray[np.bool_]:
        """Return for every body whether its surrounding sphere reaches into the camera's view."""
        camera = self.scene.camera
        transform = pose.matrix()
        x, y, z = ((self._data.xpos - transform[:3, 3]) @ transform[:3, :3]).T
        upright = math.tan(fovy / 2)
        sideways = upright * camera.width / camera.height
        radius = self._radius
        # Signed distances to the planes that bound the view, beyond which a sphere is unseen.
        return np.asarray(
            (x > -radius)
            & (np.abs(y) - sideways * x < radius * math.hypot(1, sideways))
            & (np.abs(z) - upright * x < radius * math.hypot(1, upright))
        )

    def _number_table(self) -> NDArray[np.uint8]:
        """Return the look-up table from segmentation colour to the object's number."""
        table = np.zeros(self._scene.ngeom + 1, np.uint8)
        geom_type = self._mujoco.mjtObj.mjOBJ_GEOM
        for index in range(self._scene.ngeom):
            geom = self._scene.geoms[index]
            if geom.objtype == geom_type:
                table[geom.segid + 1] = self._geom_numbers[geom.objid]
        return table

    def _render(self, segmentation: bool) -> NDArray[np.uint8]:
        mujoco = self._mujoco
        flags = mujoco.mjtRndFlag
        self._scene.flags[flags.mjRND_SEGMENT] = segmentation
        self._scene.flags[flags.mjRND_IDCOLOR] = segmentation
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return self._pixels
