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

"""SROS 2: the policy allows what the running nodes use and no more; nothing is open unnoticed."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pruned_perception.errors import UserError
from pruned_perception.nodes import security, security_policy
from pruned_perception.nodes.security_policy import Camera

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / 'config' / 'security' / 'policy.xml'
# The schema 0.2.0 as we read it: children, attributes, and those that must be there.
CHILDREN = {
    'policy': {'enclaves'},
    'enclaves': {'enclave'},
    'enclave': {'profiles'},
    'profiles': {'profile'},
    'profile': {'topics', 'services'},
    'topics': {'topic'},
    'services': {'service'},
    'topic': set(),
    'service': set(),
}
NEEDED = {'policy': {'version'}, 'enclave': {'path'}, 'profile': {'ns', 'node'}}
RIGHTS = {'topics': {'publish', 'subscribe'}, 'services': {'reply', 'request'}}
CAMERAS = {
    'default': Camera(),
    'remapped': Camera('/front', '/camera/image', 'compressed', use_sim_time=True),
    'renamed': Camera('/left', '/camera/image/compressed', 'compressed', node_name='detector'),
}


def arguments_of(camera: Camera) -> list[str]:
    """Return the options of the module that ask for this camera's policy."""
    words = ['--namespace', camera.namespace, '--image', camera.image]
    words += ['--image-transport', camera.image_transport, '--node-name', camera.node_name]
    return [*words, *(['--use-sim-time'] if camera.use_sim_time else [])]


@pytest.fixture(params=CAMERAS.values(), ids=CAMERAS)
def camera(request: pytest.FixtureRequest) -> Camera:
    return request.param


@pytest.fixture
def policy(camera: Camera, capsys: pytest.CaptureFixture[str]) -> ElementTree.Element:
    """Return the policy that the module prints."""
    assert security_policy.main(arguments_of(camera)) == 0
    return ElementTree.fromstring(capsys.readouterr().out.encode())


def test_the_installed_policy_is_the_one_that_the_module_prints() -> None:
    assert POLICY.read_text() == security_policy.policy(Camera())


def test_the_policy_has_the_elements_and_attributes_of_the_schema(
    policy: ElementTree.Element,
) -> None:
    assert policy.tag == 'policy'
    assert policy.get('version') == '0.2.0'
    for element in policy.iter():
        tags = {child.tag for child in element}
        assert tags <= CHILDREN[element.tag]
        assert tags or not CHILDREN[element.tag], f'<{element.tag}> is empty'
        if element.tag in RIGHTS:
            assert element.attrib
            assert set(element.attrib) <= RIGHTS[element.tag]
            assert set(element.attrib.values()) == {'ALLOW'}
        else:
            assert set(element.attrib) == NEEDED.get(element.tag, set())
        if element.tag in ('topic', 'service'):  # no * and ?, which the DDS takes for wildcards
            assert re.fullmatch(r'(/|~/)?\w+(/\w+)*', element.text or '')


def test_texts_of_the_user_are_escaped() -> None:
    text = security_policy.policy(Camera('/a"&<b', '/c<d&e'))
    (path, *_), *_ = ([each.get('path')] for each in ElementTree.fromstring(text).iter('enclave'))
    assert path == '/a"&<b/perception_node'
    assert '/c<d&e' in [each.text for each in ElementTree.fromstring(text).iter('topic')]


def test_the_official_tools_take_the_policy(
    policy: ElementTree.Element, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sros2 = pytest.importorskip('sros2.policy', reason='needs the package sros2 (and lxml)')
    file = tmp_path / 'policy.xml'
    file.write_bytes(ElementTree.tostring(policy))
    sros2.load_policy(file)  # validates by the official schema
    policy.find('enclaves').set('extra', '')  # type: ignore[union-attr]
    file.write_bytes(ElementTree.tostring(policy))
    with pytest.raises(RuntimeError, match='extra'):
        sros2.load_policy(file)


def test_the_enclave_of_a_simulation_is_that_of_its_three_processes(
    camera: Camera, policy: ElementTree.Element
) -> None:
    prefix = camera.namespace.rstrip('/')
    simulation = f'{prefix}/simulation'
    robot = allowed(policy, simulation, 'simulated_robot')
    assert robot == allowed(policy, f'{prefix}/simulated_robot', 'simulated_robot')
    monitor = allowed(policy, simulation, 'perception_monitor')
    assert monitor == allowed(policy, f'{prefix}/monitor', 'perception_monitor')
    perception = allowed(policy, simulation, camera.node_name)
    alone = allowed(policy, f'{prefix}/{camera.node_name}', camera.node_name)
    assert {**perception, 'subscribe': set()} == {**alone, 'subscribe': set()}
    assert perception['subscribe'] - {'/clock'} == {f'{prefix}/image_raw'} <= robot['publish']


# --- What running nodes use -----------------------------------------------------------------------


def allowed(policy: ElementTree.Element, path: str, node: str) -> dict[str, set[str]]:
    """Return what a node may do in an enclave, by full names: publish, subscribe, reply."""
    profile = policy.find(f'enclaves/enclave[@path="{path}"]/profiles/profile[@node="{node}"]')
    assert profile is not None
    prefix = str(profile.get('ns')).rstrip('/')
    found: dict[str, set[str]] = {'publish': set(), 'subscribe': set(), 'reply': set()}
    for names in profile:
        for name in names:
            text = str(name.text)
            if text.startswith('~'):
                text = f'{prefix}/{node}{text[1:]}'
            elif not text.startswith('/'):
                text = f'{prefix}/{text}'
            for right in names.attrib:
                found[right].add(text)
    return found


def used(observer: Any, node: str, namespace: str) -> dict[str, set[str]]:
    """Return what the graph says that a node does; it must call no services."""
    graph = observer.node
    rights = {'publish': 'publisher', 'subscribe': 'subscriber', 'reply': 'service'}
    assert not graph.get_client_names_and_types_by_node(node, namespace)
    return {
        right: {
            name
            for name, _ in getattr(graph, f'get_{kind}_names_and_types_by_node')(node, namespace)
        }
        for right, kind in rights.items()
    }


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return a function that starts a module of the package in the tests' domain."""
    ros_harness = pytest.importorskip('ros_harness', reason='needs ROS 2')
    started: list[subprocess.Popen[bytes]] = []

    def start(module: str, arguments: Sequence[str]) -> None:
        with (tmp_path / f'{len(started)}.log').open('wb') as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, '-m', f'pruned_perception.{module}', *arguments],
                    env=ros_harness.environment(),
                    stdout=log,
                    stderr=log,
                )
            )

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(60)


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def look() -> Iterator[Callable[[int], None]]:
    """Return a function that looks at the live image of `view`, once its page is there."""
    looking: list[http.client.HTTPResponse] = []

    def look(port: int) -> None:
        end = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            try:
                connection.request('GET', '/image')
                looking.append(connection.getresponse())
            except ConnectionRefusedError:
                assert time.monotonic() < end, f'nothing on port {port}'
                time.sleep(0.1)
                continue
            return

    yield look
    for each in looking:
        each.close()


@pytest.mark.ros
@pytest.mark.parametrize(
    'node',
    ['perception_node', 'echo_node', 'simulated_robot', 'perception_monitor', 'perception_view'],
)
def test_the_policy_allows_what_a_running_node_uses_and_no_more(
    observer: Any,
    start: Any,
    look: Callable[[int], None],
    camera: Camera,
    policy: ElementTree.Element,
    node: str,
    tiny_bundle: Any,
) -> None:
    common = ['--ros-args', '-r', f'__ns:={camera.namespace}']
    sim_time = str(camera.use_sim_time).lower()
    detector = [
        *(*common, '-r', f'image_raw:={camera.image}'),
        *('-p', f'image_transport:={camera.image_transport}', '-p', f'use_sim_time:={sim_time}'),
    ]
    renamed = ['-r', f'__node:={camera.node_name}', '-p', f'model:={tiny_bundle.path}']
    started, node = node, camera.node_name if node == 'perception_node' else node
    enclave, namespace = f'{camera.namespace.rstrip("/")}/{node}', camera.namespace
    if started == 'simulated_robot':
        pytest.importorskip('mujoco', reason='needs MuJoCo')
        from pruned_perception.simulation.driver import open_context

        try:
            open_context(640, 480)
        except UserError as error:
            pytest.skip(str(error))
        start(f'nodes.{node}', common)
    elif started == 'echo_node':
        start(f'nodes.{node}', detector)
    else:
        start('nodes.perception_node', [*detector, *renamed])
    if watches := started in ('perception_monitor', 'perception_view'):  # all that there is to see
        from sensor_msgs.msg import CameraInfo

        prefix = camera.namespace.rstrip('/')
        folder = camera.image.removesuffix('/compressed').rpartition('/')[0] or prefix
        observer.node.create_publisher(CameraInfo, f'{folder}/camera_info', 1)
        command = started.removeprefix('perception_')
        options = ['--use-sim-time'] if camera.use_sim_time else []
        if command == 'view':
            options += ['--port', str(port := free_port())]
        start('cli.main', [command, camera.namespace, *options])
        enclave, namespace = f'{prefix}/{command}', '/'

    expected = allowed(policy, enclave, node)
    if watches and folder != prefix:  # listened to before the node is known
        expected['subscribe'] -= {f'{prefix}/camera_info'}
    found: dict[str, set[str]] = {}
    if started == 'perception_view':  # which has the node draw while somebody looks
        look(port)

    def settled() -> bool:
        nonlocal found
        if (node, namespace) not in observer.node.get_node_names_and_namespaces():
            return False
        found = used(observer, node, namespace)
        return found == expected

    try:
        observer.wait(settled, 'the node to use what it may')
        end = time.monotonic() + 1.5  # and nothing beyond, a little later
        while time.monotonic() < end:
            observer.executor.spin_once(timeout_sec=0.1)
        assert used(observer, node, namespace) == expected
    except AssertionError:
        assert found == expected
        raise


# --- What ROS would do without a word -------------------------------------------------------------


@pytest.mark.parametrize(
    ('variables', 'words'),
    [
        ({'ROS_SECURITY_ENABLE': 'True'}, 'ROS_SECURITY_ENABLE=True would leave security off'),
        ({'ROS_SECURITY_ENABLE': '1'}, 'ROS_SECURITY_ENABLE=1 would leave security off'),
        (
            {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'enforce'},
            'ROS_SECURITY_STRATEGY=enforce would not be enforced',
        ),
        (
            {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce'},
            'ROS_SECURITY_STRATEGY=Enforce needs a keystore',
        ),
    ],
)
def test_values_that_ros_would_ignore_are_refused(variables: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        security.is_enabled(variables)


@pytest.mark.parametrize('value', ['', 'false', 'False', '0', 'off'])
def test_without_security_nothing_else_is_looked_at(value: str) -> None:
    variables = {'ROS_SECURITY_ENABLE': value, 'ROS_SECURITY_STRATEGY': 'enforce'}
    assert not security.is_enabled(variables)
    assert not security.is_enabled({'ROS_SECURITY_STRATEGY': 'Enforce'})


def wheels() -> bool:
    """Tell whether the middleware is a wheel of PyPI: it was built without security."""
    try:
        metadata.distribution('ros-rmw-fastrtps-cpp')
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.ros
@pytest.mark.parametrize(
    ('enclave', 'words'),
    [
        ('/known', 'this middleware was built without security, as the ROS 2 wheels of PyPI are'),
        ('/unknown', 'there is no enclave'),
        ('', 'needs a keystore'),
    ],
)
@pytest.mark.parametrize('module', ['nodes.perception_node', 'nodes.echo_node', 'cli.main monitor'])
def test_enforced_security_that_is_not_to_be_had_ends_the_process_in_one_sentence(
    tmp_path: Path, module: str, enclave: str, words: str
) -> None:
    ros_harness = pytest.importorskip('ros_harness', reason='needs ROS 2')
    if enclave == '/known' and not wheels():
        pytest.skip('this middleware may have security')
    (tmp_path / 'enclaves' / 'known').mkdir(parents=True)
    name, *rest = module.split()
    arguments = ['--enclave', enclave] if enclave else []
    if not rest and arguments:
        arguments = ['--ros-args', *arguments]
    ended = subprocess.run(
        [sys.executable, '-m', f'pruned_perception.{name}', *rest, *arguments],
        env=ros_harness.environment(
            ROS_SECURITY_ENABLE='true',
            ROS_SECURITY_STRATEGY='Enforce',
            ROS_SECURITY_KEYSTORE=str(tmp_path) if enclave else '',
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1, output
    # rcl says itself where it found the enclave.
    lines = [line for line in output.splitlines() if 'Found security directory' not in line]
    assert len(lines) == 1, output
    assert words in lines[0]


@pytest.mark.ros
def test_a_node_that_is_not_secure_although_it_might_be_says_so(
    observer: Any, tmp_path: Path, namespace: str
) -> None:
    from ros_harness import NodeProcess

    log = tmp_path / 'log'
    process = NodeProcess(
        log,
        'echo_node',
        namespace,
        {},
        arguments=['--enclave', '/not_there'],
        ROS_SECURITY_ENABLE='true',
        ROS_SECURITY_STRATEGY='Permissive',
        ROS_SECURITY_KEYSTORE=str(tmp_path),
    )
    try:
        observer.wait(lambda: 'active: ' in process.output, 'the node to be active')
        missing = os.fspath(tmp_path / 'enclaves' / 'not_there')
        assert f'there is no enclave {missing}: this node is NOT secure' in process.output
        assert process.stop() == 0
    finally:
        process.kill()
