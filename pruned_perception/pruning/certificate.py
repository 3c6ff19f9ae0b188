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

"""Certificates: what a pruned network may do worse than its parent, on drives nobody has met.

A-priori errors are void after fine-tuning or quantisation; what counts then is counted on a
hold-out that nothing was fitted, chosen or stopped on. The unit that users judge by is the object
at the operating threshold; the unit that bounds count is the drive (`eprocess.rate_bound`): any
number of drives, of any length up to the declared one, and more may be added later without a
correction (`Certificate.extended`).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

import pruned_perception
from pruned_perception._tables import Table
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.pruning.calibration import Batch, CheckedBatches, as_inputs
from pruned_perception.pruning.eprocess import drives_needed, least_bound, rate_bound
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.device import fed_from_cpu
from pruned_perception.pruning.graph.observation import tensors

FEW_DRIVES = 20
"""As many, or fewer, are told apart in words and tables."""
NEXT_TO_NOTHING = 0.5
"""A bound that high, where it could be no lower, is said to be none."""
ENOUGH = 0.1
"""The bound for which it is said how many drives it takes."""
VERSION = 2
"""Of the format; the first one had no number (`FormerCertificate`)."""

Counts = tuple[ArrayLike, ArrayLike]
"""(n,) events and (n,) objects (or ones) of each frame, whole numbers."""

Decide = Callable[[Any, Any], Any]
"""Parent's output, child's output → (B,) bool, which frames of the batch are decided otherwise; or
for each name, such as those of `KINDS`, (B,) bool or `Counts`."""

Flip = Callable[[Any, Any, Any], ArrayLike]
"""Parent's output, child's output, labels → (B,) bool, where only the parent is right."""

Clusters = Sequence[Hashable] | NDArray[Any]
"""(n,) the drive of each frame, by name or number."""


@dataclass(frozen=True)
class Kind:
    """What is counted, in words."""

    verb: str
    of: str
    unit: Literal['objects', 'detections', 'frames']
    side: Literal['upper', 'lower'] = 'upper'


KINDS = {
    'missed': Kind('misses', 'of the objects that the dense network finds', 'objects'),
    'invented': Kind(
        'invents', 'of its own detections: nothing is there, nor does the dense one show it',
        'detections',
    ),
    'gained': Kind(
        'finds', 'of all objects though the dense network misses them', 'objects', 'lower'
    ),
    'lost': Kind('does not show', 'of the detections of the dense network', 'detections'),
    'added': Kind('adds', 'of its own detections to those of the dense network', 'detections'),
    'changed': Kind('decides differently on', 'of the frames', 'frames'),
    'negative_flips': Kind(
        'is wrong where the dense network is right on', 'of the frames (negative flips)', 'frames'
    ),
}  # fmt: skip
"""The first one that is counted is the headline: it has its confidence to itself."""


@dataclass(frozen=True)
class Comparison:
    """Decisions of two networks on the same frames, and what tells the frames."""

    counts: dict[str, Counts]
    """For each kind the events and what they are among, frame by frame."""
    pictures: tuple[bytes, ...]
    """(n,) hash of each frame's inputs."""
    sha256: str


def argmax_decisions(parent: Any, child: Any) -> Tensor:
    """Say, for scores (B, classes), where the highest one is another class; (B,) bool."""
    for name, scores in (('parent', parent), ('child', child)):
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise PruningError(
                f'certify: the {name} does not return scores (B, classes); say in `decide` when '
                'two outputs are different decisions'
            )
    return parent.argmax(dim=1) != child.argmax(dim=1)


def argmax_negative_flips(parent: Any, child: Any, labels: Any) -> Tensor:
    """Say, for scores (B, classes) and labels (B,), where only the parent is right; (B,) bool."""
    changed = argmax_decisions(parent, child)
    return changed & (parent.argmax(dim=1) == torch.as_tensor(labels, device=parent.device))


@torch.no_grad()
def compare(
    model: nn.Module,
    small: nn.Module,
    holdout: Iterable[Batch],
    *,
    decide: Decide = argmax_decisions,
    labels: Sequence[Any] | Tensor | None = None,
    flip: Flip = argmax_negative_flips,
) -> Comparison:
    """Run both networks over the hold-out once and compare what they decide.

    Both run in evaluation mode, whatever their mode, and get it back; each runs where it is, and
    what they decide is compared on the CPU.

    Args:
        model: the parent.
        small: the pruned network, as it will be used: after fine-tuning.
        holdout: batches of inputs; may be a generator, nothing is kept.
        decide: from the two outputs on a batch, which frames are decided differently, or counts.
        labels: (n,) the truth of each frame, for negative flips.
        flip: from the two outputs and the batch's labels, which frames only the parent gets right.

    Raises:
        PruningError: an empty hold-out, an output that is NaN or differs from run to run, or not
            one answer or label per frame.
    """
    iterator = iter(holdout)
    first = next(iterator, None)
    if first is None:
        raise PruningError('hold-out set: empty; give at least one batch of inputs')
    batches = CheckedBatches(
        itertools.chain([first], iterator), as_inputs(first), name='hold-out set'
    )
    parts: dict[str, list[Counts]] = {}
    pictures: list[bytes] = []
    done = 0
    with _evaluation(model, small), fed_from_cpu(model), fed_from_cpu(small):
        for index, inputs in enumerate(batches):
            size = len(inputs[0])
            parent = _output('parent', model, index, inputs)
            child = _output('pruned network', small, index, inputs)
            found = decide(parent, child)
            if not isinstance(found, Mapping):
                found = {'changed': found}
            found = dict(found)
            if labels is not None and done + size <= len(labels):
                found['negative_flips'] = flip(parent, child, labels[done : done + size])
            for kind, each in found.items():
                what = 'flip' if kind == 'negative_flips' else 'decide'
                parts.setdefault(kind, []).append(_counts(f'batch {index}: {what}', each, size))
            pictures += [_example_hash(each) for each in zip(*inputs, strict=True)]
            done += size
    if labels is not None and len(labels) != done:
        raise PruningError(f'labels: {len(labels)} for {done} frames; give one for each')
    counts: dict[str, Counts] = {
        kind: (
            np.concatenate([each[0] for each in every]),
            np.concatenate([each[1] for each in every]),
        )
        for kind, every in parts.items()
    }
    return Comparison(counts, tuple(pictures), batches.record.sha256)


def _example_hash(inputs: Sequence[Tensor]) -> bytes:
    hashes = [picture_hash(each.detach().cpu().numpy()) for each in inputs]
    return hashes[0] if len(hashes) == 1 else picture_hash(np.frombuffer(b''.join(hashes), 'u1'))


def fingerprints_of(batches: Iterable[Batch]) -> Fingerprints:
    """Return the record of a set of inputs, example by example."""
    return Fingerprints(
        frozenset(
            _example_hash(example)
            for batch in batches
            for example in zip(*as_inputs(batch), strict=True)
        )
    )


def _counts(name: str, values: Any, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (n,) events and counts; refuse what is neither a bool a frame nor whole numbers."""
    if not isinstance(values, tuple):
        return as_events(name, values, n).astype(np.int64), np.ones(n, np.int64)
    events, counts = (np.asarray(each) for each in values)
    whole = all(each.shape == (n,) and each.dtype.kind in 'iu' for each in (events, counts))
    if not whole or (events < 0).any() or (events > counts).any():
        raise PruningError(f'{name}: must be ({n},) whole events and counts, 0 ≤ events ≤ counts')
    return events.astype(np.int64), counts.astype(np.int64)


def as_events(name: str, values: ArrayLike, n: int | None = None) -> NDArray[np.bool_]:
    """Return (n,) bool, or refuse and say what is wrong with it."""
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 1 and len(array) == 0:
        raise PruningError(f'{name}: no frame; certify on at least one')
    if array.ndim != 1 or array.dtype != bool:
        raise PruningError(
            f'{name}: must be one bool per frame, got {array.dtype} of shape {array.shape}'
        )
    if n is not None and len(array) != n:
        raise PruningError(f'{name}: {len(array)} values for {n} frames; give one for each')
    return array


@contextlib.contextmanager
def _evaluation(*networks: nn.Module) -> Iterator[None]:
    modes = {each: each.training for network in networks for each in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _output(name: str, network: nn.Module, index: int, inputs: tuple[Tensor, ...]) -> Any:
    output = network(*inputs)
    if any(torch.isnan(each).any() for each in tensors(output)):
        raise PruningError(f'the {name} returns NaN on batch {index} of the hold-out set')
    if index == 0:
        again = tensors(network(*inputs))
        if not all(map(torch.equal, tensors(output), again)):
            raise PruningError(
                f'the {name} returns something else when it runs again on the same batch: a '
                'certificate needs a deterministic network (no dropout in evaluation mode, '
                'torch.use_deterministic_algorithms on a GPU)'
            )
    return output


# -- what is certified ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """One kind of events among what was counted, drive by drive, and the bound of its rate."""

    verb: str
    of: str
    unit: str
    """What is counted: objects, detections or frames."""
    terms: str
    """Threshold, overlap and dead-band; in every sentence."""
    side: str
    """'upper': the rate is at most the bound; 'lower': at least."""
    events: tuple[int, ...]
    counts: tuple[int, ...]
    longest: int
    """Most that is counted in a drive, as declared."""
    confidence: float
    """Of this bound alone."""

    @property
    def rate(self) -> float | None:
        """Share of events; None where nothing was counted."""
        return sum(self.events) / sum(self.counts) if sum(self.counts) else None

    @property
    def drives(self) -> int:
        """How many drives show what is counted."""
        return sum(each > 0 for each in self.counts)

    @cached_property
    def bound(self) -> float | None:
        """The bound, see `eprocess.rate_bound`; None with fewer than two drives that show it."""
        if self.drives < 2:
            return None
        return rate_bound(
            self.events,
            self.counts,
            longest=self.longest,
            confidence=self.confidence,
            side='lower' if self.side == 'lower' else 'upper',
        )

    @property
    def bound_text(self) -> str:
        """At most (rounded up) or at least (rounded down) so many percent."""
        if self.bound is None:
            return 'nothing to judge by'
        if self.side == 'lower':
            return f'at least {_down(self.bound)}'
        return f'at most {_up(self.bound)}'

    def to_text(self) -> str:
        """Return a sentence with bound, terms, and what was seen."""
        if self.bound is None:
            few = 'no drive shows' if not self.drives else 'a single drive shows'
            return f'{self._words("?")}: nothing is proven, {few} any ({self.terms}).'
        seen = f'seen: {sum(self.events):,} of {sum(self.counts):,}, {self.rate:.1%}'
        return f'{self._words(self.bound_text)} ({_joined(self.terms, seen)}).'

    def _words(self, bound: str) -> str:
        return f'It {self.verb} {bound} {self.of}'

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; the drives' numbers in two lines of text."""
        data = {name: ' '.join(map(str, getattr(self, name))) for name in ('events', 'counts')}
        return {**asdict(self), **data, 'rate': self.rate, 'bound': self.bound}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statement:
        """Read what `to_dict` wrote; the bound must be that of the numbers."""
        numbers = {
            name: tuple(int(each) for each in data[name].split()) for name in ('events', 'counts')
        }
        plain = {each.name: data[each.name] for each in fields(cls)}
        found = cls(**{**plain, **numbers})
        if found.bound is not data['bound'] and not (
            found.bound is not None and math.isclose(found.bound, data['bound'], abs_tol=1e-9)
        ):
            raise PruningError(
                f'the bound {data["bound"]} is not that of its drives, {found.bound}: edited, or '
                'damaged'
            )
        return found


@dataclass(frozen=True)
class Certificate:
    """What a pruned network may do worse than its parent on new drives, with confidence.

    The first statement has the confidence to itself; the others hold together at it, and so do the
    slices, which are of the first statement's kind.
    """

    unit: str
    """What a cluster is called: drive, layout, venue."""
    drives: tuple[str, ...]
    confidence: float
    statements: dict[str, Statement]
    slices: dict[str, Statement]
    frames: int
    holdout: Fingerprints
    holdout_sha256: str | None
    unseen: tuple[str, ...]
    """Sets of which the hold-out was found to have no frame and no drive."""
    unchecked: tuple[str, ...]
    """Sets of which nothing is recorded that could be compared."""
    record: dict[str, Any]
    versions: dict[str, str]

    @property
    def headline(self) -> Statement:
        """The statement that counts."""
        return next(iter(self.statements.values()))

    @property
    def worst_slice(self) -> str | None:
        """Return the slice with the highest bound; None where none was declared, or none shows."""
        bounds = {name: each.bound for name, each in self.slices.items() if each.bound is not None}
        return max(bounds, key=lambda name: bounds[name], default=None)

    def extended(self, more: Certificate) -> Certificate:
        """Return the certificate with the drives of another one of the same pair added.

        No correction is needed, as often as one likes: each bound holds after every drive. But no
        drive may be left out because of what happened in it.

        Raises:
            PruningError: another pair, other terms or declarations, or frames or drives that both
                have.
        """
        for what, mine, other in (
            ('pair of networks', _pair(self), _pair(more)),
            ('unit', self.unit, more.unit),
            ('statements', _terms_of(self.statements), _terms_of(more.statements)),
            ('slices', _terms_of(self.slices), _terms_of(more.slices)),
        ):
            if mine != other:
                raise PruningError(
                    f'the certificates are of other {what}: {mine} and {other}; certify all drives '
                    'on the same terms'
                )
        check_unseen(
            more.holdout, more.drives, {'the drives that it is certified on': self.holdout}
        )

        def both(a: Mapping[str, Statement], b: Mapping[str, Statement]) -> dict[str, Statement]:
            return {
                name: replace(
                    each, events=each.events + b[name].events, counts=each.counts + b[name].counts
                )
                for name, each in a.items()
            }

        return replace(
            self,
            drives=self.drives + more.drives,
            statements=both(self.statements, more.statements),
            slices=both(self.slices, more.slices),
            frames=self.frames + more.frames,
            holdout=self.holdout | more.holdout,
            holdout_sha256=None,
            unseen=tuple(each for each in self.unseen if each in more.unseen),
            unchecked=tuple(dict.fromkeys((*self.unchecked, *more.unchecked))),
            versions=more.versions,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for files and manifests."""
        return {
            'version': VERSION,
            **{each.name: getattr(self, each.name) for each in fields(self)},
            **{
                group: {name: each.to_dict() for name, each in getattr(self, group).items()}
                for group in ('statements', 'slices')
            },
            'drives': list(self.drives),
            'unseen': list(self.unseen),
            'unchecked': list(self.unchecked),
            'holdout': self.holdout.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Read what `to_dict` wrote; raise PruningError where it is something else, or edited."""
        try:
            if data['version'] != VERSION:
                raise PruningError(f'a certificate of version {data["version"]}, not {VERSION}')
            plain = {each.name: data[each.name] for each in fields(cls)}
            for group in ('statements', 'slices'):
                plain[group] = {
                    name: Statement.from_dict(each) for name, each in data[group].items()
                }
            for group in ('drives', 'unseen', 'unchecked'):
                plain[group] = tuple(data[group])
            plain['holdout'] = Fingerprints.from_dict(data['holdout'])
            certificate = cls(**plain)
            certificate.headline  # noqa: B018  a certificate has one
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            raise PruningError(f'not a certificate: {error}') from error
        return certificate

    def to_text(self) -> str:
        """Return what is certified, in words, and a table of the slices."""
        return '\n'.join(
            [
                *self.paragraphs(),
                *self._by_drive(),
                *self._table(),
                *(f'{name}: {_brief(value)}' for name, value in self.record.items()),
                ', '.join(f'{name} {value}' for name, value in self.versions.items()),
            ]
        )

    def paragraphs(self) -> list[str]:
        """Return the sentences: the headline first, with its assumption, the band's last.

        Where so few drives can prove next to nothing of a new one, that goes before.
        """
        first, level = self.headline, _level(self.confidence)
        others = list(self.statements.values())[1:]
        lines = [f'{self._proven()}{self._outlook()}', self._assumption()]
        for title, of_frames in (('Objects', False), ('Frames', True)):
            same = [each.to_text() for each in others if (each.unit == 'frames') is of_frames]
            if same:
                lines.append(f'{title}, all such lines together at {level}: {" ".join(same)}')
        seen = f'{sum(first.events):,} of {sum(first.counts):,} ({first.rate:.1%})'
        lines.insert(1, f'Seen: {seen}, in {self.frames:,} frames{self._apart()}.')
        return [*self._too_few(), *lines, self._novelty()]

    def reach(self) -> list[str]:
        """Return how far it reaches: that so few drives say next to nothing of others, or of whom.

        One sentence, the same for all networks of a family, but for what was seen.
        """
        return self._too_few() or [self._assumption()]

    def _too_few(self) -> list[str]:
        """Return what has to be said first of drives that are too few to say anything of others."""
        first, count = self.headline, len(self.drives)
        assert first.bound is not None
        assert first.rate is not None
        best = least_bound(count, first.confidence)
        high = first.bound >= NEXT_TO_NOTHING and first.rate < NEXT_TO_NOTHING / 2
        if best < NEXT_TO_NOTHING and not high:
            return []
        enough = count
        while least_bound(enough, first.confidence) > ENOUGH:
            enough += 1
        return [
            f'Of a new {self.unit} this says next to nothing: {count} {_plural(self.unit, count)} '
            'of the declared length, without a single event, would prove no less than '
            f'{_up(best)}, and {_up(ENOUGH)} takes {enough}. What was seen is of these '
            f'{_plural(self.unit, count)} alone.'
        ]

    def _apart(self) -> str:
        """Return how far the drives are apart, and that the bound is of none of them by itself."""
        first = self.headline
        rates = {
            name: events / counts
            for name, events, counts in zip(self.drives, first.events, first.counts, strict=True)
            if counts
        }
        if len(rates) < 2 or len(self.drives) > FEW_DRIVES:
            return ''
        least, most = min(rates, key=lambda x: rates[x]), max(rates, key=lambda x: rates[x])
        return (
            f'; from {rates[least]:.1%} ({self.unit} {least}) to {rates[most]:.1%} ({self.unit} '
            f'{most}): the bound is of all {first.unit} together, and a single {self.unit} may '
            'well be above it'
        )

    def _proven(self) -> str:
        first = self.headline
        text = f'{first.verb} {first.bound_text} {first.of}'
        count = len(self.drives)
        return (
            f'{text[0].upper()}{text[1:]}{f" ({first.terms})" if first.terms else ""}, proven at '
            f'{_level(self.confidence)}; certified on {count:,} {_plural(self.unit, count)}'
        )

    def _outlook(self) -> str:
        first = self.headline
        assert first.bound is not None
        assert first.rate is not None
        target = math.ceil((first.rate + first.bound) / 2 * 1000 - 1e-9) / 1000
        if not first.rate < target < first.bound:
            return '.'
        more = drives_needed(
            first.events, first.counts, target,
            longest=first.longest, confidence=first.confidence,
        )  # fmt: skip
        return f'; {more:,} more like these would give {_up(target)}.'

    def _assumption(self) -> str:
        first, units = self.headline, _plural(self.unit)
        limits = dict.fromkeys(
            f'{each.longest:,} {each.unit if each.longest != 1 else each.unit[:-1]}'
            for each in self.statements.values()
        )
        return (
            f'Holds after every {self.unit} at once, for all {first.unit} of new {units} taken '
            f'together, if {units} are drawn independently, like those to come, and none has more '
            f'than {" or ".join(limits)}, as declared.'
        )

    def _novelty(self) -> str:
        text = f'hold-out: SHA-256 {self.holdout_sha256 or "of several sets"}'
        if self.unseen:
            text += f'; shares no frame and no named {self.unit} with: {", ".join(self.unseen)}'
        if self.unchecked:
            text += f'; not checked, nothing is recorded of: {", ".join(self.unchecked)}'
        if not self.unseen and not self.unchecked:
            text += '; not checked that nothing was fitted, chosen or stopped on it'
        return text

    def _by_drive(self) -> list[str]:
        """Return what was seen in each drive, where they are few."""
        if len(self.drives) > FEW_DRIVES:
            return []
        rows = []
        for place, name in enumerate(self.drives):
            cells = []
            for each in self.statements.values():
                events, counts = each.events[place], each.counts[place]
                share = f' ({events / counts:.1%})' if counts else ''
                cells.append(f'{events:,} of {counts:,}{share}')
            rows.append((name, *cells))
        columns = [(self.unit, ''), *((name, '') for name in self.statements)]
        return [
            f'Seen in each {self.unit}, without bounds: a single one is no sample of them.',
            Table(columns, rows).to_text(),
        ]

    def _table(self) -> list[str]:
        if not self.slices:
            return []
        first = self.headline
        rows = [
            (name, sum(each.counts), each.drives, each.rate, each.bound_text)
            for name, each in self.slices.items()
        ]
        columns = [('slice', ''), (first.unit, ','), (_plural(self.unit), 'd')]
        lines = [
            f'Slices: it {first.verb} … {first.of} ({first.terms}); all together at '
            f'{_level(self.confidence)}.',
            Table([*columns, ('seen', '5.1%'), ('bound', '')], rows).to_text(),
        ]
        return [*lines, f'Worst slice: {self.worst_slice or "none shows anything"}.']


@dataclass(frozen=True)
class FormerCertificate:
    """A certificate of the first format: frames, with a dead-band, by resampling drives.

    Kept as it is: shipped manifests hold such.
    """

    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as it was read."""
        return dict(self.data)

    def paragraphs(self) -> list[str]:
        """Return what it says, and what it does not."""
        data, unit = self.data, self.data['unit']
        record = data['record']
        level = _level(data['confidence'])
        band = ''
        if 'dead_band' in record:
            threshold, width = record['score_threshold'], record['dead_band']
            band = (
                f' (score threshold {threshold:g} with a dead-band of ±{width:g}: a network counts '
                f'as seeing from {threshold + width:g} on, and as not seeing only below '
                f'{threshold - width:g}; IoU ≥ {record["iou_threshold"]:g})'
            )
        lines = [
            'An earlier kind of certificate: of frames with a dead-band, not of objects at the '
            'threshold. Its bounds come from resampling drives: they rest on a conjecture, and '
            f'hold for {_plural(unit)} of equal length only. Certify again for more.'
        ]
        for name in ('changed', 'negative_flips'):
            if (each := data[name]) is not None:
                kind = KINDS[name]
                lines.append(
                    f'It {kind.verb} at most {_up(each["bound"])} {kind.of}{band}, at {level}; '
                    f'seen: {each["rate"]:.1%} of {each["frames"]:,} frames, '
                    f'{each["clusters"] or "unknown"} {_plural(unit)}.'
                )
        return lines

    def to_text(self) -> str:
        """Return the paragraphs, and its slices."""
        rows = [
            f'{name}: {each["rate"]:.1%} of {each["frames"]:,} frames, at most {_up(each["bound"])}'
            for name, each in self.data['slices'].items()
        ]
        return '\n'.join([*self.paragraphs(), *rows])


def read_certificate(data: Any) -> Certificate | FormerCertificate:
    """Return the certificate in plain data, of this format or the former one.

    Raises PruningError where it is neither.
    """
    if not isinstance(data, Mapping):
        raise PruningError(f'not a certificate: {type(data).__name__}')
    if 'version' in data:
        return Certificate.from_dict(data)
    former = FormerCertificate(data)
    try:
        former.to_text()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise PruningError(f'not a certificate: {error}') from error
    return former


def check_unseen(
    holdout: Fingerprints, drives: Iterable[str], used: Mapping[str, Fingerprints | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the sets that the hold-out is disjoint from, and of those not known.

    Args:
        holdout: its pictures and drives.
        drives: their names, for messages.
        used: by name, the sets that anything was fitted, chosen or stopped on; None where nothing
            is recorded of one.

    Raises:
        PruningError: a picture or a drive of the hold-out is in one of them.
    """
    for name, other in used.items():
        pictures, common = (0, 0) if other is None else holdout.shared(other)
        if pictures:
            raise PruningError(
                f'{pictures:,} of the {len(holdout.pictures):,} frames of the hold-out are in '
                f'{name}: calibration, training, choice and certification never share frames; '
                'certify on drives of their own'
            )
        if common:
            assert other is not None
            theirs = sorted(
                each for each in set(drives) if Fingerprints.of((), [each]).drives & other.drives
            )
            raise PruningError(
                f'{_some(theirs)} of the hold-out: there are frames of it in {name}; certify on '
                'other drives, or, where these are others, give them names of their own'
            )
    known = tuple(name for name, each in used.items() if each is not None)
    return known, tuple(name for name, each in used.items() if each is None)


def certify_counts(
    counts: Mapping[str, Counts],
    *,
    clusters: Clusters | None,
    longest: int | Mapping[str, int] | None,
    terms: Mapping[str, str] | None = None,
    slices: Mapping[str, Counts] | None = None,
    unit: str = 'drive',
    confidence: float = 0.95,
    holdout: Fingerprints,
    used: Mapping[str, Fingerprints | None],
    holdout_sha256: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Certificate:
    """Certify from what was counted already, frame by frame.

    What is stated, the slices too, must be fixed before the drives are seen: none is left out
    because nothing, or too much, was counted.

    Args:
        counts: for each kind, see `KINDS`, (n,) events and counts; the first one is the headline.
        clusters: (n,) the drive of each frame, the venue where the claim is about venues; None only
            where each frame was drawn independently of the others.
        longest: the longest drive that shall be spoken of, declared beforehand: its 'frames', its
            'objects', its 'detections' and those objects of a slice by its name (by default as
            'objects'); a number is of frames.
        terms: for 'objects' and 'frames', the threshold, overlap and band.
        slices: of the headline's kind, by name, (n,) events and counts.
        unit: what a cluster is called.
        confidence: of the headline; of the others together; of the slices together.
        holdout: which frames and drives these are.
        used: the sets that anything was fitted, chosen or stopped on, see `check_unseen`; give an
            empty one only where there is none.
        holdout_sha256: names the hold-out.
        record: plain data to keep with the certificate.

    Raises:
        PruningError: nothing counted, lengths that differ, a drive longer than declared, fewer
            than two drives, a hold-out that was used, a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise PruningError(f'the confidence must be in (0, 1), for example 0.95; got {confidence}')
    if not counts:
        raise PruningError('nothing was counted: give at least one kind of events')
    n = len(np.asarray(next(iter(counts.values()))[0]))
    names = np.arange(n) if clusters is None else np.asarray(clusters)
    if names.shape != (n,):
        raise PruningError(f'clusters: {names.shape} names for {n} frames; give one for each')
    if n == 0:
        raise PruningError('no frame; certify on at least two drives')
    drives, members = np.unique(names, return_inverse=True)
    unseen, unchecked = check_unseen(holdout, map(str, drives), used)
    if not isinstance(longest, Mapping):
        longest = {} if longest is None else {'frames': longest}
    if clusters is None:
        longest = {'frames': 1, **longest}
    limits, terms = dict(longest), terms or {}
    known = {'objects', 'detections', 'frames', *(slices or {})}
    if foreign := set(limits) - known:
        raise PruningError(
            f'longest drive: {_some(sorted(foreign))} is not counted; there are '
            f'{", ".join(sorted(known))}'
        )

    def stated(name: str, kind: Kind, values: Counts, level: float, *keys: str) -> Statement:
        events, every = _counts(name, (np.asarray(values[0]), np.asarray(values[1])), n)
        if kind.unit == 'detections':
            keys = (*keys, 'objects')
        limit = next((limits[key] for key in keys if key in limits), None)
        if limit is None:
            raise PruningError(
                f'declare the longest {unit} that the certificate shall speak of, in {kind.unit} '
                '(--longest): no number that was seen can stand for it'
            )
        found = Statement(
            verb=kind.verb,
            of=kind.of,
            unit=kind.unit,
            terms=terms.get('frames' if kind.unit == 'frames' else 'objects', ''),
            side=kind.side,
            events=tuple(np.bincount(members, events).astype(int).tolist()),
            counts=tuple(np.bincount(members, every).astype(int).tolist()),
            longest=int(limit),
            confidence=level,
        )
        if max(found.counts) > limit:
            where = str(drives[int(np.argmax(found.counts))])
            raise PruningError(
                f'{name}: {unit} {where} has {max(found.counts):,} {kind.unit}, declared are at '
                f'most {limit:,} (--longest): declare the longest that the certificate shall speak '
                'of, before looking'
            )
        return found

    statements: dict[str, Statement] = {}
    each_level = 1 - (1 - confidence) / max(1, len(counts) - 1)
    for name, values in counts.items():
        kind = KINDS.get(name, Kind('shows', f'of {name}', 'objects'))
        level = each_level if statements else confidence
        statements[name] = stated(name, kind, values, level, kind.unit)
    first = next(iter(statements.values()))
    if first.bound is None:  # says why
        rate_bound(first.events, first.counts, longest=first.longest, confidence=confidence)
    kind = KINDS.get(next(iter(counts)), Kind(first.verb, first.of, 'objects'))
    level = 1 - (1 - confidence) / max(1, len(slices or {}))
    return Certificate(
        unit=unit,
        drives=tuple(map(str, drives)),
        confidence=confidence,
        statements=statements,
        slices={
            name: stated(f'slice {name!r}', kind, values, level, name, kind.unit)
            for name, values in (slices or {}).items()
        },
        frames=n,
        holdout=holdout,
        holdout_sha256=holdout_sha256,
        unseen=unseen,
        unchecked=unchecked,
        record=dict(record or {}),
        versions={
            'pruned_perception': pruned_perception.__version__,
            'torch': str(torch.__version__),
            'numpy': np.__version__,
        },
    )


def certify(
    model: nn.Module,
    small: nn.Module,
    holdout: Iterable[Batch],
    *,
    used: Mapping[str, Iterable[Batch]],
    clusters: Clusters | None,
    longest: int | Mapping[str, int] | None = None,
    decide: Decide = argmax_decisions,
    labels: Sequence[Any] | Tensor | None = None,
    flip: Flip = argmax_negative_flips,
    terms: Mapping[str, str] | None = None,
    unit: str = 'drive',
    slices: Mapping[str, ArrayLike] | None = None,
    confidence: float = 0.95,
    record: Mapping[str, Any] | None = None,
) -> Certificate:
    """Run both networks over the hold-out and certify how often they decide differently.

    `compare` and `certify_counts` in one: see there for arguments and errors. Here `used` gives,
    by name, the inputs themselves that anything was fitted, chosen or stopped on (calibration,
    training, validation); an empty one is printed as not checked. `slices` gives, for each name
    declared beforehand, (n,) bool: the frames that belong to it.
    """
    found = compare(model, small, holdout, decide=decide, labels=labels, flip=flip)
    events, every = (np.asarray(each) for each in next(iter(found.counts.values())))
    for path in _paths_to(found.sha256, record or {}):
        raise PruningError(
            f'the hold-out has the fingerprint that the record gives as {path}: calibration, '
            'threshold choice and certification never share frames; give frames of their own'
        )
    chosen = {
        name: as_events(f'slice {name!r}', each, len(events))
        for name, each in (slices or {}).items()
    }
    names = () if clusters is None else map(str, np.asarray(clusters))
    return certify_counts(
        found.counts,
        clusters=clusters,
        longest=longest,
        terms=terms,
        slices={name: (events * each, every * each) for name, each in chosen.items()},
        unit=unit,
        confidence=confidence,
        holdout=Fingerprints.of(found.pictures, names),
        used={name: fingerprints_of(batches) for name, batches in used.items()},
        holdout_sha256=found.sha256,
        record=record,
    )


def _pair(certificate: Certificate) -> tuple[Any, ...]:
    return tuple((certificate.record.get(name) or {}).get('sha256') for name in ('parent', 'child'))


def _terms_of(statements: Mapping[str, Statement]) -> dict[str, Statement]:
    return {name: replace(each, events=(), counts=()) for name, each in statements.items()}


def _paths_to(wanted: str | None, record: Any, path: str = 'record') -> Iterator[str]:
    """Yield where `wanted` stands in nested plain data."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from _paths_to(wanted, value, f'{path}[{name!r}]')
    elif isinstance(record, list | tuple):
        for index, value in enumerate(record):
            yield from _paths_to(wanted, value, f'{path}[{index}]')
    elif wanted is not None and record == wanted:
        yield path


def _up(bound: float) -> str:
    return f'{math.ceil(bound * 1000 - 1e-9) / 10:.1f}%'  # never rounded below the bound


def _down(bound: float) -> str:
    return f'{math.floor(bound * 1000 + 1e-9) / 10:.1f}%'


def _level(confidence: float) -> str:
    return f'{100 * confidence:.4g}%'


def _plural(unit: str, count: int = 2) -> str:
    return unit if count == 1 else f'{unit}s'


def _joined(*parts: str) -> str:
    return '; '.join(each for each in parts if each)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return f'{", ".join(names[:most])}{more}'


def _brief(value: Any, most: int = 100) -> str:
    text = str(value)
    return text if len(text) <= most else f'{text[:most]} …'
