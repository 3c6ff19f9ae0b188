"""Certificates: how often a pruned network decides differently, on frames it has never met.

A-priori errors are void after fine-tuning or quantisation; what counts then is measured on a
hold-out that served neither calibration nor the choice of a threshold. The bounds are those of
`statistics.py`: exact for independent frames (Clopper and Pearson 1934), by whole drives or
venues otherwise (Gaffke 2005); over slices, Bonferroni's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

import pruned_perception
from pruned_perception._tables import Table
from pruned_perception.pruning.calibration import Batch, CheckedBatches, as_inputs
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.pruning.statistics import (
    Clusters,
    check_confidence,
    effective_sample_size,
    intraclass_correlation,
    rate_bound,
)

Decide = Callable[[Any, Any], ArrayLike]
"""Parent's output, child's output → (B,) bool, which frames of the batch are decided otherwise."""

Flip = Callable[[Any, Any, Any], ArrayLike]
"""Parent's output, child's output, labels → (B,) bool, where only the parent is right."""


@dataclass(frozen=True)
class Comparison:
    """Decisions of two networks on the same frames, and the fingerprint of the frames."""

    changed: NDArray[np.bool_]
    """(n,) whether the pruned network decided differently."""
    negative_flips: NDArray[np.bool_] | None
    """(n,) whether only the parent was right; None without labels."""
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

    Both run in evaluation mode, whatever their mode, and get it back.

    Args:
        model: the parent.
        small: the pruned network, as it will be used: after fine-tuning.
        holdout: batches of inputs; may be a generator, nothing is kept.
        decide: from the two outputs on a batch, which frames are decided differently.
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
    changed: list[NDArray[np.bool_]] = []
    flips: list[NDArray[np.bool_]] = []
    done = 0
    with _evaluation(model, small):
        for index, inputs in enumerate(batches):
            size = len(inputs[0])
            parent = _output('parent', model, index, inputs)
            child = _output('pruned network', small, index, inputs)
            changed.append(as_events(f'batch {index}: decide', decide(parent, child), size))
            if labels is not None and done + size <= len(labels):
                truth = labels[done : done + size]
                flips.append(as_events(f'batch {index}: flip', flip(parent, child, truth), size))
            done += size
    if labels is not None and len(labels) != done:
        raise PruningError(f'labels: {len(labels)} for {done} frames; give one for each')
    return Comparison(
        changed=np.concatenate(changed),
        negative_flips=np.concatenate(flips) if flips else None,
        sha256=batches.record.sha256,
    )


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


FEWEST_CLUSTERS = 10
"""With fewer drives or venues nothing is certified about new ones."""


@dataclass(frozen=True)
class BoundedRate:
    """Share of frames on which something happened, and the upper confidence bound of its rate.

    `clusters` counts the drives or venues of the frames; None where frames are independent.
    """

    frames: int
    clusters: int | None
    rate: float
    bound: float


@dataclass(frozen=True)
class BoundCheck:
    """Other frames held against a certificate's bound."""

    frames: int
    rate: float
    lower_bound: float
    certified_bound: float
    confidence: float

    @property
    def contradicted(self) -> bool:
        """Say whether the new frames' rate is, at this confidence, above the certified bound."""
        return self.lower_bound > self.certified_bound

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the verdict in words."""
        found = (
            f'On {self.frames:,} other frames the pruned network decided differently on '
            f'{self.rate:.1%} (with {_level(self.confidence)} confidence on at least '
            f'{self.lower_bound:.1%}); certified is at most {_at_most(self.certified_bound)}.'
        )
        if self.contradicted:
            return f'{found} The certificate does not hold for frames like these.'
        if self.rate > self.certified_bound:
            return f'{found} That is more than certified, but may be chance: collect more frames.'
        return f'{found} The certificate stands.'


@dataclass(frozen=True)
class Certificate:
    """How often a pruned network decides differently from its parent, with confidence.

    `changed` and `negative_flips` are statements of their own, each at `confidence`; those of all
    `slices` hold at once at `confidence`. `icc` and `effective_frames` describe how alike the
    frames of a cluster are; the bounds do not rest on them.
    """

    unit: str
    icc: float | None
    effective_frames: float
    confidence: float
    changed: BoundedRate
    negative_flips: BoundedRate | None
    slices: dict[str, BoundedRate]
    holdout_sha256: str | None
    seed: int
    record: dict[str, Any]
    versions: dict[str, str]

    @property
    def frames(self) -> int:
        """How many frames the hold-out has."""
        return self.changed.frames

    @property
    def clusters(self) -> int | None:
        """How many drives or venues they are from; None where frames are independent."""
        return self.changed.clusters

    @property
    def for_new_venues(self) -> bool:
        """Say whether the bounds speak of new drives or venues, not only of frames like these."""
        return self.clusters is not None and self.clusters >= FEWEST_CLUSTERS

    @property
    def worst_slice(self) -> str | None:
        """Return the slice with the highest bound; None where none was declared."""
        return max(self.slices, key=lambda name: self.slices[name].bound, default=None)

    def check(
        self, changed: ArrayLike, *, clusters: Clusters | None = None, seed: int = 0
    ) -> BoundCheck:
        """Hold other frames against the bound of `changed`.

        Args:
            changed: (n,) bool, whether the networks decided differently on each of these frames.
            clusters: (n,) the drive or venue of each; None: the frames are independent. The
                bound is of an average over drives, which a single bad one does not contradict.
            seed: of the bootstrap over clusters.

        Raises:
            PruningError: no frame, not one bool per frame, or lengths that differ.
        """
        happened = as_events('changed', changed)
        lower = rate_bound(happened, clusters, confidence=self.confidence, side='lower', seed=seed)
        return BoundCheck(
            frames=len(happened),
            rate=float(happened.mean()),
            lower_bound=lower,
            certified_bound=self.changed.bound,
            confidence=self.confidence,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for checkpoints and manifests."""
        return {**asdict(self), 'for_new_venues': self.for_new_venues}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Read what `to_dict` wrote."""
        fields = {key: value for key, value in data.items() if key != 'for_new_venues'}
        try:
            flips = fields['negative_flips']
            fields['changed'] = BoundedRate(**fields['changed'])
            fields['negative_flips'] = None if flips is None else BoundedRate(**flips)
            fields['slices'] = {
                name: BoundedRate(**each) for name, each in fields['slices'].items()
            }
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise PruningError(f'not a certificate: {error}') from error

    def to_text(self) -> str:
        """Return what is certified, in words, and a table of the slices."""
        lines = [self._scope(), self._sentence('decided differently', self.changed)]
        if self.negative_flips is not None:
            what = 'was wrong where the dense one was right (negative flips)'
            lines.append(self._sentence(what, self.negative_flips))
        if self.slices:
            lines += self._table()
        lines.append(
            f'hold-out: {self.frames:,} frames, SHA-256 {self.holdout_sha256 or "unknown"}'
        )
        lines += [f'{name}: {_brief(value)}' for name, value in self.record.items()]
        lines.append(', '.join(f'{name} {value}' for name, value in self.versions.items()))
        return '\n'.join(lines)

    def _table(self) -> list[str]:
        counted = _plural(self.unit)
        columns = [('slice', ''), ('frames', '6,'), (counted, 'd')]
        columns += [('changed', '7.1%'), ('at most', '>7')]
        rows = [
            (name, each.frames, each.clusters, each.rate, _at_most(each.bound))
            for name, each in self.slices.items()
        ]
        lines = [
            Table(columns, rows).to_text(),
            f'Worst slice: {self.worst_slice}. The column "at most" holds for all slices at once '
            f'with {_level(self.confidence)} confidence.',
        ]
        few = [
            name
            for name, each in self.slices.items()
            if each.clusters is not None and each.clusters < FEWEST_CLUSTERS
        ]
        if few and self.for_new_venues:
            lines.append(
                f'Fewer than {FEWEST_CLUSTERS} {counted}, nothing certified about new ones: '
                f'{", ".join(few)}.'
            )
        return lines

    def _scope(self) -> str:
        if self.clusters is None:
            return (
                f'{self.frames:,} frames, taken as independent of each other. No certificate for '
                'new venues: it is not said which frames belong together.'
            )
        same = (
            f'{self.frames:,} frames from {self.clusters} {_plural(self.unit, self.clusters)}, '
            f'worth {self.effective_frames:,.0f} independent ones (intra-class correlation '
            f'{self.icc:.2f}). The bounds count whole {_plural(self.unit)}: one of a kind not '
            'seen here may differ on all its frames.'
        )
        if self.for_new_venues:
            return same
        return (
            f'{same} No certificate for new venues: it takes at least {FEWEST_CLUSTERS} '
            f'{_plural(self.unit)} to say how they differ.'
        )

    def _sentence(self, what: str, rate: BoundedRate) -> str:
        of = 'frames drawn like these'
        if self.for_new_venues:
            of = f'frames of new {_plural(self.unit)} like these'
        return (
            f'The pruned network {what} on {rate.rate:.1%} of them. With '
            f'{_level(self.confidence)} confidence this is at most {_at_most(rate.bound)} of '
            f'the {of}.'
        )


def certify_decisions(
    changed: ArrayLike,
    *,
    negative_flips: ArrayLike | None = None,
    clusters: Clusters | None = None,
    unit: str = 'drive',
    slices: Mapping[str, ArrayLike] | None = None,
    confidence: float = 0.95,
    holdout_sha256: str | None = None,
    record: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Certificate:
    """Certify from decisions that were compared already, frame by frame.

    Args:
        changed: (n,) bool, whether the pruned network decided differently on each frame.
        negative_flips: (n,) bool, whether it was wrong where its parent was right.
        clusters: (n,) the drive or venue of each frame; None only where each frame was drawn
            independently of the others.
        unit: what a cluster is called.
        slices: for each name declared beforehand, (n,) bool: the frames that belong to it.
        confidence: of each figure; of the slices together.
        holdout_sha256: of the frames' inputs, see `calibration.fingerprint`.
        record: plain data to keep with the certificate: the plan's seed, δ, K, kept indices and
            errors, the fingerprints of the sets used before.
        seed: of the bootstrap over clusters.

    Raises:
        PruningError: no frame, lengths that differ, a slice without a frame, a confidence outside
            (0, 1), or a hold-out whose fingerprint is in `record`.
    """
    check_confidence(confidence)
    happened = as_events('changed', changed)
    names = None if clusters is None else np.asarray(clusters)
    n = len(happened)
    for path in _paths_to(holdout_sha256, record or {}):
        raise PruningError(
            f'the hold-out has the fingerprint that the record gives as {path}: calibration, '
            'threshold choice and certification never share frames; give frames of their own'
        )

    def bounded(events: NDArray[np.bool_], chosen: NDArray[np.bool_], level: float) -> BoundedRate:
        these = None if names is None else names[chosen]
        bound = rate_bound(events[chosen], these, confidence=level, seed=seed)
        return BoundedRate(
            frames=int(chosen.sum()),
            clusters=None if these is None else len(np.unique(these)),
            rate=float(events[chosen].mean()),
            bound=bound,
        )

    icc = None if names is None else intraclass_correlation(happened, names)
    everything = np.ones(n, bool)
    each_slice = {
        name: as_events(f'slice {name!r}', chosen, n) for name, chosen in (slices or {}).items()
    }
    for name, chosen in each_slice.items():
        if not chosen.any():
            raise PruningError(f'slice {name!r} has no frame; collect some or leave it out')
    level = 1 - (1 - confidence) / max(1, len(each_slice))
    return Certificate(
        unit=unit,
        icc=icc,
        effective_frames=n
        if names is None or icc is None
        else effective_sample_size(n, names, icc),
        confidence=confidence,
        changed=bounded(happened, everything, confidence),
        negative_flips=None
        if negative_flips is None
        else bounded(as_events('negative_flips', negative_flips, n), everything, confidence),
        slices={name: bounded(happened, chosen, level) for name, chosen in each_slice.items()},
        holdout_sha256=holdout_sha256,
        seed=seed,
        record=dict(record or {}),
        versions={
            'pruned_perception': pruned_perception.__version__,
            'torch': str(torch.__version__),
            'numpy': np.__version__,
            'scipy': scipy.__version__,
        },
    )


def certify(
    model: nn.Module,
    small: nn.Module,
    holdout: Iterable[Batch],
    *,
    decide: Decide = argmax_decisions,
    labels: Sequence[Any] | Tensor | None = None,
    flip: Flip = argmax_negative_flips,
    clusters: Clusters | None = None,
    unit: str = 'drive',
    slices: Mapping[str, ArrayLike] | None = None,
    confidence: float = 0.95,
    record: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Certificate:
    """Run both networks over the hold-out and certify how often they decide differently.

    `compare` and `certify_decisions` in one: see there for arguments and errors.
    """
    check_confidence(confidence)
    found = compare(model, small, holdout, decide=decide, labels=labels, flip=flip)
    return certify_decisions(
        found.changed,
        negative_flips=found.negative_flips,
        clusters=clusters,
        unit=unit,
        slices=slices,
        confidence=confidence,
        holdout_sha256=found.sha256,
        record=record,
        seed=seed,
    )


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


def _at_most(bound: float) -> str:
    return f'{math.ceil(bound * 1000 - 1e-9) / 10:.1f}%'  # never rounded below the bound


def _level(confidence: float) -> str:
    return f'{100 * confidence:.4g}%'


def _plural(unit: str, count: int = 2) -> str:
    return unit if count == 1 else f'{unit}s'


def _brief(value: Any, most: int = 100) -> str:
    text = str(value)
    return text if len(text) <= most else f'{text[:most]} …'
