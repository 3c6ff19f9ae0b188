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

"""What the robot saw: frames of folders, videos, bags and topics, and which of them are for what.

Frames are told apart by drive. A folder's sub-folders are drives, and so is each video, bag and
topic; where annotations name groups, those are. Nothing is ever chosen on a frame that certifies:
where there are drives enough, whole drives are set aside, else the last part of each, behind a gap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception._io import errors_of_writing, read_json, replacing, write_json
from pruned_perception.datasets import Dataset
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.images import ImageError, read_image
from pruned_perception.inference.sources import (
    Frame,
    SourceError,
    UnreadableFrame,
    open_source,
)

FRAMES = 600
"""So many are used at most, from all over the source."""
FEWEST = 24
"""Different frames without which nothing is measured."""
DRIVES = 5
"""So many drives make a split by drives; fewer are split in time."""
PARTS = {'fit': 0.6, 'choose': 0.15, 'certify': 0.25}
"""Share of the drives, or of each drive, in this order."""
GAP = 0.04
"""Share of a drive that is left out between two parts of it: neighbours look alike."""
MEMORY = 2**29
"""Bytes of decoded frames that are kept; others are read again."""
ALIKE = 1.0
"""Mean difference of two small grey pictures, 0 … 255, below which a camera saw the same."""


@dataclass(frozen=True)
class Picture:
    """One frame that is used."""

    file: str
    """Of the image, absolute; of a frame that was taken out of a recording, a PNG."""
    source: str
    """What people know it by."""
    drive: str
    order: str
    """Place in its drive, as text that sorts."""
    sha: str
    """Hash of its pixels, hexadecimal."""

    def read(self) -> NDArray[np.uint8]:
        """Return it, (H, W, 3) bgr.

        Raises:
            SourceError: it is gone, or another picture by now.
        """
        try:
            image = read_image(Path(self.file))
        except (OSError, ImageError) as error:
            raise SourceError(f'{self.file}: was used and cannot be read again: {error}') from error
        if picture_hash(image).hex() != self.sha:
            raise SourceError(f'{self.file}: changed since this was begun; choose another folder')
        return image


@dataclass(frozen=True)
class Split:
    """Which frames are for what; places in the list of frames."""

    fit: tuple[int, ...]
    """Sensitivities and recovery."""
    choose: tuple[int, ...]
    """Predictions, and whether INT8 joins."""
    certify: tuple[int, ...]
    """What is said in the end."""
    by_drives: bool
    drives: int
    """How many the frames to certify come from."""


def split_frames(drives: Sequence[str], seed: int = 0) -> Split:
    """Return which frames are for what; a drive of five or more is in one part alone.

    >>> split = split_frames(['a'] * 100)
    >>> len(split.fit), len(split.choose), len(split.certify), split.by_drives
    (58, 13, 21, False)
    >>> split = split_frames([name for name in 'abcdefgh' for _ in range(10)])
    >>> len(split.fit), len(split.choose), len(split.certify), split.drives
    (50, 10, 20, 2)

    Args:
        drives: of each frame, in the order of time within each.
        seed: which drives are for what.
    """
    names = list(dict.fromkeys(drives))
    if len(names) >= DRIVES:
        count = len(names)
        certify = max(2, round(PARTS['certify'] * count))
        choose = max(1, round(PARTS['choose'] * count))
        mixed = [names[k] for k in np.random.default_rng(seed).permutation(count)]
        of = dict.fromkeys(mixed, 'fit')
        of.update(dict.fromkeys(mixed[:certify], 'certify'))
        of.update(dict.fromkeys(mixed[certify : certify + choose], 'choose'))
        found = {part: tuple(k for k, d in enumerate(drives) if of[d] == part) for part in PARTS}
        return Split(**found, by_drives=True, drives=certify)
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for name in names:
        own = [k for k, drive in enumerate(drives) if drive == name]
        gap = max(1, round(GAP * len(own)))
        fit = round(PARTS['fit'] * len(own))
        choose = round((PARTS['fit'] + PARTS['choose']) * len(own))
        parts['fit'] += own[: fit - gap // 2]
        parts['choose'] += own[fit + gap - gap // 2 : choose]
        parts['certify'] += own[choose + gap :][: round(PARTS['certify'] * len(own))]
    return Split(
        **{part: tuple(each) for part, each in parts.items()}, by_drives=False, drives=len(names)
    )


def collect(
    sources: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    limit: int = FRAMES,
    topic: str | None = None,
    notes: Dataset | None = None,
    report: Callable[[str, float, str], None] = lambda title, share, remark: None,
) -> tuple[list[Picture], list[str]]:
    """Return the frames that are used, in order of drive and time, and remarks about the rest.

    Images stay where they are; what is in recordings is written to `folder` once.

    Args:
        sources: folders of images, images, videos, bags.
        folder: for frames of recordings, and the list.
        limit: of frames; taken from all over the sources.
        topic: of bags with several.
        notes: annotated frames, whose groups are drives.
        report: told of the progress.

    Raises:
        SourceError: nothing can be read; too few, or all alike.
    """
    index = folder / 'frames.json'
    if index.is_file():
        content = read_json(index)
        return [Picture(**each) for each in content['frames']], content['remarks']
    groups = {} if notes is None else _groups(notes)
    frames: list[Picture] = []
    remarks: list[str] = []
    share = max(FEWEST, limit // len(sources))
    for number, source in enumerate(sources):
        report(f'frames of {source}', number / len(sources), '')
        frames += _frames_of(Path(source), folder / str(number), share, topic, groups, remarks)
    frames.sort(key=lambda each: (each.drive, each.order))
    _check_different(frames, sources)
    write_json(index, {'frames': [vars(each) for each in frames], 'remarks': remarks})
    return frames, remarks


def _groups(notes: Dataset) -> dict[Path, str]:
    """Return the drive of each annotated picture, by its real path."""
    if notes.unit is None:
        return {}
    return {
        path.resolve(): f'{notes.unit} {group}' if group.isdigit() else group
        for path, group in zip(notes.paths, notes.groups, strict=True)
    }


def _frames_of(
    source: Path,
    folder: Path,
    limit: int,
    topic: str | None,
    groups: Mapping[Path, str],
    remarks: list[str],
) -> Iterator[Picture]:
    """Yield frames from all over a source."""
    opened = open_source(source, topic)
    wanted = None
    if opened.count is not None and opened.count > limit:
        wanted = set(np.linspace(0, opened.count - 1, limit).round().astype(int).tolist())
        remarks.append(f'{source}: {limit} of its {opened.count} frames are used')
    unreadable: list[str] = []
    taken = 0
    for frame in opened.frames:
        if isinstance(frame, UnreadableFrame):
            unreadable.append(frame.reason)
            continue
        if wanted is None or frame.index in wanted:
            taken += 1
            yield _picture(source, frame, opened.files, folder, groups)
        if taken == limit:
            break
    if not taken:
        why = unreadable[0] if unreadable else f'{source}: it is empty'
        raise SourceError(f'no frame that can be read: {why}')
    if unreadable:
        remarks.append(f'{len(unreadable)} frames cannot be read, e.g. {unreadable[0]}')


def _picture(
    source: Path, frame: Frame, stored: bool, folder: Path, groups: Mapping[Path, str]
) -> Picture:
    order = f'{frame.index:08d}'
    image, drive = _as_bgr(frame), source.resolve().name
    if not stored:
        known = f'{source} #{frame.index}'
        file = (folder / f'{order}.png').resolve()
        _write(file, image)
    else:
        known = frame.source
        file = Path(frame.source).resolve()
        if source.is_dir():
            drive = str(Path(drive) / Path(frame.source).parent.relative_to(source))
        drive = groups.get(file, drive)
    return Picture(str(file), known, drive, order, picture_hash(image).hex())


def _as_bgr(frame: Frame) -> NDArray[np.uint8]:
    conversions = {'rgb': cv2.COLOR_RGB2BGR, 'gray': cv2.COLOR_GRAY2BGR}
    if frame.order == 'bgr':
        return frame.image
    return np.asarray(cv2.cvtColor(frame.image, conversions[frame.order]), np.uint8)


def _write(file: Path, image: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    with errors_of_writing(file, SourceError), replacing(file) as temporary:
        temporary.write_bytes(data.tobytes())


def _check_different(frames: Sequence[Picture], sources: Sequence[Any]) -> None:
    """Raise SourceError where there are too few frames, or all show the same."""
    named = ', '.join(map(str, sources))
    different = {each.sha: each for each in frames}
    if len(different) < FEWEST:
        same = f', {len(different)} of them different' if len(different) < len(frames) else ''
        raise SourceError(
            f'{named}: {len(frames)} frames{same}; at least {FEWEST} different ones are needed to '
            'measure anything, and some hundred, of several drives, to certify'
        )
    few = list(different.values())
    few = [few[k] for k in np.linspace(0, len(few) - 1, FEWEST).round().astype(int)]
    small = np.stack([thumbnail(each.read()) for each in few])
    if np.abs(small - small.mean(0)).mean() < ALIKE:
        raise SourceError(
            f'{named}: all frames show the same (a camera that stood still?); what a network needs '
            'for other pictures cannot be seen in them; give frames of a robot that drives'
        )


class Pictures(Sequence[NDArray[np.uint8]]):
    """Frames as pixels, (H, W, 3) bgr: read when asked for, and kept while there is room."""

    def __init__(self, frames: Sequence[Picture]) -> None:
        """Take the frames."""
        self.frames = tuple(frames)
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._room = MEMORY

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        """Return a frame; of a slice, those frames."""
        if isinstance(index, slice):
            return Pictures(self.frames[index])
        place = range(len(self.frames))[index]
        if (found := self._kept.get(place)) is not None:
            return found
        image = self.frames[place].read()
        if image.nbytes <= self._room:
            self._kept[place] = image
            self._room -= image.nbytes
        return image


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a picture as (24, 32) grey values, 0 … 255."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (32, 24), interpolation=cv2.INTER_AREA), np.float32)


def fingerprints_of(frames: Sequence[Picture], *, drives: bool) -> Fingerprints:
    """Return the record of frames; of drives, too, where those were set aside as a whole."""
    hashes = (bytes.fromhex(each.sha) for each in frames)
    return Fingerprints.of(hashes, {each.drive for each in frames} if drives else ())
