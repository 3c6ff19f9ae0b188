"""Joint output error of the channels that go, all consumers together.

Pruning the set P of input channels changes a consumer's output by W_P a_P. What a batch norm
measured again (or a bias) cannot undo is its part around the mean, and its mean square is exactly
tr(W_P G_PP W_Pᵀ), G the second moments of the centred receptive fields. With H_jk = Σ of the
entries of W_jᵀ W_k ∘ G_jk, that is the sum of H over P × P: backward elimination removes, one by
one, the channel that makes it grow least. Unlike a sum of sensitivities it knows that what several
channels contribute may cancel.

Each consumer's error is relative to the second moment of its own centred output, so that consumers
and groups have one currency; a group's error is the sum over its consumers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruned_perception.pruning.contributions import fields, kernel, sampled
from pruned_perception.pruning.criteria.elimination import eliminate
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.graph.groups import ChannelGroup, Slice
from pruned_perception.pruning.graph.observation import observed, run
from pruned_perception.pruning.scores import Scores

POSITIONS = 64


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


def score(subject: Subject) -> Scores:
    """Return the order of elimination, and the relative squared errors it leaves."""
    structure = subject.structure
    forms = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in structure.channels.items()
    }
    modules = dict(subject.model.named_modules())
    readers = structure.readers()
    for name, moments in field_moments(subject, POSITIONS).items():
        weight = kernel(modules[name])[0].double()  # (f, c, κ)
        form = quadratic_form(weight, moments.covariance)
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


def field_moments(subject: Subject, positions: int) -> dict[str, Moments]:
    """Return, per consumer, the moments of its receptive fields (c · κ) at sampled positions."""
    readers = subject.structure.readers()
    modules = dict(subject.model.named_modules())
    generator = subject.generator
    moments: dict[str, Moments] = {}

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        layer = modules[name]
        found, weight = fields(layer, x.detach()), kernel(layer)
        if name not in moments:
            moments[name] = Moments(weight.shape[2] * weight.shape[3])
        for field in sampled(found, weight, positions, generator):
            moments[name].add(field.transpose(0, 1).flatten(1))

    with observed(subject.model, readers, observe):
        run(subject.model, subject.batches('joint_error'))
    return moments


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
