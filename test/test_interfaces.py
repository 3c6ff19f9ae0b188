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

"""Our text of the messages is on the wire what ROS 2's packages are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

# Of ROS 2 Kilted's vision_msgs 4.2.0.
DETECTION_2D_ARRAY = 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'


def test_the_type_hash_of_detections_is_that_of_ros_2() -> None:
    pytest.importorskip('vision_msgs', reason='needs the interface packages')
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    places = [
        Path(each, 'share/vision_msgs/msg/Detection2DArray.json') for each in prefixes if each
    ]
    description = next((place for place in places if place.is_file()), None)
    if description is None:
        pytest.skip('no type descriptions are installed (they are since ROS 2 Iron)')
    hashes = {
        entry['type_name']: entry['hash_string']
        for entry in json.loads(description.read_text())['type_hashes']
    }
    assert hashes['vision_msgs/msg/Detection2DArray'] == DETECTION_2D_ARRAY


def test_messages_have_their_fields() -> None:
    pytest.importorskip('rclpy', reason='needs ROS 2')
    vision = pytest.importorskip('vision_msgs.msg', reason='needs the interface packages')
    statistics = pytest.importorskip('statistics_msgs.msg', reason='needs the interface packages')
    assert vision.Detection2D.get_fields_and_field_types() == {
        'header': 'std_msgs/Header',
        'results': 'sequence<vision_msgs/ObjectHypothesisWithPose>',
        'bbox': 'vision_msgs/BoundingBox2D',
        'id': 'string',
    }
    assert vision.LabelInfo.get_fields_and_field_types() == {
        'header': 'std_msgs/Header',
        'class_map': 'sequence<vision_msgs/VisionClass>',
        'threshold': 'float',
    }
    assert statistics.MetricsMessage.get_fields_and_field_types() == {
        'measurement_source_name': 'string',
        'metrics_source': 'string',
        'unit': 'string',
        'window_start': 'builtin_interfaces/Time',
        'window_stop': 'builtin_interfaces/Time',
        'statistics': 'sequence<statistics_msgs/StatisticDataPoint>',
    }
    assert statistics.StatisticDataType.STATISTICS_DATA_TYPE_SAMPLE_COUNT == 5
