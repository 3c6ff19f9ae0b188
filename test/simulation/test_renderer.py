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

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pruned_perception.errors import UserError
from pruned_perception.simulation import catalogue, driver, warehouse
from pruned_perception.simulation.ground_truth import BoxFinder
from pruned_perception.simulation.renderer import Renderer
from pruned_perception.simulation.scene import LABELS, Lighting, Pose, Scene
from pruned_perception.simulation.splits import SPLITS

EYE = Pose((0.0, 0.0, 0.8))


@pytest.fixture
def renderer(rendering: None, blocks: Scene):
    renderer = Renderer(blocks)
    yield renderer
    renderer.close()


def test_the_image_shows_the_objects_where_the_camera_model_says(renderer: Renderer) -> None:
    renderer.look(EYE)
    image = renderer.image().astype(int)
    assert image.shape == (480, 640, 3)
    # Centres of the cubes' near faces: the red one stands to the left.
    for centre, channel in (((6.0, 1.5, 0.5), 0), ((9.0, -2.0, 0.5), 2)):
        x, y = renderer.scene.camera.project(np.array([centre]), EYE)[0]
        pixel = image[int(y), int(x)]
        assert pixel[channel] == pixel.max() > 1.5 * np.delete(pixel, channel).max()


def test_boxes_are_the_projected_objects(renderer: Renderer) -> None:
    scene = renderer.scene
    renderer.look(EYE)
    found = BoxFinder(scene.objects).find(renderer.object_numbers(), scene.camera, EYE)
    assert [item.name for item in found] == ['red', 'blue']
    for item, thing in zip(found, scene.objects, strict=True):
        corners = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)])
        points = scene.camera.project(corners + thing.pose.position, EYE)
        low, high = points.min(axis=0), points.max(axis=0)
        assert item.box == pytest.approx((*low, *(high - low)), abs=1.5)
        assert item.visible == pytest.approx(1.0, abs=0.03)
        assert LABELS[item.class_id] == thing.label


def test_a_hidden_object_is_less_visible_and_one_out_of_sight_is_not_found(
    renderer: Renderer,
) -> None:
    scene = renderer.scene
    finder = BoxFinder(scene.objects)
    poses = {'red': Pose((6.5, 0.0, 0.0)), 'blue': Pose((9.5, -0.6, 0.0))}
    for name, pose in poses.items():
        renderer.place(name, pose)
    renderer.look(EYE)
    red, blue = finder.find(renderer.object_numbers(), scene.camera, EYE, poses)
    assert red.visible == pytest.approx(1.0, abs=0.03)
    assert 0.3 < blue.visible < 0.7
    renderer.place('red', None)
    renderer.look(EYE)
    (alone,) = finder.find(renderer.object_numbers(), scene.camera, EYE, poses)
    assert alone.name == 'blue'
    assert alone.visible == pytest.approx(1.0, abs=0.03)


def test_an_object_cut_by_the_image_s_edge_is_partly_visible(renderer: Renderer) -> None:
    scene = renderer.scene
    edge = scene.camera.width / 2 / scene.camera.focal * 6.0
    poses = {'red': Pose((6.5, edge, 0.0)), 'blue': None}
    renderer.place('red', poses['red'])
    renderer.place('blue', None)
    renderer.look(EYE)
    (red,) = BoxFinder(scene.objects).find(renderer.object_numbers(), scene.camera, EYE, poses)
    assert red.box[0] == 0.0
    # Half of the near face is cut off; the side that faces the image's centre is not.
    assert 0.5 < red.visible < 0.8


def test_light_changes_the_brightness(renderer: Renderer) -> None:
    renderer.look(EYE)
    bright = renderer.image()[300:].mean()  # the floor: the ceiling is not lit
    renderer.light(Lighting((0.1, 0.1, 0.1), (0.0, 0.0, 0.0), renderer.scene.lighting.lights))
    renderer.look(EYE)
    assert renderer.image()[300:].mean() < 0.8 * bright


def test_shadows_darken(renderer: Renderer) -> None:
    eye = Pose((0.0, 0.0, 6.0), (0.0, 0.7, 0.0))
    renderer.look(eye)
    dark = renderer.image().mean()
    renderer.look(eye, shadows=False)
    assert dark < renderer.image().mean()


def test_leaving_out_what_is_out_of_sight_changes_no_pixel(
    rendering: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = SPLITS['train']
    hall = warehouse.build(split, 0, 0, stock=40)
    renderer = Renderer(hall)
    left_out = []
    for yaw in np.linspace(0, 5, 6):
        eye = Pose((0.5, -0.3, 0.9), (0.1, 0.2, float(yaw)))
        renderer.look(eye, 0.8, shadows=False)
        image = renderer.image()
        left_out.append(int((~renderer._in_view(eye, 0.8)).sum()))
        with monkeypatch.context() as patch:
            patch.setattr(Renderer, '_in_view', lambda self, pose, fovy: np.bool_(True))
            renderer.look(eye, 0.8, shadows=False)
        assert np.array_equal(renderer.image(), image)
    renderer.close()
    assert min(left_out) > 10


def test_a_pass_for_the_boxes_leaves_the_image_as_it_was(renderer: Renderer) -> None:
    renderer.look(EYE)
    image = renderer.image()
    renderer.object_numbers()
    assert np.array_equal(renderer.image(), image)


@pytest.mark.parametrize('label', LABELS)
def test_an_unhidden_object_of_every_label_is_found_whole(
    rendering: None, blocks: Scene, label: str
) -> None:
    """The outlines, by which the visible share is told, agree with what is rendered.

    Not exactly: a filled polygon includes the pixels of its border, which shows on thin parts.
    """
    split = SPLITS['train']
    thing = catalogue.labelled(label, 'it', split, split.rng(1), Pose((3.5, 0.2, 0.0), (0, 0, 0.5)))
    scene = Scene('one', blocks.size, blocks.structures, (thing,), blocks.lighting)
    renderer = Renderer(scene)
    renderer.look(EYE)
    found = BoxFinder(scene.objects).find(renderer.object_numbers(), scene.camera, EYE)
    renderer.close()
    assert [item.visible for item in found] == [pytest.approx(1.0, abs=0.1)]


def test_importing_the_simulation_loads_no_simulator() -> None:
    code = (
        'import sys, pruned_perception.simulation.dataset, pruned_perception.cli.simulate; '
        'sys.exit("mujoco" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_without_mujoco_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'pruned_perception\[sim\]'):
        driver.load_mujoco()


def test_without_a_driver_the_error_names_the_packages_to_install(
    rendering: None, tmp_path: Path
) -> None:
    # EGL with an empty list of vendors is EGL without Mesa.
    environment = {**os.environ, 'MUJOCO_GL': 'egl', '__EGL_VENDOR_LIBRARY_DIRS': str(tmp_path)}
    command = [sys.executable, '-m', 'pruned_perception.cli.main', 'simulate', '--split', 'test']
    command += ['--frames', '1', '--out', str(tmp_path / 'out')]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert 'sudo apt install libegl1 libgl1-mesa-dri' in done.stderr
    assert 'Traceback' not in done.stderr
