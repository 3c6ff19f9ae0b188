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

"""A running Gazebo as the benchmark sees it: its processes, its clock, what its camera sends."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception.benchmark.accuracy import boxes_of
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.session import Session
from pruned_perception.errors import UserError
from pruned_perception.inference.encodings import image_from_message
from pruned_perception.nodes import gazebo, gazebo_bridge
from pruned_perception.nodes.header_stamps import stamp_ns
from pruned_perception.nodes.up import module_command, node_command, ros_arguments
from pruned_perception.simulation.ground_truth import MIN_SIDE

START_S = 60.0
"""How long a simulator may take to its first tick."""
FRAME_S = 60.0
"""And from there to an image, and to boxes: a software renderer compiles its shaders."""
FIRST_IMAGES = 5
DARK = 8
"""A pixel of 255 that is no brighter in any channel is black."""
BLACK_SHARE = 0.99
"""Share of black pixels from which on an image is black."""
PAUSED_S = 5.0
SLOWEST = 0.1
"""Real-time factor below which a result is marked."""

Commands = Mapping[str, Sequence[str]]


def simulator_commands(
    world: Path, route: Path | None, pass_: str, namespace: str, folder: Path
) -> Commands:
    """Return name → command line of Gazebo, its bridges and the driver.

    Bridges are ros_gz_bridge where there is one, else ours, in a Python with Gazebo's bindings.

    Raises UserError, with what to install, where there is no Gazebo or no way to bridge.
    """
    from pruned_perception.bundle import resolve_model

    bridge = gazebo.bridge_executable()
    gazebo.require_gazebo(bridge=False)
    python = None if bridge else gazebo_bridge.python_with_bindings()
    if bridge is None and python is None:
        raise UserError(
            "neither ros_gz_bridge nor Gazebo's Python bindings can be found: install "
            'ros-$ROS_DISTRO-ros-gz, or python3-gz-transport13 and python3-gz-msgs10 of your '
            'Gazebo (PRUNED_PERCEPTION_GZ_PYTHON says which Python has them)'
        )
    file = resolve_model('package://pruned_perception/config/gazebo_bridge.yaml')
    topics = gazebo.bridged_topics(file.read_text(encoding='utf-8'), str(file))
    commands: dict[str, Sequence[str]] = {'gazebo': gazebo.gazebo_command(world)}
    for process in gazebo.PROCESSES[pass_]:
        name = f'{process}_bridge'
        part = gazebo.bridge_file(topics, process, folder)
        parameters = gazebo.bridge_parameters(process, pass_, part)
        if bridge is not None:
            commands[name] = [str(bridge), *ros_arguments(name, namespace, parameters)]
        else:
            assert python is not None
            wall = ['--wall-stamps'] if 'override_timestamps_with_wall_time' in parameters else []
            commands[name] = [
                *module_command('nodes.gazebo_bridge'),
                *('--file', str(part), '--python', python, *wall),
                *ros_arguments(name, namespace, {}),
            ]
    if route is not None:
        commands['driver'] = node_command('route_driver', namespace, {'route': str(route)})
    return commands


def simulator_environment() -> dict[str, str]:
    """Return the environment of Gazebo and bridges: small queues, nobody else on the network."""
    return {
        **os.environ,
        **gazebo.transport_settings(os.environ),
        'GZ_IP': '127.0.0.1',
        'GZ_PARTITION': f'pruned_perception_{os.getpid()}',
    }


def simulator_facts() -> dict[str, Any]:
    """Return version, transport and queue sizes of Gazebo, for the report."""
    environment = simulator_environment()
    version = 'unknown'
    if shutil.which('gz'):
        done = subprocess.run(
            ['gz', 'sim', '--versions'], capture_output=True, text=True, timeout=START_S
        )
        version = done.stdout.strip().splitlines()[0] if done.stdout.strip() else version
    return {
        'simulator': f'gz sim {version}',
        'renderer': renderer(),
        'transport': environment.get('GZ_TRANSPORT_IMPLEMENTATION', 'zeromq (default)'),
        **{name: environment[name] for name in gazebo.HIGH_WATER_MARKS},
        'bridge': 'ros_gz_bridge' if gazebo.bridge_executable() else 'pruned_perception',
    }


def renderer() -> str:
    """Return the rendering engine, and which driver it last ran on as its log tells.

    A driver that computes on the processor, llvmpipe, says why a simulation is slow.
    """
    log = Path.home() / '.gz' / 'rendering' / 'ogre2.log'
    text = log.read_text(errors='replace') if log.is_file() else ''
    found = [re.search(rf'GL_{what} = (.+)', text) for what in ('RENDERER', 'VERSION')]
    driver = ', '.join(each[1].strip() for each in found if each)
    return f'ogre2 on {driver}' if driver else 'ogre2'


@dataclass
class Watch:
    """What came from a simulation; times are monotonic seconds, stamps and simulated times ns."""

    clock: list[tuple[float, int]] = field(default_factory=list)
    infos: list[tuple[float, int]] = field(default_factory=list)
    """(receipt, stamp) of camera_info, of which a camera sends one an image."""
    truth: dict[int, list[list[Any]]] = field(default_factory=dict)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    image_stamps: list[int] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0

    def span(self, values: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
        """Return what came while it was measured."""
        return [each for each in values if self.began <= each[0] <= self.ended]

    @property
    def simulated_s(self) -> float:
        """Simulated seconds while it was measured."""
        ticks = self.span(self.clock)
        return (ticks[-1][1] - ticks[0][1]) / 1e9 if len(ticks) > 1 else 0.0

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds between the first and the last tick of that time."""
        ticks = self.span(self.clock)
        return ticks[-1][0] - ticks[0][0] if len(ticks) > 1 else 0.0

    @property
    def real_time_factor(self) -> float:
        """Simulated seconds a second."""
        return self.simulated_s / self.wall_s if self.wall_s else 0.0

    def require_steady_time(self) -> None:
        """Raise UserError where the simulated time stood still or jumped back."""
        ticks = self.span(self.clock)
        for (_, before), (_, after) in itertools.pairwise(ticks):
            if after < before:
                raise UserError(
                    f'the simulated time jumped back from {before / 1e9:.3f} to '
                    f'{after / 1e9:.3f} s while it was measured: the world was reset; measure again'
                )
        moved = [at for (_, before), (at, after) in itertools.pairwise(ticks) if after > before]
        still = self.ended - (moved[-1] if moved else self.began)
        if still > PAUSED_S:
            raise UserError(
                f'the simulated time stood still for the last {still:.0f} s: is Gazebo paused?'
            )


class Simulation:
    """Gazebo and its bridges for the length of a `with` block, and subscriptions to them."""

    def __init__(
        self, session: Session, commands: Commands, folder: Path, namespace: str, pass_: str
    ) -> None:
        self.watch = Watch()
        self._session = session
        self._commands = commands
        self._namespace = namespace
        self._pass = pass_
        self._children = Children(folder, simulator_environment())
        self._started: list[Child] = []
        self._subscriptions: list[Any] = []

    def __enter__(self) -> Simulation:
        self._children.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for subscription in self._subscriptions:
            self._session.node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._children.__exit__()

    def measure(self, seconds: float) -> None:
        """Let it run for `seconds` of the wall clock.

        Raises UserError, and at once, where one of the processes ends or the simulated time stands
        still or jumps back.
        """
        self.watch.began = time.monotonic()
        left = seconds
        while self._session.running and left > 0:
            self._session.spin_for(min(left, 0.5))
            self.watch.ended = time.monotonic()
            self.require_alive()
            self.watch.require_steady_time()
            left = self.watch.began + seconds - self.watch.ended

    def require_alive(self) -> None:
        """Raise UserError, with the end of its log, if one of the processes has ended."""
        for child in self._started:
            child.require_alive()

    def _start(self) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo, Image
        from vision_msgs.msg import Detection2DArray

        watch, prefix = self.watch, self._namespace
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        deep = QoSProfile(depth=100)
        subscribe = self._session.node.create_subscription

        def on_clock(message: Any) -> None:
            watch.clock.append((time.monotonic(), stamp_ns(message.clock)))

        def on_info(message: Any) -> None:
            watch.infos.append((time.monotonic(), stamp_ns(message.header.stamp)))

        def on_truth(message: Any) -> None:
            rows = [row for row in boxes_of(message) if min(row[2:4]) >= MIN_SIDE]
            watch.truth[stamp_ns(message.header.stamp)] = rows

        def on_image(message: Any) -> None:
            if len(watch.images) < FIRST_IMAGES:
                watch.images.append(_picture(message))
                watch.image_stamps.append(stamp_ns(message.header.stamp))

        self._subscriptions = [
            subscribe(Clock, '/clock', on_clock, newest),
            subscribe(CameraInfo, f'{prefix}/camera_info', on_info, deep),
            subscribe(Detection2DArray, f'{prefix}/ground_truth', on_truth, deep),
        ]
        images = subscribe(Image, f'{prefix}/image_raw', on_image, deep)
        self._subscriptions.append(images)
        for name, command in self._commands.items():
            self._started.append(self._children.start(name, command))
        self._wait(
            lambda: bool(watch.clock), START_S, 'no /clock', 'is Gazebo running, and the bridge?'
        )
        self._require_one_clock()
        self._wait(
            lambda: len(watch.images) == FIRST_IMAGES,
            FRAME_S,
            f'{len(watch.images)} of {FIRST_IMAGES} images on {prefix}/image_raw',
            'the clock runs: does the bridge of the camera deliver? does the renderer start?',
        )
        # A reader of images that counts nothing would only take the processor's time.
        self._session.node.destroy_subscription(images)
        self._subscriptions.remove(images)
        require_light(watch.images)
        self._wait(lambda: bool(watch.infos), FRAME_S, f'no {prefix}/camera_info', 'is it bridged?')
        if self._pass == gazebo.ACCURACY:
            self._wait(
                lambda: bool(watch.truth),
                FRAME_S,
                f'no boxes on {prefix}/ground_truth',
                'images come: does the world have a boundingbox_camera, and is it bridged?',
            )

    def _wait(
        self, condition: Callable[[], bool], seconds: float, lacking: str, question: str
    ) -> None:
        end = time.monotonic() + seconds
        while not self._session.spin_until(condition, 0.5):
            if not self._session.running:
                raise KeyboardInterrupt
            self.require_alive()
            if time.monotonic() > end:
                ends = '\n'.join(each.last_lines() for each in self._started if each.last_lines())
                raise UserError(f'{lacking} within {seconds:.0f} s: {question}\n{ends}')

    def _require_one_clock(self) -> None:
        infos = self._session.node.get_publishers_info_by_topic('/clock')
        if len(infos) > 1:
            names = ', '.join(sorted(f'{each.node_namespace}{each.node_name}' for each in infos))
            raise UserError(
                f'{len(infos)} nodes publish /clock ({names}), so that time would jump: leave '
                'one of them'
            )


def require_light(images: Sequence[NDArray[np.uint8]]) -> None:
    """Raise UserError where one of the first images is black."""
    for number, image in enumerate(images, 1):
        share = float((image.max(axis=2) <= DARK).mean())
        if share >= BLACK_SHARE:
            raise UserError(
                f'image {number} of {len(images)} is black, so nothing is measured: a renderer '
                'without a driver does that (Mesa 21 and 22, now and then others). Look at '
                'glxinfo or eglinfo, update the driver, or start again'
            )


def _picture(message: Any) -> NDArray[np.uint8]:
    """Return a message's image as RGB, a copy."""
    image, order = image_from_message(message)
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.array(image[..., ::-1] if order == 'bgr' else image)
