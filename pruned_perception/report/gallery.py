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

"""Frames side by side, a column for each network, failures first: a page, or one picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception import _pages as pages
from pruned_perception._io import write_bytes, write_text
from pruned_perception.inference.coco_metrics import Boxes
from pruned_perception.inference.decisions import Hits, match_truth
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.drawing import draw, draw_dashed
from pruned_perception.inference.slices import class_indices

WIDTH = 480
"""Of a frame, pixels."""
BAR = 24
"""Height of a line of text above a frame in a picture, pixels."""
QUALITY = 82
_AROUND = np.array([-4, -4, 4, 4], np.float32)
_FALSE = (255, 0, 255)  # frame around what is of no object; bgr

PICTURES = ('.jpg', '.jpeg', '.png')
PAGES = ('.html', '.htm')


@dataclass(frozen=True)
class View:
    """A frame as one network sees it."""

    name: str
    """Of the network."""
    picture: NDArray[np.uint8]
    """(H, W, 3), bgr, with boxes."""
    missed: tuple[str, ...]
    """Labels of the objects that it does not find."""
    false: tuple[str, ...]
    """Labels of its detections that are of no object."""

    @property
    def failures(self) -> str:
        """Return both by name, or that there are none."""
        parts = [
            f'{what}: {_counted(labels)}'
            for what, labels in (('missed', self.missed), ('false', self.false))
            if labels
        ]
        return '; '.join(parts) or 'no failure'


@dataclass(frozen=True)
class Row:
    """A frame, as all networks see it."""

    title: str
    views: tuple[View, ...]


def gallery(
    titles: Sequence[str],
    image: Callable[[int], NDArray[np.uint8]],
    found: Mapping[str, Sequence[Detections]],
    labels: Sequence[str],
    *,
    truth: Sequence[Boxes] | None,
    groups: Sequence[Hashable],
    score_threshold: float,
    count: int,
    classes: Sequence[str] | None = None,
    width: int = WIDTH,
) -> list[Row]:
    """Return the frames with the most failures, the worst first, and one without any, if there is.

    Args:
        titles: of each frame.
        image: returns a frame's picture, (H, W, 3) uint8, bgr.
        found: by network, the parent first; for each frame its detections.
        labels: of the classes.
        truth: the objects of each frame; None: what the parent detects takes their place, so that
            it has no failures and those of the others are what they do otherwise.
        groups: of each frame: all of them are shown, as far as `count` goes.
        score_threshold: operating threshold of all.
        count: how many frames.
        classes: look at these alone.
        width: of a frame, pixels.

    Raises:
        UserError: a class that is none of the labels.
    """
    chosen = sorted(class_indices(labels, classes))
    found = {
        name: [_of(each, np.flatnonzero(np.isin(each.class_ids, chosen))) for each in detections]
        for name, detections in found.items()
    }
    parent = next(iter(found))
    if truth is None:
        objects = [_shown(each, score_threshold) for each in found[parent]]
    else:
        objects = [_among(each, chosen) for each in truth]
    hits = {
        name: [
            match_truth(each, those, score_threshold=score_threshold)
            for each, those in zip(detections, objects, strict=True)
        ]
        for name, detections in found.items()
    }
    failures = [
        sum(len(each[index].missed) + len(each[index].false) for each in hits.values())
        for index in range(len(titles))
    ]
    rows = []
    for index in choose(failures, groups, count, [len(each.class_ids) for each in objects]):
        picture = image(index)
        views = tuple(
            _view(
                name,
                picture,
                detections[index],
                hits[name][index],
                objects[index],
                labels,
                score_threshold,
                width,
            )
            for name, detections in found.items()
        )
        rows.append(Row(titles[index], views))
    return rows


def choose(
    failures: Sequence[int], groups: Sequence[Hashable], count: int, objects: Sequence[int]
) -> list[int]:
    """Return which frames to show: no group has more than its share while others have failures.

    >>> choose([5, 4, 3, 0], ['a', 'a', 'b', 'b'], 3, [9, 9, 9, 9])
    [0, 2, 3]
    """
    order = [int(k) for k in np.argsort(-np.asarray(failures), kind='stable') if failures[k]]
    right = [k for k, each in enumerate(failures) if not each and objects[k]][:1]
    room = count - len(right)
    share = math.ceil(room / max(1, len({groups[k] for k in order})))
    taken: Counter[Hashable] = Counter()
    first: list[int] = []
    later: list[int] = []
    for k in order:
        taken[groups[k]] += 1
        (first if taken[groups[k]] <= share else later).append(k)
    chosen = set([*first, *later][:room])
    return [k for k in order if k in chosen] + right


def drawn(
    picture: NDArray[np.uint8],
    found: Detections,
    labels: Sequence[str],
    *,
    missed: NDArray[Any] | None = None,
    false: Detections | None = None,
    width: int = WIDTH,
) -> NDArray[np.uint8]:
    """Return a frame, not wider than `width`, with detections; dashed what is missed.

    Args:
        picture: (H, W, 3) uint8, bgr.
        found: detections to draw.
        labels: of the classes.
        missed: boxes (K, 4) to be dashed in black and white.
        false: detections to be framed once more.
        width: pixels.
    """
    scale = min(1.0, width / picture.shape[1])
    size = (round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale)))
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    factor = np.float32(scale)
    canvas = draw(small, Detections(found.boxes * factor, found.scores, found.class_ids), labels)
    for box in () if false is None else (false.boxes * factor + _AROUND).round().astype(int):
        left, top, right, bottom = box.tolist()
        cv2.rectangle(canvas, (left, top), (right, bottom), _FALSE, 2)
    for box in () if missed is None else (missed * factor).round().astype(int).tolist():
        draw_dashed(canvas, box)
    return canvas


def as_picture(rows: Sequence[Row]) -> NDArray[np.uint8]:
    """Return all rows below each other, (H, W, 3), bgr, with failures in words above each frame."""
    parts = []
    for row in rows:
        height = max(view.picture.shape[0] for view in row.views)
        columns = []
        for view in row.views:
            each = view.picture
            below = np.full((height - each.shape[0], each.shape[1], 3), 255, np.uint8)
            lines = [
                _line(text, each.shape[1]) for text in (f'{view.name}, {row.title}', view.failures)
            ]
            columns.append(np.vstack([*lines, each, below]))
        parts.append(np.hstack(columns))
    wide = max(each.shape[1] for each in parts)
    return np.vstack(
        [
            np.pad(each, ((0, 6), (0, wide - each.shape[1]), (0, 0)), constant_values=255)
            for each in parts
        ]
    )


def write(rows: Sequence[Row], path: Path, *, title: str, lead: str) -> None:
    """Write a page or a picture, as the name of the file says.

    Raises:
        UserError: it cannot be written.
    """
    if path.suffix.lower() in PICTURES:
        form = '.png' if path.suffix.lower() == '.png' else '.jpg'
        write_bytes(path, encoded(as_picture(rows), form))
        return
    figures = [
        (
            row.title,
            [
                (view.name, view.failures, pages.data_uri(encoded(view.picture), 'jpeg'))
                for view in row.views
            ],
        )
        for row in rows
    ]
    write_text(path, pages.render('report/gallery.html', title=title, lead=lead, rows=figures))


def encoded(picture: NDArray[np.uint8], form: str = '.jpg') -> bytes:
    """Return a picture as JPEG or PNG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if form == '.jpg' else []
    done, data = cv2.imencode(form, picture, options)
    assert done
    return data.tobytes()


def _view(
    name: str,
    picture: NDArray[np.uint8],
    found: Detections,
    hits: Hits,
    truth: Boxes,
    labels: Sequence[str],
    score_threshold: float,
    width: int,
) -> View:
    missed, false = list(hits.missed), _of(found, hits.false)
    shown = _of(found, np.flatnonzero(found.scores >= score_threshold))
    return View(
        name,
        drawn(picture, shown, labels, missed=truth.boxes[missed], false=false, width=width),
        tuple(labels[k] for k in truth.class_ids[missed]),
        tuple(labels[k] for k in false.class_ids),
    )


def _of(found: Detections, places: Any) -> Detections:
    index = np.asarray(places, int)
    return Detections(found.boxes[index], found.scores[index], found.class_ids[index])


def _among(truth: Boxes, chosen: Sequence[int]) -> Boxes:
    own = np.isin(truth.class_ids, chosen)
    crowd = None if truth.crowd is None else truth.crowd[own]
    return Boxes(truth.boxes[own], truth.class_ids[own], crowd)


def _shown(found: Detections, score_threshold: float) -> Boxes:
    each = _of(found, np.flatnonzero(found.scores >= score_threshold))
    return Boxes(each.boxes, each.class_ids)


def _counted(labels: Sequence[str]) -> str:
    """Return names with their numbers.

    >>> _counted(['ball', 'human', 'human'])
    'ball, 2 human'
    """
    return ', '.join(f'{n} {name}' if n > 1 else name for name, n in Counter(labels).items())


def _line(text: str, width: int) -> NDArray[np.uint8]:
    bar = np.full((BAR, width, 3), 255, np.uint8)
    plain = text.encode('ascii', 'replace').decode()  # all that OpenCV's letters have
    cv2.putText(bar, plain, (4, BAR - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return bar
