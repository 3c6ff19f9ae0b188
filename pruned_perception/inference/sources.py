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

"""Where frames come from: an image, a folder of images, a video, a rosbag2 recording."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception.errors import UserError
from pruned_perception.images.checks import IMAGE_SUFFIXES, MAX_PIXELS, check_size, kind_of
from pruned_perception.inference.encodings import image_from_compressed, image_from_message
from pruned_perception.inference.errors import ImageError

# What a folder of images may hold that has frames, too: it is not passed over without a word.
VIDEO_SUFFIXES = frozenset(
    (
        '.3gp', '.avi', '.flv', '.m4v', '.mjpeg', '.mjpg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg',
        '.webm', '.wmv',
    )
)  # fmt: skip
BAG_SUFFIXES = frozenset(('.mcap', '.db3'))
_RAW, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


class SourceError(UserError):
    """A source of frames that cannot be opened; the text names it and the way out."""


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    source: str
    """Path of the image, video or bag."""
    index: int
    """0, 1, … within the source that was opened; unreadable frames count."""
    stamp: float | None
    """Seconds: header stamp of a bag's message, time since a video's start; None for images."""
    image: NDArray[np.uint8]
    """uint8 (H, W, 3), or (H, W) where `order` is 'gray'."""
    order: str
    """'rgb', 'bgr' or 'gray'."""


@dataclass(frozen=True)
class UnreadableFrame:
    """A frame that is there but cannot be used; the rest of the source can."""

    source: str
    index: int
    stamp: float | None
    reason: str


@dataclass(frozen=True)
class Source:
    """Frames, and how many there are (None where that is not known beforehand)."""

    frames: Iterator[Frame | UnreadableFrame]
    count: int | None
    files: bool = False
    """Whether each frame is an image in a file of its own, its `source`."""
    live: bool = False
    """Whether frames come as time passes, and end when they are asked to."""


def open_source(path: str | os.PathLike[str], topic: str | None = None) -> Source:
    """Open an image, a folder of images with its sub-folders, a video or a bag.

    A bag is a rosbag2 folder, or one of its .mcap or .db3 files; `topic` chooses one of its image
    topics and is needed only where there are several. Frames are read as they are asked for.

    Raises SourceError where there is nothing to read; a single frame that is damaged comes as
    `UnreadableFrame`.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise SourceError(f'{path}: no such file or folder')
    if _is_bag(path):
        return _open_bag(path, topic)
    if topic is not None:
        raise SourceError(f'{path}: not a bag, so there is no topic {topic} in it')
    if path.is_dir():
        return _open_images(*_images_below(path))
    # Video readers know images, too, and read them their own way; a JPEG may start a video.
    if path.suffix.lower() in IMAGE_SUFFIXES or _kind(path) not in (None, 'JPEG'):
        return _open_images([path])
    return _open_video(path)


def _kind(path: Path) -> str | None:
    try:
        with path.open('rb') as file:
            return kind_of(file.read(32))
    except OSError as error:
        raise SourceError(f'{path}: {error.strerror}') from error


def _is_bag(path: Path) -> bool:
    """Whether it is a recording; raise SourceError for a folder that is that and images, too."""
    if not path.is_dir():
        return path.suffix.lower() in BAG_SUFFIXES
    if _has_bag_metadata(path):
        return True
    if not (files := _bag_files(path)):
        return False
    if images := [file for file in path.iterdir() if _is_image(file)]:
        raise SourceError(
            f'{path}: holds images ({images[0].name}, …) and recordings ({files[0].name}): give '
            'one of them'
        )
    return True


def _has_bag_metadata(folder: Path) -> bool:
    """Whether its metadata.yaml is one of rosbag2: other programs write files of that name."""
    try:
        return b'rosbag2_bagfile_information' in (folder / 'metadata.yaml').read_bytes()
    except OSError:
        return False


def _bag_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in BAG_SUFFIXES)


def _is_image(file: Path) -> bool:
    """Whether a file is an image by its name or, whatever its name, by its first bytes."""
    if file.name.startswith('.') or file.is_dir():
        return False
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        return file.is_file() and _kind(file) not in (None, 'PNM', 'PFM')  # or text: 'P1 …'
    except SourceError:  # not an image by its name, and cannot be read
        return False


def _images_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder and its sub-folders, and what else there has frames."""
    files = sorted(folder.rglob('*'))
    images = [file for file in files if _is_image(file)]
    others = [
        file
        for file in files
        if file.suffix.lower() in VIDEO_SUFFIXES | BAG_SUFFIXES and not file.name.startswith('.')
    ]
    if not images:
        raise SourceError(
            f'{folder}: no images in it or below ({", ".join(sorted(IMAGE_SUFFIXES))}), and it is '
            'no rosbag2 folder (there is no metadata.yaml of one)'
            + (f'; {others[0].name} is read if it is given by itself' if others else '')
        )
    return images, [file for file in others if file not in images]


def _open_images(files: list[Path], others: Sequence[Path] = ()) -> Source:
    def frames() -> Iterator[Frame | UnreadableFrame]:
        for index, file in enumerate(files):
            try:
                image, order = image_from_compressed(file.read_bytes())
            except OSError as error:
                yield UnreadableFrame(str(file), index, None, f'{file}: {error.strerror}')
            except ImageError as error:
                yield UnreadableFrame(str(file), index, None, f'{file}: {error}')
            else:
                yield Frame(str(file), index, None, image, order)
        for index, file in enumerate(others, start=len(files)):
            reason = f'{file}: no image, in a folder of images; give it by itself'
            yield UnreadableFrame(str(file), index, None, reason)

    return Source(frames(), len(files) + len(others), files=True)


# Where the number of frames is an estimate, from duration and rate: how many may be missing at the
# end before the video counts as cut off.
FRAMES_IN_DOUBT = 2


def _counts_its_frames(path: Path) -> bool:
    """Whether the container says how many frames it has: AVI, and MP4 and its relatives."""
    with path.open('rb') as file:
        start = file.read(12)
    return start[4:8] == b'ftyp' or (start[:4], start[8:]) == (b'RIFF', b'AVI ')


# Not OpenCV's own readers: one takes any numbered file for a series of images, of every format.
_VIDEO_READERS = (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER)


def _open_video(path: Path) -> Source:
    for reader in _VIDEO_READERS:
        capture = cv2.VideoCapture(str(path), reader)
        if capture.isOpened():
            break
    else:
        raise SourceError(
            f'{path}: not an image ({", ".join(sorted(IMAGE_SUFFIXES))}), not a bag (.mcap, .db3 '
            'or a folder with metadata.yaml), and OpenCV cannot open it as a video'
        )
    try:
        size = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        height, width = (int(capture.get(each)) for each in size)
        check_size(height, width, MAX_PIXELS, 'video')
    except ImageError as error:
        capture.release()
        raise SourceError(f'{path}: {error}') from None
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # frames as they are stored, as all images here
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = capture.get(cv2.CAP_PROP_FPS)
    exact = _counts_its_frames(path)

    def frames() -> Iterator[Frame | UnreadableFrame]:
        try:
            index, stamp = 0, 0.0
            while True:
                there, image = capture.read()
                if not there:
                    break
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of the frame just read
                yield Frame(str(path), index, stamp, np.asarray(image, np.uint8), 'bgr')
                index += 1
            if index == 0:
                yield UnreadableFrame(str(path), 0, None, f'{path}: no frame could be decoded')
            elif index < announced and (exact or announced - stamp * rate > 1 + FRAMES_IN_DOUBT):
                reason = (
                    f'{path}: only {index} of {announced} frames could be decoded: it is cut off '
                    'or damaged'
                )
                yield UnreadableFrame(str(path), index, None, reason)
        finally:
            capture.release()

    return Source(frames(), announced if announced > 0 else None)


def _open_bag(path: Path, topic: str | None) -> Source:
    try:
        from rosbags.rosbag2 import Reader, ReaderError
    except ImportError:
        raise SourceError(
            f"{path}: reading a bag needs rosbags: pip install 'pruned_perception[bench]'"
        ) from None

    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        # A recording that was cut off has no metadata yet; its files can be read one by one.
        files = _bag_files(path)
        if len(files) > 1:
            raise SourceError(
                f'{path}: metadata.yaml is missing (`ros2 bag reindex` writes it); or give one of '
                + ', '.join(file.name for file in files)
            )
        path = files[0]
    try:
        reader = Reader(path)
        reader.open()
    except (ReaderError, OSError) as error:
        raise SourceError(f'{path}: cannot be read as a rosbag2 recording: {error}') from error
    connections = [each for each in reader.connections if each.msgtype in (_RAW, _COMPRESSED)]
    try:
        topic = _choose_topic(path, sorted({each.topic for each in connections}), topic)
    except SourceError:
        reader.close()
        raise
    chosen = [each for each in connections if each.topic == topic]
    return Source(_bag_frames(path, reader, chosen), sum(each.msgcount for each in chosen))


def _choose_topic(path: Path, topics: list[str], topic: str | None) -> str:
    if not topics:
        raise SourceError(f'{path}: no topic of type {_RAW} or {_COMPRESSED} in this bag')
    if topic is None:
        if len(topics) > 1:
            raise SourceError(
                f'{path}: several image topics; choose one with --topic (of a benchmark: '
                f'bag:PATH:/TOPIC): {", ".join(topics)}'
            )
        return topics[0]
    if topic not in topics:
        raise SourceError(
            f'{path}: no image topic {topic} in this bag; there is {", ".join(topics)}'
        )
    return topic


def _bag_frames(
    path: Path, reader: Any, connections: list[Any]
) -> Iterator[Frame | UnreadableFrame]:
    from rosbags.typesys import Stores, get_typestore

    # Both messages have been the same in every ROS 2, so the bag's own definitions, which not
    # every bag has, are not needed.
    deserialize = get_typestore(Stores.ROS2_FOXY).deserialize_cdr
    index = -1
    try:
        for index, (connection, _, data) in enumerate(reader.messages(connections)):
            stamp = None
            try:
                message: Any = deserialize(data, connection.msgtype)
                stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
                image, order = image_from_message(message)
            except Exception as error:  # damaged bytes fail in many ways; the next may be whole
                reason = f'{path}: message {index} of {connection.topic}: {error}'
                yield UnreadableFrame(str(path), index, stamp, reason)
            else:
                yield Frame(str(path), index, stamp, image, order)
        announced = sum(each.msgcount for each in connections)
        if index + 1 < announced:  # the storage's reader takes damage for the end
            reason = f'{path}: breaks off after {index + 1} of {announced} messages'
            yield UnreadableFrame(str(path), index + 1, None, reason)
    except Exception as error:  # what came before the damage has been used
        reason = f'{path}: breaks off after {index + 1} messages: {error}'
        yield UnreadableFrame(str(path), index + 1, None, reason)
    finally:
        reader.close()
