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

"""Commands of README and docs that are nodes, or watch them: with a camera that publishes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented_commands import OVER_DDS, ROADS, ROOT, Step

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')
pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

from documented_inputs import PREPARED

LONG = bool(os.environ.get('PRUNED_PERCEPTION_COMMANDS'))
CAMERAS = {'live': '/camera', 'bags': '/front'}
pytestmark = pytest.mark.ros


@pytest.fixture
def environment() -> dict[str, str]:
    """Return that of processes that meet nobody but each other."""
    from ros_domain import DOMAIN

    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(DOMAIN),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'PYTHONPATH': os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
        'PYTHONUNBUFFERED': '1',
    }


@pytest.fixture
def camera(environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[None]:
    """Publish images while the test lasts."""
    namespace = CAMERAS.get(request.node.callspec.params['road'])
    if namespace is None:
        yield
        return
    script = ROOT / 'test' / 'benchmark' / 'moving_squares.py'
    process = subprocess.Popen(
        [sys.executable, script, '--ros-args', '-r', f'__ns:={namespace}'], env=environment
    )
    yield
    process.terminate()
    process.wait(60)


@pytest.mark.parametrize('road', OVER_DDS)
def test_the_commands_of_a_road_run(
    road: str, tmp_path: Path, environment: dict[str, str], camera: None
) -> None:
    steps = [step for step in ROADS[road] if LONG or not step.long]
    if not steps:
        pytest.skip('long: PRUNED_PERCEPTION_COMMANDS=1')
    PREPARED[road](tmp_path)
    background: list[subprocess.Popen[str]] = []
    try:
        for step in steps:
            process = started(step, tmp_path, environment)
            if step.says:
                background.append(process)
                wait_for(step, process)
                continue
            out, error = process.communicate(timeout=300)
            assert process.returncode == step.status, (
                f'{step.line} {step.add}\n{out[-500:]}\n{error[-1500:]}'
            )
    finally:
        for process in background:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
    assert all(process.returncode in (0, 130) for process in background)


def started(step: Step, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a command; what runs until it is interrupted says everything on one pipe."""
    words = shlex.split(f'{step.line} {step.add}'.replace('$PWD', str(folder)))
    return subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', *words[1:]],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if step.says else subprocess.PIPE,
    )


def wait_for(step: Step, process: subprocess.Popen[str]) -> None:
    """Read until it says what it says when it works."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if step.says in line:
            return
    raise AssertionError(f'{step.line} ended: {"".join(said)[-1500:]}')
