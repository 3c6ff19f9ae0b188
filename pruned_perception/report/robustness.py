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

"""What members lose under corruption: tables for a terminal and a file, a page with pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception import _pages as pages
from pruned_perception._io import write_text
from pruned_perception._tables import UNKNOWN, Table
from pruned_perception.datasets import Dataset
from pruned_perception.datasets.corruptions import CORRUPTIONS
from pruned_perception.inference.drawing import draw
from pruned_perception.pruning.prune_potential import layouts_needed
from pruned_perception.training.detector.robustness import (
    CLEAN,
    UNIFORM,
    Condition,
    Loss,
    Parting,
    Robustness,
)

PAGE = 'index.html'
MOST_PICTURES = 14
PER_CORRUPTION = 2
_WIDTH = 640  # of each of the two frames, pixels
_CAPTION = 30
_AROUND = np.array([-5, -5, 5, 5], np.float32)
_MARK = (255, 0, 255)  # of what is missed; bgr


class Section(NamedTuple):
    """A table with what has to be said about it."""

    title: str
    note: str
    table: Table


def to_text(found: Robustness) -> str:
    """Return all tables, in Markdown with aligned columns."""
    return '\n\n'.join(
        f'**{each.title}**\n\n{each.note}\n\n{each.table.to_markdown(padded=True)}'
        for each in sections(found)
    )


def sections(found: Robustness) -> list[Section]:
    """Return the tables: what is certified, missed, AP50, excess error, distance of functions."""
    dense, small = found.members[0], found.members[1:]
    severe = [each for each in found.conditions if each.name not in (CLEAN, UNIFORM)]
    paired = [found.conditions[0], *severe]
    several = 's' * (found.layouts != 1)
    measured = f'{found.frames} frames of {found.layouts} {found.unit}{several}'
    at = f'at score ≥ {found.score_threshold:g}, IoU ≥ .5'
    return [
        _potential(found, measured, at),
        Section(
            'Objects missed, percent',
            f'{found.objects} objects in {measured}, {at}; of the members, the difference from '
            f'{dense} on the same corrupted pixels, with 95 % intervals of a bootstrap over '
            f'{found.resampled}; each for itself.',
            Table(
                _columns('frames', dense, *small),
                [
                    (
                        _name(each),
                        f'{100 * found.missed[each.key][dense]:.1f}',
                        *(_loss(found.loss[each.key][name]) for name in small),
                    )
                    for each in paired
                ],
            ),
        ),
        Section(
            'AP50',
            f'Of the members, the difference from {dense}; no intervals.',
            Table(
                _columns('frames', dense, *small),
                [
                    (
                        _name(each),
                        f'{found.ap50[each.key][dense]:.3f}',
                        *(
                            _signed(found.ap50[each.key][name] - found.ap50[each.key][dense], 3)
                            for name in small
                        ),
                    )
                    for each in paired
                ],
            ),
        ),
        Section(
            'Excess error: what corruption costs a member more than it costs the dense net, points',
            '(missed, corrupted − missed, clean), member − dense; with 95 % intervals.',
            Table(
                _columns('frames', *small),
                [
                    (_name(each), *(_loss(found.excess[each.key][name]) for name in small))
                    for each in severe
                ],
            ),
        ),
        Section(
            'Distance of functions',
            'Mean of ‖Δ outputs‖₂ / ‖outputs‖₂, and frames decided alike, between member and '
            f'{dense} on the same pixels; in the column of {dense}, between its outputs on these '
            'frames and on the clean ones. Noise is uniform, in grey levels.',
            Table(
                _columns('frames', dense, *small),
                [
                    (
                        _name(each),
                        *(
                            UNKNOWN
                            if name == dense and each.name == CLEAN
                            else _distance(row[name])
                            for name in found.members
                        ),
                    )
                    for each in found.conditions
                    if (row := found.distance.get(each.key)) is not None
                ],
            ),
        ),
    ]


def _potential(found: Robustness, measured: str, at: str) -> Section:
    points = f'{100 * found.margin:g}'
    severities = ', '.join(map(str, found.severities))
    needed = layouts_needed(found.margin, tests=len(found.potential), alpha=1 - found.confidence)
    note = (
        f'“Certified”: with {100 * found.confidence:g} % confidence for all rows together, it '
        f'misses on average over new {found.unit}s like these less than {points} points more of '
        f'a {found.unit}’s objects than {found.members[0]} does on the same pixels ({at}), at '
        f'every severity measured ({severities}), and so does each larger member. From {measured}; '
        f'assumed: {found.unit}s are independent, and members, corruptions, severities and margin '
        'were fixed before looking at them. “Measured”: the same of these frames alone, which '
        'proves nothing.'
    )
    if found.layouts < needed:
        note += (
            f' {found.layouts} can hardly certify anything: even without any loss it takes '
            f'{needed} {found.unit}s.'
        )
    rows = []
    for name in found.potential:
        member, following, severity = found.certified(name)
        more = f' ({following} to severity {severity})' if following else ''
        rows.append((name, f'{member}{more}', found.measured(name)))
    return Section(
        f'Smallest member that misses less than {points} points more objects than '
        f'{found.members[0]}',
        note,
        Table(_columns('frames', 'certified', 'measured'), rows),
    )


def _columns(*headers: str) -> list[tuple[str, str]]:
    return [(each, '') for each in headers]


def _name(condition: Condition) -> str:
    if condition.name == CLEAN:
        return CLEAN
    if condition.name == UNIFORM:
        return f'noise ±{condition.severity}'
    return f'{condition.name} {condition.severity}'


def _loss(loss: Loss) -> str:
    return f'{_signed(100 * loss.value)} [{_signed(100 * loss.low)}, {_signed(100 * loss.high)}]'


def _signed(value: float, digits: int = 1) -> str:
    return f'{value:+.{digits}f}'.replace('-', '−')


def _distance(values: dict[str, float]) -> str:
    return f'{values["outputs"]:.3f}, {values["equal"]:.0%}'


def write_page(
    found: Robustness,
    notes: Dataset,
    out: Path,
    *,
    seed: int,
    title: str,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the page into a folder, and return its path.

    Args:
        found: what was measured.
        notes: the data set it was measured on, with the members' labels.
        out: folder.
        seed: of the corruptions.
        title: of the page.
        progress: called with pictures done and in all.

    Raises:
        UserError: a picture is missing, or the folder cannot be written.
    """
    figures = []
    chosen = choose(found.partings)
    for number, each in enumerate(chosen):
        picture = side_by_side(each, notes, seed, found.members[0])
        data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        caption = _caption(each, notes, found.members[0])
        figures.append((pages.data_uri(data.tobytes(), 'jpeg'), caption))
        if progress is not None:
            progress(number + 1, len(chosen))
    first, *others = sections(found)
    page = pages.render(
        'report/robustness.html',
        title=title,
        first=first,
        others=others,
        figures=figures,
        kinds=[(name, CORRUPTIONS[name].summary) for name in found.potential if name != CLEAN],
    )
    write_text(out / PAGE, page)
    return out / PAGE


def choose(partings: Iterable[Parting]) -> list[Parting]:
    """Return the pictures to show, worst first: few of each corruption, no frame twice."""
    shown: list[Parting] = []
    for each in partings:
        same = [other for other in shown if other.condition.name == each.condition.name]
        if len(same) < PER_CORRUPTION and all(other.index != each.index for other in shown):
            shown.append(each)
    return shown[:MOST_PICTURES]


def side_by_side(each: Parting, notes: Dataset, seed: int, dense: str) -> NDArray[np.uint8]:
    """Return the corrupted frame twice, with what either net reports; bgr.

    What the dense net finds and the member misses is framed on both sides.
    """
    image = each.condition.picture(notes.image(each.index), seed, each.index)
    scale = _WIDTH / image.shape[1]
    halves = []
    marked = image.copy()
    for place in each.lost:
        left, top, right, bottom = (
            round(float(edge)) for edge in notes.boxes[each.index][place] + _AROUND / scale
        )
        cv2.rectangle(marked, (left, top), (right, bottom), _MARK, max(1, round(2 / scale)))
    for name, detections in ((dense, each.dense), (each.member, each.pruned)):
        drawn = draw(marked, detections, notes.labels)
        canvas = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        bar = np.full((_CAPTION, canvas.shape[1], 3), 255, np.uint8)
        text = f'{name}: {len(detections)} reported'
        if name == each.member:
            text += f', {len(each.lost)} missed that {dense} finds'
        cv2.putText(bar, text, (8, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30, 30, 30), 1, cv2.LINE_AA)
        halves.append(np.vstack([bar, canvas]))
    gap = np.full((len(halves[0]), 6, 3), 255, np.uint8)
    return np.asarray(np.hstack([halves[0], gap, halves[1]]), np.uint8)


def _caption(each: Parting, notes: Dataset, dense: str) -> str:
    labels = [notes.labels[notes.class_ids[each.index][place]] for place in each.lost]
    gained = f'; it finds {each.gained} that {dense} misses' if each.gained else ''
    return (
        f'{_name(each.condition)}: {each.member} misses {len(each.lost)} that {dense} finds '
        f'({", ".join(labels)}){gained}. {notes.paths[each.index].name}, '
        f'{notes.unit or "group"} {notes.groups[each.index]}'
    )
