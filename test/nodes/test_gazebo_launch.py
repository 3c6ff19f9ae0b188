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

"""gazebo.launch.py under the official launch, with stand-ins for Gazebo and its bridge."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('launch_ros', reason='needs launch_ros (not on PyPI; comes with ROS 2)')

from ros_domain import DOMAIN
from tiny_detector import write_tiny_bundle

from pruned_perception.environment import add_own_prefix
from pruned_perception.nodes import gazebo

ROOT = Path(__file__).resolve().parents[2]
add_own_prefix()
INSTALLED = any(
    Path(prefix, 'share/pruned_perception/launch/gazebo.launch.py').is_file()
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
)
pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(not INSTALLED, reason='needs the package installed'),
]

TIMEOUT = 60.0  # seconds; only a failing test waits so long
STAND_IN = """
import json, os, signal, sys, time

def note(what):
    line = json.dumps([what, NAME, os.getpid(), sys.argv[2:], dict(os.environ)]) + '\\n'
    file = os.open(os.environ['EVENTS'], os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())  # at once: others write there, and somebody reads
    os.close(file)

NAME = sys.argv[1]
def end(*_):
    note('end')
    sys.exit(0)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
note('start')
if NAME == 'gz' and 'FAIL' in os.environ:
    time.sleep(0.5)
    sys.exit(7)
while True:
    time.sleep(0.1)
"""
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *given = sys.argv[1:]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(path),
    launch_arguments=[each.split(':=') for each in given])]))
sys.exit(service.run())
"""


class Launch:
    """A launch in a process group of its own, as on a terminal, and what its stand-ins noted."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.events_file = folder / 'events'
        self.events_file.touch()
        self.mark = uuid.uuid4().hex
        (folder / 'stand_in.py').write_text(STAND_IN)
        for path in ('bin/gz', 'prefix/lib/ros_gz_bridge/parameter_bridge'):
            file = folder / path
            file.parent.mkdir(parents=True)
            words = shlex.join([sys.executable, str(folder / 'stand_in.py'), file.name])
            file.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            file.chmod(0o755)
        index = folder / 'prefix/share/ament_index/resource_index/packages'
        index.mkdir(parents=True)
        (index / 'ros_gz_bridge').touch()
        self.output = folder / 'output'
        prefixes = [str(folder / 'prefix'), os.environ['AMENT_PREFIX_PATH']]
        self.environment = {
            **os.environ,
            'PATH': os.pathsep.join([str(folder / 'bin'), os.environ['PATH']]),
            'AMENT_PREFIX_PATH': os.pathsep.join(prefixes),
            'EVENTS': str(self.events_file),
            'MARK_OF_THIS_TEST': self.mark,
            'ROS_DOMAIN_ID': str(DOMAIN),
            'ROS_LOG_DIR': str(folder / 'log'),
            'TMPDIR': str(folder),
            **variables,
        }
        self.model = str(write_tiny_bundle(folder / 'bundle').path)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *given: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, '-c', LAUNCH, str(ROOT / 'launch' / 'gazebo.launch.py')),
                *(f'model:={self.model}', 'discovery_range:=localhost', *given),
            ],
            env=self.environment,
            stdout=self.output.open('wb'),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def events(self, what: str) -> list[list]:
        lines = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [line for line in lines if line[0] == what]

    def wait_for(self, condition) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None or condition(), self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return self.output.read_text(errors='replace')

    def interrupt(self) -> int:
        """Press Ctrl-C: the whole group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(TIMEOUT)

    def left(self) -> list[str]:
        """Return the command lines of the processes of this launch that still run."""
        found = []
        for entry in Path('/proc').glob('[0-9]*'):
            try:
                if f'MARK_OF_THIS_TEST={self.mark}'.encode() in (entry / 'environ').read_bytes():
                    found.append((entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode())
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    launched = Launch(tmp_path)
    yield launched
    launched.close()


def _bare(said: str) -> str:
    """Return what processes said themselves, without launch's lines about them."""
    own = ('[INFO]', '[WARNING]', '[ERROR]')
    return '\n'.join(line for line in said.splitlines() if not line.startswith(own))


def test_every_process_starts_and_ends_with_ctrl_c(launch: Launch, tmp_path: Path) -> None:
    launch.start('pass:=latency', 'namespace:=front')
    launch.wait_for(lambda: len(launch.events('start')) == 4)
    launch.wait_for(lambda: 'route_driver' in ' '.join(launch.left()))
    launch.wait_for(lambda: 'perception_node' in ' '.join(launch.left()))
    launch.wait_for(lambda: ' monitor ' in ' '.join(launch.left()))
    # Python's `site` swallows a Ctrl-C that comes while it reads packages' .pth files.
    launch.wait_for(lambda: 'active: ' in launch.said() and '[monitor-7]' in _bare(launch.said()))
    started = launch.events('start')
    [simulator] = [each for each in started if each[1] == 'gz']
    assert simulator[3][:4] == ['sim', '-r', '-s', '--headless-rendering']
    assert simulator[3][4].endswith('worlds/warehouse.sdf')
    assert simulator[4]['GZ_TRANSPORT_SNDHWM'] == '4'
    assert simulator[4]['GZ_IP'] == '127.0.0.1'  # as discovery_range says of ROS
    names = {
        word.partition('__node:=')[2]
        for each in started
        for word in each[3]
        if word.startswith('__node:=')
    }
    assert names == {'clock_bridge', 'camera_bridge', 'robot_bridge'}
    assert list(tmp_path.glob('pruned_perception_bridges_*/bridge_camera.yaml'))
    launch.interrupt()
    assert {each[2] for each in launch.events('end')} == {each[2] for each in started}
    assert launch.left() == []
    assert not list(tmp_path.glob('pruned_perception_bridges_*'))
    assert 'escalating' not in launch.said()


def test_ctrl_c_while_it_starts_leaves_nothing(launch: Launch) -> None:
    launch.start('route:=none')
    launch.wait_for(lambda: bool(launch.events('start')))
    launch.interrupt()
    assert launch.left() == []


def test_all_end_when_gazebo_ends(launch: Launch) -> None:
    launch.environment['FAIL'] = '1'
    launch.start()
    launch.process.wait(TIMEOUT)
    assert 'gazebo-1] was required' in launch.said()
    assert launch.left() == []


@pytest.mark.parametrize('lacking', ['gz', 'ros_gz_bridge'])
def test_what_is_missing_is_said_in_a_sentence(
    launch: Launch, tmp_path: Path, lacking: str
) -> None:
    if lacking == 'gz':
        launch.environment['PATH'] = os.environ['PATH']
    else:
        (tmp_path / 'prefix/lib/ros_gz_bridge/parameter_bridge').unlink()
    launch.environment['ROS_DISTRO'] = 'jazzy'
    launch.start()
    assert launch.process.wait(TIMEOUT) != 0
    said = launch.said()
    assert f'{lacking}' in said
    assert 'cannot be found: sudo apt install ros-jazzy-ros-gz' in said
    assert 'Traceback' not in said
    assert launch.events('start') == []


def test_a_pass_that_there_is_not_is_refused(launch: Launch) -> None:
    launch.start('pass:=speed')
    assert launch.process.wait(TIMEOUT) != 0
    assert all(name in launch.said() for name in ('pass', 'speed', *gazebo.PASSES))
