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

"""How Gazebo and its bridges are started: commands, files, environment; for launch and benchmark.

Nothing here starts anything.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pruned_perception.errors import UserError

ACCURACY, LATENCY = 'accuracy', 'latency'
PASSES = (ACCURACY, LATENCY)
CLOCK = 'clock'
PROCESSES: Mapping[str, tuple[str, ...]] = {
    ACCURACY: (CLOCK, 'camera', 'boxes', 'robot'),
    LATENCY: (CLOCK, 'camera', 'robot'),
}
"""The bridges of each pass; without a subscriber boxes are not even rendered."""

HIGH_WATER_MARKS = {'GZ_TRANSPORT_RCVHWM': '4', 'GZ_TRANSPORT_SNDHWM': '4'}
"""Messages that gz-transport keeps for a slow subscriber; by default 1000, 0.9 GB of images."""


def gazebo_command(world: str | Path, *, gui: bool = False) -> list[str]:
    """Return the command line of Gazebo, running at once; without `gui` it opens no window."""
    windowless = [] if gui else ['-s', '--headless-rendering']
    return ['gz', 'sim', '-r', *windowless, str(world)]


def transport_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add for Gazebo and bridges: high-water marks, unless chosen."""
    return {name: value for name, value in HIGH_WATER_MARKS.items() if name not in environment}


def bridged_topics(text: str, where: str) -> list[dict[str, Any]]:
    """Return the entries of a bridge file; raises UserError where one is not whole."""
    needed = ('process', 'ros_topic_name', 'gz_topic_name', 'ros_type_name', 'gz_type_name')
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f'{where} is not YAML: {error}') from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{where} is not a list of bridged topics')
    for number, entry in enumerate(entries, 1):
        lacking = [key for key in needed if not isinstance(entry, dict) or not entry.get(key)]
        if lacking:
            raise UserError(f'{where}: topic {number} lacks {", ".join(lacking)}')
    return entries


def bridge_file(entries: Sequence[Mapping[str, Any]], process: str, folder: Path) -> Path:
    """Write the topics of one process as a file for ros_gz_bridge, and return it."""
    chosen = [
        {key: value for key, value in entry.items() if key != 'process'}
        for entry in entries
        if entry['process'] == process
    ]
    if not chosen:
        raise UserError(f'the bridge file has no topic of the process {process!r}')
    path = folder / f'bridge_{process}.yaml'
    path.write_text(yaml.safe_dump(chosen, sort_keys=False), encoding='utf-8')
    return path


def new_folder() -> Path:
    """Return a new folder for bridge files, as launch has one for parameter files."""
    return Path(tempfile.mkdtemp(prefix='pruned_perception_bridges_'))


def bridge_parameters(process: str, pass_: str, file: Path) -> dict[str, Any]:
    """Return the parameters of ros_gz_bridge for a process of a pass.

    In the latency pass the camera's bridge stamps with the wall clock. That covers what comes after
    the bridge: rendering and gz-transport are not in such a latency.
    """
    wall = {'override_timestamps_with_wall_time': True}
    return {
        'config_file': str(file),
        **(wall if (process, pass_) == ('camera', LATENCY) else {}),
    }


def bridge_executable() -> Path | None:
    """Return ros_gz_bridge's parameter_bridge as AMENT_PREFIX_PATH finds it; None: not there."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = Path(prefix, 'lib', 'ros_gz_bridge', 'parameter_bridge')
        if prefix and os.access(path, os.X_OK):
            return path
    return None


def require_gazebo(*, bridge: bool = True) -> None:
    """Raise UserError, with what to install, where there is no `gz` or no ros_gz_bridge."""
    lacking = [] if shutil.which('gz') else ['gz (the simulator)']
    lacking += [] if not bridge or bridge_executable() else ['ros_gz_bridge']
    if lacking:
        distribution = os.environ.get('ROS_DISTRO', '')
        install = (
            f'sudo apt install ros-{distribution}-ros-gz'
            if distribution
            else 'source a ROS 2 first, then sudo apt install ros-$ROS_DISTRO-ros-gz'
        )
        raise UserError(f'{" and ".join(lacking)} cannot be found: {install}')
