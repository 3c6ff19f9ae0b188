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

"""The scene description as a MuJoCo model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from pruned_perception.simulation import textures
from pruned_perception.simulation.driver import load_mujoco
from pruned_perception.simulation.scene import (
    Box,
    Capsule,
    Cylinder,
    Ellipsoid,
    Frustum,
    Part,
    Scene,
    SceneObject,
    Surface,
    Texture,
    outline,
)

CAMERA = 'camera'
NEAR, FAR = 0.05, 60.0  # clipping planes, metres
SHADOW_MAP = 1024  # pixels; larger is slower and hardly better on a software renderer


def build_model(scene: Scene) -> Any:
    """Return a compiled `mujoco.MjModel` of a scene.

    Every scene object is a body of its own name, fixed in the world; its pose may be changed in
    `model.body_pos` and `model.body_quat`. One camera, `CAMERA`, is there for the viewer.
    """
    return _spec(scene, {}).compile()


def mjcf(scene: Scene, images: Mapping[Texture, str]) -> str:
    """Return the model as MJCF; `images` are the PNG files of the textures, relative to it."""
    spec = _spec(scene, images)
    spec.assets = {
        path: cv2.imencode('.png', textures.paint(texture)[..., ::-1])[1].tobytes()
        for texture, path in images.items()
    }
    spec.compile()
    return str(spec.to_xml())


def _spec(scene: Scene, images: Mapping[Texture, str]) -> Any:
    """Return the model before it is compiled; textures come from `images`, else from memory."""
    mujoco = load_mujoco()
    spec = mujoco.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = (
        scene.camera.width,
        scene.camera.height,
    )
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = SHADOW_MAP
    # MuJoCo's defaults make a box of 96 quads and a sphere of 900 triangles; on a software
    # renderer that costs more than filling the pixels.
    spec.visual.quality.numquads = 1
    spec.visual.quality.numslices = 20
    spec.visual.quality.numstacks = 8
    # The default extent depends on the objects' places; a fixed one keeps every frame comparable.
    spec.stat.extent = max(scene.size)
    spec.stat.center = (0.0, 0.0, 1.0)
    spec.visual.map.znear = NEAR / spec.stat.extent
    spec.visual.map.zfar = FAR / spec.stat.extent
    spec.visual.headlight.ambient = scene.lighting.ambient
    spec.visual.headlight.diffuse = scene.lighting.viewer
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.add_texture(
        name='sky',
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=scene.ceiling,
        rgb2=scene.ceiling,
        width=16,
        height=96,
    )
    writer = _Writer(mujoco, spec, images)
    for light in scene.lighting.lights:
        item = spec.worldbody.add_light(
            pos=-max(scene.size) * np.asarray(light.direction),
            dir=light.direction,
            diffuse=light.color,
            ambient=(0.0, 0.0, 0.0),
            specular=[0.3 * value for value in light.color],
            castshadow=light.shadow,
        )
        if hasattr(mujoco, 'mjtLightType'):
            item.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        else:  # before MuJoCo 3.3.3
            item.directional = True
    for thing in (*scene.structures, *scene.objects):
        writer.add_object(thing)
    spec.worldbody.add_camera(name=CAMERA, fovy=np.degrees(scene.camera.fovy))
    return spec


class _Writer:
    """Adds objects to a spec; equal surfaces, textures and meshes are written once."""

    def __init__(self, mujoco: Any, spec: Any, images: Mapping[Texture, str]) -> None:
        self.mujoco = mujoco
        self.spec = spec
        self.images = images
        self.material = functools.lru_cache(maxsize=None)(self._material)
        self.texture = functools.lru_cache(maxsize=None)(self._texture)
        self.mesh = functools.lru_cache(maxsize=None)(self._mesh)
        self.count = 0

    def add_object(self, item: SceneObject) -> None:
        body = self.spec.worldbody.add_body(
            name=item.name, pos=item.pose.position, quat=item.pose.quaternion()
        )
        for part in item.parts:
            self._add_part(body, part)

    def _add_part(self, body: Any, part: Part) -> None:
        kinds = self.mujoco.mjtGeom
        arguments: dict[str, Any]
        match part.shape:
            case Box(size):
                arguments = {'type': kinds.mjGEOM_BOX, 'size': [extent / 2 for extent in size]}
            case Cylinder(radius, length):
                arguments = {'type': kinds.mjGEOM_CYLINDER, 'size': [radius, length / 2, 0]}
            case Capsule(radius, length):
                arguments = {'type': kinds.mjGEOM_CAPSULE, 'size': [radius, length / 2, 0]}
            case Ellipsoid(radii):
                arguments = {'type': kinds.mjGEOM_ELLIPSOID, 'size': list(radii)}
            case Frustum():
                arguments = {'type': kinds.mjGEOM_MESH, 'meshname': self.mesh(part.shape)}
        body.add_geom(
            pos=part.pose.position,
            quat=part.pose.quaternion(),
            material=self.material(part.surface),
            contype=0,  # nothing collides: the scene is looked at, not simulated
            conaffinity=0,
            **arguments,
        )

    def _name(self, kind: str) -> str:
        self.count += 1
        return f'{kind}_{self.count}'

    def _material(self, surface: Surface) -> str:
        item = self.spec.add_material(
            name=self._name('material'),
            rgba=(*surface.color, 1.0),
            specular=surface.specular,
            shininess=surface.shininess,
            emission=surface.emission,
        )
        if surface.texture is not None:
            role = int(self.mujoco.mjtTextureRole.mjTEXROLE_RGB)
            item.textures[role] = self.texture(surface.texture)
            item.texuniform = True
            item.texrepeat = (1 / surface.texture.half_period, 1 / surface.texture.half_period)
        return str(item.name)

    def _texture(self, texture: Texture) -> str:
        kind = self.mujoco.mjtTexture.mjTEXTURE_2D
        if texture in self.images:
            name = self._name('texture')
            self.spec.add_texture(name=name, type=kind, file=self.images[texture])
            return name
        image = textures.paint(texture)
        item = self.spec.add_texture(
            name=self._name('texture'),
            type=kind,
            width=image.shape[1],
            height=image.shape[0],
            nchannel=3,
        )
        item.data = image.tobytes()
        return str(item.name)

    def _mesh(self, shape: Frustum) -> str:
        name = self._name('mesh')
        self.spec.add_mesh(name=name, uservert=outline(shape).astype(np.float32).ravel())
        return name
