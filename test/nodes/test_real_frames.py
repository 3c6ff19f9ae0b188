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

"""A recorded drive of real on-robot frames, played to the node: stamps, order, no loss, boxes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')
pytest.importorskip('rosbags', reason='needs rosbags')

from rclpy.serialization import serialize_message
from ros_harness import balanced, environment
from sensor_msgs.msg import CompressedImage

from pruned_perception.benchmark.bag import BagWriter, read_bag, stamp_of
from pruned_perception.bundle import load_family, resolve_model, shipped_families
from pruned_perception.inference.detector import Detector

pytestmark = [pytest.mark.ros, pytest.mark.shared_data]

FRAMES = 10
RATE_HZ = 4.0
STAMP_0 = 1_721_234_567_000_000_000
FAMILY = 'robocup' if 'robocup' in shipped_families() else 'warehouse'
"""By its name, as a user gives it."""
THRESHOLD = 0.1
"""Low, so that there are boxes to compare, whatever the family was made for."""


@pytest.fixture
def drive(shared_data: Path) -> list[Path]:
    """Return the frames of one robot at one venue, in the order in which they were taken."""
    folder = shared_data / 'robocup_msl'
    if not folder.is_dir():
        pytest.skip(f'no real on-robot frames at {folder}')
    return sorted((folder / '20240719').rglob('*.jpg'))[:FRAMES]


def write_drive(bag: Path, topic: str, files: list[Path]) -> list[int]:
    """Record JPEG files as a camera's compressed images; return their stamps, ns."""
    stamps = [STAMP_0 + round(k * 1e9 / RATE_HZ) for k in range(len(files))]
    with BagWriter(bag) as writer:
        writer.add_topic(topic, CompressedImage)
        for file, stamp in zip(files, stamps, strict=True):
            message = CompressedImage(format='jpeg', data=file.read_bytes())
            message.header.frame_id = 'cam0'
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            writer.write(topic, serialize_message(message), stamp)
    return stamps


def test_a_recorded_drive_comes_back_whole_in_order_with_its_stamps_and_boxes_inside(
    drive: list[Path], observer: Any, namespace: str, perception: Any, tmp_path: Path
) -> None:
    topic = f'{namespace}/image_raw/compressed'
    stamps = write_drive(tmp_path / 'bag', topic, drive)
    assert [stamp_of(each.data) for each in read_bag(tmp_path / 'bag', [topic])] == stamps
    member = load_family(resolve_model(FAMILY)).in_float[-1]
    node = perception(
        model=FAMILY, member=member.name, image_transport='compressed', score_threshold=THRESHOLD
    )
    where = f'{namespace}/detections'
    observer.wait(lambda: observer.node.count_publishers(where), 'the publisher of detections')
    observer.wait(lambda: node.count_subscribers(where), 'our subscription to them')
    player = subprocess.Popen(
        [sys.executable, '-m', 'pruned_perception.cli.main', 'play', str(tmp_path / 'bag')],
        env=environment(),
    )
    try:
        observer.wait(lambda: player.poll() is not None, 'the end of the bag')
    finally:
        player.kill()
    assert player.returncode == 0

    def whole() -> bool:
        counts = observer.counts()
        return counts.get('received') == FRAMES and counts['published'] == len(observer.detections)

    observer.wait(whole, 'an account of all frames')
    counts = observer.counts()
    assert balanced(counts)
    # A busy machine may replace a waiting frame by the next one; it is counted, none is lost.
    assert counts['published'] + counts['superseded'] == FRAMES
    assert counts['lost'] == counts['error'] == 0

    answered = [
        each.header.stamp.sec * 10**9 + each.header.stamp.nanosec for each in observer.detections
    ]
    assert set(answered) <= set(stamps)
    assert all(before < after for before, after in pairwise(answered))
    assert answered[-1] == stamps[-1]
    detector = Detector(member)
    settings = replace(detector.settings, score_threshold=THRESHOLD)
    assert any(array.detections for array in observer.detections)
    for stamp, array in zip(answered, observer.detections, strict=True):
        assert array.header.frame_id == 'cam0'
        image = np.asarray(cv2.imread(str(drive[stamps.index(stamp)])))
        height, width = image.shape[:2]
        expected, _ = detector.detect(image, 'bgr', settings)
        found = np.array(
            [
                (
                    box.center.position.x - box.size_x / 2,
                    box.center.position.y - box.size_y / 2,
                    box.center.position.x + box.size_x / 2,
                    box.center.position.y + box.size_y / 2,
                )
                for box in (each.bbox for each in array.detections)
            ]
        ).reshape(-1, 4)
        np.testing.assert_allclose(found, expected.boxes, atol=0.01)
        assert (found >= -0.01).all()
        assert (found <= np.array([width, height] * 2) + 0.01).all()
