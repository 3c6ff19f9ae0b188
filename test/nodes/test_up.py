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

"""`pruned-perception up` with real nodes over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from ros_harness import TIMEOUT, TRANSPORTS, environment, image_message
from tiny_detector import square_image

pytestmark = pytest.mark.ros

RED = square_image('red', 80, 40, 120)


class Up:
    """`pruned-perception up` as a process."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        variables = environment()
        for name in TRANSPORTS:
            variables.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'pruned_perception.cli.main', 'up', *arguments],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)  # line by line, while the process runs

    def pid(self, count: int = 1) -> int | None:
        """Return the process id of the node's `count`th start, None before it."""
        starts = [line for line in self.lines if 'perception_node' in line and 'started, p' in line]
        return int(starts[count - 1].split()[-1]) if len(starts) >= count else None

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT)
        self._thread.join(TIMEOUT)
        return status


@pytest.fixture
def up(namespace: str, tiny_bundle: Any) -> Iterator[Callable[..., Up]]:
    """Return a function that starts `up perception` on the tiny model in the test's namespace."""
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        given = (f'model:={tiny_bundle.path}', f'namespace:={namespace}', *arguments)
        started.append(Up('perception', *given))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()  # its children end with it
        each.process.wait()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_detects_and_ends_cleanly(observer: Any, up: Any, number: signal.Signals) -> None:
    running = up('image:=camera/picture', 'discovery_range:=localhost')
    array = observer.detect(observer.camera(topic='camera/picture'), image_message(RED))
    assert len(array.detections) == 1
    assert running.stop(number) == 0
    assert running.lines[-1] == '[perception_node-1] ended with exit code 0\n'


def test_a_killed_node_comes_back_active_with_respawn(observer: Any, up: Any) -> None:
    running = up('respawn:=true')
    camera = observer.camera()
    observer.detect(camera, image_message(RED))
    os.kill(running.pid(), signal.SIGKILL)
    observer.wait(lambda: running.pid(2), 'a second start')
    assert observer.detect(camera, image_message(RED)).detections
    assert running.stop(signal.SIGINT) == 0
    assert any('was ended by SIGKILL; it starts again in' in line for line in running.lines)


def test_arguments_win_over_the_params_file_which_wins_over_defaults(
    observer: Any, up: Any, tmp_path: Path, tiny_bundle: Any
) -> None:
    params_file = tmp_path / 'parameters.yaml'
    params_file.write_text(
        '/**/perception_node:\n'
        '  ros__parameters: {model: /nowhere, class_id_format: name, autostart: true}\n'
    )
    up(f'params_file:={params_file}')
    array = observer.detect(observer.camera(), image_message(RED))
    assert array.detections[0].results[0].hypothesis.class_id == tiny_bundle.labels[0]


def test_a_node_that_cannot_start_is_reported_with_its_reason_and_exit_code(
    up: Any, context: Any
) -> None:
    running = up('model:=/nowhere')  # the last of two values holds
    assert running.process.wait(TIMEOUT) == 1
    output = ''.join(running.lines)
    assert '/nowhere' in output
    assert '[perception_node-1] ended with exit code 1' in output


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'pruned_perception.cli.main', 'up', *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)


def test_help_lists_every_argument_of_every_set() -> None:
    from pruned_perception.nodes.up import SETS

    result = run('--help')
    assert result.returncode == 0
    for name, chosen in SETS.items():
        _, _, listed = result.stdout.partition(f'\n{name}: ')
        for argument in chosen.arguments:
            assert f'\n  {argument.name} ' in listed.partition('\n\n')[0]


def test_unknown_arguments_are_refused_with_those_that_exist() -> None:
    result = run('perception', 'modle:=x')
    assert result.returncode == 1
    assert "no argument 'modle'; it has model, member" in result.stderr
    assert not result.stdout
    result = run('perception', 'model:=warehose', '--print')
    assert result.returncode == 1
    assert 'no family of that name is shipped; there are robocup, warehouse' in result.stderr
    result = run('perception', 'model:=robocup', 'image:=/camera/image_raw', '--print')
    assert result.returncode == 0
    assert 'model:="robocup"' in result.stdout


def test_print_shows_the_command_lines_and_starts_nothing() -> None:
    result = run('simulation', 'rate_hz:=20', '--print')
    assert result.returncode == 0
    assert 'nodes.simulated_robot' in result.stdout
    assert 'rate_hz:=20.0' in result.stdout
    assert len(result.stdout.splitlines()) == 3
