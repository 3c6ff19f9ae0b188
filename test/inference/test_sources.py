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

"""Frames of images, folders, videos and bags, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile_images import after_start, bombs, exif

from pruned_perception.inference import sources
from pruned_perception.inference.sources import (
    Frame,
    SourceError,
    UnreadableFrame,
    open_source,
)


def write_image(file: Path, level: int = 100, height: int = 24, width: int = 32) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full((height, width, 3), level, np.uint8))
    return file


def test_an_image(tmp_path):
    source = open_source(write_image(tmp_path / 'a b.png'))
    (frame,) = source.frames
    assert source.count == 1
    assert (frame.source, frame.index, frame.stamp) == (str(tmp_path / 'a b.png'), 0, None)
    assert frame.image.shape == (24, 32, 3)


def test_a_folder_with_its_sub_folders_in_order(tmp_path):
    for name in ('b/2.JPG', 'b/1.png', 'a.png', 'c/d/e.jpeg'):
        write_image(tmp_path / name)
    (tmp_path / 'b' / '1.txt').write_text('a label file')
    (tmp_path / '._a.png').write_bytes(b'left by a file manager')
    source = open_source(tmp_path)
    frames = list(source.frames)
    assert source.count == 4
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    relative = [str(Path(frame.source).relative_to(tmp_path)) for frame in frames]
    assert relative == ['a.png', 'b/1.png', 'b/2.JPG', 'c/d/e.jpeg']
    assert {type(frame) for frame in frames} == {Frame}


def test_a_damaged_image_is_reported_and_the_others_go_on(tmp_path):
    write_image(tmp_path / '0.png')
    (tmp_path / '1.png').write_bytes(b'nonsense')
    (tmp_path / '2.png').write_bytes(b'')
    (tmp_path / '3.png').mkdir()
    write_image(tmp_path / '4.png')
    frames = list(open_source(tmp_path).frames)
    kinds = [type(frame) for frame in frames]
    assert kinds == [Frame, UnreadableFrame, UnreadableFrame, Frame]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert frames[1].reason.startswith(str(tmp_path / '1.png'))
    assert 'damaged' in frames[1].reason
    assert 'without data' in frames[2].reason


def test_images_of_other_kinds_are_reported(tmp_path):
    write_image(tmp_path / 'a.bmp')
    write_image(tmp_path / 'b.png')
    assert cv2.imwrite(str(tmp_path / 'c.png'), np.full((24, 32), 3000, np.uint16))
    (tmp_path / 'd.jpg').write_bytes(bombs()['GIF'])
    frames = list(open_source(tmp_path).frames)
    assert [type(frame) for frame in frames] == [
        UnreadableFrame,
        Frame,
        UnreadableFrame,
        UnreadableFrame,
    ]
    for index, words in ((0, 'a BMP file'), (2, '16 bits'), (3, 'a GIF file')):
        assert words in frames[index].reason


def test_images_by_other_names_are_no_videos(tmp_path):
    for name, data in (('0.dat', write_image(tmp_path / 'a.png').read_bytes()), ('1', b'GIF89a')):
        (tmp_path / name).write_bytes(data)
    (png,) = open_source(tmp_path / '0.dat').frames
    (gif,) = open_source(tmp_path / '1').frames
    assert isinstance(png, Frame)
    assert png.stamp is None
    assert 'a GIF file; only JPEG and PNG are read' in gif.reason


def test_a_video_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    file = tmp_path / 'v.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no MJPG video')
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    monkeypatch.setattr(sources, 'MAX_PIXELS', 64 * 48 - 1)
    with pytest.raises(SourceError, match='video of 64 × 48 pixels: more than'):
        open_source(file)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('nowhere.png', None, 'no such file or folder'),
        ('text.xyz', b'text', 'not an image .* cannot open it as a video'),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=f'{name}: {message}'):
        open_source(tmp_path / name)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / 'sub').mkdir()
    with pytest.raises(SourceError, match=r'no images in it or below .*rosbag2'):
        open_source(tmp_path)


def test_a_topic_of_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(SourceError, match='not a bag, so there is no topic /image'):
        open_source(write_image(tmp_path / 'a.png'), '/image')


def test_a_video(tmp_path):
    file = tmp_path / 'v.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no MJPG video')
    for level in (20, 120, 220):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    source = open_source(file)
    frames = list(source.frames)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [round(float(frame.image.mean()), -1) for frame in frames] == [20, 120, 220]
    np.testing.assert_allclose([frame.stamp for frame in frames], [0, 0.1, 0.2], atol=0.05)
    assert {frame.order for frame in frames} == {'bgr'}


def write_video(path: Path, codec: str = 'MJPG', count: int = 40) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f'this OpenCV writes no {path.suffix} video')
    rng = np.random.default_rng(0)
    for _ in range(count):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ('name', 'codec'), [('v.avi', 'MJPG'), ('v.mp4', 'mp4v'), ('v.mkv', 'MJPG')]
)
@pytest.mark.parametrize('part', [1.0, 0.9, 0.5])
def test_a_video_that_is_cut_off_says_so(tmp_path, name, codec, part):
    file = write_video(tmp_path / name, codec)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    try:
        frames = list(open_source(file).frames)
    except SourceError:  # what leads to the frames stands at the end
        assert part < 1
        return
    assert [type(frame) for frame in frames[:-1]] == [Frame] * (len(frames) - 1)
    if part == 1:
        assert isinstance(frames[-1], Frame)
        assert len(frames) == 40
    else:
        assert isinstance(frames[-1], UnreadableFrame)
        assert f'only {len(frames) - 1} of 40 frames' in frames[-1].reason


def test_no_file_with_frames_is_passed_over_in_a_folder(tmp_path):
    jpeg = cv2.imencode('.jpg', np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    for name in ('0.jpg', '1.jfif', '2.JPE', '3', '4.dat'):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / '5.gif').write_bytes(bombs()['GIF'])
    (tmp_path / '6').write_bytes(bombs()['GIF'])
    (tmp_path / '7.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(16))
    for name in ('labels.txt', 'annotations.json', 'metadata.yaml', '.hidden.jpg'):
        (tmp_path / name).write_text('P1 is not an image')
    (tmp_path / 'z').mkdir()
    for name in ('z/drive.MP4', 'z/drive.mcap'):
        (tmp_path / name).write_bytes(b'frames')
    source = open_source(tmp_path)
    frames = list(source.frames)
    assert source.count == len(frames) == 10
    assert [frame.index for frame in frames] == list(range(10))
    assert [Path(frame.source).name for frame in frames if isinstance(frame, Frame)] == [
        '0.jpg', '1.jfif', '2.JPE', '3', '4.dat',
    ]  # fmt: skip
    reasons = [frame.reason for frame in frames if isinstance(frame, UnreadableFrame)]
    for reason, words in zip(
        reasons,
        ('a GIF file', 'a GIF file', 'a HEIF or AVIF file', 'give it by itself', 'by itself'),
        strict=True,
    ):
        assert words in reason


def test_a_folder_of_images_and_recordings_is_refused(tmp_path):
    write_image(tmp_path / 'a.png')
    (tmp_path / 'drive_0.mcap').write_bytes(b'')
    with pytest.raises(SourceError, match=r'holds images \(a\.png, …\) and recordings \(drive_0'):
        open_source(tmp_path)


def test_a_folder_with_only_a_video_below_says_so(tmp_path):
    (tmp_path / 'drive.mov').write_bytes(b'')
    (tmp_path / 'metadata.yaml').write_text('author: somebody')
    with pytest.raises(SourceError, match=r'no images.*; drive\.mov is read if it is given by'):
        open_source(tmp_path)


# Bags, written with rosbags as a robot would record them.

rosbags = pytest.importorskip('rosbags', reason='reading bags needs rosbags')


def write_bag(folder: Path, messages, storage: str = 'sqlite3') -> Path:
    """Write (topic, kind, fields) messages 0.1 s apart; kind is 'Image' or 'CompressedImage'."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    plugin = StoragePlugin.SQLITE3 if storage == 'sqlite3' else StoragePlugin.MCAP
    types = store.types
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for number, (topic, kind, fields) in enumerate(messages):
            name = f'sensor_msgs/msg/{kind}'
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            stamp = types['builtin_interfaces/msg/Time'](sec=5, nanosec=number * 100_000_000)
            header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')
            message = types[name](header=header, **fields)
            data = store.serialize_cdr(message, name)
            writer.write(connections[topic], 1_000_000_000 + number, data)
    return folder


def raw(level: int, encoding: str = 'rgb8', height: int = 24, width: int = 32) -> dict:
    data = np.full(height * width * 3, level, np.uint8)
    return {
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': width * 3,
        'data': data,
    }


def compressed(level: int) -> dict:
    data = cv2.imencode('.png', np.full((24, 32, 3), level, np.uint8))[1].ravel()
    return {'format': 'png', 'data': data}


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
@pytest.mark.parametrize('single_file', [False, True])
def test_a_bag_of_images(tmp_path, storage, single_file):
    messages = [('/image', 'Image', raw(10 * number)) for number in range(3)]
    path = write_bag(tmp_path / 'bag', messages, storage)
    if single_file:
        path = next(file for file in path.iterdir() if file.suffix in ('.db3', '.mcap'))
    source = open_source(path)
    frames = list(source.frames)
    assert source.count == 3
    assert [frame.stamp for frame in frames] == [5.0, 5.1, 5.2]
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 10, 20]
    assert {frame.order for frame in frames} == {'rgb'}


def test_a_bag_whose_recording_was_cut_off_has_no_metadata(tmp_path):
    bag = write_bag(tmp_path / 'bag', [('/image', 'Image', raw(7))])
    (bag / 'metadata.yaml').unlink()
    assert [frame.image[0, 0, 0] for frame in open_source(bag).frames] == [7]


def test_of_several_topics_one_is_chosen(tmp_path):
    messages = [
        ('/front', 'Image', raw(50)),
        ('/rear/compressed', 'CompressedImage', compressed(90)),
    ]
    bag = write_bag(tmp_path / 'bag', messages)
    with pytest.raises(SourceError, match=r'choose one with --topic.*: /front, /rear/compressed'):
        open_source(bag)
    with pytest.raises(SourceError, match='no image topic /left in this bag; there is /front'):
        open_source(bag, '/left')
    (front,) = open_source(bag, '/front').frames
    (rear,) = open_source(bag, '/rear/compressed').frames
    assert (front.image[0, 0, 0], rear.image[0, 0, 0]) == (50, 90)


def test_damaged_messages_are_reported_and_the_others_go_on(tmp_path):
    messages = [
        ('/image', 'Image', raw(1)),
        ('/image', 'Image', raw(2, encoding='16UC1')),
        ('/image', 'Image', {**raw(3), 'step': 7}),
        ('/image', 'Image', {**raw(4), 'height': 0, 'width': 0}),
        ('/image', 'Image', raw(5)),
    ]
    frames = list(open_source(write_bag(tmp_path / 'bag', messages)).frames)
    assert [type(frame) for frame in frames] == [Frame, *[UnreadableFrame] * 3, Frame]
    for number, words in ((1, 'unknown image encoding'), (2, 'step is 7'), (3, '0 × 0')):
        assert f'message {number} of /image: ' in frames[number].reason
        assert words in frames[number].reason


def test_bags_and_files_show_pixels_as_they_are_stored(tmp_path):
    plain = cv2.imencode('.jpg', np.arange(24 * 32, dtype=np.uint8).reshape(24, 32))[1].tobytes()
    turned = after_start(plain, exif(6))
    (tmp_path / 'plain.jpg').write_bytes(plain)
    (tmp_path / 'turned.jpg').write_bytes(turned)
    data = np.frombuffer(turned, np.uint8)
    fields = {'format': 'jpeg', 'data': data}
    bag = write_bag(tmp_path / 'bag', [('/image/compressed', 'CompressedImage', fields)])
    (stored,) = open_source(tmp_path / 'plain.jpg').frames
    for path in (tmp_path / 'turned.jpg', bag):
        (frame,) = open_source(path).frames
        np.testing.assert_array_equal(frame.image, stored.image)


def test_depth_in_a_bag_is_refused(tmp_path):
    depth = cv2.imencode('.png', np.full((24, 32), 900, np.uint16))[1].ravel()
    messages = [
        ('/depth', 'CompressedImage', {'format': '16UC1; png compressed', 'data': depth}),
        ('/depth', 'CompressedImage', {'format': 'png', 'data': depth}),
        ('/depth', 'CompressedImage', compressed(7)),
    ]
    frames = list(open_source(write_bag(tmp_path / 'bag', messages)).frames)
    assert [type(frame) for frame in frames] == [UnreadableFrame, UnreadableFrame, Frame]
    assert 'a depth image' in frames[0].reason
    assert 'a depth image' in frames[1].reason


def test_a_bag_that_breaks_off_gives_what_came_before(tmp_path):
    messages = [('/image', 'Image', raw(number, height=240)) for number in range(20)]
    bag = write_bag(tmp_path / 'bag', messages, 'mcap')
    file = next(bag.glob('*.mcap'))
    content = bytearray(file.read_bytes())
    hole = slice(len(content) // 2, len(content) // 10 * 6)
    content[hole] = bytes(len(content[hole]))
    file.write_bytes(content)
    *first, last = open_source(bag).frames
    assert 1 <= len(first) < 20
    assert {type(frame) for frame in first} == {Frame}
    assert isinstance(last, UnreadableFrame)
    assert f'breaks off after {len(first)} of 20 messages' in last.reason


def test_a_bag_without_images_is_refused(tmp_path):
    bag = write_bag(tmp_path / 'bag', [])
    with pytest.raises(SourceError, match='no topic of type sensor_msgs/msg/Image'):
        open_source(bag)


@pytest.mark.parametrize('suffix', ['.db3', '.mcap'])
@pytest.mark.parametrize('content', [b'', b'no database' * 100])
def test_a_damaged_bag_is_refused(tmp_path, suffix, content):
    (tmp_path / f'bag{suffix}').write_bytes(content)
    with pytest.raises(SourceError, match=f'bag{suffix}: cannot be read as a rosbag2 recording'):
        open_source(tmp_path / f'bag{suffix}')


def test_a_truncated_bag_gives_what_it_has_or_an_error(tmp_path):
    messages = [('/image', 'Image', raw(number)) for number in range(20)]
    bag = write_bag(tmp_path / 'bag', messages, 'mcap')
    file = next(bag.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceError, match='cannot be read as a rosbag2 recording'):
        list(open_source(bag).frames)


@pytest.mark.shared_data
def test_a_real_robots_bag(shared_data):
    source = open_source(shared_data / 'bags' / 'ubiquity_aruco_images_ros2_mcap')
    (frame,) = source.frames
    assert frame.image.shape == (960, 1280, 3)
    assert frame.stamp == pytest.approx(1491682360.314, abs=0.001)
