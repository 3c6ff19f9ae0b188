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

"""What strangers send: each message is in the account, good frames go on, memory stays bounded.

PRUNED_PERCEPTION_FUZZ=500 makes a long run of it: some 100,000 messages.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from hostile_images import MUTATIONS, bombs, encoded, mutated, picture
from rclpy.serialization import serialize_message
from ros_harness import NodeProcess, Observer, balanced, image_message
from sensor_msgs.msg import CompressedImage, Image
from tiny_detector import square_image

pytestmark = pytest.mark.ros

ERROR = 2
RED = square_image('red', 16, 8, 24, height=96, width=128)
JPEG = encoded('.jpg', RED[..., ::-1])
BATCH = 4  # with a good frame behind it, what the subscription holds
BATCHES = 25 * int(os.environ.get('PRUNED_PERCEPTION_FUZZ', '1'))


MALFORMED = {
    'one byte': b'\xff',
    'no content': b'\x00\x01\x00\x00',
    'padding that is not there': b'\x00\x01\x00\x01',
    'another representation': b'\x00\x0b\x00\x01' + bytes(60),
    'junk': b'\xff' * 500,
}


def compressed(data: bytes = JPEG, format: str = 'rgb8; jpeg compressed bgr8') -> CompressedImage:
    message = CompressedImage(format=format, data=data)
    message.header = image_message(RED).header
    return message


GOOD = {'raw': lambda: image_message(RED), 'compressed': compressed}
TOPICS = {'raw': (Image, 'image_raw'), 'compressed': (CompressedImage, 'image_raw/compressed')}


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
@pytest.mark.parametrize('name', MALFORMED)
def test_bytes_that_are_no_message_are_counted(
    observer: Any, perception: Any, transport: str, name: str
) -> None:
    perception(image_transport=transport)
    camera = observer.camera(*TOPICS[transport])
    cut = serialize_message(GOOD[transport]())[:-9]
    camera.publish(MALFORMED[name])
    observer.status(
        'image_content', f'{len(MALFORMED[name])} bytes on {observer.namespace}/image_raw', ERROR
    )
    camera.publish(cut)
    observer.wait(lambda: observer.counts().get('error') == 2, 'both errors to be counted')
    assert observer.value('image_content', 'malformed_messages') == '2'
    assert observer.detect(camera, GOOD[transport]()).detections
    observer.wait(lambda: observer.counts().get('published'), 'the good frame to be counted')
    assert balanced(observer.counts())


def test_the_pixel_limit_is_a_live_parameter(observer: Any, perception: Any) -> None:
    perception(image_transport='compressed', max_megapixels=0.01)
    camera = observer.camera(*TOPICS['compressed'])
    camera.publish(compressed())
    observer.status('image_content', '128 × 96 pixels: more than 10000 pixels', ERROR)
    assert observer.set(max_megapixels=0.02).successful
    assert observer.detect(camera, compressed()).detections
    assert not observer.set(max_megapixels=0.0).successful


def test_an_orientation_turns_no_boxes(observer: Any, perception: Any) -> None:
    from hostile_images import after_start, exif

    perception(image_transport='compressed')
    camera = observer.camera(*TOPICS['compressed'])
    stored = observer.detect(camera, compressed()).detections[0].bbox
    turned = observer.detect(camera, compressed(after_start(JPEG, exif(6)))).detections[0].bbox
    assert turned == stored


def attacks(transport: str, generator: random.Random) -> Iterator[bytes]:
    """Yield serialised messages without end, hardly any of them usable."""
    hostile = [*bombs().values(), JPEG[: len(JPEG) // 2]]
    whole = [JPEG, encoded('.png', picture()), encoded('.jpg', picture(480, 640))]
    formats = ['jpeg', 'png', '', '16UC1; png compressed', '32FC1; compressedDepth png', 'a' * 999]

    def changes() -> list[tuple[str, float, int, int]]:
        return [
            (
                generator.choice(MUTATIONS),
                generator.random() ** 3,  # mostly near the start: headers, lengths, encodings
                generator.randint(1, 300),
                generator.randint(1, 255),
            )
            for _ in range(generator.randint(1, 4))
        ]

    while True:
        if transport == 'compressed':
            data = generator.choice(hostile) if generator.random() < 0.2 else None
            data = data or mutated(generator.choice(whole), changes())
            yield serialize_message(compressed(data, generator.choice(formats)))
        else:
            message = image_message(RED, generator.choice(['rgb8', '16UC1', 'nv12', 'bayer_x', '']))
            message.step = generator.choice([384, 0, 2**32 - 1])
            yield serialize_message(message)
        # Not of 0 bytes: with those, Fast DDS holds up all that the same writer sends after them.
        yield mutated(serialize_message(GOOD[transport]()), changes()) or b'\0'


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_a_flood_of_malformed_messages(
    context: Any, namespace: str, tiny_bundle: Any, tmp_path: Path, observer: Any, transport: str
) -> None:
    given = {'model': tiny_bundle.path, 'image_transport': transport}
    process = NodeProcess(tmp_path / 'log', 'perception_node', namespace, given)
    try:
        flood(observer, process, transport)
    finally:
        process.kill()


def flood(observer: Observer, process: NodeProcess, transport: str) -> None:
    camera = observer.camera(*TOPICS[transport])
    generator = random.Random(7)
    messages = attacks(transport, generator)
    # Until both sides have matched, frames are nobody's loss: here they are sent again until one
    # is seen, and counted from there.
    observer.detect(camera, GOOD[transport]())
    sent = observer.settled_counts()['received']

    def good() -> None:
        """Send a good frame, once: the middleware is reliable, and nothing may be in its way."""
        nonlocal sent
        message = GOOD[transport]()
        camera.publish(message)
        sent += 1
        stamp = message.header.stamp
        observer.wait(
            lambda: (
                any(each.header.stamp == stamp for each in observer.detections[-9:])
                or process.process.poll() is not None
            ),
            f'detections after {sent} messages',
        )
        assert process.process.poll() is None, process.output

    for _ in range(5):
        good()
    idle = resident(process, 'VmRSS')
    for _ in range(BATCHES):
        for _ in range(BATCH):
            camera.publish(next(messages))
        sent += BATCH
        good()
        del observer.detections[:-9]
    observer.wait(lambda: observer.counts().get('received') == sent, f'{sent} messages in account')
    counts = observer.counts()
    assert balanced(counts)
    assert counts['error'] >= BATCHES // 5  # on a busy machine most give way to newer ones
    assert int(observer.value('image_content', 'malformed_messages')) > 0
    assert resident(process, 'VmHWM') < 1.5 * idle


def resident(process: NodeProcess, field: str) -> int:
    """Return a size of the process's memory, KiB."""
    lines = Path(f'/proc/{process.process.pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
