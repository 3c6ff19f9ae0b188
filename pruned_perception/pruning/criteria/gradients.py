"""Gradient times activation at every consumer's input, shared by `taylor` and `snip`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pruned_perception.pruning.criteria.subject import Subject
from pruned_perception.pruning.graph.observation import evaluating


def channel_terms(subject: Subject, criterion: str) -> Iterator[dict[str, Tensor]]:
    """Yield for each batch, per group, (B, channels): Σ over positions and consumers of g · a.

    By the chain rule it is also Σ w · ∂L/∂w over the weights with which consumers read a channel:
    the derivative of the loss by a gate on the channel.
    """
    model, structure = subject.model, subject.structure
    modules = dict(model.named_modules())
    readers = structure.readers()
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
                    loss = subject.scalar(model(*inputs), index, generator)
                    copies = [own for _, own in readings]
                    # Of the copies alone: gradients that the parameters may have stay as they are.
                    gradients = torch.autograd.grad(loss, copies, allow_unused=True)
                batch = inputs[0].shape[0]
                terms = {
                    name: torch.zeros(batch, count, dtype=torch.float64)
                    for name, count in structure.channels.items()
                }
                for (name, own), gradient in zip(readings, gradients, strict=True):
                    if gradient is None:
                        continue
                    axis = -1 if isinstance(modules[name], nn.Linear) else 1
                    product = (gradient * own.detach()).movedim(axis, -1)
                    product = product.reshape(batch, -1, product.shape[-1]).sum(1).double()
                    for group, part in readers[name]:
                        roots = torch.tensor(part.roots)
                        terms[group.name].index_add_(1, roots, product[:, list(part.indices)])
                yield terms
    finally:
        for handle in handles:
            handle.remove()
