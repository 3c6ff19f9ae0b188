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

"""Criteria by the joint error of the channels that go: what several contribute may cancel.

Channels are ranked by backward elimination on a quadratic form; `end_to_end` then measures what
each number of them costs at the network's outputs.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.contributions import (
    Fields,
    contributions,
    fields,
    sampled,
    sampled_fields,
    whole_kernel,
)
from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.graph.channels import ChannelGroup, Slice
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.graph.observation import evaluating, observed, run, tensors
from pruned_perception.pruning.scores import Scores

POSITIONS = 64
LONGEST = 2**13  # receptive field whose moments are kept: a linear layer after a flatten has more


class Moments:
    """First and second moments of vectors, accumulated in double precision."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.first = torch.zeros(size, dtype=torch.float64)
        self.second = torch.zeros(size, size, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take vectors (n, size)."""
        self.count += len(rows)
        self.first += rows.sum(0).double()
        # Single precision within a batch: rounding is far below the sampling error.
        self.second += (rows.T @ rows).double()

    @property
    def covariance(self) -> Tensor:
        """(size, size)."""
        mean = self.first / self.count
        return self.second / self.count - mean[:, None] * mean[None, :]


@criterion
def joint_error(subject: Subject) -> Scores:
    """Return the order of elimination, and the relative squared errors it leaves.

    Joint output error of the channels that go, all consumers together.

    Pruning the set P of input channels changes a consumer's output by W_P a_P. What a batch norm
    measured again (or a bias) cannot undo is its part around the mean, and its mean square is
    exactly tr(W_P G_PP W_Pᵀ), G the second moments of the centred receptive fields. With H_jk = Σ
    of the entries of W_jᵀ W_k ∘ G_jk, that is the sum of H over P × P: backward elimination
    removes, one by one, the channel that makes it grow least. Unlike a sum of sensitivities it
    knows that what several channels contribute may cancel.

    Each consumer's error is relative to the second moment of its own centred output, so that
    consumers and groups have one currency; a group's error is the sum over its consumers.
    """
    structure = subject.structure
    forms = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in structure.channels.items()
    }
    readers = structure.readers()
    for name, form in quadratic_forms(subject, POSITIONS).items():
        scale = float(form.sum())
        for group, part in readers[name]:
            if scale > 0:
                forms[group.name] += _by_channel(form / scale, group, part)
    found = {name: eliminate(f, structure.groups[name].unit) for name, f in forms.items()}
    return subject.scores(
        'joint_error',
        {name: scores for name, (scores, _) in found.items()},
        {name: errors for name, (_, errors) in found.items()},
    )


def quadratic_forms(subject: Subject, positions: int) -> dict[str, Tensor]:
    """Return, per consumer, H (c, c): the sum over P × P is the error of losing the inputs P."""
    modules = dict(subject.model.named_modules())
    kernels = {name: whole_kernel(modules[name]) for name in subject.structure.readers()}
    long = {name for name, each in kernels.items() if _length(each) > LONGEST}
    found = {
        name: quadratic_form(kernels[name][0].double(), moments.covariance)
        for name, moments in field_moments(subject, positions, kernels.keys() - long).items()
    }
    return found | _forms_of_contributions(subject, positions, long)


def field_moments(
    subject: Subject, positions: int, layers: Collection[str] | None = None
) -> dict[str, Moments]:
    """Return, per consumer, the moments of its receptive fields (c · κ) at sampled positions."""
    moments: dict[str, Moments] = {}

    def take(name: str, found: Fields, weight: Tensor, generator: torch.Generator) -> None:
        size = _length(weight)
        if name not in moments:
            moments[name] = Moments(size)
        for field in sampled_fields(found, positions, generator, values=size):
            moments[name].add(field.transpose(0, 1).flatten(1))

    _observe(subject, subject.structure.readers() if layers is None else layers, take)
    return moments


def _forms_of_contributions(
    subject: Subject, positions: int, layers: Collection[str]
) -> dict[str, Tensor]:
    """Return the same form by moments of contributions, which are fewer where fields are long."""
    sums: dict[str, list[Any]] = {name: [0, 0.0, 0.0] for name in layers}

    def take(name: str, found: Fields, weight: Tensor, generator: torch.Generator) -> None:
        for field in sampled(found, weight, positions, generator):
            for values in contributions(field, weight):  # (c, n, f)
                flat = values.flatten(1)
                total = sums[name]
                total[0] += values.shape[1]
                total[1] = total[1] + values.sum(1).double()
                total[2] = total[2] + (flat @ flat.T).double()

    if layers:
        _observe(subject, layers, take)
    return {
        name: second / count - first @ first.T / count**2
        for name, (count, first, second) in sums.items()
        if count
    }


def _observe(
    subject: Subject,
    layers: Collection[str],
    take: Callable[[str, Fields, Tensor, torch.Generator], None],
) -> None:
    """Run the calibration set; pass on what the layers read, their weights, and a generator."""
    modules = dict(subject.model.named_modules())
    generator = subject.generator

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        take(name, fields(modules[name], x.detach()), whole_kernel(modules[name]), generator)

    with observed(subject.model, layers, observe):
        run(subject.model, subject.batches('joint_error'))


def _length(weight: Tensor) -> int:
    return weight.shape[2] * weight.shape[3]


def quadratic_form(weight: Tensor, covariance: Tensor) -> Tensor:
    """Return H (c, c) of a weight (f, c, κ) and the covariance (cκ, cκ) of what it reads."""
    _, channels, taps = weight.shape
    flat = weight.flatten(1)
    entries = (flat.T @ flat) * covariance
    return entries.reshape(channels, taps, channels, taps).sum((1, 3))


def _by_channel(form: Tensor, group: ChannelGroup, part: Slice) -> Tensor:
    """Return (channels, channels) of the group: the inputs of one channel go together."""
    indices, roots = torch.tensor(part.indices), torch.tensor(part.roots)
    rows = torch.zeros(group.channels, form.shape[1], dtype=form.dtype)
    rows.index_add_(0, roots, form[indices])
    both = torch.zeros(group.channels, group.channels, dtype=form.dtype)
    return both.index_add_(1, roots, rows[:, indices])


THINET_POSITIONS = 10
THINET_OUTPUTS = 1  # per sampled position


@criterion
def thinet(subject: Subject) -> Scores:
    """Return the order of elimination, 1 for the channel that goes last.

    Greedy choice of channels by the sum of their contributions to sampled outputs.

    Source: Luo et al., ThiNet (ICCV 2017), section 3.2: at sampled outputs of the next layer, grow
    the set of pruned channels by the channel that keeps (Σ of their contributions)² smallest. That
    is backward elimination on the uncentred second moments of the contributions; the criterion
    `joint_error` works on whole layers, centred, with all outputs.
    """
    readers = subject.structure.readers()
    modules = dict(subject.model.named_modules())
    generator = subject.generator
    moments = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        layer = modules[name]
        found, weight = fields(layer, x.detach()), whole_kernel(layer)
        for field in sampled(found, weight, THINET_POSITIONS, generator):
            for values in contributions(field, weight):  # (c, n, f)
                chosen = torch.randint(
                    values.shape[2], (values.shape[1], THINET_OUTPUTS), generator=generator
                )
                picked = values.gather(2, chosen.expand(len(values), -1, -1)).flatten(1).double()
                for group, part in readers[name]:
                    own = torch.zeros(group.channels, picked.shape[1], dtype=torch.float64)
                    own.index_add_(0, torch.tensor(part.roots), picked[list(part.indices)])
                    moments[group.name] += own @ own.T

    with observed(subject.model, readers, observe):
        run(subject.model, subject.batches('thinet'))
    groups = subject.structure.groups
    return subject.scores(
        'thinet', {name: eliminate(m, groups[name].unit)[0] for name, m in moments.items()}
    )


WIDTHS = (0.0, 0.125, 0.25, 0.5, 0.75)  # of the channels that are kept; all of them: no error
IMAGES = 32


@criterion
def end_to_end(subject: Subject) -> Scores:
    """Return the joint errors' ranking, and the errors measured at the output.

    Errors at the network's output: each group is pruned alone, at a few widths, and measured.

    The channels are ranked by their joint error. What a pruned channel contributes is replaced by
    its mean, as batch norms measured again would do, and the squared error of the network's outputs
    is taken relative to their variance. Local errors over-prune costly inner layers; this
    allocation spares what the output hangs on. About groups × widths forward passes over the
    images.
    """
    with evaluating(subject.model):
        return _end_to_end(subject)


def _end_to_end(subject: Subject) -> Scores:
    batches = _first(subject.batches('end_to_end'), IMAGES)
    ranking = joint_error(subject)
    means = channel_means(subject, batches)
    wanted = [_outputs(subject.model, inputs) for inputs in batches]
    scales = _variances(wanted)
    errors = {}
    for group in subject.structure.groups.prunable:
        order = ranking.values[group.name].argsort()
        points = []
        for share in WIDTHS:
            gone = set(order[: group.channels - round(share * group.channels)].tolist())
            with _replaced(subject.model, group, gone, means):
                found = (_outputs(subject.model, inputs) for inputs in batches)
                points.append(_output_error(wanted, found, scales))
        kept = [round(share * group.channels) for share in WIDTHS] + [group.channels]
        curve = np.interp(np.arange(group.channels + 1), kept, [*points, 0.0])
        errors[group.name] = torch.from_numpy(np.maximum.accumulate(curve[::-1])[::-1].copy())
    return subject.scores('end_to_end', ranking.values, errors)


def _first(batches: Iterator[tuple[Tensor, ...]], images: int) -> list[tuple[Tensor, ...]]:
    """Return the first so many images, in batches as they come."""
    found, count = [], 0
    for inputs in batches:
        found.append(tuple(each[: images - count] for each in inputs))
        count += len(found[-1][0])
        if count >= images:
            break
    return found


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tensors(model(*inputs))


def channel_means(subject: Subject, batches: Iterable[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return the mean (inputs,) of every input channel (feature) of every consumer."""
    totals: dict[str, tuple[Tensor, int]] = {}
    modules = dict(subject.model.named_modules())

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        axis = -1 if isinstance(modules[name], nn.Linear) else 1
        values = x.detach().to(CPU).movedim(axis, 0).flatten(1)
        total, count = totals.get(name, (torch.zeros(len(values), dtype=torch.float64), 0))
        whole = values.sum(1, dtype=torch.float64)
        totals[name] = (total + whole, count + values.shape[1])

    with observed(subject.model, subject.structure.readers(), observe):
        run(subject.model, batches)
    return {name: (total / count).float() for name, (total, count) in totals.items()}


@contextlib.contextmanager
def _replaced(
    model: nn.Module, group: ChannelGroup, gone: set[int], means: Mapping[str, Tensor]
) -> Iterator[None]:
    """Let every consumer of the group read the mean in place of the channels that are gone."""
    modules = dict(model.named_modules())
    handles = []

    def before(name: str, dead: Tensor) -> Callable[..., tuple[Tensor, ...]]:
        axis = -1 if isinstance(modules[name], nn.Linear) else 1
        mean = means[name][dead]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0].clone()
            x.movedim(axis, -1)[..., dead] = mean.to(x)
            return (x, *inputs[1:])

        return hook

    for consumer in group.consumers:
        if consumer.layer in means:
            dead = torch.tensor(consumer.of(gone), dtype=torch.long)
            hook = before(consumer.layer, dead)
            handles.append(modules[consumer.layer].register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _variances(outputs: Sequence[tuple[Tensor, ...]]) -> list[float]:
    """Return, per output tensor, the sum of squares around its mean over the images."""
    scales = []
    for each in zip(*outputs, strict=True):
        values = torch.cat(each)
        scales.append(float((values - values.mean(0)).double().square().sum()))
    return scales


def _output_error(
    wanted: Sequence[tuple[Tensor, ...]],
    found: Iterator[tuple[Tensor, ...]],
    scales: Sequence[float],
) -> float:
    sums = [0.0] * len(scales)
    for right, wrong in itertools.zip_longest(wanted, found):
        for index, (a, b) in enumerate(zip(right, wrong, strict=True)):
            sums[index] += float((a - b).double().square().sum())
    return sum(each / max(scale, 1e-30) for each, scale in zip(sums, scales, strict=True))


def eliminate(form: Tensor, unit: int = 1) -> tuple[Tensor, Tensor]:
    """Remove channels one by one, each time the one that makes 1ᵀ_P form 1_P grow least.

    Args:
        form: (c, c) positive semi-definite; the error of pruning the set P is the sum of its
            entries over P × P.
        unit: channels that are kept or go together, in runs of so many.

    Returns:
        Scores (c,): the order of elimination, from 1/c for the first to 1 for the last; and the
        errors (c + 1,) at k = 0 … c channels kept; for runs, those of the whole runs within k.
    """
    if unit > 1:
        runs = form.unflatten(0, (-1, unit)).sum(1).unflatten(1, (-1, unit)).sum(2)
        scores, errors = eliminate(runs)
        return scores.repeat_interleave(unit), errors.repeat_interleave(unit)[: len(form) + 1]
    channels = len(form)
    scores = torch.zeros(channels, dtype=torch.float64)
    errors = torch.zeros(channels + 1, dtype=torch.float64)
    diagonal = form.diagonal().double()
    beside = torch.zeros(channels, dtype=torch.float64)  # Σ over the pruned of form[j, ·]
    total = torch.zeros((), dtype=torch.float64)
    gone = torch.zeros(channels, dtype=torch.bool)
    for step in range(1, channels + 1):
        growth = (diagonal + 2 * beside).masked_fill(gone, float('inf'))
        least = int(growth.argmin())
        total = (total + growth[least]).clamp(min=0)  # rounding must not make it negative
        gone[least] = True
        scores[least] = step / channels
        errors[channels - step] = total
        beside += form[least].double()
    # Removing more can cancel what was lost before, but nothing relies on such luck.
    return scores, errors.flip(0).cummax(0).values.flip(0)
