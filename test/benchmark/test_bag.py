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

"""Bags: raw messages in, the same messages out, by our own reader and by others'."""

from __future__ import annotations

import errno
import json
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('rosbags')

from pruned_perception.benchmark.bag import (
    BagWriter,
    bag_topics,
    deserialise,
    message_class,
    message_definitions,
    read_bag,
    restamp,
    stamp_of,
    starts_with_header,
)
from pruned_perception.errors import UserError

STAMP_0 = 1_700_000_000_000_000_000

pytestmark = pytest.mark.ros


def test_written_bags_are_read_by_rosbags_own_deserialiser(camera_bag: Path) -> None:
    """The schemas in the bag suffice to read it where no ROS is installed."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([camera_bag], default_typestore=get_typestore(Stores.EMPTY)) as reader:
        images = [c for c in reader.connections if c.msgtype == 'sensor_msgs/msg/Image']
        connection, time_ns, raw = next(iter(reader.messages(images)))
        image = reader.deserialize(raw, connection.msgtype)
    assert (image.height, image.width, image.encoding) == (480, 640, 'rgb8')
    assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == STAMP_0
    assert time_ns == STAMP_0 + 1_000_000


def test_topics_and_latching(camera_bag: Path) -> None:
    topics = bag_topics(camera_bag)
    assert topics['/front/image_raw'].count == 40
    assert topics['/front/text'].latched
    assert not topics['/front/image_raw'].latched


@pytest.mark.parametrize(
    'type_name',
    [
        'sensor_msgs/msg/Image',
        'sensor_msgs/msg/CameraInfo',
        'diagnostic_msgs/msg/DiagnosticArray',
        'geometry_msgs/msg/PoseWithCovarianceStamped',
        'rcl_interfaces/msg/ParameterDescriptor',
    ],
)
def test_definitions_have_the_type_hash_of_the_distribution(type_name: str) -> None:
    """Hashes over our definitions equal those over rosbags' copy of the official .msg files."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    ours = get_typestore(Stores.EMPTY)
    for name, text in message_definitions(message_class(type_name)).items():
        ours.register(get_types_from_msg(text, name))
    official = get_typestore(Stores.ROS2_JAZZY)
    if type_name not in official.types:
        pytest.skip(f'rosbags has no {type_name}')
    assert ours.hash_rihs01(type_name) == official.hash_rihs01(type_name)


def test_detection_arrays_have_their_published_type_hash() -> None:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.EMPTY)
    message = pytest.importorskip('vision_msgs.msg').Detection2DArray
    for name, text in message_definitions(message).items():
        store.register(get_types_from_msg(text, name))
    assert store.hash_rihs01('vision_msgs/msg/Detection2DArray') == (
        'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968'
    )


def test_restamping_changes_the_stamp_and_nothing_else(camera_bag: Path) -> None:
    record = next(r for r in read_bag(camera_bag, ['/front/image_raw']))
    assert stamp_of(record.data) == STAMP_0
    changed = restamp(record.data, 1_234_567_890_987_654_321)
    assert stamp_of(changed) == 1_234_567_890_987_654_321
    assert restamp(changed, STAMP_0) == record.data
    message = deserialise(record)
    assert message.header.frame_id == 'camera'


def test_stamps_of_either_byte_order() -> None:
    big = b'\x00\x00\x00\x00' + struct.pack('>iI', 5, 6) + b'rest'
    assert stamp_of(big) == 5_000_000_006
    assert restamp(big, 7_000_000_008) == b'\x00\x00\x00\x00' + struct.pack('>iI', 7, 8) + b'rest'


def test_which_types_start_with_a_header() -> None:
    assert starts_with_header(message_class('sensor_msgs/msg/Image'))
    assert not starts_with_header(message_class('std_msgs/msg/String'))
    assert not starts_with_header(message_class('std_msgs/msg/Header'))


def test_unknown_type_existing_folder_and_unreadable_bag(camera_bag: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no_such_msgs/msg/Thing is not installed'):
        message_class('no_such_msgs/msg/Thing')
    with pytest.raises(UserError, match='exists already'):
        BagWriter(camera_bag)
    unrelated = tmp_path / 'thesis'
    unrelated.mkdir()
    (unrelated / 'chapter.txt').write_text('years of work')
    with pytest.raises(UserError, match='exists already'):
        BagWriter(unrelated, overwrite=True)  # overwriting is for bags
    assert (unrelated / 'chapter.txt').exists()
    with pytest.raises(UserError, match='no readable bag'):
        bag_topics(unrelated)
    with pytest.raises(UserError, match=r'no topic /rear; it has /front/camera_info'):
        list(read_bag(camera_bag, ['/rear']))
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write a bag'):
        BagWriter(tmp_path / 'file' / 'bag')


class _FullDisk:
    """A file on a disk that holds `capacity` bytes while the reserve is there, and no more."""

    def __init__(self, file: Any, capacity: int, reserve: Path) -> None:
        self._file, self._capacity, self._reserve = file, capacity, reserve

    def write(self, data: bytes) -> int:
        room = self._capacity - self._file.tell()
        if self._reserve.exists() and len(data) > room:
            self._file.write(data[: max(0, room)])
            raise OSError(errno.ENOSPC, 'No space left on device')
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _fill(folder: Path, limit: Callable[[BagWriter], Any], size: int = 200_000) -> tuple[int, str]:
    """Write until that fails; return how many messages had been written, and the error."""
    from std_msgs.msg import String

    written = 0
    with pytest.raises(UserError) as failure, BagWriter(folder) as writer:
        writer.add_topic('/text', String)
        limit(writer)
        for written in range(1000):
            writer.write('/text', bytes(size), written + 1)
    assert failure.value.__context__ is failure.value.__cause__, 'errors on the way out'
    return written, str(failure.value)


@pytest.mark.parametrize('size', [5000, 200_000, 3_000_000])
def test_a_full_disk_ends_a_recording_and_all_of_it_can_be_read(tmp_path: Path, size: int) -> None:
    folder = tmp_path / 'bag'

    def limit(writer: BagWriter) -> None:
        storage = writer._writer.storage
        reserve = next(folder.glob('.*.reserve'))
        storage.bio = _FullDisk(storage.bio, 500 * size if size < 10_000 else 10_000_000, reserve)

    written, error = _fill(folder, limit, size)
    assert 'No space left on device: the recording ends here' in error
    assert f'{written + 1} messages until then can be read' in error
    assert [record.time_ns for record in read_bag(folder)] == list(range(1, written + 2))
    assert bag_topics(folder)['/text'].count == written + 1
    assert sorted(each.name for each in folder.iterdir()) == ['bag.mcap', 'metadata.yaml']


def test_a_limit_that_no_reserve_lifts_costs_the_last_chunk_only(tmp_path: Path) -> None:
    resource = pytest.importorskip('resource')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / 'bag'
    try:
        written, error = _fill(
            folder, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (5_500_000, before[1]))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 'File too large: the recording ends here' in error
    found = [record.time_ns for record in read_bag(folder)]
    assert found == list(range(1, len(found) + 1))
    assert written - 6 <= len(found) <= written
    assert f'; {len(found)} messages' in error


def test_a_disk_without_room_for_the_end_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('os.posix_fallocate', full)
    with pytest.raises(UserError, match=r'cannot write a bag to .*: No space left'):
        BagWriter(tmp_path / 'bag')


def test_only_bags_are_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / 'images'
    folder.mkdir()
    (folder / 'metadata.yaml').write_text('author: somebody')
    with pytest.raises(UserError, match='exists already'):
        BagWriter(folder, overwrite=True)
    (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}')
    (folder / '0001.png').write_bytes(b'an image of a year ago')
    with pytest.raises(UserError, match='exists already'):
        BagWriter(folder, overwrite=True)
    (folder / '0001.png').unlink()
    BagWriter(folder, overwrite=True).close()


def test_sqlite_bags_are_read_too(camera_bag: Path, tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    records = list(read_bag(camera_bag, ['/front/camera_info']))
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection('/info', records[0].type, typestore=store)
        for record in records:
            writer.write(connection, record.time_ns, record.data)
    copied = list(read_bag(tmp_path / 'bag'))
    assert [(r.time_ns, r.data) for r in copied] == [(r.time_ns, r.data) for r in records]
    assert not bag_topics(tmp_path / 'bag')['/info'].latched


def test_third_party_bag(shared_data: Path) -> None:
    """A real robot camera's MCAP bag, recorded by ros2 bag."""
    bag = shared_data / 'bags' / 'ubiquity_aruco_images_ros2_mcap'
    if not bag.is_dir():
        pytest.skip(f'no {bag}')
    topics = bag_topics(bag)
    images = [t for t in topics.values() if t.type == 'sensor_msgs/msg/CompressedImage']
    infos = [t for t in topics.values() if t.type == 'sensor_msgs/msg/CameraInfo']
    assert [t.count for t in images] == [1]
    assert [t.count for t in infos] == [15]
    records = list(read_bag(bag, [images[0].name, infos[0].name]))
    assert len(records) == 16
    assert [r.time_ns for r in records] == sorted(r.time_ns for r in records)
    image = deserialise(next(r for r in records if r.type.endswith('CompressedImage')))
    header = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    raw = next(r for r in records if r.type.endswith('CompressedImage')).data
    assert stamp_of(raw) == header > 0


def _aligned(data: bytes) -> bytes:
    """Pad to a multiple of 4 bytes, as the middleware does (RTPS 2.3, 9.4.2.12)."""
    return data.ljust(-(-len(data) // 4) * 4, b'\0')


def test_round_trip_loses_nothing(
    camera_bag: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """Play → DDS → record, two processes: every byte of every message is there again."""
    copy = tmp_path / 'copy'
    topics = ['/front/image_raw', '/front/camera_info', '/front/text']
    recorder = cli('record', '-o', copy, '--json', *topics)
    player = cli('play', camera_bag)
    out, err = player.communicate(timeout=60)
    assert player.returncode == 0, err
    assert '/front/image_raw 40' in out
    recorder.send_signal(signal.SIGINT)
    out, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err
    summary = json.loads(out)['topics']
    assert {name: each['count'] for name, each in summary.items()} == {
        '/front/image_raw': 40,
        '/front/camera_info': 40,
        '/front/text': 1,
    }
    assert all(each['lost'] == 0 for each in summary.values())
    for topic in topics:
        before = [_aligned(r.data) for r in read_bag(camera_bag, [topic])]
        assert [_aligned(r.data) for r in read_bag(copy, [topic])] == before
    assert bag_topics(copy)['/front/text'].latched


def test_new_stamps_stay_equal_where_they_were_and_map_back(
    camera_bag: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    copy, file = tmp_path / 'copy', tmp_path / 'stamps.json'
    recorder = cli('record', '-o', copy, '/rear/image_raw', '/rear/camera_info')
    player = cli(
        *('play', camera_bag, '--topics', '/front/image_raw', '/front/camera_info'),
        *('--remap', '/front/image_raw:=/rear/image_raw'),
        '/front/camera_info:=/rear/camera_info',
        *('--new-stamps', '--stamps', file, '--rate', '2'),
    )
    _, err = player.communicate(timeout=60)
    assert player.returncode == 0, err
    recorder.send_signal(signal.SIGTERM)
    _, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err
    played = json.loads(file.read_text())
    assert played['sent'] == {'/rear/image_raw': 40, '/rear/camera_info': 40}
    mapping = dict(played['stamps'])
    images = [stamp_of(r.data) for r in read_bag(copy, ['/rear/image_raw'])]
    infos = [stamp_of(r.data) for r in read_bag(copy, ['/rear/camera_info'])]
    assert images == infos
    recorded = [stamp_of(r.data) for r in read_bag(camera_bag, ['/front/image_raw'])]
    assert [mapping[stamp] for stamp in images] == recorded
    assert images[0] > STAMP_0


def test_the_recorded_time_is_on_the_clock(
    camera_bag: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """As `ros2 bag play --clock`: between messages, and with each; stamps stay the bag's."""
    copy = tmp_path / 'copy'
    recorder = cli('record', '-o', copy, '/clock', '/front/camera_info')
    topics = ('--topics', '/front/camera_info', '--wait-for', '/front/camera_info=1')
    player = cli('play', camera_bag, *topics, '--clock', '100', '--rate', '0.5')
    _, err = player.communicate(timeout=60)
    assert player.returncode == 0, err
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=30)
    clocks = [deserialise(each).clock for each in read_bag(copy, ['/clock'])]
    times = [clock.sec * 10**9 + clock.nanosec for clock in clocks]
    recorded = [each.time_ns for each in read_bag(camera_bag, ['/front/camera_info'])]
    assert times == sorted(times)
    assert recorded[0] <= times[0]
    assert times[-1] == recorded[-1]
    assert len(times) > len(recorded)  # ticks between messages, too
    stamps = [stamp_of(each.data) for each in read_bag(copy, ['/front/camera_info'])]
    assert stamps == [stamp_of(each.data) for each in read_bag(camera_bag, ['/front/camera_info'])]


@pytest.mark.parametrize(
    ('options', 'status', 'words'),
    [
        (('--clock', '0'), 2, 'no number above 0'),
        (('--clock', '10001'), 1, 'the clock must tick'),
        (('--clock', '--new-stamps'), 1, 'does not go with new stamps'),
        (('--clock', '--remap', '/front/text:=/clock'), 1, 'has /clock itself'),
    ],
)
def test_a_clock_that_makes_no_sense_is_refused(
    camera_bag: Path, cli: Callable[..., Any], options: tuple[str, ...], status: int, words: str
) -> None:
    player = cli('play', camera_bag, *options, '--timeout', '0.1', '--wait-for', '/nothing=0')
    _, err = player.communicate(timeout=30)
    assert player.returncode == status
    assert words in err


def test_player_names_the_missing_subscriber(camera_bag: Path, cli: Callable[..., Any]) -> None:
    player = cli('play', camera_bag, '--timeout', '1')
    _, err = player.communicate(timeout=30)
    assert player.returncode == 1
    assert 'no subscriber to' in err
    assert '/front/image_raw' in err


def test_recorder_reports_silent_topics(tmp_path: Path, cli: Callable[..., Any]) -> None:
    recorder = cli('record', '-o', tmp_path / 'bag', '/nobody/there')
    end = time.monotonic() + 60
    while not (tmp_path / 'bag').exists() and time.monotonic() < end:
        time.sleep(0.1)  # it is up once it has the bag
    recorder.send_signal(signal.SIGINT)
    _, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 1
    assert 'nothing arrived on /nobody/there' in err
