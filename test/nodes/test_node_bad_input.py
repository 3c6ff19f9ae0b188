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

"""What goes wrong at the node's inputs is named in diagnostics, and the node goes on."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

import rclpy
from ros_harness import InProcess, balanced, image_message, new_context, values
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from tiny_detector import square_image, tiny_onnx, write_tiny_bundle

from pruned_perception.inference.errors import ImageError
from pruned_perception.inference.frame_times import FrameTimes
from pruned_perception.nodes.perception_node import create_node

pytestmark = pytest.mark.ros

OK, WARN, ERROR = 0, 1, 2
RED = square_image('red', 16, 8, 24, height=96, width=128)
S = 1_000_000_000


def goes_on(observer: Any, camera: Any) -> None:
    """Check that the next good frame is detected and no frame is missing from the accounts."""
    assert observer.detect(camera, image_message(RED)).detections
    reports = len(observer.history['frames'])
    observer.wait(lambda: len(observer.history['frames']) > reports, 'a report')
    assert balanced(observer.counts())


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'encoding': '32FC1'}, '32FC1'),
        ({'encoding': ''}, 'encoding'),
        ({'step': 100}, 'step'),
        ({'data': b'\x00' * 10}, 'data'),
        ({'height': 0, 'width': 0, 'step': 0, 'data': b''}, '0 × 0'),
        ({'height': 9000, 'width': 12000, 'step': 36000}, '9000 rows'),
        ({'height': 2**32 - 1, 'width': 2**32 - 1, 'step': 2**32 - 1}, '4294967295'),
    ],
)
def test_unusable_images_are_named(
    observer: Any, perception: Any, changes: dict[str, Any], words: str
) -> None:
    perception()
    camera = observer.camera()
    message = image_message(RED)
    for field, value in changes.items():
        setattr(message, field, value)
    camera.publish(message)
    status = observer.status('image_content', words, ERROR)
    assert status.message
    observer.wait(lambda: observer.counts().get('error') == 1, 'the error to be counted')
    goes_on(observer, camera)
    observer.status('image_content', 'rgb8, 128 × 96', OK)


def test_a_12000_by_9000_image_is_detected_in_or_refused(tiny_bundle: Any) -> None:
    from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS
    from pruned_perception.nodes.perception import DetectorPipeline

    given = {row.name: row.default for row in PERCEPTION_PARAMETERS}
    pipeline = DetectorPipeline([tiny_bundle], given)
    message = image_message(np.zeros((9000, 12000), np.uint8), 'mono8')
    try:
        result = pipeline.run(message, FrameTimes())
    except ImageError as error:
        assert '12000' in str(error)
    else:
        assert len(result.detections) == 0


def test_a_damaged_jpeg_is_named(observer: Any, perception: Any) -> None:
    perception(image_transport='compressed')
    camera = observer.camera(CompressedImage, 'image_raw/compressed')
    camera.publish(CompressedImage(format='jpeg', data=b'\xff\xd8\xff\xe0 cut off'))
    observer.status('image_content', 'jpeg', ERROR)
    observer.wait(lambda: observer.counts().get('error') == 1, 'the error to be counted')


def test_a_network_that_returns_nan_is_named(
    observer: Any, perception: Any, tmp_path: Any, context: Any
) -> None:
    bundle = write_tiny_bundle(tmp_path / 'nan', name='sick', onnx=tiny_onnx(scale=float('nan')))
    perception(autostart=False, model=str(bundle.path))
    # The warm-up already finds it; the node stays and says why.
    assert not observer.transition('configure')
    assert observer.state() == 'unconfigured'


def test_nan_of_single_frames_costs_these_frames(
    observer: Any, perception: Any, monkeypatch: Any
) -> None:
    from onnxruntime import InferenceSession

    run = InferenceSession.run

    def return_nan(*args: Any) -> list[np.ndarray]:
        return [np.full_like(output, np.nan) for output in run(*args)]

    perception()
    camera = observer.camera()
    observer.detect(camera, image_message(RED))
    with monkeypatch.context() as patched:
        patched.setattr(InferenceSession, 'run', return_nan)
        camera.publish(image_message(RED))
        observer.status('model', 'NaN', ERROR)
    goes_on(observer, camera)
    assert observer.counts()['error'] == 1


def test_a_defect_costs_one_frame_not_the_node(
    observer: Any, perception: Any, monkeypatch: Any
) -> None:
    from pruned_perception.inference import Detector

    def fail(*_: Any) -> Any:
        raise MemoryError('no memory left')

    perception()
    camera = observer.camera()
    with monkeypatch.context() as patched:
        patched.setattr(Detector, 'detect', fail)
        camera.publish(image_message(RED))
        observer.status('model', 'MemoryError: no memory left', ERROR)
    goes_on(observer, camera)
    assert observer.counts()['error'] == 1


def test_no_publisher_is_named(observer: Any, perception: Any) -> None:
    perception(image_timeout_s=0.2)
    status = observer.status('image_input', 'no publisher', ERROR)
    assert f'{observer.namespace}/image_raw' in status.message
    assert 'remap' in status.message


def test_another_type_on_the_topic_is_named(observer: Any, perception: Any, namespace: str) -> None:
    elsewhere = new_context()  # one participant cannot have two types under a name
    camera = rclpy.create_node('camera', namespace=namespace, context=elsewhere)
    camera.create_publisher(CompressedImage, 'image_raw', 1)
    perception(image_timeout_s=0.2)
    status = observer.status('image_input', 'carries', ERROR)
    assert 'sensor_msgs/msg/CompressedImage' in status.message
    assert 'image_transport' in status.message
    camera.destroy_node()
    rclpy.try_shutdown(context=elsewhere)


def test_a_publisher_without_frames_is_named_with_transport_and_reliability(
    observer: Any, perception: Any
) -> None:
    perception(image_timeout_s=0.2)
    observer.camera()
    status = observer.status('image_input', 'no image yet', ERROR)
    assert 'image_transport raw, subscribed reliable' in status.message
    assert 'observer reliable' in status.message


def test_a_reliability_that_cannot_match_is_named(observer: Any, perception: Any) -> None:
    perception(image_timeout_s=0.2, image_reliability='reliable')
    from rclpy.qos import qos_profile_sensor_data

    observer.node.create_publisher(Image, 'image_raw', qos_profile_sensor_data)
    observer.status('image_input', 'set image_reliability to auto', ERROR)


def test_a_camera_that_stops_is_named(observer: Any, perception: Any) -> None:
    perception(image_timeout_s=0.5)
    camera = observer.camera()
    observer.detect(camera, image_message(RED))
    observer.status('image_input', 'though its publisher is listed', ERROR)
    observer.node.destroy_publisher(camera)
    observer.status('image_input', 'no publisher', ERROR)
    camera = observer.camera()
    observer.wait(
        lambda: (
            observer.detect(camera, image_message(RED))
            and observer.statuses['image_input'].level[0] == OK
        ),
        'to be well again',
    )


def test_a_camera_that_changes_size_or_encoding_is_named(observer: Any, perception: Any) -> None:
    perception()
    camera = observer.camera()
    observer.detect(camera, image_message(RED))
    bigger = square_image('red', 32, 16, 48, height=192, width=256)
    assert observer.detect(camera, image_message(bigger)).detections
    status = observer.status('image_content', 'changed', WARN)
    assert 'from rgb8, 128 × 96 to rgb8, 256 × 192' in status.message
    assert observer.detect(camera, image_message(bigger[..., ::-1].copy(), 'bgr8')).detections
    observer.status('image_content', 'to bgr8, 256 × 192', WARN)


@pytest.mark.parametrize(
    ('offset', 'words'),
    [
        (None, 'stamp 0'),
        # The image is under way for a while, on a busy machine for seconds: the words bear minutes.
        (12_700, 'in the future, by 3.5 h'),
        (-12_500, '3.5 h old'),
        (-3 * 31_557_600, '3.0 years old: play with --clock'),
    ],
)
def test_implausible_stamps_are_named(
    observer: Any, perception: Any, offset: int | None, words: str
) -> None:
    perception()
    camera = observer.camera()
    stamp = 0 if offset is None else time.time_ns() + offset * S
    assert observer.detect(camera, image_message(RED, stamp=stamp)).detections
    observer.status('stamps', words, WARN)


def test_stamps_that_go_back_are_named(observer: Any, perception: Any) -> None:
    perception()
    camera = observer.camera()
    now = time.time_ns()
    observer.detect(camera, image_message(RED, stamp=now))
    observer.detect(camera, image_message(RED, stamp=now - 5 * S))
    observer.status('stamps', 'went back', WARN)


def test_stale_frames_are_refused_and_counted(observer: Any, perception: Any) -> None:
    perception(max_age_ms=2000.0)
    camera = observer.camera()
    old = image_message(RED, stamp=time.time_ns() - 20 * S)
    camera.publish(old)
    observer.wait(lambda: observer.counts().get('stale') == 1, 'the stale frame')
    observer.status('frames', 'older than max_age_ms', WARN)
    goes_on(observer, camera)
    assert all(each.header.stamp != old.header.stamp for each in observer.detections)
    # Without a stamp nothing is known of its age: such frames are not refused.
    assert observer.detect(camera, image_message(RED, stamp=0)).detections


def test_a_missing_clock_is_named_and_time_that_jumps_back(observer: Any, perception: Any) -> None:
    perception(use_sim_time=True)
    observer.status('clock', 'no /clock arrives', ERROR)
    camera = observer.camera()
    assert observer.detect(camera, image_message(RED, stamp=50 * S)).detections
    clock = observer.node.create_publisher(Clock, '/clock', 10)
    observer.wait(clock.get_subscription_count, 'the subscription to /clock')

    def set_time(seconds: int) -> None:
        message = Clock()
        message.clock.sec = seconds
        clock.publish(message)

    set_time(51)
    observer.status('clock', 'simulated time', OK)
    observer.status('clock', 'stands still', WARN)
    set_time(10)
    observer.status('clock', 'jumped back by 41.0 s', WARN)
    assert observer.value('clock', 'time_jumps') == '1'
    goes_on(observer, camera)


def test_two_nodes_of_one_name_are_named(
    observer: Any, perception: Any, context: Any, namespace: str, tiny_bundle: Any
) -> None:
    perception()
    observer.status('node_name', 'unique', OK)
    given = {'model': str(tiny_bundle.path)}
    with closing(InProcess(context, create_node, namespace, given)):
        status = observer.status('node_name', '2 nodes are named', WARN)
    assert f'{namespace}/perception_node' in status.message
    assert '__node:=' in status.message


def test_a_bad_model_refuses_the_transition_and_the_node_stays(
    observer: Any, perception: Any, tiny_bundle: Any, tmp_path: Any
) -> None:
    perception(autostart=False, model=str(tmp_path / 'nowhere'))
    assert not observer.transition('configure')
    assert observer.state() == 'unconfigured'
    assert observer.set(model=str(tiny_bundle.path)).successful
    assert observer.transition('configure')
    assert observer.transition('activate')
    assert observer.detect(observer.camera(), image_message(RED)).detections


def test_an_unwritable_timings_file_refuses_the_transition(
    observer: Any, perception: Any, tmp_path: Any
) -> None:
    (tmp_path / 'file').write_text('')
    perception(autostart=False, timings_file=str(tmp_path / 'file' / 'timings.jsonl'))
    assert not observer.transition('configure')
    assert observer.state() == 'unconfigured'


def test_a_message_that_cannot_be_converted_is_dropped(context: Any, namespace: str) -> None:
    """The executor's loop survives what rclpy raises between middleware and callback."""
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.task import Future

    from pruned_perception.nodes.node_process import _spin

    node = rclpy.create_node('fragile', namespace=namespace, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop: Future[None] = Future()
    seen: list[str] = []

    def callback(message: String) -> None:
        seen.append(message.data)
        if message.data == 'bad':
            raise UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte')
        stop.set_result(None)

    node.create_subscription(String, 'words', callback, 10)
    publisher = node.create_publisher(String, 'words', 10)
    words = iter(['bad', 'good'])
    node.create_timer(0.05, lambda: publisher.publish(String(data=next(words, 'good'))))
    _spin(executor, node, stop)
    assert seen[:2] == ['bad', 'good']
    executor.shutdown()
    node.destroy_node()


def test_values_are_text(observer: Any, perception: Any) -> None:
    perception()
    status = observer.status('image_input', 'waiting')
    assert values(status)['topic'] == f'{observer.namespace}/image_raw'
