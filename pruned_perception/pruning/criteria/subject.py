"""What a criterion may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruned_perception.pruning.calibration import Batch, CheckedBatches
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.observation import tensors
from pruned_perception.pruning.scores import Scores
from pruned_perception.pruning.sensitivity import Sensitivity, estimate_sensitivity
from pruned_perception.pruning.structure import Structure

# (outputs of the network, index of the batch, generator) → a scalar to differentiate: a sum over
# the batch's examples, since its derivatives are taken apart by example.
Loss = Callable[[Any, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network to be scored, its structure, and what the criterion may use.

    `calibration` can be iterated over more than once. `loss`, for criteria that differentiate:
    by default a random projection of the outputs, so that squared gradients are those of the
    Gauss–Newton approximation of the squared output error; no labels are needed then.
    """

    model: nn.Module
    structure: Structure
    calibration: Iterable[Batch] | None = None
    loss: Loss | None = None
    seed: int = 0

    @property
    def generator(self) -> torch.Generator:
        """A new generator with the subject's seed."""
        return torch.Generator().manual_seed(self.seed)

    def batches(self, criterion: str) -> Iterator[tuple[Tensor, ...]]:
        """Yield the calibration batches, checked; raise PruningError where there are none."""
        if self.calibration is None:
            raise PruningError(
                f'criterion {criterion!r} needs a calibration set: images, no labels'
            )
        example = [each.example() for each in self.structure.inputs]
        yield from CheckedBatches(self.calibration, example)

    def sensitivity(self, definition: str) -> Sensitivity:
        """Return the sensitivities by this definition."""
        return estimate_sensitivity(
            self.model,
            self.batches(definition),
            example_inputs=[each.example() for each in self.structure.inputs],
            definition=definition,
            seed=self.seed,
            structure=self.structure,
        )

    def scores(
        self,
        criterion: str,
        values: Mapping[str, Tensor],
        errors: Mapping[str, Tensor] | None = None,
    ) -> Scores:
        """Return scores (channels,) per group, and errors (channels + 1,) if known, of our own."""
        return Scores(
            criterion,
            self.structure,
            {name: each.detach().double() for name, each in values.items()},
            None if errors is None else {n: each.detach().double() for n, each in errors.items()},
        )

    def scalar(self, outputs: Any, index: int, generator: torch.Generator) -> Tensor:
        """Return what to differentiate for batch `index`: the loss, or a random projection."""
        if self.loss is not None:
            return self.loss(outputs, index, generator)
        total = torch.zeros(())
        for each in tensors(outputs):
            signs = torch.randint(0, 2, each.shape, generator=generator).to(each.dtype) * 2 - 1
            total = total + (each * signs).sum()
        return total
