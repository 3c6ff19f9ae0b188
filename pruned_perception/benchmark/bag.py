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

"""rosbag2 folders (MCAP) of raw serialised messages, without ROS 2's own bag tools.

Messages stay the bytes that the middleware delivered; nothing here serialises or deserialises,
but for the header stamp, which stands at a fixed place. The bags are ordinary rosbag2 bags:
`ros2 bag info` and `ros2 bag play` read them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pruned_perception.errors import UserError

NEEDS_ROSBAGS = "bags need rosbags: pip install 'pruned_perception[bench]'"

# The names that the generated Python classes use (those of IDL) → the names of .msg files.
_MSG_NAMES = {'boolean': 'bool', 'octet': 'byte', 'double': 'float64', 'float': 'float32'}


@dataclass(frozen=True)
class Record:
    """One message of a bag: `data` is the serialised message, `time_ns` when it was received."""

    topic: str
    type: str
    time_ns: int
    data: bytes


@dataclass(frozen=True)
class Topic:
    """One topic of a bag."""

    name: str
    type: str
    count: int
    latched: bool


def message_class(type_name: str) -> Any:
    """Return the Python class of a message type such as 'sensor_msgs/msg/Image'.

    Raises:
        UserError: no package in the environment has that type.
    """
    package, _, name = type_name.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f'message type {type_name} is not installed here: source the workspace that has '
            f'{package}, or leave the topic out'
        ) from error


def message_definitions(message: Any) -> dict[str, str]:
    """Return {'package/msg/Name': text of its .msg file} of a message class and all it contains.

    The text is written from the class itself (fields in order, no constants, no comments), so
    that it needs no installed .msg files; types and order alone make the type's hash.
    """
    definitions: dict[str, str] = {}

    def visit(cls: Any) -> None:
        name = type_name_of(cls)
        if name in definitions:
            return
        definitions[name] = ''
        lines = []
        for field, declared in cls.get_fields_and_field_types().items():
            base, suffix = _base_and_array(declared)
            if '/' in base:
                package, short = base.split('/')
                visit(message_class(f'{package}/msg/{short}'))
            lines.append(f'{_MSG_NAMES.get(base, base)}{suffix} {field}')
        definitions[name] = '\n'.join(lines) + '\n'

    visit(message)
    return definitions


def type_name_of(message: Any) -> str:
    """Return 'package/msg/Name' of a message class."""
    return f'{message.__module__.split(".")[0]}/msg/{message.__name__}'


def _base_and_array(declared: str) -> tuple[str, str]:
    """Split 'sequence<double, 3>', 'double[9]', 'string<10>' into .msg's base and suffix."""
    if match := re.fullmatch(r'sequence<(.+?)(?:, (\d+))?>', declared):
        base, bound = match.groups()
        suffix = f'[<={bound}]' if bound else '[]'
    elif match := re.fullmatch(r'(.+)\[(\d+)\]', declared):
        base, suffix = match.group(1), f'[{match.group(2)}]'
    else:
        base, suffix = declared, ''
    if match := re.fullmatch(r'(w?string)<(\d+)>', base):
        base = f'{match.group(1)}<={match.group(2)}'
    return base, suffix


def starts_with_header(message: Any) -> bool:
    """Whether a message class has a std_msgs/Header as its first field."""
    fields = list(message.get_fields_and_field_types().values())
    return bool(fields) and fields[0] == 'std_msgs/Header'


def stamp_of(data: bytes) -> int:
    """Return the header stamp, in ns, of a serialised message that starts with a header.

    Source: CDR encapsulation (OMG RTPS 2.3, section 10): 4 bytes of which the second's lowest
    bit says little endian, then the fields; a header starts with int32 sec, uint32 nanosec.
    """
    sec, nanosec = struct.unpack_from(_stamp_format(data), data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def restamp(data: bytes, stamp_ns: int) -> bytes:
    """Return a copy of a serialised message that starts with a header, with another stamp."""
    stamp = struct.pack(_stamp_format(data), *divmod(stamp_ns, 1_000_000_000))
    return b''.join((data[:4], stamp, memoryview(data)[12:]))


def _stamp_format(data: bytes) -> str:
    return '<iI' if data[1] & 1 else '>iI'


class _Reserve:
    """Room on the disk that is given up when the rest is full: for the end of the bag."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0

    def hold(self, size: int) -> None:
        """Take at least so many bytes; raise OSError where there is no such room."""
        if size > self._size:
            with self._path.open('ab') as file:
                os.posix_fallocate(file.fileno(), 0, size + _RESERVE_STEP)
            self._size = size + _RESERVE_STEP

    def release(self) -> None:
        """Give it up."""
        self._path.unlink(missing_ok=True)


_RESERVE_STEP = 1 << 20
# The last chunk that is written has so much, and one message more; and its index, as each has one.
_CHUNK = 1 << 20
_INDEX_SHARE = 1 / 1024


class BagWriter:
    """Writes serialised messages to a new rosbag2 folder with MCAP storage.

    Use it as a context manager; leaving it by Ctrl-C still closes the bag properly, and so does a
    disk that is full: a little room is reserved from the start for what a bag needs in the end.

    Raises:
        UserError: the folder exists already or cannot be written; rosbags is not installed.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise UserError(NEEDS_ROSBAGS) from error
        if folder.exists():
            if not overwrite or not _is_bag(folder):
                raise UserError(f'{folder} exists already: give another folder or remove it')
            shutil.rmtree(folder)
        self.folder = folder
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._types = get_typestore(Stores.EMPTY)
        self._connections: dict[str, Any] = {}
        self._reserve = _Reserve(folder / f'.{folder.name}.reserve')
        self._largest, self._closed = 0, False
        try:
            self._writer.open()
            self._reserve.hold(_CHUNK)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._reserve.release()
            raise UserError(f'cannot write a bag to {folder}: {error.strerror}') from error

    def add_topic(self, topic: str, message: Any, *, latched: bool = False) -> None:
        """Declare a topic; `message` is its Python class."""
        from rosbags.interfaces import (
            Qos,
            QosDurability,
            QosHistory,
            QosLiveliness,
            QosReliability,
            QosTime,
        )
        from rosbags.typesys import get_types_from_msg

        for name, text in message_definitions(message).items():
            if name not in self._types.types:
                self._types.register(get_types_from_msg(text, name))
        forever = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
        durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
        qos = Qos(
            history=QosHistory.KEEP_LAST,
            depth=10,
            reliability=QosReliability.RELIABLE,
            durability=durability,
            deadline=forever,
            lifespan=forever,
            liveliness=QosLiveliness.AUTOMATIC,
            liveliness_lease_duration=forever,
            avoid_ros_namespace_conventions=False,
        )
        self._connections[topic] = self._writer.add_connection(
            topic, type_name_of(message), typestore=self._types, offered_qos_profiles=[qos]
        )

    def write(self, topic: str, data: bytes, time_ns: int) -> None:
        """Append one serialised message.

        Raises:
            UserError: the disk is full or gone. The bag is closed then, with all messages up to
                this one where there is room left for an index.
        """
        storage: Any = self._writer.storage
        if self._closed or storage is None:
            raise UserError(f'{self.folder}: the bag is closed')
        end = storage.bio.tell()  # what comes before are whole chunks
        self._largest = max(self._largest, len(data))
        try:
            self._reserve.hold(_CHUNK + 2 * self._largest + int(end * _INDEX_SHARE))
            self._writer.write(self._connections[topic], time_ns, data)
        except OSError as error:
            raise UserError(self._ended(storage, end, time_ns, error)) from error

    def _ended(self, storage: Any, end: int, time_ns: int, error: OSError) -> str:
        """Close the bag behind its last whole chunk and what waits in memory; say what is left."""
        reason = f'{self.folder}: {error.strerror}: the recording ends here'
        writer, again = self._writer, error
        self._closed = True
        for whole_chunks_only in (False, True):
            try:
                self._reserve.release()
                storage.bio.seek(end)
                storage.bio.truncate()
                if whole_chunks_only:
                    for number, messages in storage.chunk.msgs.items():
                        storage.channel_stats[number] -= len(messages)
                    storage.chunk.msgs.clear()
                    storage.chunk.bio.seek(0)
                    storage.chunk.bio.truncate()
                # A message that is in the chunk already was not counted yet.
                if writer.counts != storage.channel_stats:
                    writer.counts.update(storage.channel_stats)
                    writer.min_timestamp = min(writer.min_timestamp, time_ns)
                    writer.max_timestamp = max(writer.max_timestamp, time_ns)
                writer.close()
            except OSError as reason_again:
                again = reason_again
            else:
                return f'{reason}; {sum(writer.counts.values())} messages until then can be read'
        with contextlib.suppress(OSError):
            writer.abort()
        return f'{reason}, without an index, for which there is no room ({again.strerror})'

    def close(self) -> None:
        """Write the index and metadata.yaml.

        Raises:
            UserError: the disk is full or gone.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._reserve.release()
            self._writer.close()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._writer.abort()
            raise UserError(f'cannot end the bag {self.folder}: {error.strerror}') from error

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _is_bag(folder: Path) -> bool:
    """Whether a folder holds a bag and nothing else: other programs write a metadata.yaml, too."""
    try:
        metadata = (folder / 'metadata.yaml').read_bytes()
    except OSError:
        return False
    own = ('.mcap', '.db3', '.zstd', '.reserve')
    return b'rosbag2_bagfile_information' in metadata and all(
        each.name == 'metadata.yaml' or (each.is_file() and each.suffix in own)
        for each in folder.iterdir()
    )


def bag_topics(folder: Path) -> dict[str, Topic]:
    """Return the topics of a bag by name.

    Raises:
        UserError: it is no readable bag.
    """
    with _reader(folder) as reader:
        return {
            connection.topic: Topic(
                connection.topic, connection.msgtype, connection.msgcount, _latched(connection)
            )
            for connection in reader.connections
        }


def read_bag(folder: Path, topics: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the messages of a bag (MCAP or sqlite3) in order of their time of receipt.

    Raises:
        UserError: it is no readable bag, or a topic is not in it.
    """
    with _reader(folder) as reader:
        present = {connection.topic for connection in reader.connections}
        if missing := set(topics or ()) - present:
            raise UserError(
                f'{folder} has no topic {", ".join(sorted(missing))}; '
                f'it has {", ".join(sorted(present)) or "none"}'
            )
        chosen = [c for c in reader.connections if topics is None or c.topic in topics]
        if not chosen:
            return
        for connection, time_ns, data in reader.messages(chosen):
            yield Record(connection.topic, connection.msgtype, time_ns, bytes(data))


def _reader(folder: Path) -> Any:
    try:
        from rosbags.rosbag2 import Reader, ReaderError
    except ImportError as error:
        raise UserError(NEEDS_ROSBAGS) from error
    try:
        reader = Reader(folder)
        reader.open()
    except (ReaderError, OSError) as error:
        raise UserError(f'{folder} is no readable bag: {error}') from error
    return _Open(reader)


class _Open:
    """Closes a reader that was opened already."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._reader.close()


def _latched(connection: Any) -> bool:
    profiles: Collection[Any] = getattr(connection.ext, 'offered_qos_profiles', ()) or ()
    return bool(profiles) and all(qos.durability.name == 'TRANSIENT_LOCAL' for qos in profiles)


def bag_sha256(folder: Path) -> str:
    """Return the hash of a bag's files with their names, in order of the names."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.name.encode() + b'\0')
        with file.open('rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def deserialise(record: Record) -> Any:
    """Return the message object of a record.

    Raises:
        UserError: the type is not installed here.
    """
    from rclpy.serialization import deserialize_message

    return deserialize_message(record.data, message_class(record.type))
