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

"""How Gazebo and its bridges are started."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from pruned_perception.errors import UserError
from pruned_perception.nodes import gazebo

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / 'config' / 'gazebo_bridge.yaml'
KEYS = {  # what ros_gz_bridge reads (bridge_config.cpp)
    'topic_name',
    'ros_topic_name',
    'gz_topic_name',
    'ros_type_name',
    'gz_type_name',
    'direction',
    'publisher_queue',
    'subscriber_queue',
    'lazy',
}
TYPES = {  # pairs that it converts (mappings.py)
    'sensor_msgs/msg/Image': 'gz.msgs.Image',
    'sensor_msgs/msg/CameraInfo': 'gz.msgs.CameraInfo',
    'vision_msgs/msg/Detection2DArray': 'gz.msgs.AnnotatedAxisAligned2DBox_V',
    'rosgraph_msgs/msg/Clock': 'gz.msgs.Clock',
    'geometry_msgs/msg/Twist': 'gz.msgs.Twist',
    'geometry_msgs/msg/PoseStamped': 'gz.msgs.Pose',
    'nav_msgs/msg/Odometry': 'gz.msgs.Odometry',
}


@pytest.fixture
def topics() -> list[dict]:
    return gazebo.bridged_topics(FILE.read_text(), str(FILE))


def test_the_bridge_file_is_what_ros_gz_bridge_reads(topics: list[dict]) -> None:
    for entry in topics:
        assert set(entry) - {'process'} <= KEYS
        assert TYPES[entry['ros_type_name']] == entry['gz_type_name']
        assert entry['lazy'] is False
        commands = entry['ros_topic_name'] == 'cmd_vel'
        assert entry['direction'] == ('ROS_TO_GZ' if commands else 'GZ_TO_ROS')


def test_bridges_carry_the_topics_of_the_worlds(topics: list[dict]) -> None:
    world = ElementTree.parse(ROOT / 'worlds' / 'warehouse.sdf')
    image = next(each for each in world.iter('sensor') if each.get('type') == 'camera')
    topic = f'/{image.findtext("topic")}'
    published = {
        '/clock',
        topic,
        topic.rpartition('/')[0] + '/camera_info',  # as gz-sensors names it
        *(f'/{each.findtext("topic")}' for each in world.iter('sensor')),
        *(f'/{each.text}' for each in world.iter('odom_topic')),
    }
    plugins = {
        each.get('filename'): f'/{each.findtext("topic")}'
        for each in world.iter('plugin')
        if each.find('topic') is not None
    }
    published.add(plugins['gz-sim-pose-publisher-system'])
    driven = [plugins['gz-sim-diff-drive-system']]
    for entry in topics:
        known = driven if entry['direction'] == 'ROS_TO_GZ' else published
        assert entry['gz_topic_name'] in known


def test_the_clock_has_a_process_of_its_own(topics: list[dict], tmp_path: Path) -> None:
    for pass_ in gazebo.PASSES:
        for process in gazebo.PROCESSES[pass_]:
            written = yaml.safe_load(gazebo.bridge_file(topics, process, tmp_path).read_text())
            names = [each['ros_topic_name'] for each in written]
            assert ('/clock' in names) == (process == gazebo.CLOCK)
            if process == gazebo.CLOCK:
                assert names == ['/clock']
    assert {each['process'] for each in topics} == set(gazebo.PROCESSES[gazebo.ACCURACY])


def test_only_the_images_of_the_latency_pass_have_wall_clock_stamps(tmp_path: Path) -> None:
    stamped = [
        (process, pass_)
        for pass_ in gazebo.PASSES
        for process in gazebo.PROCESSES[pass_]
        if 'override_timestamps_with_wall_time'
        in gazebo.bridge_parameters(process, pass_, tmp_path)
    ]
    assert stamped == [('camera', gazebo.LATENCY)]
    assert 'boxes' not in gazebo.PROCESSES[gazebo.LATENCY]


def test_high_water_marks_that_the_user_chose_stay() -> None:
    chosen = {'GZ_TRANSPORT_RCVHWM': '100'}
    assert gazebo.transport_settings(chosen) == {'GZ_TRANSPORT_SNDHWM': '4'}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[', 'is not YAML'),
        ('a: 1', 'not a list'),
        ('- process: clock', r'topic 1 lacks ros_topic_name'),
        ('- 3', r'topic 1 lacks process'),
    ],
)
def test_a_broken_bridge_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gazebo.bridged_topics(text, 'bridge.yaml')
