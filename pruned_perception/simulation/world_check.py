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

"""What a Gazebo world must have for the benchmark, and whether SDFormat's own tools take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pruned_perception.errors import UserError
from pruned_perception.simulation.gazebo_world import SYSTEMS, sensor_period

LATER_ELEMENTS = ('optical_frame_id',)
"""In SDF 1.9 since sdformat 12.4; the tools of Debian 12 (12.3) copy them without knowing them."""
_UNDEFINED = 'not defined in SDF'
_TOOLS = ('gz', 'ign')
_TIMEOUT_S = 60.0
_SAME = (
    'pose',
    'update_rate',
    'camera/horizontal_fov',
    'camera/image/width',
    'camera/image/height',
)
"""What camera and box sensor must have in common."""


@dataclass(frozen=True)
class WorldFacts:
    """What the benchmark needs to know of a world; its sensors are of one pose, size and rate."""

    name: str
    image_topic: str
    box_topic: str
    rate_hz: float
    """At which images come: see `sensor_period`."""
    width: int
    height: int
    labels: tuple[int, ...]
    """Labels that occur, sorted."""

    def unlabelled(self, labels: Sequence[str]) -> list[str]:
        """Return the classes that no model of the world is labelled as."""
        return [name for index, name in enumerate(labels) if index not in self.labels]


def read_world(path: Path, labels: Sequence[str]) -> WorldFacts:
    """Return what there is in a world for a detector of the classes `labels`.

    Raises UserError, with the way out, where there is no camera or no box sensor, where they see
    different things, where the step size does not divide their period, or where a label is no
    class.
    """
    world = _world(path)
    camera = _sensor(path, world, 'camera', 'a camera at the same pose as the box sensor')
    boxes = _sensor(
        path,
        world,
        'boundingbox_camera',
        'a sensor of type boundingbox_camera (box_type visible_2d) beside the camera: '
        'it is the ground truth',
    )
    for tag in _SAME:
        ours, theirs = (_text(path, sensor, tag) for sensor in (camera, boxes))
        if ours != theirs:
            raise UserError(
                f'{path}: <{tag}> is {ours} for the camera and {theirs} for the box sensor: give '
                'both the same, or boxes and images do not belong together'
            )
    if (kind := _text(path, boxes, 'camera/box_type')) != 'visible_2d':
        raise UserError(f'{path}: <box_type> is {kind}; the benchmark needs visible_2d')
    if _info_topic(camera) == (topic := _info_topic(boxes)):
        raise UserError(
            f'{path}: camera and box sensor both send their calibration to {topic}, so that each '
            'image would have two: put the <topic> of the box sensor elsewhere'
        )
    rate = float(_text(path, camera, 'update_rate'))
    step = float(_text(path, world, 'physics/max_step_size'))
    period = sensor_period(rate)
    if abs(round(period / step) - period / step) > 1e-4:
        raise UserError(
            f"{path}: <max_step_size> {step:g} s does not divide the camera's period {period:g} s "
            f'(of {rate:g} Hz, in whole milliseconds), so that stamps would be uneven: take '
            f'{period / 10:g}'
        )
    found = sorted({_label(path, each.text, labels) for each in world.iter('label')})
    return WorldFacts(
        name=world.get('name', ''),
        image_topic=_text(path, camera, 'topic'),
        box_topic=_text(path, boxes, 'topic'),
        rate_hz=1 / period,
        width=int(_text(path, camera, 'camera/image/width')),
        height=int(_text(path, camera, 'camera/image/height')),
        labels=tuple(found),
    )


def sdf_problems(path: Path) -> list[str]:
    """Return what is wrong with a world file, by SDFormat's tools and by the plugins' names.

    The tools take misspelt elements and plugins for somebody's own: the first they mention in a log
    alone, the others not at all.

    Raises UserError where no tool is installed.
    """
    tool = next((each for each in _TOOLS if shutil.which(each)), None)
    if tool is None:
        raise UserError(
            'SDFormat has no tool here: sudo apt install ignition-tools libsdformat-dev '
            'sdformat-sdf (Debian, Ubuntu), or a Gazebo, which brings gz'
        )
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [tool, 'sdf', '-k', str(path.resolve())],
            env={**os.environ, 'HOME': home},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        logs = [file.read_text() for file in Path(home).rglob('*.log')]
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if line.strip() and line != 'Valid.' and not line.startswith('Library error')
    ]
    problems = said if done.returncode or 'Valid.' not in done.stdout else []
    for line in '\n'.join([*said, *logs]).splitlines():
        if _UNDEFINED in line and not any(f'Element[{each}]' in line for each in LATER_ELEMENTS):
            problems.append(line[line.find('XML') :])
    for plugin in _world(path).iter('plugin'):
        file = plugin.get('filename', '')
        if SYSTEMS.get(file) is None or plugin.get('name') != f'gz::sim::systems::{SYSTEMS[file]}':
            problems.append(f'plugin {file} ({plugin.get("name")}) is none of {", ".join(SYSTEMS)}')
    return list(dict.fromkeys(problems))


def _world(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f'cannot read the world {path}: {error.strerror}') from error
    except ElementTree.ParseError as error:
        raise UserError(f'{path} is not XML: {error}') from error
    world = root.find('world')
    if root.tag != 'sdf' or world is None:
        raise UserError(f'{path} has no <world>: it is not a world in SDF')
    return world


def _sensor(path: Path, world: ElementTree.Element, kind: str, need: str) -> ElementTree.Element:
    found = [each for each in world.iter('sensor') if each.get('type') == kind]
    if len(found) != 1:
        raise UserError(
            f'{path} has {len(found) or "no"} sensors of type {kind}; the benchmark needs one: '
            f'add {need}, or take worlds/warehouse.sdf'
        )
    return found[0]


def _text(path: Path, element: ElementTree.Element, tag: str) -> str:
    text = (element.findtext(tag) or '').strip()
    if not text:
        where = element.get('name') or element.tag
        raise UserError(f'{path}: {element.tag} {where} has no <{tag}>')
    return text


def _info_topic(sensor: ElementTree.Element) -> str:
    """Return the topic of a camera's calibration: beside its images, unless it says so."""
    beside, _, _ = (sensor.findtext('topic') or '').strip().rpartition('/')
    return (sensor.findtext('camera/camera_info_topic') or f'{beside}/camera_info').strip(' /')


def _label(path: Path, text: str | None, labels: Sequence[str]) -> int:
    try:
        label = int(text or '')
    except ValueError:
        label = -1
    if not 0 <= label < len(labels):
        raise UserError(
            f'{path}: <label> {text} is no class of the model, which has 0 … {len(labels) - 1} '
            f'({", ".join(labels)}): give each model the index of its class'
        )
    return label
