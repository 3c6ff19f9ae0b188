"""Errors at the network's output: each group is pruned alone, at a few widths, and measured.

The channels are ranked by their joint error. What a pruned channel contributes is replaced by its
mean, as batch norms measured again would do, and the squared error of the network's outputs is
taken relative to their variance. Local errors over-prune costly inner layers; this allocation
spares what the output hangs on. About groups × widths forward passes over the images.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pruned_perception.pruning.criteria import joint_error
from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.graph.groups import ChannelGroup
from pruned_perception.pruning.graph.observation import evaluating, observed, run, tensors
from pruned_perception.pruning.scores import Scores

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)  # of the channels that are kept; all of them: no error
IMAGES = 32


def score(subject: Subject) -> Scores:
    """Return the joint errors' ranking, and the errors measured at the output."""
    with evaluating(subject.model):
        return _score(subject)


def _score(subject: Subject) -> Scores:
    batches = _first(subject.batches('end_to_end'), IMAGES)
    ranking = joint_error.score(subject)
    means = _means(subject, batches)
    wanted = [_outputs(subject.model, inputs) for inputs in batches]
    scales = _variances(wanted)
    errors = {}
    for group in subject.structure.groups.prunable:
        order = ranking.values[group.name].argsort()
        points = []
        for share in SHARES:
            gone = set(order[: group.channels - round(share * group.channels)].tolist())
            with _replaced(subject.model, group, gone, means):
                found = (_outputs(subject.model, inputs) for inputs in batches)
                points.append(_error(wanted, found, scales))
        kept = [round(share * group.channels) for share in SHARES] + [group.channels]
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


def _means(subject: Subject, batches: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return the mean of every input channel (feature) of every consumer."""
    totals: dict[str, tuple[Tensor, int]] = {}
    modules = dict(subject.model.named_modules())

    def observe(name: str, x: Tensor, output: Tensor) -> None:
        axis = -1 if isinstance(modules[name], nn.Linear) else 1
        values = x.detach().movedim(axis, 0).flatten(1).double()
        total, count = totals.get(name, (torch.zeros(len(values), dtype=torch.float64), 0))
        totals[name] = (total + values.sum(1), count + values.shape[1])

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
            x.movedim(axis, -1)[..., dead] = mean.to(x.dtype)
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


def _error(
    wanted: Sequence[tuple[Tensor, ...]],
    found: Iterator[tuple[Tensor, ...]],
    scales: Sequence[float],
) -> float:
    sums = [0.0] * len(scales)
    for right, wrong in itertools.zip_longest(wanted, found):
        for index, (a, b) in enumerate(zip(right, wrong, strict=True)):
            sums[index] += float((a - b).double().square().sum())
    return sum(each / max(scale, 1e-30) for each, scale in zip(sums, scales, strict=True))
