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

"""Whether a statistic of the input, which needs no dense net, would tell when a certificate fails.

    pruned-perception simulate --split test --seed 4 --frames 2000 --out REFERENCE
    pruned-perception simulate --split test --seed 5 --frames 2400 --out DRIVES
    python -m studies.drift REFERENCE DRIVES          # what the CSV lacks (15 CPU minutes)
    python -m studies.drift                           # prints the tables from the CSV

Layouts are drives. Four statistics of a frame (`STATISTICS`) are each turned into an event: it lies
outside the central 95 % of the frames of half of the reference's layouts. The other half bounds the
rate of such events in new drives, by the bound of certificates, and drives are then watched as the
node watches the dense net: with the same evidence, at the same α. Beside them the dense net itself
(`lost`): detections that the member lacks, against the bound that its certificate has.

Drives are drawn with replacement from the layouts; in clean ones an alarm is false.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pruned_perception._io import read_json, write_json
from pruned_perception._tables import Table
from pruned_perception.bundle import load_member
from pruned_perception.datasets import read_dataset
from pruned_perception.datasets.corruptions import CORRUPTIONS, corrupt
from pruned_perception.inference.decisions import match_objects
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.evidence import ALPHA, FRACTIONS
from pruned_perception.pruning.eprocess import rate_bound

RESULTS = Path(__file__).parent / 'results' / 'drift.csv'
MODEL = Path(__file__).parent.parent / 'models' / 'warehouse'
MEMBER = 'tenth'
FRAMES = 4
"""Of each layout, evenly spread."""
SEVERITIES = (3, 5)
LEAST_SCORE = 0.05
BINS = np.linspace(LEAST_SCORE, 1, 11)
STATISTICS = ('brightness', 'confidence', 'detections', 'histogram')
LOST = 'lost'
REFERENCE, CLEAN = 'reference', 'clean'
WATCHED = 300
"""Drives that are watched."""
WORLDS = 500

Array = NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """What was seen of a frame; `scores` counts candidates by score, in `BINS`."""

    brightness: float
    confidence: float
    detections: int
    scores: Array
    lost: int
    shown: int


@dataclass(frozen=True)
class Drive:
    """Events of one layout under one condition, among its frames or, of `lost`, `shown`."""

    condition: str
    severity: int
    layout: str
    frames: int
    shown: int
    lost: int
    brightness: int
    confidence: int
    detections: int
    histogram: int


def observe(image: Array, dense: Detector, member: Detector) -> Frame:
    """Return the statistics of a picture (bgr), and what the member lacks of the dense net's."""
    threshold = member.settings.score_threshold
    settings = replace(member.settings, score_threshold=LEAST_SCORE)
    found, _ = member.detect(image, 'bgr', settings)
    parent, _ = dense.detect(image, 'bgr', replace(dense.settings, score_threshold=threshold))
    sure = found.scores >= threshold
    own = Detections(found.boxes[sure], found.scores[sure], found.class_ids[sure])
    both = match_objects(parent, own, score_threshold=threshold)
    return Frame(
        brightness=float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0]),
        confidence=float(own.scores.mean()) if len(own.scores) else 0.0,
        detections=len(own.scores),
        scores=np.histogram(found.scores, BINS)[0],
        lost=len(both.lost),
        shown=len(both.shown),
    )


class Limits:
    """The central 95 % of each statistic in frames of reference."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.scores = _share(np.sum([each.scores for each in frames], axis=0))
        values = np.array([self._values(each) for each in frames])
        self.low, self.high = np.quantile(values, [0.025, 0.975], axis=0)
        self.low[-1] = -math.inf  # a distance is unusual where it is large
        self.high[-1] = np.quantile(values[:, -1], 0.95)

    def outside(self, frame: Frame) -> Array:
        """Return (4,) bool: which statistics of a frame are unusual."""
        values = self._values(frame)
        return (values < self.low) | (values > self.high)

    def _values(self, frame: Frame) -> Array:
        distance = np.abs(_share(frame.scores) - self.scores).sum() / 2  # total variation
        return np.array([frame.brightness, frame.confidence, frame.detections, distance])


def _share(counts: Array) -> Array:
    return counts / max(1, counts.sum())


def measure(reference: Path, drives: Path, results: Path) -> None:
    """Make the conditions that the CSV lacks, writing it after each."""
    dense, member = (Detector(load_member(MODEL, name)) for name in ('', MEMBER))
    rows = read(results)
    if not rows:
        statements = member.bundle.manifest['certificate']['statements']
        certified = {
            'member': member.bundle.name,
            'sha256': member.bundle.sha256,
            'bound': statements[LOST]['bound'],
            'longest': statements[LOST]['longest'],
            'longest_drive': statements['changed']['longest'],
        }
        write_json(certificate(results), certified)
    layouts = list(_frames(reference, dense, member, CLEAN, 0))
    half = len(layouts) // 2
    limits = Limits([frame for _, frames in layouts[:half] for frame in frames])
    if not rows:
        rows = [_drive(REFERENCE, 0, each, limits) for each in layouts[half:]]
    wanted = [(CLEAN, 0), *((name, level) for level in SEVERITIES for name in CORRUPTIONS)]
    for name, severity in wanted:
        if any((row.condition, row.severity) == (name, severity) for row in rows):
            continue
        observed = _frames(drives, dense, member, name, severity)
        rows += [_drive(name, severity, each, limits) for each in observed]
        write(results, rows)
        print(f'{name} {severity}', flush=True)


def _frames(
    folder: Path, dense: Detector, member: Detector, name: str, severity: int
) -> Iterator[tuple[str, list[Frame]]]:
    notes = read_dataset(folder).with_labels(member.bundle.labels, member.bundle.name)
    groups = np.array(notes.groups)
    for layout in dict.fromkeys(notes.groups):
        own = np.flatnonzero(groups == layout)
        frames = []
        for index in own[np.linspace(0, len(own) - 1, FRAMES).round().astype(int)]:
            image = notes.image(int(index))
            if severity:
                image = corrupt(image, name, severity, (0, int(index)))
            frames.append(observe(image, dense, member))
        yield layout, frames


def _drive(condition: str, severity: int, seen: tuple[str, list[Frame]], limits: Limits) -> Drive:
    layout, frames = seen
    outside = np.sum([limits.outside(each) for each in frames], axis=0)
    shown, lost = sum(each.shown for each in frames), sum(each.lost for each in frames)
    return Drive(condition, severity, layout, len(frames), shown, lost, *map(int, outside))


def read(path: Path) -> list[Drive]:
    """Return the drives of a file; none where there is no such file."""
    if not path.is_file():
        return []
    texts = ('condition', 'layout')
    with path.open(encoding='utf-8', newline='') as file:
        return [
            Drive(**{key: value if key in texts else int(value) for key, value in row.items()})
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: Iterable[Drive]) -> None:
    """Write the drives, whole or not at all."""
    unfinished = path.with_name(f'.{path.name}')
    with unfinished.open('w', encoding='utf-8', newline='') as file:
        table = csv.DictWriter(file, [each.name for each in fields(Drive)], lineterminator='\n')
        table.writeheader()
        table.writerows(asdict(row) for row in rows)
    unfinished.replace(path)


def certificate(results: Path) -> Path:
    """Return where the watched member's is kept: a newer one's is no bound of these drives."""
    return results.with_name(f'{results.stem}_certificate.json')


def bounds(rows: Sequence[Drive], results: Path = RESULTS) -> dict[str, tuple[float, int]]:
    """Return name → bound of the rate of events, and the most that is counted in a drive."""
    reference = [row for row in rows if row.condition == REFERENCE]
    frames = [row.frames for row in reference]
    found = {
        name: (
            rate_bound([getattr(row, name) for row in reference], frames, longest=FRAMES),
            FRAMES,
        )
        for name in STATISTICS
    }
    certified = read_json(certificate(results))
    longest = math.ceil(certified['longest'] * FRAMES / certified['longest_drive'])
    return found | {LOST: (float(certified['bound']), longest)}


def alarms(drives: Sequence[Drive], name: str, bound: float, longest: int) -> Array:
    """Return (WORLDS,) the drive of the alarm, inf where there is none among `WATCHED`."""
    events = np.array([getattr(row, name) for row in drives])
    counts = np.array([row.shown if name == LOST else row.frames for row in drives])
    terms = (events - bound * counts) / (bound * np.maximum(counts, longest))
    drawn = np.random.default_rng(0).integers(0, len(drives), (WORLDS, WATCHED))
    logs = np.full((WORLDS, WATCHED), -np.inf)
    for c in FRACTIONS:
        np.logaddexp(logs, np.cumsum(np.log1p(c * terms)[drawn], axis=1), out=logs)
    over = logs - math.log(len(FRACTIONS)) >= -math.log(ALPHA)
    return np.where(over.any(1), over.argmax(1) + 1.0, np.inf)


def to_text(rows: Sequence[Drive], results: Path = RESULTS) -> str:
    """Return the tables: bounds and false alarms, and the median drive of the alarm."""
    certified = bounds(rows, results)
    names = (LOST, *STATISTICS)
    conditions = dict.fromkeys((row.condition, row.severity) for row in rows)
    by = {key: [r for r in rows if (r.condition, r.severity) == key] for key in conditions}
    clean = by[CLEAN, 0]
    first = [
        [
            'certified',
            *(f'{certified[name][0]:.1%}' for name in names),
        ],
        ['seen in clean drives', *(f'{_rate(clean, name):.1%}' for name in names)],
        [
            f'false alarms in {WATCHED} clean drives',
            *(f'{np.isfinite(alarms(clean, name, *certified[name])).mean():.1%}' for name in names),
        ],
    ]
    second = [
        [
            f'{condition} {severity}',
            f'{_rate(drives, LOST):.1%}',
            *(_median(alarms(drives, name, *certified[name])) for name in names),
        ]
        for (condition, severity), drives in sorted(by.items())
        if condition not in (REFERENCE, CLEAN)
    ]
    return '\n\n'.join(
        (
            Table([(each, '') for each in ('', *names)], first).to_markdown(),
            Table([(each, '') for each in ('frames', 'lost, seen', *names)], second).to_markdown(),
        )
    )


def _rate(drives: Sequence[Drive], name: str) -> float:
    counts = sum(row.shown if name == LOST else row.frames for row in drives)
    return sum(getattr(row, name) for row in drives) / max(1, counts)


def _median(found: Array) -> str:
    middle = float(np.median(found))
    return '–' if math.isinf(middle) else f'{middle:.0f}'


def main() -> None:
    """Measure what is missing, where data sets are given, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('sets', type=Path, nargs='*', help='REFERENCE DRIVES: to measure')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.sets:
        measure(*args.sets, args.results)
    print(to_text(read(args.results), args.results))


if __name__ == '__main__':
    main()
