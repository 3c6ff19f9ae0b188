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

"""Where a detector fails: recall and precision by size, place, light and group, and AP50 by group.

An object is found, and a detection right, at the operating threshold where class and place agree
(`decisions.match_truth`). Objects are put into bins by their own box, detections by theirs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception._tables import UNKNOWN, Table
from pruned_perception.datasets import Dataset
from pruned_perception.errors import UserError
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.decisions import match_truth
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.intervals import mean_interval, values_needed
from pruned_perception.inference.resampling import clusters, frame_weights, resampled_over

RESAMPLES = 1000
GROUP = 'group'
"""The axis whose bins are the data's groups: venues, drives, layouts."""

Size = tuple[int, int]


class Frame(NamedTuple):
    """What a frame is for an axis: (height, width) and mean brightness, 0 … 255."""

    size: Size
    light: float


@dataclass(frozen=True)
class Axis:
    """What bins are of: a number for each box, and the bins' lower edges; the last one is open."""

    title: str
    value: Callable[[NDArray[np.float64], Frame], NDArray[np.float64]]
    """Of boxes (K, 4), corners in pixels of their picture, and their frame: (K,)."""
    edges: tuple[float, ...]

    def bins(self) -> tuple[str, ...]:
        """Return the names of the bins."""
        names = [f'{low:g}–{high:g}' for low, high in itertools.pairwise(self.edges)]
        return (*names, f'≥ {self.edges[-1]:g}')

    def place(self, boxes: NDArray[Any], frame: Frame) -> NDArray[np.intp]:
        """Return the bin of each box (K,); what is below the first edge is in the first."""
        values = self.value(np.asarray(boxes, np.float64).reshape(-1, 4), frame)
        return np.maximum(np.searchsorted(self.edges, values, side='right') - 1, 0)


def _height(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    return boxes[:, 3] - boxes[:, 1]


def _radius(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    height, width = frame.size
    x, y = (boxes[:, 0] + boxes[:, 2] - width) / 2, (boxes[:, 1] + boxes[:, 3] - height) / 2
    return np.hypot(x, y) / (math.hypot(width, height) / 2)


def _light(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    return np.full(len(boxes), frame.light)


AXES = {
    'height': Axis(
        'box height, pixels of the picture', _height, (0, 8, 16, 24, 32, 48, 64, 96, 128, 192)
    ),
    'radius': Axis(
        'distance of the box from the middle of the picture, share of its half diagonal',
        _radius,
        (0, 0.2, 0.4, 0.6, 0.8),
    ),
    'light': Axis('mean brightness of the frame, 0 … 255', _light, (0, 40, 60, 80, 100, 130)),
}  # fmt: skip


class Share(NamedTuple):
    """A share of what was counted, or the difference of two, and its 95 % interval."""

    value: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bin:
    """What every network finds of the objects of a bin, and how much of what it reports is right.

    Of networks after the first one, the difference from it.
    """

    name: str
    objects: int
    reported: dict[str, int]
    recall: dict[str, Share]
    precision: dict[str, Share]


@dataclass(frozen=True)
class Slices:
    """The bins of one axis."""

    axis: str
    title: str
    bins: tuple[Bin, ...]
    networks: tuple[str, ...]
    score_threshold: float
    classes: tuple[str, ...]
    """The classes that were counted."""
    resampled: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            'axis': self.axis,
            'score_threshold': self.score_threshold,
            'iou_threshold': 0.5,
            'classes': list(self.classes),
            'resampled': self.resampled,
            'bins': {
                each.name: {
                    'objects': each.objects,
                    'reported': each.reported,
                    'recall': {name: share._asdict() for name, share in each.recall.items()},
                    'precision': {name: share._asdict() for name, share in each.precision.items()},
                }
                for each in self.bins
            },
        }

    def to_text(self) -> str:
        """Return two tables in Markdown, of what is found and of what is right."""
        first, *others = self.networks
        note = (
            f'{", ".join(self.classes)}; at score ≥ {self.score_threshold:g}, IoU ≥ .5'
            + (f'; of {", ".join(others)} the difference from {first}, points' if others else '')
            + f'. 95 % intervals of a bootstrap over {self.resampled}; each for itself.'
        )
        found = [
            (each.name, f'{each.objects:,}', *self._cells(each.recall))
            for each in self.bins
            if each.objects
        ]
        right = [
            (each.name, f'{each.reported[first]:,}', *self._cells(each.precision))
            for each in self.bins
            if any(each.reported.values())
        ]
        parts = []
        for title, counted, rows in (
            (f'Found, percent of the objects, by {self.title}', 'objects', found),
            (f'Right, percent of what is reported, by {self.title}', f'by {first}', right),
        ):
            columns = [(self.axis, ''), (counted, ''), *((name, '') for name in self.networks)]
            table = Table(columns, rows).to_markdown(padded=True)
            parts.append(f'**{title}**\n\n{note}\n\n{table}')
        return '\n\n'.join(parts)

    def _cells(self, shares: Mapping[str, Share]) -> list[str]:
        return [_percent(shares[name], signed=k > 0) for k, name in enumerate(self.networks)]


def brightness(notes: Dataset) -> list[float]:
    """Return the mean brightness of each frame, 0 … 255."""
    return [float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean()) for image in notes.images()]


def axes_from(words: Sequence[str]) -> dict[str, Axis | None]:
    """Return the axes that words name, None for `group`; NAME=EDGE,EDGE,… gives the bins.

    Raises:
        UserError: no such axis, or edges that are no numbers that rise.
    """
    found: dict[str, Axis | None] = {}
    for word in words:
        name, equals, numbers = word.partition('=')
        if name == GROUP and not equals:
            found[name] = None
            continue
        if name not in AXES:
            raise UserError(f'{word!r} is no axis: there are {", ".join((*AXES, GROUP))}')
        axis = AXES[name]
        if equals:
            try:
                edges = tuple(float(each) for each in numbers.split(','))
            except ValueError:
                edges = ()
            rises = all(low < high for low, high in itertools.pairwise(edges))
            if not edges or not rises or not all(map(math.isfinite, edges)):
                raise UserError(
                    f'{word}: give the lower edges of the bins, numbers that rise, for example '
                    f'{name}={",".join(f"{each:g}" for each in axis.edges[:4])}'
                )
            axis = Axis(axis.title, axis.value, edges)
        found[name] = axis
    return found


def check_slices(
    notes: Dataset, axes: Mapping[str, Axis | None], classes: Sequence[str] | None
) -> None:
    """Raise UserError where data have no such class, or no groups where bins are of these."""
    class_indices(notes.labels, classes)
    if GROUP in axes and len(set(notes.groups)) == len(notes):
        raise UserError(
            f'{notes.source}: does not say which frames belong together; `pruned-perception data '
            'convert --group-by` does'
        )


def slices(
    notes: Dataset,
    found: Mapping[str, Sequence[Detections]],
    axis: str,
    *,
    bins: Axis | None,
    light: Sequence[float] | None = None,
    score_threshold: float,
    classes: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Slices:
    """Count what networks find, and what is right, by bins of an axis.

    Args:
        notes: annotated frames, with the networks' labels.
        found: by network, the first one is compared with; for each frame its detections.
        axis: its name.
        bins: what the bins are of; None: of the data's groups.
        light: mean brightness of each frame, for an axis of that.
        score_threshold: operating threshold of all.
        classes: count these alone.
        resamples: of the bootstrap, the same for all networks; 0: none.
        seed: of the bootstrap.

    Raises:
        UserError: a class that the data have not, or no groups where bins are of these.
    """
    check_slices(notes, {axis: bins}, classes)
    chosen = class_indices(notes.labels, classes)
    names, members = clusters(notes.groups)
    titles = tuple(map(str, names)) if bins is None else bins.bins()
    frames = [
        Frame(size, math.nan if light is None else light[index])
        for index, size in enumerate(notes.sizes)
    ]

    def places(index: int, boxes: NDArray[Any]) -> NDArray[np.intp]:
        if bins is None:
            return np.full(len(boxes), members[index], np.intp)
        return bins.place(boxes, frames[index])

    def table() -> NDArray[np.int64]:
        return np.zeros((len(notes), len(titles)), np.int64)

    objects, counts = table(), {name: (table(), table(), table()) for name in found}
    for index in range(len(notes)):
        truth = Boxes(notes.boxes[index], notes.class_ids[index], notes.crowd[index])
        place = places(index, truth.boxes)
        for number, (name, detections) in enumerate(found.items()):
            each = detections[index]
            hits = match_truth(each, truth, score_threshold=score_threshold)
            hit, reported, right = counts[name]
            own = places(index, each.boxes)
            wanted = [k for k in hits.objects if truth.class_ids[k] in chosen]
            missed, false = set(hits.missed), set(hits.false)
            for k in wanted:
                objects[index, place[k]] += number == 0
                hit[index, place[k]] += k not in missed
            for k in hits.detected:
                if each.class_ids[k] in chosen:
                    reported[index, own[k]] += 1
                    right[index, own[k]] += k not in false
    weights = frame_weights(notes.groups, resamples=resamples, seed=seed) if resamples else None
    first = next(iter(found))

    def shares(which: int, of: Callable[[str], NDArray[np.int64]], k: int) -> dict[str, Share]:
        pairs = {name: (counts[name][which][:, k], of(name)[:, k]) for name in found}
        return {
            name: _share(*pair, None if name == first else pairs[first], weights)
            for name, pair in pairs.items()
        }

    return Slices(
        axis=axis if bins is not None else notes.unit or GROUP,
        title=(notes.unit or GROUP) if bins is None else bins.title,
        bins=tuple(
            Bin(
                name=title,
                objects=int(objects[:, k].sum()),
                reported={name: int(counts[name][1][:, k].sum()) for name in found},
                recall=shares(0, lambda name: objects, k),
                precision=shares(2, lambda name: counts[name][1], k),
            )
            for k, title in enumerate(titles)
        ),
        networks=tuple(found),
        score_threshold=score_threshold,
        classes=tuple(notes.labels[k] for k in sorted(chosen)),
        resampled=resampled_over(len(names), len(notes), notes.unit or 'frame'),
    )


def class_indices(labels: Sequence[str], classes: Sequence[str] | None) -> set[int]:
    """Return the indices of classes, None for all; raise UserError for one that is no label."""
    for name in classes or ():
        if name not in labels:
            raise UserError(f'{name!r} is no class here: there are {", ".join(labels)}')
    return {k for k, name in enumerate(labels) if classes is None or name in classes}


def _share(
    events: NDArray[np.int64],
    counts: NDArray[np.int64],
    other: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    weights: NDArray[np.int64] | None,
) -> Share:
    """Return Σ events / Σ counts over frames, less that of `other`, with its interval."""
    if not counts.sum() or (other is not None and not other[1].sum()):
        return Share(None)
    value = float(events.sum() / counts.sum())
    if other is not None:
        value -= float(other[0].sum() / other[1].sum())
    if weights is None:
        return Share(value)
    with np.errstate(invalid='ignore', divide='ignore'):
        drawn = (weights @ events) / (weights @ counts)
        if other is not None:
            drawn = drawn - (weights @ other[0]) / (weights @ other[1])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    # All or none of few: every resample says so, which is no certainty.
    return Share(value, (float(low), float(high)) if low < high else None)


def _percent(share: Share, *, signed: bool) -> str:
    if share.value is None:
        return UNKNOWN
    numbers = [share.value, *(share.interval or ())]
    value, *ends = (
        f'{100 * each:{"+" if signed else ""}.1f}'.replace('-', '−') for each in numbers
    )
    return f'{value} [{", ".join(ends)}]' if ends else value


# -- AP50 by group ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ByGroup:
    """AP50 of networks on the frames of each group by itself, class by class."""

    unit: str
    frames: dict[str, int]
    """Group → its frames."""
    classes: tuple[str, ...]
    ap50: dict[str, dict[str, dict[str, float]]]
    """Group → network → class, and `mean` over its classes → AP50; nan without a box."""

    @property
    def networks(self) -> tuple[str, ...]:
        """Names, the first one is compared with."""
        return tuple(next(iter(self.ap50.values())))

    def over_groups(self, network: str, of: str) -> tuple[float, tuple[float, float] | None]:
        """Return the mean over groups of AP50, and Student's interval where they are enough.

        Of networks after the first one, of the difference from it; groups without such boxes are
        left out.
        """
        first = self.networks[0]
        values = [
            each[network][of] - (each[first][of] if network != first else 0.0)
            for each in self.ap50.values()
            if not math.isnan(each[network][of])
        ]
        if not values:
            return math.nan, None
        enough = len(values) >= values_needed()
        return float(np.mean(values)), mean_interval(values) if enough else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; nan becomes None."""
        over = {
            name: {
                of: dict(zip(('mean', 'interval'), self.over_groups(name, of), strict=True))
                for of in ('mean', *self.classes)
            }
            for name in self.networks
        }
        return _plain(
            {'unit': self.unit, 'frames': self.frames, 'ap50': self.ap50, 'over_groups': over}
        )

    def to_text(self) -> str:
        """Return a table in Markdown, with what it says of a new group."""
        first, *others = self.networks
        rows: list[tuple[str, ...]] = []
        for group, each in self.ap50.items():
            for of in ('mean', *self.classes):
                if not math.isnan(each[first][of]):
                    rows.append(
                        (
                            f'{group} ({self.frames[group]} frames)' if of == 'mean' else '',
                            of,
                            f'{each[first][of]:.3f}',
                            *(_signed(each[name][of] - each[first][of]) for name in others),
                        )
                    )
        for of in ('mean', *self.classes):
            cells = [self.over_groups(name, of) for name in self.networks]
            if not math.isnan(cells[0][0]):
                rows.append(
                    (
                        f'mean over {self.unit}s' if of == 'mean' else '',
                        of,
                        *(_mean_cell(*cell, signed=k > 0) for k, cell in enumerate(cells)),
                    )
                )
        columns = [(self.unit, ''), ('class', ''), *((name, '') for name in self.networks)]
        table = Table(columns, rows).to_markdown(padded=True)
        return f'**AP50 by {self.unit}**\n\n{self._note()}\n\n{table}'

    def _note(self) -> str:
        count, needed = len(self.ap50), values_needed()
        others = self.networks[1:]
        text = (
            f'Of {", ".join(others)} the difference from {self.networks[0]} on the same frames. '
            if others
            else ''
        )
        if count < needed:
            number = f'{count} {self.unit}s are' if count > 1 else f'One {self.unit} is'
            return (
                f'{text}{number} too few for an interval over {self.unit}s (from {needed} on): '
                f'what a new {self.unit} brings is not known from these.'
            )
        return (
            f'{text}In brackets: 95 % intervals of the mean over {self.unit}s (Student), where '
            f'{needed} have the class; assumed: {self.unit}s are independent, like those to come, '
            'and their values nearly normal.'
        )


def by_group(notes: Dataset, found: Mapping[str, Sequence[Detections]]) -> ByGroup:
    """Return AP50 of networks on each group's frames by themselves.

    Args:
        notes: annotated frames, with the networks' labels.
        found: by network, the first one is compared with; for each frame all its detections, down
            to a low score.

    Raises:
        UserError: pycocotools is not installed.
    """
    names, members = clusters(notes.groups)
    ap50: dict[str, dict[str, dict[str, float]]] = {}
    frames: dict[str, int] = {}
    for number, group in enumerate(names):
        own = np.flatnonzero(members == number).tolist()
        frames[str(group)] = len(own)
        truth = [Boxes(notes.boxes[k], notes.class_ids[k], notes.crowd[k]) for k in own]
        ap50[str(group)] = {}
        for name, detections in found.items():
            metrics = coco_metrics(truth, [detections[k] for k in own], notes.labels)
            ap50[str(group)][name] = {
                'mean': metrics.ap50,
                **{label: each.ap50 for label, each in metrics.per_class.items()},
            }
    return ByGroup(notes.unit or GROUP, frames, notes.labels, ap50)


def _signed(value: float) -> str:
    return f'{value:+.3f}'.replace('-', '−')


def _mean_cell(value: float, interval: tuple[float, float] | None, *, signed: bool) -> str:
    text = (lambda each: _signed(each)) if signed else (lambda each: f'{each:.3f}')
    ends = '' if interval is None else f' [{text(interval[0])}, {text(interval[1])}]'
    return f'{text(value)}{ends}'


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    return None if isinstance(data, float) and math.isnan(data) else data
