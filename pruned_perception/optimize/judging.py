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

"""What members do otherwise than their parent, on frames that nothing was chosen on."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pruned_perception.bundle import Bundle
from pruned_perception.datasets import Dataset
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.errors import UserError
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.optimize.frames import Picture, Pictures
from pruned_perception.pruning.certificate import Certificate
from pruned_perception.report.gallery import drawn, encoded
from pruned_perception.training.detector.certification import (
    Decisions,
    certify_unlabelled,
    decide_frames,
)

SEEING = 0.02
"""Share of frames in which the parent must see something, for them to be of its domain."""
SHOWN = 4
"""Frames of a member that the page shows; those where it differs most come first."""


@dataclass(frozen=True)
class Sight:
    """What the parent sees in the frames."""

    frames: int
    with_detections: int
    detections: int
    most_in_a_drive: int
    """Detections in one drive, of those that were looked at."""

    def check(self, name: str, *, force: bool) -> None:
        """Raise UserError where the parent is blind to such images."""
        if force or self.with_detections > SEEING * self.frames:
            return
        raise UserError(
            f'{name} finds something in {self.with_detections} of {self.frames} frames at its '
            'threshold: they are of another domain than it was trained for, or images are not '
            'prepared as it wants them (--color, --mean, --std, --resize …); nothing that it '
            'does could be kept. Look with `pruned-perception detect`; --force goes on all the same'
        )


def look(
    bundle: Bundle, frames: Sequence[Picture], report: Callable[[float], None] | None = None
) -> Sight:
    """Return what a bundle sees in frames, at its own threshold."""
    detector, pictures = Detector(bundle), Pictures(frames)
    counts = []
    for index, picture in enumerate(pictures):
        counts.append(len(detector.detect(picture)[0].scores))
        if report is not None:
            report((index + 1) / len(frames))
    drives: dict[str, int] = {}
    for frame, number in zip(frames, counts, strict=True):
        drives[frame.drive] = drives.get(frame.drive, 0) + number
    return Sight(len(frames), sum(n > 0 for n in counts), sum(counts), max(drives.values()))


@dataclass(frozen=True)
class Agreement:
    """How a member's detections compare with its parent's, at the operating threshold."""

    frames: int
    shown: int
    """The parent's detections."""
    detected: int
    """The member's."""
    lost: int
    added: int
    changed: int
    """Frames that differ, with the dead-band."""

    @property
    def share(self) -> float:
        """2 · matched / (parent's + member's detections); 1 where there are none."""
        total = self.shown + self.detected
        return 1 - (self.lost + self.added) / total if total else 1.0


def compare_members(parent: Bundle, member: Bundle, frames: Sequence[Picture]) -> Decisions:
    """Run both over frames, as on the robot."""
    return decide_frames(
        parent,
        member,
        ((picture, None) for picture in Pictures(frames)),
        score_threshold=parent.thresholds.score,
    )


def agreement(decisions: Decisions) -> Agreement:
    """Return the sums of what was decided."""
    objects = decisions.objects
    return Agreement(
        frames=len(objects),
        shown=sum(len(each.shown) for each in objects),
        detected=sum(len(each.detected) for each in objects),
        lost=sum(len(each.lost) for each in objects),
        added=sum(len(each.invented) for each in objects),
        changed=sum(each.changed for each in decisions.frames),
    )


def certify_member(
    parent: Bundle,
    member: Bundle,
    frames: Sequence[Picture],
    *,
    used: Mapping[str, Fingerprints | None],
    holdout: Fingerprints,
    longest: tuple[int, int],
    confidence: float,
    report: Callable[[float], None] | None = None,
) -> Certificate:
    """Certify a member on whole drives; raises PruningError where it cannot be."""
    return certify_unlabelled(
        parent,
        member,
        Pictures(frames),
        drives=[each.drive for each in frames],
        longest={'frames': longest[0], 'objects': longest[1]},
        holdout=holdout,
        used=used,
        confidence=confidence,
        progress=None if report is None else lambda done: report(done / len(frames)),
    )


def longest_of(notes: Dataset, drives: Collection[str]) -> tuple[int, int]:
    """Return frames and boxes of the longest of the named drives; zeros where it has none."""
    frames: Counter[str] = Counter()
    boxes: Counter[str] = Counter()
    for index in range(len(notes)):
        if (drive := _drive(notes, index)) in drives:
            frames[drive] += 1
            boxes[drive] += int((~notes.crowd[index]).sum())
    return max(frames.values(), default=0), max(boxes.values(), default=0)


def unseen_part(notes: Dataset, used: Fingerprints, drives: bool) -> Dataset | None:
    """Return the annotated frames that nothing was fitted or chosen on; None without boxes.

    Args:
        notes: annotated frames.
        used: what was fitted and chosen on.
        drives: whether whole drives were set aside: then no frame of a used drive is left.
    """
    places = []
    for index, picture in enumerate(notes.images()):
        group = Fingerprints.of((), [_drive(notes, index)]).drives
        if picture_hash(picture) in used.pictures or (drives and group & used.drives):
            continue
        places.append(index)
    if not any((~notes.crowd[index]).any() for index in places):
        return None
    fields = ('paths', 'sizes', 'boxes', 'class_ids', 'crowd', 'groups')
    chosen: dict[str, Any] = {
        name: tuple(getattr(notes, name)[k] for k in places) for name in fields
    }
    return replace(notes, **chosen)


def _drive(notes: Dataset, index: int) -> str:
    group = notes.groups[index]
    return f'{notes.unit} {group}' if group.isdigit() else group


def side_by_side(
    frames: Sequence[Picture],
    bundles: Sequence[Bundle],
    decisions: Mapping[str, Decisions],
) -> list[dict[str, Any]]:
    """Return the frames to show: where members differ most from their parent come first.

    The last one is the first frame where all agree and something is seen.

    Args:
        frames: that were decided on.
        bundles: parent first.
        decisions: by the member's name.

    Returns:
        of each frame its name, and of each network its name, a JPEG in base 64 and what differs.
    """
    differing = np.zeros(len(frames), int)
    seen = np.zeros(len(frames), int)
    for each in decisions.values():
        differing += [len(x.lost) + len(x.invented) for x in each.objects]
        seen += [len(x.shown) for x in each.objects]
    order = [int(k) for k in np.argsort(-differing, kind='stable') if differing[k] > 0][:SHOWN]
    order += [int(k) for k in np.flatnonzero((differing == 0) & (seen > 0))[:1]]
    shown = []
    for place in order:
        picture = frames[place].read()
        views = []
        for number, bundle in enumerate(bundles):
            each = decisions[bundle.name] if number else next(iter(decisions.values()))
            found = each.child[place] if number else each.parent[place]
            marked = each.objects[place].invented if number else ()
            lost = each.parent[place].boxes[list(each.objects[place].lost)] if number else None
            views.append(
                {
                    'name': bundle.name,
                    'jpeg': base64.b64encode(
                        encoded(drawn(picture, _at(found, bundle), bundle.labels, missed=lost))
                    ).decode(),
                    'lost': len(each.objects[place].lost) if number else 0,
                    'added': len(marked),
                }
            )
        shown.append({'name': frames[place].source, 'views': views})
    return shown


def _at(found: Detections, bundle: Bundle) -> Detections:
    return _of(found, np.flatnonzero(found.scores >= bundle.thresholds.score))


def _of(found: Detections, places: Any) -> Detections:
    index = np.asarray(places, int)
    return Detections(found.boxes[index], found.scores[index], found.class_ids[index])
