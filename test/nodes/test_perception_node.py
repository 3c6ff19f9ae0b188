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

"""The perception node: its topics, and what it does with good images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from rcl_interfaces.msg import ParameterType
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_harness import LATCHED, balanced, counts_of, environment, image_message, values
from sensor_msgs.msg import CompressedImage, Image
from statistics_msgs.msg import MetricsMessage, StatisticDataType
from std_msgs.msg import String
from tiny_detector import LABELS, square_image, write_tiny_bundle
from vision_msgs.msg import LabelInfo

from pruned_perception.bundle import signature
from pruned_perception.inference.engine import create_session

pytestmark = pytest.mark.ros

BLACK = np.zeros((480, 640, 3), np.uint8)


def red(**size: int) -> np.ndarray:
    return square_image('red', 80, 40, 120, **size)


def test_detections_carry_the_images_header_and_pixels(observer: Any, perception: Any) -> None:
    perception()
    message = image_message(square_image('green', 200, 160, 120))
    array = observer.detect(observer.camera(), message)
    assert array.header == message.header
    [detection] = array.detections
    assert detection.header == message.header
    assert detection.id == ''
    [result] = detection.results
    assert result.hypothesis.class_id == str(LABELS.index('green'))
    assert 0.9 < result.hypothesis.score <= 1.0
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y) == pytest.approx((260, 220), abs=0.5)
    assert (box.size_x, box.size_y) == pytest.approx((120, 120), abs=1)


def test_boxes_are_in_pixels_of_images_of_any_size(observer: Any, perception: Any) -> None:
    perception()
    camera = observer.camera()
    for scale in (0.4, 1.5):
        height, width = round(480 * scale), round(640 * scale)
        image = square_image(
            'blue',
            round(200 * scale),
            round(160 * scale),
            round(120 * scale),
            height=height,
            width=width,
        )
        [detection] = observer.detect(camera, image_message(image)).detections
        box = detection.bbox
        expected = (260 * scale, 220 * scale, 120 * scale, 120 * scale)
        found = (box.center.position.x, box.center.position.y, box.size_x, box.size_y)
        assert found == pytest.approx(expected, abs=1.5)


def test_a_frame_without_objects_gives_an_empty_array(observer: Any, perception: Any) -> None:
    perception()
    message = image_message(BLACK)
    array = observer.detect(observer.camera(), message)
    assert array.header == message.header
    assert list(array.detections) == []


@pytest.mark.parametrize(
    ('encoding', 'conversion'),
    [
        ('bgr8', cv2.COLOR_RGB2BGR),
        ('rgba8', cv2.COLOR_RGB2RGBA),
        ('bgra8', cv2.COLOR_RGB2BGRA),
        ('nv12', None),
    ],
)
def test_encodings_end_in_the_right_class(
    observer: Any, perception: Any, encoding: str, conversion: int | None
) -> None:
    perception()
    image = red()
    if conversion is None:  # planes of luma and chroma, from OpenCV's planar conversion
        planar = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
        u, v = planar[480:600].reshape(240, 320), planar[600:].reshape(240, 320)
        chroma = np.dstack([u, v]).reshape(240, 640)
        message = image_message(np.vstack([planar[:480], chroma]), encoding)
        message.height = 480
    else:
        message = image_message(cv2.cvtColor(image, conversion), encoding)
    [detection] = observer.detect(observer.camera(), message).detections
    assert detection.results[0].hypothesis.class_id == str(LABELS.index('red'))


@pytest.mark.parametrize('remapped', ['front/image', 'front/image/compressed'])
def test_compressed_images_follow_the_remapped_raw_name(
    observer: Any, perception: Any, remapped: str
) -> None:
    """Or the name that `ros2 topic list` shows."""
    perception('-r', f'image_raw:={remapped}', image_transport='compressed')
    camera = observer.camera(CompressedImage, 'front/image/compressed')
    message = CompressedImage(header=image_message(BLACK).header, format='jpeg')
    jpeg = cv2.imencode('.jpg', cv2.cvtColor(red(), cv2.COLOR_RGB2BGR))[1]
    message.data = jpeg.tobytes()
    [detection] = observer.detect(camera, message).detections
    assert detection.results[0].hypothesis.class_id == str(LABELS.index('red'))
    assert (detection.bbox.size_x, detection.bbox.size_y) == pytest.approx((120, 120), abs=2)


def test_a_real_robots_bag_goes_through(observer: Any, perception: Any, shared_data: Any) -> None:
    """The bag's one image, 1280 × 960 JPEG, as its camera published it in 2022."""
    rosbags = pytest.importorskip('rosbags.highlevel', reason='needs the extra [bench]')
    folder = shared_data / 'bags' / 'ubiquity_aruco_images_ros2_mcap'
    with rosbags.AnyReader([folder]) as reader:
        [connection] = [
            each for each in reader.connections if each.msgtype.endswith('/CompressedImage')
        ]
        [(_, _, data)] = list(reader.messages([connection]))
        recorded = reader.deserialize(data, connection.msgtype)
    perception(image_transport='compressed')
    message = CompressedImage(format=recorded.format, data=recorded.data.tobytes())
    message.header.frame_id = recorded.header.frame_id
    message.header.stamp.sec = recorded.header.stamp.sec
    message.header.stamp.nanosec = recorded.header.stamp.nanosec
    array = observer.detect(observer.camera(CompressedImage, 'image_raw/compressed'), message)
    assert array.header == message.header
    assert '1280 × 960' in observer.status('image_content', '1280 × 960').message
    observer.status('stamps', 'years old: play with --clock')


def test_late_subscribers_get_labels_and_model(
    observer: Any, perception: Any, tiny_bundle: Any
) -> None:
    perception()
    labels = observer.collect(LabelInfo, 'label_info', LATCHED)
    models = observer.collect(String, 'perception_node/active_model', LATCHED)
    observer.wait(lambda: labels and models, 'latched topics')
    assert [(each.class_id, each.class_name) for each in labels[-1].class_map] == list(
        enumerate(LABELS)
    )
    assert labels[-1].threshold == pytest.approx(0.5)
    model = {
        'model': tiny_bundle.name,
        'sha256': tiny_bundle.sha256,
        'execution_provider': 'cpu',
        'nodes': create_session(tiny_bundle.onnx_bytes).execution.nodes_text,
    }
    assert json.loads(models[-1].data) == {**model, 'since': None}
    message = image_message(red())
    observer.detect(observer.camera(), message)
    stamp = {'sec': message.header.stamp.sec, 'nanosec': message.header.stamp.nanosec}
    observer.wait(lambda: len(models) > 1, 'the stamp of its first result')
    assert json.loads(models[-1].data) == {**model, 'since': stamp}


def test_class_ids_as_names(observer: Any, perception: Any) -> None:
    perception(class_id_format='name')
    [detection] = observer.detect(observer.camera(), image_message(red())).detections
    assert detection.results[0].hypothesis.class_id == 'red'


def test_live_parameters_act_on_the_next_frame(observer: Any, perception: Any) -> None:
    perception()
    camera = observer.camera()

    def found() -> list[str]:
        image = red()
        image[240:360, 400:520, 2] = 255  # and a blue square
        array = observer.detect(camera, image_message(image))
        return sorted(each.results[0].hypothesis.class_id for each in array.detections)

    assert found() == ['0', '2']
    assert observer.set(classes=['blue']).successful
    assert found() == ['2']
    assert observer.set(classes=['']).successful
    assert observer.set(max_detections=1).successful
    assert len(found()) == 1
    assert observer.set(max_detections=0).successful
    labels = observer.collect(LabelInfo, 'label_info', LATCHED)
    assert observer.set(score_threshold=0.999).successful
    assert found() == []
    observer.wait(lambda: labels and labels[-1].threshold > 0.99, 'the new threshold')
    assert observer.set(score_threshold=-1.0).successful
    assert found() == ['0', '2']


def test_changes_from_outside_are_logged_and_blinding_ones_shown(
    observer: Any, perception: Any
) -> None:
    from rcl_interfaces.msg import Log

    logged = observer.collect(Log, '/rosout')
    perception()
    observer.status('settings', 'all classes', level=0)
    assert observer.set(score_threshold=1.0).successful
    assert observer.set(classes=['blue']).successful
    assert not observer.set(score_threshold=2.0).successful
    observer.status('settings', 'score_threshold 1 lets (nearly) no detection through', level=1)

    def texts() -> list[str]:
        own = observer.tested.strip('/').replace('/', '.')
        return [each.msg for each in logged if each.name == own and 'parameter ' in each.msg]

    observer.wait(lambda: len(texts()) >= 2, 'the log')
    assert texts() == [
        'parameter score_threshold was changed from -1.0 to 1.0',
        "parameter classes was changed from [''] to ['blue']",
    ]
    assert observer.set(score_threshold=-1.0).successful
    observer.status('settings', 'only detections of blue are published', level=0)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'score_threshold': 1.5}, 'range'),
        ({'score_threshold': -0.5}, 'neither in 0 … 1'),
        ({'score_threshold': 'high'}, 'type double'),
        ({'max_detections': -1}, 'range'),
        ({'classes': ['horse']}, 'red, green, blue'),
        ({'model': '/elsewhere'}, '/elsewhere: no such bundle'),
        ({'active_member': 'small'}, "'small' is no member of"),
        ({'member': 'small'}, 'deactivate'),
        ({'threads': 2}, 'deactivate'),
        ({'autostart': False}, 'read-only'),
    ],
)
def test_a_refused_change_says_why(
    observer: Any, perception: Any, change: dict[str, Any], reason: str
) -> None:
    node = perception()
    before = dict(node.parameters.values)
    result = observer.set(**change)
    assert not result.successful
    assert reason in result.reason
    assert node.parameters.values == before


def test_descriptors_tell_text_range_and_read_only(observer: Any, perception: Any) -> None:
    perception()
    score, timings, transport, classes = observer.describe(
        ['score_threshold', 'timings_file', 'image_transport', 'classes']
    )
    assert 'manifest' in score.description
    [bounds] = score.floating_point_range
    assert (bounds.from_value, bounds.to_value) == (-1.0, 1.0)
    assert not score.read_only
    assert score.type == ParameterType.PARAMETER_DOUBLE
    assert classes.type == ParameterType.PARAMETER_STRING_ARRAY
    assert timings.read_only
    assert transport.additional_constraints == 'raw | compressed'


def test_whole_numbers_and_empty_lists_from_the_command_line(perception: Any) -> None:
    node = perception('-p', 'max_age_ms:=100', '-p', 'classes:=[]')
    assert node.parameters['max_age_ms'] == 100.0
    assert node.parameters['classes'] == ['']


def test_no_change_alters_the_type_of_a_parameter(observer: Any, perception: Any) -> None:
    """A whole number is taken for a double and becomes one; what is refused leaves no trace."""
    node = perception('-p', 'max_age_ms:=100')
    types = {
        name: node.get_parameter(name).type_
        for name in ('score_threshold', 'max_age_ms', 'threads', 'classes', 'model', 'autostart')
    }
    assert types['max_age_ms'] == ParameterType.PARAMETER_DOUBLE
    assert observer.set(score_threshold=1).successful
    assert node.parameters['score_threshold'] == node.get_parameter('score_threshold').value == 1.0
    assert observer.set(classes=['red']).successful
    assert observer.set(classes=[]).successful  # of whatever
    assert node.get_parameter('classes').value == ['']
    for refused in ('abc', True, [0.5], None):
        assert not observer.set(score_threshold=refused).successful
        assert not observer.set(classes=7).successful
        assert not observer.set(max_detections=1.5).successful
    assert node.get_parameter('score_threshold').value == 1.0
    assert types == {name: node.get_parameter(name).type_ for name in types}
    assert [each.type for each in observer.describe(list(types))] == [
        each.value for each in types.values()
    ]
    assert not any(each.dynamic_typing for each in observer.describe(list(types)))


def test_the_quality_of_service_can_be_overridden(observer: Any, perception: Any) -> None:
    prefix = f'qos_overrides.{observer.namespace}'
    given = {
        f'{prefix}/image_raw.subscription.depth': 2,
        f'{prefix}/image_raw.subscription.reliability': 'best_effort',
        f'{prefix}/detections.publisher.depth': 3,
        f'{prefix}/perception_node/metrics.publisher.reliability': 'best_effort',
    }
    node = perception(**given)
    observer.camera()  # reliable: image_reliability would follow it
    for name, value in given.items():
        assert node.get_parameter(name).value == value
    ends = {
        'image_raw': node.get_subscriptions_info_by_topic,
        'detections': node.get_publishers_info_by_topic,
        'label_info': node.get_publishers_info_by_topic,
        'perception_node/metrics': node.get_publishers_info_by_topic,
    }
    profiles = {
        topic: next(
            each.qos_profile
            for each in look(f'{observer.namespace}/{topic}')
            if each.node_name == 'perception_node'
        )
        for topic, look in ends.items()
    }
    assert profiles['image_raw'].reliability == ReliabilityPolicy.BEST_EFFORT
    assert profiles['perception_node/metrics'].reliability == ReliabilityPolicy.BEST_EFFORT
    assert profiles['detections'].reliability == ReliabilityPolicy.RELIABLE
    assert profiles['label_info'].durability == DurabilityPolicy.TRANSIENT_LOCAL
    observer.wait(lambda: observer.value('image_input', 'reliability') == 'best_effort', 'a report')
    # Another life finds the parameters declared, and nothing was said of a change.
    assert observer.transition('deactivate')
    assert observer.transition('cleanup')
    assert observer.transition('configure')
    assert observer.transition('activate')


def test_an_override_that_cannot_be_taken_is_named(observer: Any, perception: Any) -> None:
    from rcl_interfaces.msg import Log

    logged = observer.collect(Log, '/rosout')
    topic = f'{observer.namespace}/detections'
    perception(autostart=False, **{f'qos_overrides.{topic}.publisher.reliability': 'maybe'})
    assert not observer.transition('configure')
    observer.wait(
        lambda: any(f'{topic}: Unexpected QoS override' in each.msg for each in logged), 'the log'
    )
    assert observer.state() == 'unconfigured'


FAST_CAMERA = """
import sys, time, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('camera', namespace=sys.argv[1])
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
camera = node.create_publisher(Image, 'image_raw', qos)
image = Image(height=1080, width=1920, encoding='rgb8', step=3 * 1920)
image.data.frombytes(bytes(3 * 1920 * 1080))
while True:
    for _ in range(10):
        camera.publish(image)
    time.sleep(0.1)
"""


def test_images_lost_on_the_way_are_counted_and_said(observer: Any, perception: Any) -> None:
    """By a best-effort camera whose large images come in many fragments, faster than they go."""
    perception()
    with subprocess.Popen(
        [sys.executable, '-c', FAST_CAMERA, observer.namespace], env=environment()
    ) as camera:
        try:
            status = observer.status('image_input', 'were lost on the way', level=1)
            observer.wait(lambda: observer.counts().get('lost'), 'the account')
        finally:
            camera.kill()
    assert 'subscribed best_effort' in status.message
    assert 'config/fastdds.xml' in status.message
    assert int(values(status)['lost_images']) > 0
    assert balanced(observer.counts())


def test_a_change_of_model_takes_effect_at_the_next_activation(
    observer: Any, perception: Any, tiny_family: Any
) -> None:
    perception(model=str(tiny_family))
    models = observer.collect(String, 'perception_node/active_model', LATCHED)
    observer.wait(lambda: models, 'the first model')
    assert json.loads(models[-1].data)['model'] == 'dense'
    assert observer.transition('deactivate')
    assert observer.state() == 'inactive'
    assert observer.set(member='small').successful
    assert observer.transition('activate')
    observer.wait(lambda: json.loads(models[-1].data)['model'] == 'small', 'the other member')
    [detection] = observer.detect(observer.camera(), image_message(red())).detections
    assert detection.results[0].hypothesis.class_id == '0'


def test_life_cycle_by_a_manager(observer: Any, perception: Any) -> None:
    perception(autostart=False)
    assert observer.state() == 'unconfigured'
    observer.status('model', 'unconfigured')
    assert observer.transition('configure')
    assert observer.state() == 'inactive'
    camera = observer.node.create_publisher(Image, 'image_raw', 10)
    observer.status('model', 'inactive')
    assert camera.get_subscription_count() == 0
    for _ in range(2):
        assert observer.transition('activate')
        observer.wait(camera.get_subscription_count, 'the subscription')
        assert observer.detect(camera, image_message(red())).detections
        assert observer.transition('deactivate')
        observer.wait(lambda: not camera.get_subscription_count(), 'its end')
    assert observer.transition('cleanup')
    assert observer.state() == 'unconfigured'
    assert observer.transition('configure')
    assert observer.transition('shutdown')
    assert observer.state() == 'finalized'


def test_metrics_have_units_and_windows(observer: Any, perception: Any) -> None:
    perception()
    metrics = observer.collect(MetricsMessage, 'perception_node/metrics')
    camera = observer.camera()
    for _ in range(3):
        observer.detect(camera, image_message(red()))
    observer.wait(
        lambda: {'inference', 'cpu'} <= {each.metrics_source for each in metrics}, 'metrics'
    )
    units = {each.metrics_source: each.unit for each in metrics}
    assert set(units) <= {
        *('age_at_receipt', 'queue_age', 'preprocess', 'inference', 'postprocess', 'publish'),
        *('e2e_publish', 'period', 'jitter', 'cpu'),
    }
    assert units['inference'] == 'ms'
    assert units['cpu'] == 'percent'
    inference = next(each for each in metrics if each.metrics_source == 'inference')
    assert inference.measurement_source_name == observer.tested
    data = {each.data_type: each.data for each in inference.statistics}
    assert data[StatisticDataType.STATISTICS_DATA_TYPE_SAMPLE_COUNT] >= 1
    low = data[StatisticDataType.STATISTICS_DATA_TYPE_MINIMUM]
    mean = data[StatisticDataType.STATISTICS_DATA_TYPE_AVERAGE]
    high = data[StatisticDataType.STATISTICS_DATA_TYPE_MAXIMUM]
    assert 0 < low <= mean <= high
    windows = {(each.window_start.sec, each.window_start.nanosec) for each in metrics}
    for window in windows:
        own = [e for e in metrics if (e.window_start.sec, e.window_start.nanosec) == window]
        assert len(own) <= 10  # the topic's depth


def test_diagnostics_have_autowares_keys_and_percentiles(observer: Any, perception: Any) -> None:
    perception()
    observer.detect(observer.camera(), image_message(red()))
    observer.wait(
        lambda: (
            'latency' in observer.statuses
            and values(observer.statuses['latency'])['inference_p50_ms']
        ),
        'latency',
    )
    found = values(observer.statuses['latency'])
    for key in (
        'processing_time_ms',
        'is_processing_time_ms_in_expected_range',
        'consecutive_processing_delay_ms',
        'preprocess_time_ms',
        'inference_time_ms',
        'postprocess_time_ms',
    ):
        assert key in found
    assert float(found['inference_p50_ms']) <= float(found['inference_p99_ms'])
    assert float(found['rss_mib']) > 0
    observer.status('image_input', 'receiving')
    observer.status('image_content', 'rgb8, 640 × 480')


def test_images_are_drawn_only_for_subscribers(observer: Any, perception: Any) -> None:
    node = perception()
    camera = observer.camera()
    observer.detect(camera, image_message(red()))
    drawn = observer.collect(Image, 'perception_node/annotated_image', 1)
    observer.wait(lambda: node._annotated.get_subscription_count(), 'the subscription')
    message = image_message(red())
    observer.detect(camera, message)
    observer.wait(lambda: drawn, 'an annotated image')
    result = drawn[-1]
    assert result.header == message.header
    assert (result.height, result.width, result.encoding) == (480, 640, 'rgb8')
    pixels = np.frombuffer(result.data, np.uint8).reshape(480, 640, 3)
    changed = np.any(pixels != red(), axis=2)
    assert changed.any()
    assert not changed[300:, 300:].any()


def test_a_burst_at_1_khz_loses_no_account_and_ends_with_the_newest(
    observer: Any, perception: Any
) -> None:
    perception()
    camera = observer.camera()
    small = square_image('red', 16, 8, 24, height=96, width=128)
    observer.detect(camera, image_message(small))  # which may send its image more than once
    before = observer.settled_counts()['received']
    sent = 400
    start = time.monotonic()
    for k in range(sent):
        time.sleep(max(0.0, start + k / 1000 - time.monotonic()))
        message = image_message(small)
        camera.publish(message)
    last = message.header.stamp
    observer.wait(lambda: any(e.header.stamp == last for e in observer.detections), 'the newest')
    counts = observer.settled_counts()
    assert balanced(counts)
    assert 1 < counts['received'] <= before + sent
    # The observer did not listen meanwhile, and the topic keeps ten arrays.
    assert 1 < len(observer.detections) <= counts['published']
    assert all(balanced(counts_of(each)) for each in observer.history['frames'])
    if counts['superseded'] > 0.5 * sent:  # where few of the 400 came in at all, the node kept up
        observer.status('frames', 'does not keep up: take a smaller member', level=1)


def test_timings_file_has_a_line_for_every_frame(
    observer: Any, perception: Any, tmp_path: Any
) -> None:
    path = tmp_path / 'out' / 'timings.jsonl'
    perception(timings_file=str(path))
    camera = observer.camera()
    messages = [image_message(red()) for _ in range(3)]
    for message in messages:
        observer.detect(camera, message)
    assert observer.transition('deactivate')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]
    assert list(dict.fromkeys(line['stamp_ns'] for line in lines)) == stamps
    for line in lines:
        stages = ('queue_age', 'preprocess', 'inference', 'postprocess', 'publish')
        assert all(line[stage] >= 0 for stage in stages)
        assert line['e2e_publish'] >= line['age_at_receipt'] >= 0
        assert line['detections'] == 1


def test_an_older_rclpy_without_matched_events_and_post_set_callbacks(
    observer: Any, perception: Any, monkeypatch: Any
) -> None:
    """What Humble lacks: the node looks at the graph once a second and sets parameters at once."""
    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.node import Node

    from pruned_perception.nodes import image_input

    class OldEventCallbacks(SubscriptionEventCallbacks):
        def __init__(self, *, incompatible_qos: Any, use_default_callbacks: bool) -> None:
            super().__init__(use_default_callbacks=False)  # nor is it told of this event

    monkeypatch.setattr(image_input, 'SubscriptionEventCallbacks', OldEventCallbacks)
    monkeypatch.delattr(Node, 'add_post_set_parameters_callback')
    node = perception()
    camera = observer.camera(reliable=False)
    observer.wait(
        lambda: observer.value('image_input', 'reliability') == 'best_effort',
        'the subscription to follow',
    )
    assert observer.set(score_threshold=0.999).successful
    assert node.parameters['score_threshold'] == 0.999
    message = image_message(red(height=96, width=128))
    assert list(observer.detect(camera, message).detections) == []


@pytest.mark.skipif(shutil.which('ssh-keygen') is None, reason='needs ssh-keygen')
def test_only_models_signed_by_a_trusted_key_are_loaded(
    observer: Any, perception: Any, tiny_bundle: Any, tmp_path: Any
) -> None:
    from rcl_interfaces.msg import Log

    bundle = shutil.copytree(tiny_bundle.path, tmp_path / 'bundle')
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for key in (ours, theirs):
        subprocess.run(['ssh-keygen', '-q', '-N', '', '-t', 'ed25519', '-f', key], check=True)
    logged = observer.collect(Log, '/rosout')

    def has_said(words: str) -> None:
        observer.wait(lambda: any(words in each.msg for each in logged), words)

    perception(autostart=False, model=str(bundle), trusted_keys=f'{ours}.pub')
    assert not observer.transition('configure')
    has_said('not signed, but only signed bundles are trusted here')
    signature.sign(bundle / 'manifest.json', theirs)
    assert not observer.transition('configure')
    has_said('is not by a trusted key')
    assert observer.set(trusted_keys=str(tmp_path / 'nowhere')).successful
    assert not observer.transition('configure')
    has_said('parameter trusted_keys: ')
    assert observer.set(trusted_keys=f'{ours}.pub').successful
    signature.sign(bundle / 'manifest.json', ours)
    assert observer.transition('configure')
    observer.status('model', 'inactive')
    remark = 'trusted_keys is not set: a model is loaded whoever made it'
    assert not any(remark in each.msg for each in logged)
    # The key is read again where the parameter has changed.
    assert observer.set(trusted_keys=f'{theirs}.pub').successful
    assert not observer.transition('activate')
    assert observer.set(trusted_keys='').successful
    assert observer.transition('activate')
    has_said(remark)
    reports = len(observer.history['frames'])
    observer.wait(lambda: len(observer.history['frames']) > reports + 2, 'reports')
    assert sum(remark in each.msg for each in logged) == 1


def test_best_effort_cameras_are_followed(observer: Any, perception: Any) -> None:
    perception()
    camera = observer.camera(reliable=False)
    assert observer.detect(camera, image_message(red(height=96, width=128))) is not None
    observer.wait(
        lambda: observer.value('image_input', 'reliability') == 'best_effort',
        'the subscription to follow',
    )
    observer.node.destroy_publisher(camera)
    again = observer.camera(reliable=True)
    observer.wait(
        lambda: observer.value('image_input', 'reliability') == 'reliable',
        'the subscription to go back',
    )
    observer.detect(again, image_message(red()))


def test_the_budget_is_reported(observer: Any, perception: Any, tmp_path: Any) -> None:
    perception(latency_budget_ms=1e-6)
    camera = observer.camera()
    for words, level in (('missed the budget', 1), ('none within it', 2)):
        observer.wait(
            lambda words=words, level=level: (
                observer.detect(camera, image_message(red()))
                and any(
                    words in each.message and each.level[0] == level
                    for each in observer.history['latency']
                )
            ),
            words,
        )
    assert observer.set(latency_budget_ms=1e6).successful
    observer.detect(camera, image_message(red()))
    observer.status('latency', 'within the budget', level=0)


def test_a_model_with_other_labels_is_checked_at_activation(
    observer: Any, perception: Any, tmp_path: Any
) -> None:
    other = write_tiny_bundle(tmp_path / 'other', name='other', labels=['a', 'b', 'c'])
    perception()
    assert observer.transition('deactivate')
    assert observer.set(model=str(other.path)).successful
    assert observer.set(classes=['red']).successful
    assert not observer.transition('activate')
    assert observer.state() == 'inactive'
    assert observer.set(classes=['b']).successful
    assert observer.transition('activate')
