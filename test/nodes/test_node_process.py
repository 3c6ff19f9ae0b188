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

"""The nodes as processes: start, end, network, and what they must never load."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

import numpy as np
from ros_harness import LATCHED, NodeProcess, environment, image_message
from sensor_msgs.msg import Image
from std_msgs.msg import String
from tiny_detector import square_image

from pruned_perception._watchdog import STATUS
from pruned_perception.nodes import transport

pytestmark = [pytest.mark.ros, pytest.mark.waiting]

RED = square_image('red', 80, 40, 120)
PROFILE = {'FASTDDS_DEFAULT_PROFILES_FILE': str(transport.profile())}


@pytest.fixture
def start(tmp_path: Path, namespace: str, tiny_bundle: Any) -> Iterator[Callable[..., NodeProcess]]:
    """Return a function that starts a node as a process in the test's namespace."""
    started: list[NodeProcess] = []

    def start(name: str = 'perception_node', **options: Any) -> NodeProcess:
        parameters = options.pop('parameters', {})
        if name == 'perception_node':
            parameters = {'model': tiny_bundle.path, **parameters}
        log = tmp_path / f'{len(started)}.log'
        started.append(NodeProcess(log, name, namespace, parameters, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def wait_active(observer: Any, process: NodeProcess, name: str = 'perception_node') -> None:
    models = observer.collect(String, f'{name}/active_model', LATCHED)
    observer.wait(lambda: models or process.process.poll() is not None, 'the node to be active')
    assert process.process.poll() is None, process.output


def test_a_process_detects_and_ends_cleanly(observer: Any, start: Any) -> None:
    process = start()
    wait_active(observer, process)
    assert observer.detect(observer.camera(), image_message(RED)).detections
    maps = Path(f'/proc/{process.process.pid}/maps').read_text()
    assert 'onnxruntime' in maps
    assert 'torch' not in maps
    assert process.stop(signal.SIGINT) == 0
    assert 'Traceback' not in process.output


def shared_memory(pid: int | str) -> set[str]:
    """Return the middleware's shared-memory segments that a process has mapped."""
    lines = Path(f'/proc/{pid}/maps').read_text().splitlines()
    names = {line.split()[5] for line in lines if '/dev/shm/fastdds_' in line}
    return {name for name in names if 'fastdds_port' not in name}


def mapped_by_anybody() -> set[str]:
    """Return the segments of all processes that run: a node maps those of its peers, too."""
    found: set[str] = set()
    for folder in Path('/proc').iterdir():
        with contextlib.suppress(OSError):  # no process, one that ended, or somebody else's
            found |= shared_memory(folder.name)
    return found


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_clean_end_leaves_no_shared_memory(
    observer: Any, start: Any, number: signal.Signals
) -> None:
    """Segments left behind are those of a participant that others still believe to be there."""
    process = start(**PROFILE)
    wait_active(observer, process)
    segments = shared_memory(process.process.pid) - shared_memory('self')
    if not segments:
        pytest.skip('the middleware uses no shared memory here')
    assert process.stop(number) == 0
    left = [name for name in segments if Path(name).exists()]
    assert [name for name in left if name not in mapped_by_anybody()] == []


def test_the_echo_node_publishes_as_many_boxes_as_asked_for(observer: Any, start: Any) -> None:
    process = start('echo_node', parameters={'boxes': 3})
    wait_active(observer, process, 'echo_node')
    message = image_message(np.zeros((48, 64, 3), np.uint8))
    array = observer.detect(observer.camera(), message)
    assert array.header == message.header
    assert len(array.detections) == 3
    maps = Path(f'/proc/{process.process.pid}/maps').read_text()
    assert 'onnxruntime' not in maps
    assert process.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in process.output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_during_the_start_end_it_cleanly(start: Any, number: signal.Signals) -> None:
    """From the first line of main on: imports, node, model, activation, whatever comes."""
    for delay in (0.0, 0.2, 0.5, 0.8, 1.2):
        process = start()
        end = time.monotonic() + 60
        while not process.signals_are_ours():
            assert time.monotonic() < end
            time.sleep(0.005)
        time.sleep(delay)
        assert process.stop(number) == 0, f'after {delay} s: {process.output}'
        assert 'Traceback' not in process.output, f'after {delay} s'


STUCK = """
import sys, time
from pruned_perception.nodes import node_process

def create_node():
    from rclpy.node import Node

    class Stuck(Node):
        def start(self):
            print('stuck', flush=True)
            time.sleep(300)

    return Stuck('stuck')

sys.exit(node_process.run(create_node, []))
"""


def test_a_load_that_takes_minutes_does_not_hold_up_the_end() -> None:
    with subprocess.Popen(
        [sys.executable, '-c', STUCK], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'stuck\n'
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


HELD = """
import ctypes, sys
from pruned_perception.nodes import node_process

def create_node():
    from rclpy.node import Node

    def hold(*_):
        print('held', flush=True)
        eval(sys.argv[1])  # in native code, with the interpreter's lock

    class Holding(Node):
        def start(self):
            self.create_timer(0.1, hold)

    return Holding('holding')

sys.exit(node_process.run(create_node, []))
"""


@pytest.mark.parametrize(
    ('code', 'end'),
    [
        ('ctypes.PyDLL(None).sleep(10**6)', ''),  # which a signal of the watchdog's interrupts
        ('sum(range(10**13))', 'was ended by SIGALRM'),
    ],
)
def test_a_node_whose_lock_is_held_ends_before_launch_or_up_would_kill_it(
    code: str, end: str
) -> None:
    """With the real limits: neither signal reaches Python, and no SIGKILL is needed."""
    from io import StringIO

    from pruned_perception.nodes.supervisor import Supervisor

    class Stopping(Supervisor):
        def _print(self, child: Any, text: str) -> None:
            super()._print(child, text)
            self._stopping = self._stopping or text == 'held'

    out = StringIO()
    supervisor = Stopping({'node': [sys.executable, '-c', HELD, code]}, environment(), out=out)
    assert supervisor.run() == 0, out.getvalue()
    assert 'SIGKILL' not in out.getvalue()
    assert end in out.getvalue()


FREEZING = """
import sys
from pruned_perception.nodes import node_process

node_process.GRACE_S = node_process.END_S = node_process.HUNGRY_S = node_process.START_S = 2.0

def freeze(*_):
    print('frozen', flush=True)
    sum(range(10**13))  # hours in native code, with the interpreter's lock

def create_node():
    from rclpy.node import Node

    class Freezing(Node):
        def start(self):
            if sys.argv[1] == 'start':
                freeze()
            if sys.argv[1] == 'callback':
                self.create_timer(0.1, freeze)
            print('started', flush=True)

        def stop(self):
            freeze()

    return Freezing('freezing')

sys.exit(node_process.run(create_node, []))
"""


@pytest.mark.parametrize('when', ['start', 'callback', 'end'])
def test_a_frozen_interpreter_does_not_hold_up_the_end(when: str) -> None:
    """Nothing of ours runs any more, signal handlers included: the kernel ends it."""
    with subprocess.Popen(
        [sys.executable, '-c', FREEZING, when], env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b'')
        if when == 'end':
            assert next(lines) == b'started\n'
            process.send_signal(signal.SIGINT)
        assert b'frozen\n' in lines
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == STATUS


def test_a_second_signal_during_the_end_changes_nothing(observer: Any, start: Any) -> None:
    process = start()
    wait_active(observer, process)
    process.process.send_signal(signal.SIGINT)  # the terminal's, to the whole group …
    process.process.send_signal(signal.SIGINT)  # … and launch's
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert 'Traceback' not in process.output


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'parameters': {'model': '/nowhere/bundle'}}, ['/nowhere/bundle', 'no such bundle']),
        ({'parameters': {'score_threshold': 7.5}}, ['score_threshold', '7.5']),
        ({'parameters': {'image_transport': 'theora'}}, ['image_transport', 'raw, compressed']),
        ({'parameters': {'classes': '[unicorn]'}}, ['unicorn', 'red, green, blue']),
        ({'parameters': {'threads': 'many'}}, ['threads', 'integer']),
        ({'arguments': ['--params-file', '/nowhere.yaml']}, ['/nowhere.yaml']),
        ({'arguments': ['-r', '__node:=a-b']}, ['__node']),
    ],
)
def test_what_cannot_start_says_why_and_exits_1(
    start: Any, options: dict[str, Any], words: list[str]
) -> None:
    process = start(**options)
    assert process.wait() == 1
    for word in words:
        assert word in process.output
    assert 'Traceback' not in process.output


def test_unknown_parameters_are_warned_about(observer: Any, start: Any) -> None:
    process = start(parameters={'score_treshold': 0.5})
    wait_active(observer, process)
    assert 'score_treshold' in process.output
    assert process.stop() == 0


def test_the_shipped_parameter_file_starts_the_node(
    observer: Any, start: Any, tiny_bundle: Any
) -> None:
    file = Path(transport.profile()).parent / 'perception.yaml'
    process = start(
        arguments=['--params-file', str(file), '-p', f'model:={tiny_bundle.path}'],
    )
    wait_active(observer, process)
    assert process.stop() == 0
    assert 'ignored' not in process.output


def test_default_participants_see_a_node_with_the_profile(observer: Any, start: Any) -> None:
    """The observer has no profile: as RViz, ros2 topic or a camera driver would."""
    assert 'FASTDDS_DEFAULT_PROFILES_FILE' not in os.environ
    process = start(**PROFILE)
    wait_active(observer, process)
    name = ('perception_node', observer.namespace)  # which may come after its topics
    observer.wait(
        lambda: name in observer.node.get_node_names_and_namespaces(), 'the name of the node'
    )
    assert observer.detect(observer.camera(), image_message(RED)).detections
    assert process.stop() == 0


BARE_NODE = """
import sys, rclpy
rclpy.init(args=sys.argv)
node = rclpy.create_node('bare')
print('ready', flush=True)
sys.stdin.read()
"""


def sockets(pid: int) -> list[tuple[Any, Any]]:
    """Return family and type of the process's sockets."""
    process = psutil.Process(pid)
    look = getattr(process, 'net_connections', None) or process.connections  # psutil < 6
    connections = look(kind='all')
    return sorted((str(each.family), str(each.type)) for each in connections)


def test_the_nodes_sockets_are_the_middlewares_alone(observer: Any, start: Any) -> None:
    """It opens as many, of the same kinds, as a bare rclpy node does."""
    process = start()
    wait_active(observer, process)
    assert observer.detect(observer.camera(), image_message(RED)).detections
    with subprocess.Popen(
        [sys.executable, '-c', BARE_NODE],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as bare:
        assert bare.stdout is not None
        assert bare.stdout.readline() == b'ready\n'
        expected = sockets(bare.pid)
    assert expected
    assert sockets(process.process.pid) == expected
    assert process.stop() == 0


LOOPBACK_ONLY = """
ip link set lo up || exit 77
exec "$@"
"""


def test_node_and_camera_work_where_only_loopback_is_up(tmp_path: Path, tiny_bundle: Any) -> None:
    """Nothing needs another machine, a route or a name server."""
    unshare = ['unshare', '--map-root-user', '--net', 'sh', '-c', LOOPBACK_ONLY, 'sh']
    try:
        tried = subprocess.run([*unshare, 'true'], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip('needs unshare (util-linux)')
    if tried.returncode:
        pytest.skip(f'network namespaces are not permitted here: {tried.stderr.decode().strip()}')
    script = Path(__file__).with_name('loopback_session.py')
    result = subprocess.run(
        [*unshare, sys.executable, str(script), str(tiny_bundle.path), str(tmp_path / 'log')],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'interfaces: lo\n' in result.stdout
    assert 'detections: 1\n' in result.stdout


SEPARATE_SHARED_MEMORY = ['mount -t tmpfs tmpfs /dev/shm && exec "$@"', 'sh']


@pytest.mark.parametrize('profile', [{}, PROFILE], ids=['default', 'profile'])
def test_a_camera_in_another_container_is_named(
    observer: Any, start: Any, profile: dict[str, str]
) -> None:
    """To Fast DDS one host; but nothing goes from the /dev/shm of one to that of the other."""
    unshare = ['unshare', '--map-root-user', '--mount', 'sh', '-c', *SEPARATE_SHARED_MEMORY]
    try:
        tried = subprocess.run([*unshare, 'true'], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip('needs unshare (util-linux)')
    if tried.returncode:
        pytest.skip(f'mounts are not permitted here: {tried.stderr.decode().strip()}')
    process = start(parameters={'image_timeout_s': 1.0}, prefix=unshare, **profile)
    camera = observer.node.create_publisher(Image, 'image_raw', 10)
    end = time.monotonic() + 60
    while 'with a /dev/shm of its own' not in process.output:
        assert process.process.poll() is None, process.output
        assert time.monotonic() < end, process.output
        camera.publish(image_message(RED))
        observer.executor.spin_once(timeout_sec=0.1)
    assert '--ipc=host' in process.output  # in the log, as diagnostics do not leave it either
    assert process.stop() == 0


def test_malloc_is_set_at_process_start(tmp_path: Path) -> None:
    """A freed block of an image's size stays with the process, unless the user says otherwise."""
    program = """
import ctypes, os, sys
from pruned_perception.nodes import malloc
print(malloc.keep_large_buffers())
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
block = libc.malloc(8 << 20)
in_heap = any(
    int(low, 16) <= block < int(high, 16)
    for line in open('/proc/self/maps') if line.rstrip().endswith('[heap]')
    for low, high in [line.split()[0].split('-')]
)
print(in_heap)
"""

    def run(**changes: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, '-c', program],
            env=environment(**changes),
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.split()

    kept = run()
    if kept[0] == 'False':
        pytest.skip('the C library has no mallopt')
    assert kept == ['True', 'True']
    assert run(PRUNED_PERCEPTION_MALLOC='system') == ['False', 'False']
    assert run(MALLOC_TRIM_THRESHOLD_='131072') == ['False', 'False']


def test_kill_leaves_nothing_that_hinders_the_next_start(observer: Any, start: Any) -> None:
    first = start(**PROFILE)
    wait_active(observer, first)
    camera = observer.camera()
    observer.detect(camera, image_message(RED))
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = start(**PROFILE)
    wait_active(observer, second)
    assert observer.detect(camera, image_message(RED)).detections
    assert second.stop() == 0
