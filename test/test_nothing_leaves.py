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

"""No process of ours sends anything, or asks for a name, outside the middleware.

ONNX Runtime from 1.29 on does: some seconds after its import it contacts a server of its maker,
unless an environment variable forbids it. Here every process runs where that would succeed, and is
watched from below, by its system calls.
"""

from __future__ import annotations

import ast
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pruned_perception.bundle import Bundle
from pruned_perception.inference.engine import providers

ROOT = Path(__file__).resolve().parents[1]
SECONDS = float(os.environ.get('PRUNED_PERCEPTION_WATCH_S', '40'))
# ONNX Runtime sends nothing where one of these says that it is in a build pipeline.
HUSHED_BY = ('ORT_DISABLE_TELEMETRY', 'ORT_RUNNING_UNIT_TESTS', 'CI', 'TF_BUILD', 'GITHUB_ACTIONS')
HUSHED_BY += ('GITLAB_CI', 'CIRCLECI', 'TRAVIS', 'JENKINS_URL', 'BUILDKITE')
MULTICAST = '239.255.0.1'  # of DDS


class Watched(NamedTuple):
    """What processes did: per name, lines of calls that lead elsewhere; names; connections."""

    calls: dict[str, list[str]]
    questions: list[str]
    connections: list[str]
    ended: dict[str, int | None]
    folder: Path

    def log(self, name: str) -> str:
        return (self.folder / f'{name}.log').read_text(errors='replace')


class Watch:
    """A run of commands in a watched namespace."""

    def __init__(self, folder: Path, commands: list[tuple[str, list[str]]], **changes: str) -> None:
        if shutil.which('strace') is None or shutil.which('ip') is None:
            pytest.skip('needs strace and ip (Debian: strace, iproute2)')
        self.folder, self.names = folder, [name for name, _ in commands]
        folder.mkdir()
        (folder / 'commands.json').write_text(json.dumps(commands))
        environment = {k: v for k, v in os.environ.items() if k not in HUSHED_BY}
        script = str(Path(__file__).with_name('watched_namespace.py'))
        unshare = ['unshare', '--map-root-user', '--net', '--mount']
        tried = subprocess.run([*unshare, 'true'], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f'namespaces are not permitted here: {tried.stderr.decode().strip()}')
        self._process = subprocess.Popen(
            [*unshare, sys.executable, script, str(folder), str(SECONDS)],
            env={**environment, 'HOME': str(folder), 'XDG_CACHE_HOME': str(folder), **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Watched:
        out, err = self._process.communicate(timeout=SECONDS + 120)
        assert self._process.returncode == 0, err
        found = json.loads(out.splitlines()[-1])
        calls = {}
        for name in self.names:
            traces = list(self.folder.glob(f'{name}.trace.*'))
            assert traces, f'{name} was not traced'
            lines = [line for trace in traces for line in trace.read_text().splitlines()]
            calls[name] = [line for line in lines if leads_elsewhere(line)]
        return Watched(calls, **found, folder=self.folder)


def leads_elsewhere(line: str) -> bool:
    """Whether a traced call is addressed to anything but this host or DDS, or asks for a host."""
    if 'systemd.resolve' in line or 'hosts\\0' in line:  # resolvers that sit on this machine
        return True
    for text in re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', line):
        address = ipaddress.ip_address(text[0] or text[1])
        if not (address.is_loopback or address.is_unspecified or str(address) == MULTICAST):
            return True
    return False


def test_the_rule_knows_what_leads_elsewhere() -> None:
    here = (
        'sendto(9, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(7400), sin_addr=inet_addr("%s")}'
    )
    assert not leads_elsewhere(here % '127.0.0.1')
    assert not leads_elsewhere(here % MULTICAST)
    assert leads_elsewhere(here % '203.0.113.53')
    assert leads_elsewhere(
        'connect(3, {sa_family=AF_INET6, inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28)'
    )


def module(name: str, *words: object) -> list[str]:
    return [sys.executable, '-m', f'pruned_perception.{name}', *map(str, words)]


def command(*words: object) -> list[str]:
    return module('cli.main', *words)


@pytest.fixture(scope='module')
def control(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """Return ONNX Runtime without us: if it were not caught, nothing would be."""
    program = 'import onnxruntime, time; time.sleep(600)'
    folder = tmp_path_factory.mktemp('watch') / 'control'
    return Watch(folder, [('control', [sys.executable, '-c', program])])


@pytest.fixture(scope='module')
def watched(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Bundle, control: Watch
) -> Watched:
    """Run everything that may import ONNX Runtime, all beside each other."""
    import cv2

    frames = tmp_path_factory.mktemp('frames')
    cv2.imwrite(str(frames / '0.jpg'), np.full((480, 640, 3), 90, np.uint8))
    for number in range(1, 20_000):  # enough to be busy until the end
        (frames / f'{number}.jpg').symlink_to('0.jpg')
    warehouse = ROOT / 'models' / 'warehouse'
    library = 'import pruned_perception.inference as i, time; i.create_session; time.sleep(600)'
    commands = [
        ('library', [sys.executable, '-c', library]),
        ('detect', command('detect', frames, '--model', warehouse)),
        (
            'benchmark',  # on every execution provider that is installed
            command(
                'benchmark',
                'engine',
                warehouse,
                '--rounds',
                10_000,
                '--execution-provider',
                *providers(),
            ),
        ),
    ]
    if importlib.util.find_spec('rclpy') and importlib.util.find_spec('vision_msgs'):
        ros = ('--ros-args', '-r', 'image_raw:=/image_raw')
        bare = ROOT / 'pruned_perception' / 'benchmark' / 'bare_start.py'
        commands += [
            ('perception_node', module('nodes.perception_node', *ros, '-p', f'model:={warehouse}')),
            ('echo_node', module('nodes.echo_node', *ros, '-r', '__ns:=/echo')),
            ('up', command('up', 'perception', f'model:={tiny_bundle.path}', 'namespace:=up')),
            ('monitor', command('monitor')),
            ('bare', [sys.executable, str(bare), str(tiny_bundle.onnx_path)]),
        ]
        if importlib.util.find_spec('mujoco'):
            commands.append(('simulated_robot', module('nodes.simulated_robot')))
    folder = tmp_path_factory.mktemp('watch') / 'ours'
    return Watch(folder, commands, ROS_DOMAIN_ID='0').result()


def test_onnx_runtime_by_itself_is_caught(control: Watch, watched: Watched) -> None:
    import onnxruntime

    found = control.result()
    if tuple(map(int, onnxruntime.__version__.split('.')[:2])) < (1, 29):
        pytest.skip(f'ONNX Runtime {onnxruntime.__version__} sends nothing')
    assert found.questions
    assert found.calls['control']


def test_no_process_of_ours_calls_or_asks_anybody_outside(watched: Watched) -> None:
    for name, lines in watched.calls.items():
        assert not lines, f'{name}: {lines[:5]}'
    assert watched.questions == []
    assert watched.connections == []


def test_all_were_there_to_be_watched(watched: Watched) -> None:
    for name, status in watched.ended.items():
        if name == 'simulated_robot' and status == 1:
            continue  # no OpenGL here
        assert status is None, f'{name} ended with {status}: {watched.log(name)}'


def test_onnx_runtime_leaves_no_files_in_the_users_cache(watched: Watched) -> None:
    assert not list(watched.folder.rglob('*onnxruntime*'))


@pytest.mark.parametrize('value', [None, '0', 'false', ''])
def test_the_variable_is_set_whatever_it_was(value: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in HUSHED_BY}
    if value is not None:
        environment['ORT_DISABLE_TELEMETRY'] = value
    program = 'import pruned_perception, os; print(os.environ["ORT_DISABLE_TELEMETRY"])'
    result = subprocess.run(
        [sys.executable, '-c', program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == '1\n'


@pytest.mark.parametrize(('variable', 'refused'), [('', True), ('1', False)])
def test_onnx_runtime_that_somebody_else_imported_is_refused_with_its_telemetry_on(
    variable: str, refused: bool, tiny_bundle: Bundle
) -> None:
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split('.')[:2])) < (1, 29):
        pytest.skip(f'ONNX Runtime {onnxruntime.__version__} sends nothing')
    program = f"""
import onnxruntime
from pruned_perception.bundle import load_bundle
from pruned_perception.inference import Detector
from pruned_perception.errors import UserError
try:
    Detector(load_bundle({str(tiny_bundle.path)!r}))
    print('loaded')
except UserError as error:
    print(error)
"""
    # Those of a build pipeline keep this test itself from sending anything.
    result = subprocess.run(
        [sys.executable, '-c', program],
        env={**os.environ, 'CI': 'true', 'ORT_DISABLE_TELEMETRY': variable},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    if refused:
        assert 'import pruned_perception first' in result.stdout
        assert 'ORT_DISABLE_TELEMETRY=1' in result.stdout
    else:
        assert result.stdout == 'loaded\n'


def test_onnx_runtime_is_imported_in_one_place() -> None:
    """And by the yardstick of the start, which has nothing of this package.

    The quantiser is a library on top of it, off the robot: this package is imported before.
    """
    importing = set()
    for path in (*(ROOT / 'pruned_perception').rglob('*.py'), *(ROOT / 'studies').rglob('*.py')):
        tree = ast.parse(path.read_text())
        imported: list[Any] = [
            getattr(node, 'module', None) or node.names[0].name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        if any(str(each).split('.')[0] == 'onnxruntime' for each in imported):
            importing.add(path.name)
    assert importing == {'engine.py', 'bare_start.py', 'qdq.py'}
