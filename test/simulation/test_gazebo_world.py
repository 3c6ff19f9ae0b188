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

"""The Gazebo worlds: as generated, the same scene as MuJoCo's, and valid."""

from __future__ import annotations

import itertools
import math
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from pruned_perception.cli.main import main
from pruned_perception.errors import UserError
from pruned_perception.simulation import LABELS, gazebo_world, textures, world_check
from pruned_perception.simulation.driver import load_mujoco
from pruned_perception.simulation.renderer import Renderer
from pruned_perception.simulation.robot import CAMERA_MOUNT, Robot, build_scene
from pruned_perception.simulation.scene import (
    Array,
    Box,
    Lighting,
    Part,
    Pose,
    Scene,
    SceneObject,
    Surface,
    Texture,
)

WORLDS = Path(__file__).resolve().parents[2] / 'worlds'
BOTH = (gazebo_world.WORLD, gazebo_world.LIGHT_WORLD)
MILLIMETRE = 1e-3


@pytest.fixture(scope='module')
def scene() -> Scene:
    return build_scene(0)


@dataclass(frozen=True)
class Shape:
    """One part as a file says it: kind, half extents, colour, pose in the hall."""

    kind: str
    size: Array
    color: Array
    transform: Array


def numbers(text: str | None) -> Array:
    return np.array((text or '').split(), float)


def encoded(linear: Array) -> Array:
    """Return the sRGB values of linear light (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def sdf_transform(element: ElementTree.Element) -> Array:
    x, y, z, *angles = numbers(element.findtext('pose'))
    return Pose((x, y, z), tuple(angles)).matrix()


def mesh_extents(path: Path) -> Array:
    lines = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith('v ')]
    points = np.array(lines, float)
    return (points.max(axis=0) - points.min(axis=0)) / 2


def sdf_shape(visual: ElementTree.Element, model: Array) -> Shape:
    [shape] = list(visual.find('geometry'))
    match shape.tag:
        case 'box':
            kind, size = 'box', numbers(shape.findtext('size')) / 2
        case 'ellipsoid':
            kind, size = 'ellipsoid', numbers(shape.findtext('radii'))
        case 'cylinder' | 'capsule':
            kind = shape.tag
            size = np.array([float(shape.findtext('radius')), float(shape.findtext('length')) / 2])
        case 'mesh':
            uri = shape.findtext('uri')
            kind = 'mesh' if 'frustum' in uri else 'box'
            size = mesh_extents(WORLDS / uri) * numbers(shape.findtext('scale'))
    color = encoded(numbers(visual.findtext('material/diffuse'))[:3])
    return Shape(kind, size, color, model @ sdf_transform(visual))


def shapes_of_sdf(path: Path) -> dict[str, list[Shape]]:
    return {
        model.get('name'): [
            sdf_shape(visual, sdf_transform(model)) for visual in model.iter('visual')
        ]
        for model in ElementTree.parse(path).iter('model')
        if model.get('name') != gazebo_world.ROBOT
    }


def mjcf_transform(element: ElementTree.Element) -> Array:
    w, x, y, z = numbers(element.get('quat', '1 0 0 0'))
    transform = np.eye(4)
    transform[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    transform[:3, 3] = numbers(element.get('pos', '0 0 0'))
    return transform


def shapes_of_mjcf(text: str) -> dict[str, list[Shape]]:
    root = ElementTree.fromstring(text)
    colors = {
        each.get('name'): numbers(each.get('rgba', '1 1 1 1'))[:3] for each in root.iter('material')
    }
    vertices = {
        each.get('name'): numbers(each.get('vertex')).reshape(-1, 3) for each in root.iter('mesh')
    }

    def shape(geom: ElementTree.Element, body: Array) -> Shape:
        kind = geom.get('type')
        size = numbers(geom.get('size'))
        if kind == 'mesh':
            size = np.ptp(vertices[geom.get('mesh')], axis=0) / 2
        return Shape(kind, size, colors[geom.get('material')], body @ mjcf_transform(geom))

    return {
        body.get('name'): [shape(geom, mjcf_transform(body)) for geom in body.iter('geom')]
        for body in root.iter('body')
    }


@pytest.fixture(scope='module')
def mujoco_file(scene: Scene) -> str:
    try:
        load_mujoco()
    except UserError as error:
        pytest.skip(str(error))
    return gazebo_world.mjcf_files(scene, 'warehouse')['warehouse.xml'].decode()


@pytest.mark.parametrize('name', BOTH)
def test_the_shipped_world_is_what_the_generator_writes(scene: Scene, name: str) -> None:
    """`pruned-perception world` and `pruned-perception world --light` write them."""
    light = name == gazebo_world.LIGHT_WORLD
    for path, content in gazebo_world.world_files(scene, name, light=light).items():
        shipped = (WORLDS / path).read_bytes()
        if path.endswith('.png'):
            ours, theirs = (
                cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR).astype(int)
                for each in (content, shipped)
            )
            assert (
                np.abs(ours - theirs).max() <= 1
            )  # versions of OpenCV and NumPy round differently
        else:
            assert content == shipped, path


def test_the_command_writes_a_world_and_checks_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['world', '--light', '--output', str(tmp_path)]) == 0
    written = (tmp_path / 'warehouse_light.sdf').read_bytes()
    assert written == (WORLDS / 'warehouse_light.sdf').read_bytes()
    assert main(['world', '--format', 'mjcf', '--light', '--output', str(tmp_path)]) == 1
    (tmp_path / 'warehouse_light.sdf').write_bytes(written.replace(b'boundingbox_', b''))
    assert main(['world', '--check', str(tmp_path / 'warehouse_light.sdf')]) == 1
    assert '2 sensors of type camera' in capsys.readouterr().err


def test_nothing_lies_beside_the_worlds_that_they_do_not_use(scene: Scene) -> None:
    used = set()
    for name in BOTH:
        light = name == gazebo_world.LIGHT_WORLD
        used |= set(gazebo_world.world_files(scene, name, light=light))
    there = {str(path.relative_to(WORLDS)) for path in WORLDS.rglob('*') if path.is_file()}
    assert there == used


def test_both_simulators_have_the_same_objects(mujoco_file: str) -> None:
    """The same names, shapes, sizes and poses within a millimetre, and colours."""
    gazebo = shapes_of_sdf(WORLDS / 'warehouse.sdf')
    mujoco = shapes_of_mjcf(mujoco_file)
    assert gazebo.keys() == mujoco.keys()
    count = 0
    for name, shapes in gazebo.items():
        for ours, theirs in zip(shapes, mujoco[name], strict=True):
            assert ours.kind == theirs.kind
            np.testing.assert_allclose(ours.size, theirs.size, atol=MILLIMETRE / 2)
            # A rotation wrong by this much moves no point of the largest object by a millimetre.
            np.testing.assert_allclose(ours.transform, theirs.transform, atol=2e-5)
            np.testing.assert_allclose(ours.color, theirs.color, atol=1e-3)
            count += 1
    assert count > 600


def test_meshes_have_the_shape_of_the_frusta(scene: Scene, mujoco_file: str) -> None:
    """Not only their extents: every vertex that MuJoCo has."""
    root = ElementTree.fromstring(mujoco_file)
    theirs = [numbers(each.get('vertex')).reshape(-1, 3) for each in root.iter('mesh')]
    ours = []
    for mesh in ElementTree.parse(WORLDS / 'warehouse.sdf').iter('mesh'):
        if 'frustum' in mesh.findtext('uri'):
            lines = (WORLDS / mesh.findtext('uri')).read_text().splitlines()
            points = np.array([line.split()[1:] for line in lines if line.startswith('v ')], float)
            ours.append(points * numbers(mesh.findtext('scale')))
    for points in ours:
        assert min(np.abs(points - each).max() for each in theirs) < MILLIMETRE


def test_a_world_without_any_lamp_is_lit_by_its_ambient_light() -> None:
    slab = Part(Box((7.0, 5.0, 0.1)), Surface(), Pose((0.0, 0.0, -0.05)))
    dark = Scene(
        'dark',
        (7.0, 5.0),
        (SceneObject('floor', (slab,)),),
        (),
        Lighting((0.5,) * 3, (0.0,) * 3, ()),
    )
    sdf = gazebo_world.world_files(dark, 'dark')['dark.sdf'].decode()
    ambient = ElementTree.fromstring(sdf).findtext('.//scene/ambient')
    assert ambient is not None
    # Half the light of sRGB, which the renderer divides by π.
    assert float(ambient.split()[0]) == pytest.approx(0.214 * math.pi, abs=0.001)


def test_a_texture_lies_on_a_slab_as_in_mujoco() -> None:
    """Seen from above, what MuJoCo renders is the texture at the coordinates of Gazebo's mesh."""
    try:
        load_mujoco()
    except UserError as error:
        pytest.skip(str(error))
    texture = Texture('bricks', ((0.1, 0.1, 0.1), (0.9, 0.6, 0.3)), 5, 1.5)
    slab = Part(Box((7.0, 5.0, 0.1)), Surface(texture=texture), Pose((0.0, 0.0, -0.05)))
    scene = Scene(
        'slab',
        (7.0, 5.0),
        (SceneObject('floor', (slab,)),),
        (),
        Lighting((0.5,) * 3, (0.5,) * 3, ()),
    )
    [mesh] = [
        content.decode()
        for path, content in gazebo_world.world_files(scene, 'slab').items()
        if path.startswith('meshes/slab')
    ]
    lines = [line.split() for line in mesh.splitlines()]
    corners = np.array([line[1:3] for line in lines if line[0] == 'v'], float) * slab.shape.size[:2]
    coordinates = np.array([line[1:3] for line in lines if line[0] == 'vt'], float)
    affine, *_ = np.linalg.lstsq(np.column_stack([corners, np.ones(8)]), coordinates, rcond=None)

    eye = Pose((0.3, 0.2, 2.5), (0.0, math.pi / 2, 0.0))
    renderer = Renderer(scene)
    renderer.look(eye)
    image = renderer.image().astype(float)
    renderer.close()
    points = np.array(list(itertools.product(np.linspace(-0.9, 0.9, 60), repeat=2)))
    columns, rows = scene.camera.project(np.column_stack([points, np.zeros(len(points))]), eye).T
    u, v = (np.column_stack([points, np.ones(len(points))]) @ affine).T
    # An image's first row is at v = 1.
    size = textures.SIZE
    painted = textures.paint(texture).astype(float)
    expected = painted[((1 - v) % 1 * size).astype(int), (u % 1 * size).astype(int)]
    seen = image[rows.astype(int), columns.astype(int)]
    assert np.median(np.abs(seen - expected)) <= 4
    assert np.mean(np.abs(seen - expected) > 40) < 0.1  # but for the joints' edges


def projected_by_sdf(path: Path, corners: Array) -> Array:
    """Return the pixels of world points in the camera of a world file: a pinhole along x."""
    robot = next(
        each for each in ElementTree.parse(path).iter('model') if each.get('name') == 'robot'
    )
    sensor = next(each for each in robot.iter('sensor') if each.get('type') == 'camera')
    eye = sdf_transform(robot) @ sdf_transform(sensor)
    width, height = (float(sensor.findtext(f'camera/image/{each}')) for each in ('width', 'height'))
    focal = width / 2 / math.tan(float(sensor.findtext('camera/horizontal_fov')) / 2)
    x, y, z = ((corners - eye[:3, 3]) @ eye[:3, :3]).T
    return np.stack([width / 2 - focal * y / x, height / 2 - focal * z / x], axis=1)


def projected_by_mjcf(text: str, corners: Array, eye: Array) -> Array:
    """Return the same by MuJoCo's camera, which looks along -z and has a vertical field of view."""
    root = ElementTree.fromstring(text)
    camera = next(root.iter('camera'))
    size = root.find('visual/global')
    width = float(size.get('offwidth', '640')) if size is not None else 640.0
    height = float(size.get('offheight', '480')) if size is not None else 480.0
    focal = height / 2 / math.tan(math.radians(float(camera.get('fovy'))) / 2)
    forward, left, up = ((corners - eye[:3, 3]) @ eye[:3, :3]).T
    x, y, z = -left, up, -forward
    return np.stack([width / 2 + focal * x / -z, height / 2 - focal * y / -z], axis=1)


def test_both_cameras_see_ten_corners_at_the_same_pixels(scene: Scene, mujoco_file: str) -> None:
    start = Robot(scene).state
    eye = start.camera_pose().matrix()
    rng = np.random.default_rng(0)
    local = np.column_stack([rng.uniform(1, 6, 10), rng.uniform(-0.5, 0.5, (10, 2))])
    local[:, 1:] *= local[:, :1]
    corners = local @ eye[:3, :3].T + eye[:3, 3]
    gazebo = projected_by_sdf(WORLDS / 'warehouse.sdf', corners)
    mujoco = projected_by_mjcf(mujoco_file, corners, eye)
    np.testing.assert_allclose(gazebo, mujoco, atol=0.01)
    np.testing.assert_allclose(
        gazebo, scene.camera.project(corners, start.camera_pose()), atol=0.01
    )
    assert np.ptp(gazebo, axis=0).min() > 100


def test_faces_are_as_bright_in_gazebo_as_in_mujoco(scene: Scene) -> None:
    """In the shade and in half of all light; MuJoCo multiplies what is shown, Gazebo linear light.

    Ogre (HlmsPbs) divides ambient light by π with the colours, lamps not; of these it reflects
    less the rougher a surface is: Disney's normalised diffuse, and 4 % that are left to the gloss.
    """
    root = ElementTree.parse(WORLDS / 'warehouse.sdf')
    roughness = np.median([float(each.text) for each in root.iter('roughness')])
    reflected = 0.96 * (1 - roughness * (1 - 1 / 1.51))
    shade = numbers(root.findtext('world/scene/ambient'))[:3] / math.pi
    lamps = [
        float(each.findtext('intensity')) * numbers(each.findtext('diffuse'))[:3]
        for each in root.iter('light')
    ]
    light = scene.lighting
    others = [np.array(light.viewer), *(np.array(lamp.color) for lamp in light.lights)]
    assert len(lamps) == len(others)
    for albedo in (0.1, 0.4, 0.8):
        face = gazebo_world.linear(albedo)
        for share in (0.0, 0.5):
            mujoco = albedo * (np.array(light.ambient) + share * sum(others))
            gazebo = encoded(face * (shade + share * reflected * sum(lamps)))
            np.testing.assert_allclose(gazebo, mujoco, atol=0.03)


@pytest.mark.parametrize('name', BOTH)
def test_every_object_has_the_label_of_its_class_and_nothing_else_has_one(
    scene: Scene, name: str
) -> None:
    expected = {item.name: LABELS.index(item.label) for item in scene.objects}
    found = {
        model.get('name'): int(label.text)
        for model in ElementTree.parse(WORLDS / f'{name}.sdf').iter('model')
        for label in model.iter('label')
    }
    assert found.items() <= expected.items()
    assert len(found) == (len(expected) if name == gazebo_world.WORLD else 16)
    assert set(found.values()) == set(range(len(LABELS)))


@pytest.mark.parametrize('name', BOTH)
def test_the_benchmark_can_use_the_world(name: str) -> None:
    facts = world_check.read_world(WORLDS / f'{name}.sdf', LABELS)
    assert (facts.name, facts.width, facts.height) == (name, 640, 480)
    assert facts.rate_hz == pytest.approx(1 / 0.033)  # of 30 Hz: whole milliseconds
    assert facts.unlabelled(LABELS) == []
    root = ElementTree.parse(WORLDS / f'{name}.sdf')
    sensor = next(each for each in root.iter('sensor') if each.get('type') == 'camera')
    np.testing.assert_allclose(sdf_transform(sensor), CAMERA_MOUNT.matrix(), atol=1e-6)
    shadows = [each.text for each in root.iter('cast_shadows')]
    assert ('true' in shadows) == (name == gazebo_world.WORLD)


def edited(tmp_path: Path, *replacements: tuple[str, str]) -> Path:
    text = (WORLDS / 'warehouse_light.sdf').read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / 'world.sdf'
    path.write_text(text)
    return path


NO_CAMERA = ('name="camera" type="camera"', 'name="camera" type="depth_camera"')
NO_BOXES = ('type="boundingbox_camera"', 'type="segmentation"')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (NO_CAMERA, r'no sensors of type camera.*add a camera'),
        (NO_BOXES, r'no sensors of type boundingbox_camera.*ground truth'),
        (('<label>7</label>', '<label>11</label>'), r'<label> 11 is no class.*0 … 7.*person'),
        (('<label>7</label>', '<label>barrier</label>'), r'<label> barrier is no class'),
        (('<max_step_size>0.0033', '<max_step_size>0.003333333'), r'does not divide.*take 0.0033'),
        (('<box_type>visible_2d', '<box_type>full_2d'), r'full_2d.*needs visible_2d'),
        (
            ('<topic>box_camera/', '<topic>camera/'),
            r'both send their calibration to camera/camera_info.*<topic> of the box sensor',
        ),
    ],
)
def test_a_world_that_the_benchmark_cannot_use_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        world_check.read_world(edited(tmp_path, change), LABELS)


def test_a_class_without_a_label_is_named(tmp_path: Path) -> None:
    world = edited(tmp_path, ('<label>7</label>', '<label>6</label>'))
    assert world_check.read_world(world, LABELS).unlabelled(LABELS) == ['barrier']


@pytest.mark.parametrize('text', ['<sdf>', '<robot/>', '<sdf version="1.9"/>'])
def test_what_is_no_world_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / 'a.sdf').write_text(text)
    with pytest.raises(UserError, match=r'a\.sdf'):
        world_check.read_world(tmp_path / 'a.sdf', LABELS)
    with pytest.raises(UserError, match='cannot read'):
        world_check.read_world(tmp_path / 'b.sdf', LABELS)


sdf_tools = pytest.mark.skipif(
    not any(map(shutil.which, ('gz', 'ign'))),
    reason="needs SDFormat's tools (Debian: ignition-tools libsdformat-dev sdformat-sdf)",
)


@sdf_tools
@pytest.mark.parametrize('name', BOTH)
def test_sdformat_takes_the_world(name: str) -> None:
    assert world_check.sdf_problems(WORLDS / f'{name}.sdf') == []


@sdf_tools
@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (('<far>60</far>', '<farr>60</farr>'), 'farr'),
        (('<child>left_wheel</child>', '<child>left_weel</child>'), 'left_weel'),
        (('gz-sim-diff-drive-system', 'gz-sim-dif-drive-system'), 'gz-sim-dif-drive-system'),
    ],
)
def test_what_is_wrong_in_a_world_is_named(
    tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    path = edited(tmp_path, change)
    world = ElementTree.parse(path)
    for model in world.findall('world/model')[:-1]:  # the robot alone: that is quicker
        world.find('world').remove(model)
    world.write(path)
    problems = world_check.sdf_problems(path)
    assert any(named in each for each in problems), problems
