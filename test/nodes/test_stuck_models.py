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

"""Models that do not end: the node says so, answers all the same, and in the end goes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from lifecycle_msgs.srv import ChangeState
from measure_stuck import Up
from ros_harness import LATCHED, NodeProcess, image_message, values
from std_msgs.msg import String
from stuck_networks import ALWAYS, BRIGHT, write_stuck_bundle

from pruned_perception._watchdog import STATUS

pytestmark = [pytest.mark.ros, pytest.mark.waiting]

OK, WARN, ERROR = 0, 1, 2
DARK = np.zeros((96, 128, 3), np.uint8)
WHITE = np.full_like(DARK, 255)


@pytest.fixture
def start(tmp_path: Path, namespace: str) -> Iterator[Callable[..., NodeProcess]]:
    """Return a function that starts the node with a stuck network, as a process."""
    started: list[NodeProcess] = []

    def start(*, above: float = BRIGHT, breakable: bool = True, **parameters: Any) -> NodeProcess:
        bundle = write_stuck_bundle(tmp_path / 'bundle', above=above, breakable=breakable)
        given = {'model': bundle.path, **parameters}
        started.append(NodeProcess(tmp_path / 'log', 'perception_node', namespace, given))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def stick(observer: Any, process: NodeProcess) -> Any:
    """Wait until the node is active, show it a dark and a white image; return the camera."""
    models = observer.collect(String, 'perception_node/active_model', LATCHED)
    observer.wait(lambda: models or process.process.poll() is not None, 'the node to be active')
    assert process.process.poll() is None, process.output
    camera = observer.camera()
    observer.detect(camera, image_message(DARK))
    observer.status('worker', 'waiting for an image', OK)
    camera.publish(image_message(WHITE))
    return camera


def test_a_frame_that_does_not_end_is_an_error_and_then_the_end_of_the_process(
    observer: Any, start: Any
) -> None:
    process = start(breakable=False, frame_limit_s=5.0)
    stick(observer, process)
    status = observer.status('worker', 'the frame in hand has taken', ERROR)
    assert float(values(status)['frame_in_hand_s']) < 5.0
    assert observer.state() == 'active'  # the executor is free
    assert process.wait() == STATUS
    assert 'cannot be broken off: the process ends' in process.output


@pytest.mark.parametrize('breakable', [True, False])
def test_deactivation_does_not_wait_for_it(observer: Any, start: Any, breakable: bool) -> None:
    process = start(breakable=breakable, frame_limit_s=20.0)
    camera = stick(observer, process)
    observer.status('worker', 'the frame in hand has taken', ERROR)
    assert observer.transition('deactivate')
    assert observer.state() == 'inactive'
    if breakable:  # nothing is left of it
        assert observer.transition('activate')
        observer.wait(camera.get_subscription_count, 'the new subscription')
        observer.detect(camera, image_message(DARK))
        assert process.stop() == 0
        return
    observer.status('worker', 'was left behind', ERROR)
    assert observer.transition('activate')  # with a thread and a network of its own
    observer.wait(camera.get_subscription_count, 'the new subscription')
    observer.detect(camera, image_message(DARK))
    assert observer.transition('deactivate')
    assert observer.transition('cleanup')
    assert observer.state() == 'unconfigured'
    assert process.process.poll() is None
    assert process.wait() == STATUS


def test_a_run_that_can_be_broken_off_costs_its_frame(observer: Any, start: Any) -> None:
    process = start(frame_limit_s=2.0)
    camera = stick(observer, process)
    observer.status('worker', 'is broken off after 2 s', ERROR)
    observer.status('model', 'the run was broken off after 2', ERROR)
    observer.detect(camera, image_message(DARK))
    observer.wait(lambda: observer.counts().get('waiting') == 0, 'a report')
    assert observer.counts()['error'] == 1
    assert process.stop() == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_whose_model_does_not(
    observer: Any, start: Any, number: signal.Signals
) -> None:
    process = start(breakable=False, frame_limit_s=600.0)
    stick(observer, process)
    observer.status('worker', 'the frame in hand has taken', ERROR)
    assert process.stop(number) == 0
    assert 'Traceback' not in process.output


def test_respawn_starts_it_again(observer: Any, namespace: str, tmp_path: Path) -> None:
    """As `python test/nodes/measure_stuck.py` does, which prints the times."""
    up = Up(tmp_path, namespace, breakable=False)
    try:
        camera = observer.camera()
        observer.detect(camera, image_message(DARK))
        camera.publish(image_message(WHITE))
        observer.wait(lambda: len(up.started) > 1, 'the new process')
        assert 'was ended by SIGALRM; it starts again' in up.ended[0][1]
        observer.detect(camera, image_message(DARK))
    finally:
        up.stop()


def wait_for_log(process: NodeProcess, words: str) -> None:
    end = time.monotonic() + 60
    while words not in process.output:
        assert time.monotonic() < end, process.output
        time.sleep(0.05)


def begin(observer: Any, label: str) -> Any:
    """Call for a transition, and return the future of the answer."""
    request = ChangeState.Request()
    request.transition.label = label
    client = observer.node.create_client(ChangeState, f'{observer.tested}/change_state')
    observer.wait(client.service_is_ready, 'change_state')
    return client.call_async(request)


@pytest.mark.parametrize('breakable', [True, False])
def test_configure_of_a_model_that_never_warms_up_gives_up(
    observer: Any, start: Any, breakable: bool
) -> None:
    process = start(above=ALWAYS, breakable=breakable, autostart=False, load_limit_s=4.0)
    answer = begin(observer, 'configure')
    observer.status('model', 'unconfigured: loading the model', WARN)
    assert observer.state() == 'unconfigured'  # and all that time it answers
    assert not observer.transition('configure')  # a second one does not wait for the first
    assert not answer.done()
    observer.wait(answer.done, 'the answer')
    assert not answer.result().success
    wait_for_log(process, 'cannot configure: the model was not loaded and warmed up within 4 s')
    if breakable:
        assert observer.state() == 'unconfigured'
        assert process.stop() == 0
    else:
        assert process.wait() == STATUS


def test_a_shutdown_does_not_wait_for_a_model_that_never_warms_up(
    observer: Any, start: Any
) -> None:
    process = start(above=ALWAYS, breakable=False, autostart=False, load_limit_s=600.0)
    begin(observer, 'configure')
    observer.status('model', 'unconfigured: loading the model', WARN)
    assert observer.transition('shutdown')
    assert process.wait() == 0


def test_autostart_of_a_model_that_never_warms_up_fails(start: Any) -> None:
    process = start(above=ALWAYS, breakable=False, load_limit_s=1.0)
    assert process.wait() == 1
    assert 'was not loaded and warmed up within 1 s (load_limit_s)' in process.output


def test_shutdown_of_an_active_node_ends_the_process(observer: Any, start: Any) -> None:
    process = start()
    models = observer.collect(String, 'perception_node/active_model', LATCHED)
    observer.wait(lambda: models, 'the node to be active')
    assert observer.transition('shutdown')
    assert process.wait() == 0
    assert 'Traceback' not in process.output
