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

"""Criteria that differentiate: gradient times activation at every consumer's input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pruned_perception.pruning.criteria import Subject, criterion
from pruned_perception.pruning.criteria.joint_error import channel_means, eliminate
from pruned_perception.pruning.errors import CannotDifferentiateError
from pruned_perception.pruning.graph.device import CPU
from pruned_perception.pruning.graph.observation import evaluating
from pruned_perception.pruning.scores import Scores


@criterion
def taylor(subject: Subject) -> Scores:
    """Return, per group, the mean over examples of (Σ_p g · a)², consumers added before squaring.

    First-order Taylor expansion of the loss in each channel, squared.

    Source: Molchanov et al., Importance estimation for neural network pruning (CVPR 2019): the loss
    changes by about g · a if a channel's activation a is set to zero, g its gradient; per example,
    summed over positions, squared, averaged over examples. With the default loss (a random
    projection of the outputs) it is the Gauss–Newton estimate of the squared output error, without
    labels.

    A channel that several consumers read is lost to all of them at once, hence their terms add.
    """
    totals = {
        name: torch.zeros(channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    examples = 0
    for terms in channel_terms(subject, 'taylor'):
        batch = 0
        for name, values in terms.items():
            totals[name] += values.square().sum(0)
            batch = len(values)
        examples += batch
    return subject.scores('taylor', {name: each / examples for name, each in totals.items()})


@criterion
def snip(subject: Subject) -> Scores:
    """Return, per group, the mean over batches of |mean over examples of Σ g · a|.

    Connection sensitivity of channels: |∂L/∂gate| of a gate on each of them.

    Source: Lee et al., SNIP: single-shot network pruning based on connection sensitivity (ICLR
    2019), for channels instead of weights: the gradients of a batch are averaged before the
    absolute value is taken, where Taylor squares them example by example. Over several batches, the
    absolute values are averaged. It wants a loss with labels; with the random projection it
    measures little.
    """
    totals = {
        name: torch.zeros(channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    batches = 0
    for terms in channel_terms(subject, 'snip'):
        batches += 1
        for name, values in terms.items():
            totals[name] += values.mean(0).abs()
    return subject.scores('snip', {name: each / batches for name, each in totals.items()})


@criterion
def fisher(subject: Subject) -> Scores:
    """Return the order of elimination, and the squared errors that it leaves.

    Joint Gauss–Newton error of the channels that go: second moments of their Taylor terms.

    With t_j = Σ_p g · a, the derivative of the loss by a gate on channel j for one example, closing
    the gates of a set P changes the loss by about −Σ_P t_j. The mean square over examples is the
    sum of F = E[t tᵀ] over P × P: Taylor's criterion is its diagonal, and the rest knows what
    cancels. With the default loss (a random projection of the outputs) it is the squared error of
    the outputs themselves, in one currency for all groups: a knapsack over them needs no other
    weights.

    Sources: Theis et al., Faster gaze prediction with dense networks and Fisher pruning (2018); Liu
    et al., Group Fisher pruning (ICML 2021).
    """
    return _joint(subject, 'fisher', channel_terms(subject, 'fisher'))


SAMPLES = 1024  # of images and projections together, as far as so few projections go
PROJECTIONS = 4


@criterion
def centred_fisher(subject: Subject) -> Scores:
    """Return the order of elimination, and the squared errors that it leaves, as `fisher`.

    But a channel that goes is replaced by its mean over images and positions, not by zero, as batch
    norms that are measured again (or a refit) do: t_j = Σ_p g · (a − mean a). And with the default
    loss, several random projections of each image's outputs are taken where images are few: with
    one, the squared error that E[t tᵀ] estimates is a matter of luck.
    """
    images = 0

    def counted() -> Iterator[tuple[Tensor, ...]]:
        nonlocal images
        for inputs in subject.batches('centred_fisher'):
            images += len(inputs[0])
            yield inputs

    means = channel_means(subject, counted())
    enough = 1 if subject.loss else min(PROJECTIONS, -(-SAMPLES // images))
    terms = channel_terms(subject, 'centred_fisher', means=means, projections=enough)
    return _joint(subject, 'centred_fisher', terms)


def _joint(subject: Subject, criterion: str, terms: Iterable[Mapping[str, Tensor]]) -> Scores:
    """Return elimination by the second moments of the terms (B, channels) of each group."""
    forms = {
        name: torch.zeros(channels, channels, dtype=torch.float64)
        for name, channels in subject.structure.channels.items()
    }
    examples = 0
    for each in terms:
        for name, values in each.items():
            forms[name] += values.T @ values
        examples += len(next(iter(each.values()), ()))
    groups = subject.structure.groups
    found = {name: eliminate(f / examples, groups[name].unit) for name, f in forms.items()}
    return subject.scores(
        criterion,
        {name: scores for name, (scores, _) in found.items()},
        {name: errors for name, (_, errors) in found.items()},
    )


def channel_terms(
    subject: Subject,
    criterion: str,
    *,
    means: Mapping[str, Tensor] | None = None,
    projections: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Yield for each batch, per group, (B, channels): Σ over positions and consumers of g · a.

    By the chain rule it is also Σ w · ∂L/∂w over the weights with which consumers read a channel:
    the derivative of the loss by a gate on the channel.

    Args:
        subject: what is looked at.
        criterion: whose name errors have.
        means: per consumer, (inputs,): what a closed gate lets through in place of zero.
        projections: of the default loss, so many for each batch, one after another.
    """
    model, structure = subject.model, subject.structure
    modules = dict(model.named_modules())
    readers = structure.readers()
    if not readers:  # nothing can be cut, as the budget will find
        return
    generator = subject.generator
    readings: list[tuple[str, Tensor]] = []

    def reader(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            # A copy: its gradient is of this reading alone, and no operation in place changes it.
            own = x.clone()
            if own.requires_grad:
                readings.append((name, own))
            return (own, *inputs[1:])

        return before

    handles = [modules[name].register_forward_pre_hook(reader(name)) for name in readers]
    try:
        with evaluating(model):
            for index, inputs in enumerate(subject.batches(criterion)):
                readings.clear()
                with torch.enable_grad():
                    outputs = model(*inputs)
                    copies = [own for _, own in readings]
                for nth in range(projections):
                    with torch.enable_grad():
                        loss = subject.scalar(outputs, index, generator)
                    if not loss.requires_grad:
                        raise CannotDifferentiateError(
                            f'criterion {criterion!r}: the outputs of {type(model).__name__} '
                            'cannot be differentiated: are they integers, or is its forward under '
                            'no_grad? Use a criterion without gradients, such as joint_error'
                        )
                    # Of the copies alone: gradients that the parameters may have stay as they are.
                    gradients = torch.autograd.grad(
                        loss, copies, allow_unused=True, retain_graph=nth + 1 < projections
                    )
                    yield _terms(subject, readings, gradients, inputs[0].shape[0], means)
    finally:
        for handle in handles:
            handle.remove()


def _terms(
    subject: Subject,
    readings: Sequence[tuple[str, Tensor]],
    gradients: Sequence[Tensor | None],
    batch: int,
    means: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    structure = subject.structure
    modules, readers = dict(subject.model.named_modules()), structure.readers()
    terms = {
        name: torch.zeros(batch, count, dtype=torch.float64)
        for name, count in structure.channels.items()
    }
    for (name, own), gradient in zip(readings, gradients, strict=True):
        if gradient is None:
            continue
        axis = -1 if isinstance(modules[name], nn.Linear) else 1
        values = own.detach().movedim(axis, -1)
        if means is not None:
            values = values - means[name].to(values)
        product = gradient.movedim(axis, -1) * values
        product = product.reshape(batch, -1, product.shape[-1]).sum(1).to(CPU).double()
        for group, part in readers[name]:
            roots = torch.tensor(part.roots)
            terms[group.name].index_add_(1, roots, product[:, list(part.indices)])
    return terms
