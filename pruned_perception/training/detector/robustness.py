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

"""Members of a family beyond clean test images: what they lose under corruption, and how surely.

Every frame is corrupted once, as the camera would have given it, and goes through all members with
the robot's preprocessing, ONNX Runtime, decoding and suppression. So all comparisons are paired:
the same frames, the same corrupted pixels. The error is the share of annotated objects that are
missed at the operating threshold.

Work goes condition by condition (clean, each corruption and severity, each level of uniform noise);
what one has given is kept in a file of its own, so that an interrupted run goes on from there, and
only one condition's detections are held in memory.

Source: Liebenwein et al., Lost in pruning (MLSys 2021).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruned_perception import __version__
from pruned_perception._io import locked, read_json, write_json
from pruned_perception.bundle import Bundle
from pruned_perception.datasets import Dataset, corruptions, read_dataset
from pruned_perception.datasets.fingerprints import fingerprints
from pruned_perception.errors import UserError
from pruned_perception.inference.accuracy import MIN_SCORE
from pruned_perception.inference.coco_metrics import Boxes, coco_metrics
from pruned_perception.inference.decisions import match_decisions, match_truth
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.resampling import frame_weights, resampled_over
from pruned_perception.pruning.certificate import check_unseen
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.prune_potential import (
    PrunePotential,
    certify_potential,
    loss_evidence,
)
from pruned_perception.pruning.statistics import check_confidence
from pruned_perception.training.detector.certification import TRAINING, sets_used

NET = 'member, on corrupted frames'
"""Whose accuracy an entry of the manifest is."""
CLEAN = 'clean'
UNIFORM = 'uniform'
UNIFORM_LEVELS = (8, 32)
"""Of the noise under which functions are compared, grey levels."""
MARGIN = 0.1
IOU_THRESHOLD = 0.5
RESAMPLES = 2000
WORST = 6
"""So many frames where members part are kept of each condition."""
IDENTITY = 'run.json'

Progress = Callable[[str, int, int, float | None], None]
"""Called with what is measured, frames done and in all, and the seconds left (None: not known)."""


@dataclass(frozen=True)
class Condition:
    """What is done to the frames: nothing, a corruption, or uniform noise (its level)."""

    name: str
    severity: int = 0

    @property
    def key(self) -> str:
        """Name of its file and its row."""
        return self.name if self.name == CLEAN else f'{self.name}-{self.severity}'

    def picture(self, image: NDArray[np.uint8], seed: int, index: int) -> NDArray[np.uint8]:
        """Return frame `index` under this condition; the same seed gives the same pixels."""
        if self.name == CLEAN:
            return image
        if self.name == UNIFORM:
            return corruptions.uniform_noise(image, self.severity, (seed, index))
        return corruptions.corrupt(image, self.name, self.severity, (seed, index))


@dataclass(frozen=True)
class Parting:
    """A frame on which a member misses objects that the dense net finds."""

    condition: Condition
    member: str
    index: int
    """Of the frame in its data set."""
    lost: tuple[int, ...]
    """Annotated boxes that the dense net finds and the member misses."""
    gained: int
    """How many it is the other way about."""
    dense: Detections
    pruned: Detections


@dataclass(frozen=True)
class Loss:
    """A difference of shares of objects missed, with its interval from a bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Robustness:
    """What `measure` found; members from the dense one to the smallest."""

    members: tuple[str, ...]
    conditions: tuple[Condition, ...]
    frames: int
    layouts: int
    unit: str
    resampled: str
    """What intervals come from resampling of."""
    objects: int
    score_threshold: float
    missed: dict[str, dict[str, float]]
    """Condition → member → share of the objects missed."""
    ap50: dict[str, dict[str, float]]
    loss: dict[str, dict[str, Loss]]
    """Condition → pruned member → share missed more than the dense net misses there."""
    excess: dict[str, dict[str, Loss]]
    """Condition → pruned member → that loss − the loss on clean frames."""
    distance: dict[str, dict[str, dict[str, float]]]
    """Clean and uniform noise → member → distance from the dense net on the same pixels.

    `outputs`: mean of ‖Δ outputs‖₂ / ‖outputs‖₂; `equal`: share of frames decided alike. Of the
    dense net itself: from what it says of the clean frames.
    """
    margin: float
    confidence: float
    potential: dict[str, PrunePotential]
    """Corruption → tests of the chain member by member, within it severity by severity."""
    severities: tuple[int, ...]
    record: dict[str, Any]
    partings: tuple[Parting, ...]
    """Worst first."""

    def certified(self, name: str) -> tuple[str, str | None, int | None]:
        """Return the smallest member certified at all severities, and how far the next one is.

        That next one's name and the largest severity up to which it is certified, or None.
        """
        steps = 1 if name == CLEAN else len(self.severities)
        whole, part = divmod(self.potential[name].certified, steps)
        following = (self.members[whole + 1], self.severities[part - 1]) if part else (None, None)
        return self.members[whole], *following

    def measured(self, name: str) -> str:
        """Return the smallest member whose measured loss stays below the margin, and all before."""
        keys = [each.key for each in self.conditions if each.name == name]
        smallest = self.members[0]
        for member in self.members[1:]:
            if any(self.loss[key][member].value >= self.margin for key in keys):
                break
            smallest = member
        return smallest

    def entry(self, member: str, data: str) -> dict[str, Any]:
        """Return what a member's manifest says of it: compact, shares rounded to 4 digits."""
        small = member != self.members[0]
        found: dict[str, Any] = {}
        for each in self.conditions:
            row: dict[str, Any] = {
                'ap50': _short(self.ap50[each.key][member]),
                'missed': _short(self.missed[each.key][member]),
            }
            if small:
                loss, excess = self.loss[each.key][member], self.excess[each.key][member]
                row['missed_more'] = _short(loss.value)
                row['missed_more_interval'] = [_short(loss.low), _short(loss.high)]
                if each.name != CLEAN:
                    row['excess'] = _short(excess.value)
            if each.name == CLEAN:
                found[CLEAN] = row
            elif each.name != UNIFORM:
                found.setdefault(each.name, {})[str(each.severity)] = row
        entry = {
            'net': NET,
            'data': data,
            **self.record,
            'frames': self.frames,
            'groups': self.layouts,
            'objects': self.objects,
            'score_threshold': self.score_threshold,
            'iou_threshold': IOU_THRESHOLD,
            'conditions': found,
        }
        if small:
            place = self.members.index(member)
            entry['function_distance'] = {
                key: {name: _short(value) for name, value in each[member].items()}
                for key, each in self.distance.items()
            }
            entry['prune_potential'] = {
                'margin': self.margin,
                'confidence': self.confidence,
                'certified': {
                    name: self._certified_to(name, place, each.certified)
                    for name, each in self.potential.items()
                },
            }
        return entry

    def _certified_to(self, name: str, place: int, certified: int) -> list[int] | bool:
        """Return the severities at which the member is certified; of clean frames, whether."""
        if name == CLEAN:
            return certified >= place
        steps = certified - (place - 1) * len(self.severities)
        return list(self.severities[: max(0, steps)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        members = {}
        for name in self.members:
            entry = self.entry(name, '')
            members[name] = {
                key: entry[key]
                for key in ('conditions', 'function_distance', 'prune_potential')
                if key in entry
            }
        return {
            **self.record,
            'frames': self.frames,
            'groups': self.layouts,
            'unit': self.unit,
            'resampled': self.resampled,
            'objects': self.objects,
            'score_threshold': self.score_threshold,
            'iou_threshold': IOU_THRESHOLD,
            'margin': self.margin,
            'confidence': self.confidence,
            'certified': {name: self.certified(name)[0] for name in self.potential},
            'evidence': {name: list(each.evidence) for name, each in self.potential.items()},
            'members': members,
        }


def measure(
    members: Sequence[Bundle],
    folder: str | os.PathLike[str],
    out: Path,
    *,
    names: Sequence[str] = tuple(corruptions.CORRUPTIONS),
    severities: Sequence[int] = corruptions.SEVERITIES,
    images: int | None = None,
    margin: float = MARGIN,
    confidence: float = 0.95,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Robustness:
    """Measure a family under corruption, or what is missing of an interrupted measurement.

    Args:
        members: the dense bundle and those pruned from it, larger before smaller.
        folder: data set with boxes. For what is certified nothing may have been chosen on it.
        out: folder that keeps what each condition has given.
        names: of `datasets.corruptions.CORRUPTIONS`.
        severities: of 1 … 5.
        images: at most so many frames, spread over layouts; None: all.
        margin: share of the objects that may be missed more than the dense net misses.
        confidence: that nothing is certified falsely, under any corruption.
        seed: of the corruptions.
        threads: of ONNX Runtime.
        progress: see `Progress`.

    Raises:
        PruningError: no pruned member, thresholds that differ, a margin outside (0, 1), or frames
            that members were trained on.
        UserError: no such corruption or severity; data that are broken or without boxes; a folder
            that cannot be written or holds another measurement.
    """
    names, severities = tuple(dict.fromkeys(names)), tuple(sorted(set(severities)))
    if not names or not severities:
        raise UserError('corruptions: give at least one, and one severity')
    for name in names:
        for severity in severities:
            corruptions.check_corruption(name, severity)
    loss_evidence([0.0], margin=margin)  # refuses a margin before hours pass
    check_confidence(confidence)
    if images is not None and images < 1:
        raise UserError(f'{images} images: at least 1 is needed')
    threshold = _check_members(members)
    dense = members[0]
    notes = read_dataset(folder).with_labels(dense.labels, dense.name)
    notes.check_labelled()
    _check_not_trained_on(members, notes)
    chosen = spread(notes.groups, len(notes) if images is None else images)
    if not sum(int((~notes.crowd[index]).sum()) for index in chosen):
        raise UserError(f'{notes.source}: no object in the {len(chosen)} frames chosen; take more')
    conditions = [Condition(CLEAN)]
    conditions += [Condition(name, severity) for name in names for severity in severities]
    conditions += [Condition(UNIFORM, level) for level in UNIFORM_LEVELS]
    record = {
        'annotations_sha256': notes.digest,
        'tool': f'pruned_perception {__version__}',
        'corruptions_version': corruptions.VERSION,
        'seed': seed,
    }
    identity = {
        **record,
        'models': {each.name: each.sha256 for each in members},
        'score_threshold': threshold,
        'frames': chosen,
    }
    with locked(out):
        _check_folder(out, identity)
        run = _Run(members, notes, chosen, threshold, seed, threads)
        found = _all_conditions(run, conditions, out, progress)
    return _summarise(run, conditions, found, names, severities, margin, confidence, record)


def spread(groups: Sequence[str], count: int) -> list[int]:
    """Return which frames to take, in order: as many of each group, far apart within it.

    >>> spread(['a'] * 4 + ['b'] * 4, 4)
    [0, 2, 4, 6]
    """
    frames: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        frames.setdefault(group, []).append(index)
    places = {group: place for place, group in zip(_halving(len(frames)), frames, strict=True)}
    ranked = [
        (turn, places[group], index)
        for group, indices in frames.items()
        for turn, index in zip(_halving(len(indices)), indices, strict=True)
    ]
    return sorted(index for _, _, index in sorted(ranked)[:count])


def _halving(count: int) -> list[int]:
    """Return the turn of each of `count` places, so that the first turns are far apart."""
    bits = max(1, (count - 1).bit_length())
    order = sorted(range(count), key=lambda place: int(f'{place:0{bits}b}'[::-1], 2))
    turns = [0] * count
    for turn, place in enumerate(order):
        turns[place] = turn
    return turns


# -- measuring -------------------------------------------------------------------------------


class _Run:
    """The members' detectors over the frames chosen, one condition at a time."""

    def __init__(
        self,
        members: Sequence[Bundle],
        notes: Dataset,
        chosen: Sequence[int],
        threshold: float,
        seed: int,
        threads: int,
    ) -> None:
        self.members = members
        self.names = tuple(each.name for each in members)
        self.notes, self.chosen, self.threshold, self.seed = notes, chosen, threshold, seed
        self.truth = [
            Boxes(notes.boxes[index], notes.class_ids[index], notes.crowd[index])
            for index in chosen
        ]
        self.objects = np.array([int((~notes.crowd[index]).sum()) for index in chosen])
        self._detectors = [Detector(each, threads=threads) for each in members]

    def condition(self, condition: Condition, tick: Callable[[], None]) -> dict[str, Any]:
        """Return what the members do under one condition, as plain data."""
        compared = condition.name in (CLEAN, UNIFORM)
        count = len(self.members)
        found: list[list[Detections]] = [[] for _ in range(count)]
        missed: list[list[int]] = [[] for _ in range(count)]
        distance: list[list[tuple[float, bool]]] = [[] for _ in range(count)]
        partings: list[dict[str, Any]] = []
        for index, truth in zip(self.chosen, self.truth, strict=True):
            image = condition.picture(self.notes.image(index), self.seed, index)
            lost: list[set[int]] = []
            for member, detector in enumerate(self._detectors):
                settings = replace(detector.settings, score_threshold=MIN_SCORE)
                detections = detector.detect(image, 'bgr', settings)[0]
                found[member].append(detections)
                lost.append(_missed(truth, detections, self.threshold))
                missed[member].append(len(lost[member]))
            for member in range(1, count):
                only = sorted(lost[member] - lost[0])
                if only and condition.name != UNIFORM:
                    partings.append(
                        {
                            'member': self.names[member],
                            'index': index,
                            'lost': only,
                            'gained': len(lost[0] - lost[member]),
                            'dense': _rows(found[0][-1], self.threshold),
                            'pruned': _rows(found[member][-1], self.threshold),
                        }
                    )
            if len(partings) > 20 * WORST:
                partings = _worst(partings)
            if compared:
                clean = self.notes.image(index) if condition.name == UNIFORM else image
                self._compare(image, clean, [each[-1] for each in found], distance)
            tick()
        result: dict[str, Any] = {
            'missed': dict(zip(self.names, missed, strict=True)),
            'ap50': {
                name: _ap50(self.truth, each, self.notes.labels, self.threshold)
                for name, each in zip(self.names, found, strict=True)
            },
            'partings': _worst(partings),
        }
        if compared:
            result['distance'] = {
                name: {
                    'outputs': float(np.mean([far for far, _ in each])),
                    'equal': float(np.mean([same for _, same in each])),
                }
                for name, each in zip(self.names, distance, strict=True)
            }
        return result

    def _compare(
        self,
        image: NDArray[np.uint8],
        clean: NDArray[np.uint8],
        detections: Sequence[Detections],
        distance: Sequence[list[tuple[float, bool]]],
    ) -> None:
        """Append how far each member's function is from the dense one's on this picture.

        ‖Δ outputs‖₂ as a share of the dense net's ‖outputs‖₂, and whether the decisions at the
        operating threshold are equal: each object that one of them reports, the other does, too.
        Of the dense net itself, as a yardstick: how far the noise moves it.
        """
        dense = self._detectors[0]
        outputs = [_flat(each.outputs(image)) for each in self._detectors]
        settings = replace(dense.settings, score_threshold=MIN_SCORE)
        before = (_flat(dense.outputs(clean)), dense.detect(clean, 'bgr', settings)[0])
        for member, (output, found) in enumerate(zip(outputs, detections, strict=True)):
            other, expected = before if member == 0 else (outputs[0], detections[0])
            if output.shape != other.shape:
                raise PruningError(
                    f'{self.names[member]}: its outputs are not of the same size as those of '
                    f'{self.names[0]}, so that no distance of functions is defined'
                )
            decision = match_decisions(
                expected,
                found,
                score_threshold=self.threshold,
                dead_band=0.0,
                iou_threshold=IOU_THRESHOLD,
            )
            far = np.linalg.norm(output - other) / max(float(np.linalg.norm(other)), 1e-12)
            distance[member].append((float(far), not decision.changed))


def _all_conditions(
    run: _Run, conditions: Sequence[Condition], out: Path, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    found = {}
    per_condition = len(run.chosen)
    total, done, fresh, begin = per_condition * len(conditions), 0, 0, time.monotonic()
    for condition in conditions:
        file = out / 'conditions' / f'{condition.key}.json'

        def tick(key: str = condition.key) -> None:
            nonlocal done, fresh
            done, fresh = done + 1, fresh + 1
            if progress is not None:
                left = (time.monotonic() - begin) / fresh * (total - done)
                progress(key, done, total, left if fresh > 4 else None)

        if file.exists():
            found[condition.key] = _checked(read_json(file), run, condition, file)
            done += per_condition
        else:
            found[condition.key] = run.condition(condition, tick)
            write_json(file, found[condition.key])
    return found


def _missed(truth: Boxes, detections: Detections, threshold: float) -> set[int]:
    """Return the annotated objects that no detection at the threshold is of, one to one."""
    hits = match_truth(detections, truth, score_threshold=threshold, iou_threshold=IOU_THRESHOLD)
    return set(hits.missed)


def _ap50(
    truth: Sequence[Boxes], found: Sequence[Detections], labels: Sequence[str], threshold: float
) -> float:
    return coco_metrics(truth, found, labels, score_threshold=threshold).ap50


def _worst(partings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        partings, key=lambda each: (each['gained'] - len(each['lost']), -len(each['lost']))
    )[:WORST]


def _flat(outputs: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(each).astype(np.float64) for each in outputs])


def _rows(detections: Detections, threshold: float) -> list[list[float]]:
    """Return what is reported at the threshold: four corners, score, class."""
    kept = detections.scores >= threshold
    columns = (detections.boxes[kept], detections.scores[kept, None])
    numbers = np.round(np.hstack(columns).astype(float), 4).tolist()
    return [[*row, int(k)] for row, k in zip(numbers, detections.class_ids[kept], strict=True)]


def _detections(rows: Sequence[Sequence[float]]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


# -- checking --------------------------------------------------------------------------------


def _check_members(members: Sequence[Bundle]) -> float:
    """Return the operating threshold, which all must share."""
    dense = members[0]
    if len(members) < 2:
        raise PruningError(
            f'{dense.path}: corruptions compare pruned members with the dense one; give a family'
        )
    for each in members[1:]:
        pedigree = each.manifest['parent']
        if pedigree is None or pedigree['sha256'] != dense.sha256:
            raise PruningError(f'{each.manifest_path}: {dense.name} is not its parent')
        if each.thresholds.score != dense.thresholds.score:
            raise PruningError(
                f'score thresholds: {dense.thresholds.score:g} of {dense.name}, '
                f'{each.thresholds.score:g} of {each.name}; members are compared at the same one'
            )
    return dense.thresholds.score


def _check_not_trained_on(members: Sequence[Bundle], notes: Dataset) -> None:
    for each in members:
        training = each.manifest['provenance'].get('training')
        if isinstance(training, dict) and training.get('annotations_sha256') == notes.digest:
            raise PruningError(
                f'{notes.source}: {each.name} was trained on these frames; give others'
            )
    used = {
        name: known for name, known in sets_used(*members).items() if name == TRAINING and known
    }
    if used:
        check_unseen(fingerprints(notes), notes.groups, used)


def _check_folder(out: Path, identity: dict[str, Any]) -> None:
    file = out / IDENTITY
    if not file.exists():
        if (out / 'conditions').exists():
            raise UserError(f'{out}: has results of an unknown run; choose another folder')
        write_json(file, identity)
        return
    before = read_json(file)
    differ = [
        key for key in identity if not isinstance(before, dict) or before.get(key) != identity[key]
    ]
    if differ:
        raise UserError(
            f'{out}: holds the measurement of another run (other {", ".join(differ)}): choose '
            'another folder, or remove it'
        )


def _checked(found: Any, run: _Run, condition: Condition, file: Path) -> dict[str, Any]:
    """Return what a file holds, if it is what this run would have written there."""
    try:
        whole = all(
            len(found['missed'][name]) == len(run.chosen)
            and all(
                0 <= count <= most
                for count, most in zip(found['missed'][name], run.objects, strict=True)
            )
            and 0 <= found['ap50'][name] <= 1
            for name in run.names
        )
        for each in found['partings']:
            _ = (_detections(each['dense']), _detections(each['pruned']), each['lost'])
            whole &= each['index'] in run.chosen and each['member'] in run.names
        if condition.name in (CLEAN, UNIFORM):
            whole &= set(found['distance']) == set(run.names)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise UserError(f'{file}: damaged; remove it, and it is measured again')
    return dict(found)


# -- summarising -----------------------------------------------------------------------------


def _summarise(
    run: _Run,
    conditions: Sequence[Condition],
    found: dict[str, dict[str, Any]],
    names: tuple[str, ...],
    severities: tuple[int, ...],
    margin: float,
    confidence: float,
    record: dict[str, Any],
) -> Robustness:
    groups = [run.notes.groups[index] for index in run.chosen]
    layouts = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    place = np.array([layouts[group] for group in groups])

    def per_layout(counts: Sequence[int] | NDArray[Any]) -> NDArray[np.float64]:
        sums = np.zeros(len(layouts))
        np.add.at(sums, place, counts)
        return sums

    objects = per_layout(run.objects)
    shown = objects > 0  # a layout without objects says nothing
    frames = np.flatnonzero(shown[place])
    weights = frame_weights([groups[index] for index in frames], resamples=RESAMPLES)

    def more_in_frames(key: str, name: str) -> NDArray[np.int64]:
        missed = found[key]['missed']
        return np.asarray(missed[name]) - np.asarray(missed[run.names[0]])

    more = {
        each.key: {name: more_in_frames(each.key, name) for name in run.names[1:]}
        for each in conditions
    }

    def loss(difference: NDArray[np.int64]) -> Loss:
        drawn = (weights @ difference[frames]) / (weights @ run.objects[frames])
        low, high = np.percentile(drawn, [2.5, 97.5])
        return Loss(float(difference.sum() / objects.sum()), float(low), float(high))

    chains = {CLEAN: [per_layout(more[CLEAN][name]) for name in run.names[1:]]}
    for name in names:
        chains[name] = [
            per_layout(more[Condition(name, severity).key][member])
            for member in run.names[1:]
            for severity in severities
        ]
    potential = certify_potential(
        {
            name: [difference[shown] / objects[shown] for difference in chain]
            for name, chain in chains.items()
        },
        margin=margin,
        confidence=confidence,
    )
    partings = [
        Parting(
            condition,
            each['member'],
            int(each['index']),
            tuple(each['lost']),
            int(each['gained']),
            _detections(each['dense']),
            _detections(each['pruned']),
        )
        for condition in conditions
        for each in found[condition.key]['partings']
    ]
    return Robustness(
        members=run.names,
        conditions=tuple(conditions),
        frames=len(run.chosen),
        layouts=int(shown.sum()),
        unit=run.notes.unit or 'frame',
        resampled=resampled_over(len(layouts), len(groups), run.notes.unit or 'frame'),
        objects=int(objects.sum()),
        score_threshold=run.threshold,
        missed={
            key: {name: sum(each['missed'][name]) / int(objects.sum()) for name in run.names}
            for key, each in found.items()
        },
        ap50={key: dict(each['ap50']) for key, each in found.items()},
        loss={key: {name: loss(each) for name, each in row.items()} for key, row in more.items()},
        excess={
            key: {name: loss(each - more[CLEAN][name]) for name, each in row.items()}
            for key, row in more.items()
        },
        distance={key: each['distance'] for key, each in found.items() if 'distance' in each},
        margin=margin,
        confidence=confidence,
        potential=potential,
        severities=severities,
        record=record,
        partings=tuple(sorted(partings, key=lambda p: (p.gained - len(p.lost), -len(p.lost)))),
    )


def _short(share: float) -> float:
    return round(share, 4)
