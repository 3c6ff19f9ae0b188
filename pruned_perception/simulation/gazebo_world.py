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

"""The scene description as a Gazebo world: SDF 1.9, with meshes and textures beside it.

Shapes, poses and colours are those of the MuJoCo model. Two things have no counterpart in SDF 1.9
and become meshes: truncated cones, and slabs with a repeating texture.

Colours and light: MuJoCo multiplies them as they are, Gazebo's renderer (ogre2) in linear light. So
colours are linearised, and so are lamps, such that a face in the shade and one in the lamps' light
come out as bright in both (`_light_levels`).
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from pruned_perception.simulation import mujoco_model, textures
from pruned_perception.simulation.mujoco_model import FAR, NEAR
from pruned_perception.simulation.robot import CAMERA_MOUNT, RADIUS, Robot, loop
from pruned_perception.simulation.route import route_text
from pruned_perception.simulation.scene import (
    LABELS,
    Box,
    Capsule,
    Color,
    Cylinder,
    Ellipsoid,
    Frustum,
    Lighting,
    Part,
    Pose,
    Scene,
    SceneObject,
    Surface,
    Texture,
    Vector,
    extents,
    footprint,
)

WORLD, LIGHT_WORLD = 'warehouse', 'warehouse_light'
ROBOT = 'robot'
ROUTE = 'warehouse_route.csv'
"""Of both worlds: the closed route of the simulated robot in the same hall."""
RATE_HZ = 30
STEPS_PER_FRAME = 10
"""Steps of the physics in one period of the camera: the step size divides it."""
IMAGE_TOPIC, BOX_TOPIC = 'camera/image', 'box_camera/boxes'
"""Each sensor sends its calibration beside it, as camera_info: one for each image."""
COMMAND_TOPIC, ODOMETRY_TOPIC, POSE_TOPIC = 'robot/cmd_vel', 'robot/odometry', 'model/robot/pose'
OPTICAL_FRAME = 'camera_optical_frame'
LIGHT_OBJECTS = 2
"""Objects of each label in the light world."""
RING = 16
"""Corners of a truncated cone's circles."""
DIFFUSE = 0.68
"""What Ogre (HlmsPbs, its default BRDF) reflects of a lamp's light, relative to the colour.

The normalised diffuse of Disney is 1 - roughness · (1 - 1 / 1.51), and 4 % are left to the gloss:
between 0.74 and 0.64 for our surfaces. Ambient light is reflected whole.
"""

SYSTEMS = {
    'gz-sim-physics-system': 'Physics',
    'gz-sim-user-commands-system': 'UserCommands',
    'gz-sim-scene-broadcaster-system': 'SceneBroadcaster',
    'gz-sim-sensors-system': 'Sensors',
    'gz-sim-label-system': 'Label',
    'gz-sim-diff-drive-system': 'DiffDrive',
    'gz-sim-pose-publisher-system': 'PosePublisher',
}
"""Plugin files that the worlds use, each with its class in `gz::sim::systems`."""

WHEEL_RADIUS, WHEEL_SEPARATION = 0.1, 0.4
Element = ElementTree.Element


def world_files(scene: Scene, name: str, *, light: bool = False) -> dict[str, bytes]:
    """Return a world's files, path → content: `<name>.sdf`, and what it refers to beside it.

    `light` is for machines without a graphics card: no shadows, no scenery, two objects of each
    label; the camera, the robot and its route are the same.
    """
    return _World(lighter(scene) if light else scene, name, shadows=not light).files()


def mjcf_files(scene: Scene, name: str) -> dict[str, bytes]:
    """Return the same scene as MJCF: `<name>.xml`, and the textures beside it."""
    surfaces = [part.surface for item in (*scene.structures, *scene.objects) for part in item.parts]
    images = {each.texture: texture_path(each.texture) for each in surfaces if each.texture}
    text = mujoco_model.mjcf(scene, images)
    return {
        f'{name}.xml': text.encode(),
        **{path: png(texture) for texture, path in images.items()},
    }


def png(texture: Texture) -> bytes:
    """Return a texture's image as a PNG file."""
    return bytes(cv2.imencode('.png', textures.paint(texture)[..., ::-1])[1].tobytes())


def lighter(scene: Scene) -> Scene:
    """Return the scene with `LIGHT_OBJECTS` of each label and the hall alone."""
    chosen = [
        item
        for label in LABELS
        for item in [each for each in scene.objects if each.label == label][:LIGHT_OBJECTS]
    ]
    return Scene(
        scene.name,
        scene.size,
        scene.structures[:1],
        tuple(item for item in scene.objects if item in chosen),
        scene.lighting,
        scene.ceiling,
        scene.camera,
    )


def linear(value: float) -> float:
    """Return the linear light of an sRGB value in 0…1 (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def sensor_period(rate: float) -> float:
    """Return the seconds between two images of a Gazebo camera whose update rate is `rate`, Hz.

    gz-sensors 8 to 10 keeps whole milliseconds of it (Sensor.cc): 33 ms at 30 Hz.
    """
    return math.floor(1000 / rate) / 1000


def horizontal_fov(scene: Scene) -> float:
    """Return the camera's horizontal field of view in radians."""
    return 2 * math.atan(scene.camera.width / 2 / scene.camera.focal)


def _light_levels(lighting: Lighting) -> tuple[Color, Color, tuple[Color, ...]]:
    """Return ambient, viewer's and lamps' levels in linear light.

    In MuJoCo they add up before the colour is shown, here before it is encoded: a sum of linearised
    levels would be too dark. The lamps' are scaled by the slope between the shade and half of
    all light, where most faces are, and by what the renderer does not reflect of them.
    """
    channels: list[list[float]] = []
    for channel in range(3):
        ambient = lighting.ambient[channel]
        others = [lighting.viewer[channel], *(lamp.color[channel] for lamp in lighting.lights)]
        half = sum(others) / 2 or math.ulp(1.0)  # without lamps whatever the slope is times nothing
        slope = (linear(ambient + half) - linear(ambient)) / half / DIFFUSE
        channels.append([linear(ambient), *(slope * level for level in others)])
    red, green, blue = channels
    shade, viewer, *lamps = zip(red, green, blue, strict=True)
    return shade, viewer, tuple(lamps)


class _World:
    """One world as it is written: the tree, and the files that it refers to."""

    def __init__(self, scene: Scene, name: str, *, shadows: bool) -> None:
        self._scene = scene
        self._name = name
        self._shadows = shadows
        self._files: dict[str, bytes] = {}

    def files(self) -> dict[str, bytes]:
        root = Element('sdf', version='1.9')
        world = _add(root, 'world', name=self._name)
        self._add_settings(world)
        self._add_lamps(world)
        for item in self._scene.structures:
            self._add_model(world, item)
        for item in self._scene.objects:
            self._add_model(world, item)
        self._add_robot(world)
        ElementTree.indent(root, ' ')
        text = ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n'
        route = loop(self._scene.size)
        return {f'{self._name}.sdf': text.encode(), ROUTE: route_text(route), **self._files}

    def _add_settings(self, world: Element) -> None:
        physics = _add(world, 'physics', name='steps', type='ignored')
        _add(physics, 'max_step_size', f'{sensor_period(RATE_HZ) / STEPS_PER_FRAME:g}')
        _add(physics, 'real_time_factor', '1')
        for file in itertools.islice(SYSTEMS, 4):
            plugin = _plugin(world, file)
            if file == 'gz-sim-sensors-system':
                _add(plugin, 'render_engine', 'ogre2')
        scene = _add(world, 'scene')
        # Ogre's ambient light is divided by π with the colours, its lamps are not.
        ambient = _light_levels(self._scene.lighting)[0]
        _add(scene, 'ambient', _color([min(1.0, math.pi * level) for level in ambient]))
        _add(scene, 'background', _color([linear(level) for level in self._scene.ceiling]))
        _add(scene, 'shadows', str(self._shadows).lower())
        _add(scene, 'grid', 'false')

    def _add_lamps(self, world: Element) -> None:
        _, _, levels = _light_levels(self._scene.lighting)
        for index, (lamp, level) in enumerate(
            zip(self._scene.lighting.lights, levels, strict=True)
        ):
            light = _lamp(world, f'lamp_{index}', level, lamp.shadow and self._shadows)
            _add(light, 'direction', _numbers(lamp.direction))

    def _add_model(self, world: Element, item: SceneObject) -> None:
        model = _add(world, 'model', name=item.name)
        _add(model, 'static', 'true')
        _add(model, 'pose', _pose(item.pose))
        link = _add(model, 'link', name='link')
        for index, part in enumerate(item.parts):
            visual = _add(link, 'visual', name=f'part_{index}')
            _add(visual, 'pose', _pose(part.pose))
            self._add_shape(_add(visual, 'geometry'), part)
            self._add_material(visual, part.surface)
        for index, (shape, pose) in enumerate(self._solid(item)):
            collision = _add(link, 'collision', name=f'solid_{index}')
            _add(collision, 'pose', _pose(pose))
            _primitive(_add(collision, 'geometry'), shape)
        if item.label is not None:
            _add(_plugin(model, 'gz-sim-label-system'), 'label', str(LABELS.index(item.label)))

    def _solid(self, item: SceneObject) -> Iterable[tuple[Box | Cylinder, Pose]]:
        """Return what stops a robot: of the hall its slabs, of objects the cylinders around them.

        They are those of `FloorPlan`, which stops the robot in the other simulator.
        """
        if item is self._scene.structures[0]:
            # Floor and walls only; panels, floor marks and lamps are nothing to drive against.
            for part in item.parts:
                if isinstance(part.shape, Box) and part.shape.size[2] == 0.1:
                    yield part.shape, part.pose
            return
        height = float(extents(item)[1][2])
        for x, y, radius in footprint(item).tolist():
            yield Cylinder(radius, height), Pose((x, y, height / 2))

    def _add_shape(self, geometry: Element, part: Part) -> None:
        if isinstance(part.shape, Frustum):
            # One metre high and of bottom radius 1, to be scaled: equal ratios share a file.
            ratio = round(part.shape.top_radius / part.shape.bottom_radius, 6)
            uri = f'meshes/frustum_{ratio:.6f}.obj'
            self._files[uri] = _frustum(ratio).encode()
            bottom = part.shape.bottom_radius
            _mesh(geometry, uri, (bottom, bottom, part.shape.length))
        elif isinstance(part.shape, Box) and part.surface.texture is not None:
            size = part.shape.size
            across, along = (value / part.surface.texture.half_period / 2 for value in size[:2])
            uri = f'meshes/slab_{across:.4f}_{along:.4f}.obj'
            self._files[uri] = _slab(across, along).encode()
            _mesh(geometry, uri, size)
        else:
            _primitive(geometry, part.shape)

    def _add_material(self, visual: Element, surface: Surface) -> None:
        material = _add(visual, 'material')
        color = [linear(value) for value in surface.color]
        _add(material, 'diffuse', _color(color))
        _add(material, 'specular', _color([surface.specular] * 3))
        if surface.emission:
            # In MuJoCo, too, it adds to the light on the surface.
            _add(material, 'emissive', _color([linear(surface.emission) * each for each in color]))
        metal = _add(_add(material, 'pbr'), 'metal')
        if surface.texture is not None:
            _add(metal, 'albedo_map', self._texture(surface.texture))
        _add(metal, 'metalness', '0')
        _add(metal, 'roughness', f'{1 - surface.shininess / 2:.3f}')

    def _texture(self, texture: Texture) -> str:
        path = texture_path(texture)
        self._files[path] = png(texture)
        return path

    def _add_robot(self, world: Element) -> None:
        """Add the robot where the route begins; its frame is on the floor, as in `robot`."""
        start = Robot(self._scene).state
        model = _add(world, 'model', name=ROBOT)
        _add(model, 'pose', _pose(Pose((start.x, start.y, 0.0), (0.0, 0.0, start.yaw))))
        base = _add(model, 'link', name='base_link')
        _add_inertia(base, 20.0, (0.4, 0.4, 0.1), Pose((0.0, 0.0, 0.1)))
        # Nothing of it reaches into the camera's view, as the other robot has no body at all.
        body = Part(Cylinder(RADIUS, 0.12), Surface((0.3, 0.3, 0.32)), Pose((0.0, 0.0, 0.14)))
        mast = Part(Box((0.04, 0.04, 0.5)), Surface((0.2, 0.2, 0.2)), Pose((0.1, 0.0, 0.45)))
        for name, part in (('body', body), ('mast', mast)):
            visual = _add(base, 'visual', name=name)
            _add(visual, 'pose', _pose(part.pose))
            self._add_shape(_add(visual, 'geometry'), part)
            self._add_material(visual, part.surface)
        collision = _add(base, 'collision', name='body_solid')
        _add(collision, 'pose', _pose(body.pose))
        _primitive(_add(collision, 'geometry'), body.shape)
        for name, x in (('front', 0.2), ('rear', -0.2)):
            caster = _add(base, 'collision', name=f'{name}_caster_solid')
            _add(caster, 'pose', _pose(Pose((x, 0.0, 0.04))))
            _add(_add(_add(caster, 'geometry'), 'sphere'), 'radius', '0.04')
            friction = _add(_add(_add(caster, 'surface'), 'friction'), 'ode')
            _add(friction, 'mu', '0')
            _add(friction, 'mu2', '0')
        self._add_camera(base)
        for side, sign in (('left', 1), ('right', -1)):
            _add_wheel(model, side, (0.0, sign * WHEEL_SEPARATION / 2, WHEEL_RADIUS))
        drive = _plugin(model, 'gz-sim-diff-drive-system')
        for tag, text in (
            ('left_joint', 'left_wheel_joint'),
            ('right_joint', 'right_wheel_joint'),
            ('wheel_separation', f'{WHEEL_SEPARATION:g}'),
            ('wheel_radius', f'{WHEEL_RADIUS:g}'),
            ('topic', COMMAND_TOPIC),
            ('odom_topic', ODOMETRY_TOPIC),
            ('frame_id', 'odom'),
            ('child_frame_id', 'base_link'),
            ('odom_publish_frequency', str(RATE_HZ)),
        ):
            _add(drive, tag, text)
        poses = _plugin(model, 'gz-sim-pose-publisher-system')
        for tag, text in (
            ('topic', POSE_TOPIC),
            ('publish_model_pose', 'true'),
            ('publish_link_pose', 'false'),
            ('publish_nested_model_pose', 'false'),
            ('use_pose_vector_msg', 'false'),
            ('update_frequency', str(RATE_HZ)),
        ):
            _add(poses, tag, text)

    def _add_camera(self, link: Element) -> None:
        """Add camera and box sensor, of one pose, size and rate, and the light from the viewer."""
        camera = self._scene.camera
        for name, kind, topic in (
            ('camera', 'camera', IMAGE_TOPIC),
            ('boxes', 'boundingbox_camera', BOX_TOPIC),
        ):
            sensor = _add(link, 'sensor', name=name, type=kind)
            _add(sensor, 'pose', _pose(CAMERA_MOUNT))
            _add(sensor, 'topic', topic)
            _add(sensor, 'update_rate', str(RATE_HZ))
            _add(sensor, 'always_on', 'true')
            lens = _add(sensor, 'camera')
            if kind == 'boundingbox_camera':
                _add(lens, 'box_type', 'visible_2d')
            else:
                _add(lens, 'optical_frame_id', OPTICAL_FRAME)
            _add(lens, 'horizontal_fov', f'{horizontal_fov(self._scene):.9f}')
            image = _add(lens, 'image')
            _add(image, 'width', str(camera.width))
            _add(image, 'height', str(camera.height))
            _add(image, 'format', 'R8G8B8')
            clip = _add(lens, 'clip')
            _add(clip, 'near', f'{NEAR:g}')
            _add(clip, 'far', f'{FAR:g}')
        _, viewer, _ = _light_levels(self._scene.lighting)
        light = _lamp(link, 'viewer', viewer, shadow=False)
        _add(light, 'pose', _pose(CAMERA_MOUNT))
        _add(light, 'direction', '1 0 0')


def texture_path(texture: Texture) -> str:
    """Return the path of a texture's image, relative to the world's file."""
    return f'textures/{texture.pattern}_{texture.seed}.png'


def _add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _plugin(parent: Element, file: str) -> Element:
    return _add(parent, 'plugin', filename=file, name=f'gz::sim::systems::{SYSTEMS[file]}')


def _lamp(parent: Element, name: str, level: Sequence[float], shadow: bool) -> Element:
    light = _add(parent, 'light', name=name, type='directional')
    _add(light, 'cast_shadows', str(shadow).lower())
    strength = max(1.0, *level)  # colours end at 1
    _add(light, 'intensity', _numbers([strength]))
    _add(light, 'diffuse', _color([each / strength for each in level]))
    _add(light, 'specular', _color([0.3 * each / strength for each in level]))
    return light


def _add_inertia(link: Element, mass: float, size: Vector, pose: Pose) -> None:
    """Add the inertia of a cuboid of full extents `size`."""
    inertial = _add(link, 'inertial')
    _add(inertial, 'pose', _pose(pose))
    _add(inertial, 'mass', f'{mass:g}')
    inertia = _add(inertial, 'inertia')
    x, y, z = (mass / 12 * extent**2 for extent in size)
    for tag, value in (('ixx', y + z), ('iyy', x + z), ('izz', x + y)):
        _add(inertia, tag, f'{value:.6f}')


def _add_wheel(model: Element, side: str, position: Vector) -> None:
    link = _add(model, 'link', name=f'{side}_wheel')
    # The wheel's own z is its axle.
    _add(link, 'pose', _pose(Pose(position, (-math.pi / 2, 0.0, 0.0))))
    _add_inertia(link, 1.0, (0.17, 0.17, 0.04), Pose())
    for tag in ('visual', 'collision'):
        shape = _add(link, tag, name=tag)
        _primitive(_add(shape, 'geometry'), Cylinder(WHEEL_RADIUS, 0.04))
    joint = _add(model, 'joint', name=f'{side}_wheel_joint', type='revolute')
    _add(joint, 'parent', 'base_link')
    _add(joint, 'child', f'{side}_wheel')
    _add(_add(joint, 'axis'), 'xyz', '0 0 1')


def _primitive(geometry: Element, shape: object) -> None:
    match shape:
        case Box(size):
            _add(_add(geometry, 'box'), 'size', _numbers(size))
        case Cylinder(radius, length):
            round_, sizes = _add(geometry, 'cylinder'), (radius, length)
            for tag, value in zip(('radius', 'length'), sizes, strict=True):
                _add(round_, tag, _numbers([value]))
        case Capsule(radius, length):
            round_, sizes = _add(geometry, 'capsule'), (radius, length)
            for tag, value in zip(('radius', 'length'), sizes, strict=True):
                _add(round_, tag, _numbers([value]))
        case Ellipsoid(radii):
            _add(_add(geometry, 'ellipsoid'), 'radii', _numbers(radii))
        case _:
            raise AssertionError(f'{shape} is not a primitive of SDF 1.9')


def _mesh(geometry: Element, uri: str, scale: Sequence[float]) -> None:
    mesh = _add(geometry, 'mesh')
    _add(mesh, 'uri', uri)
    _add(mesh, 'scale', _numbers(scale))


def _numbers(values: Iterable[float]) -> str:
    return ' '.join(f'{round(value, 6) + 0.0:.6f}'.rstrip('0').rstrip('.') for value in values)


def _color(values: Iterable[float]) -> str:
    return f'{_numbers(values)} 1'


def _pose(pose: Pose) -> str:
    return _numbers((*pose.position, *pose.rotation))


def _frustum(ratio: float) -> str:
    """Return a truncated cone as OBJ: height 1 about the origin, radii 1 and `ratio`."""
    angles = [2 * math.pi * index / RING for index in range(RING)]
    slope = 1 - ratio  # of the side, which its normals lean up by
    lines = [
        *(f'v {math.cos(a):.6f} {math.sin(a):.6f} -0.5' for a in angles),
        *(f'v {ratio * math.cos(a):.6f} {ratio * math.sin(a):.6f} 0.5' for a in angles),
        *(
            f'vn {math.cos(a) / math.hypot(1, slope):.6f} '
            f'{math.sin(a) / math.hypot(1, slope):.6f} {slope / math.hypot(1, slope):.6f}'
            for a in angles
        ),
        'vn 0 0 -1',
        'vn 0 0 1',
    ]
    for index in range(RING):
        a, b = index + 1, (index + 1) % RING + 1
        lines.append(f'f {a}//{a} {b}//{b} {b + RING}//{b}')
        lines.append(f'f {a}//{a} {b + RING}//{b} {a + RING}//{a}')
    for index in range(1, RING - 1):
        lines.append(f'f 1//{RING + 1} {index + 2}//{RING + 1} {index + 1}//{RING + 1}')
        top = RING + 1
        lines.append(f'f {top}//{RING + 2} {top + index}//{RING + 2} {top + index + 1}//{RING + 2}')
    return '\n'.join(lines) + '\n'


def _slab(across: float, along: float) -> str:
    """Return a unit cube as OBJ; a texture repeats `across` and `along` times on x and y.

    As in MuJoCo its upper left corner is where x is lowest and y highest.
    """
    corners = list(itertools.product((-0.5, 0.5), repeat=3))
    lines = [f'v {x:g} {y:g} {z:g}' for x, y, z in corners]
    lines += [f'vt {(x + 0.5) * across:.6f} {(y - 0.5) * along:.6f}' for x, y, _ in corners]
    for axis, sign in itertools.product(range(3), (-1, 1)):
        normal = np.zeros(3, int)
        normal[axis] = sign
        lines.append(f'vn {normal[0]} {normal[1]} {normal[2]}')
        number = 2 * axis + (sign > 0) + 1
        face = [i for i, corner in enumerate(corners) if corner[axis] == sign / 2]
        a, b, c, d = face  # of the other two axes: --, -+, +-, ++
        ring = (a, c, d, b) if (sign > 0) == (axis != 1) else (a, b, d, c)
        for triangle in ((ring[0], ring[1], ring[2]), (ring[0], ring[2], ring[3])):
            lines.append('f ' + ' '.join(f'{i + 1}/{i + 1}/{number}' for i in triangle))
    return '\n'.join(lines) + '\n'
