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

"""How a network is trained, as plain data: optimiser, rates, averaging, clipping, batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from pruned_perception.datasets.corruptions import CORRUPTIONS
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Written, from_dict

MOMENTUM = 0.9


@dataclass(frozen=True)
class Phase(Written):
    """What views of the examples are like until a fraction of the budget."""

    until: float
    size: tuple[int, int]
    """Height and width, pixels."""
    scale: tuple[float, float]
    """Magnification, lowest and highest."""
    mosaic: float = 0.0
    """Share of the views that are composed of four, of as many examples."""
    colours: float = 1.0
    """How far light and colours are moved, relative to the usual."""
    corrupted: Mapping[str, float] = field(default_factory=dict)
    """Shares of the views that have a corruption of some severity, by its name."""

    def __post_init__(self) -> None:
        for name, share in self.corrupted.items():
            if name not in CORRUPTIONS:
                raise PruningError(
                    f'corrupted: {name!r} is unknown; there are {", ".join(CORRUPTIONS)}'
                )
            if not 0 <= share <= 1:
                raise PruningError(f'corrupted: {name}: must be in [0, 1], got {share!r}')
        if not sum(self.corrupted.values()) <= 1:
            raise PruningError('corrupted: the shares must sum to at most 1')
        if not 0 <= self.colours <= 4:
            raise PruningError(f'colours: must be in [0, 4], got {self.colours!r}')
        if not 0 <= self.mosaic <= 1:
            raise PruningError(f'mosaic: must be in [0, 1], got {self.mosaic!r}')
        if not 0 < self.scale[0] <= self.scale[1]:
            raise PruningError(f'scale: must be [low, high], 0 < low ≤ high, got {self.scale}')

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        usual = {'mosaic': 0.0, 'colours': 1.0, 'corrupted': {}}
        return {name: value for name, value in data.items() if usual.get(name) != value}


@dataclass(frozen=True)
class Recipe(Written):
    """How a network is trained, whatever the network and however long it takes.

    The learning rate rises over the fraction `warm_up` of the budget, then falls as a cosine to
    `final` of itself.
    """

    optimiser: str = 'sgd'
    """Of `OPTIMISERS`."""
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    warm_up: float = 0.03
    final: float = 0.01
    ema: float | None = None
    """Decay per step of an average of the weights, which is then the result."""
    clip: float | None = None
    """Norm that the gradient is shortened to; steps whose gradient is not finite are left out."""
    batch: int | None = None
    """Examples per step; None where the task's batches have a size of their own."""
    phases: tuple[Phase, ...] = ()
    """What the views of the examples are like, over the budget."""
    channels_last: bool = False
    """The memory format of weights that is faster for most convolutions."""

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise PruningError(
                f'unknown optimiser {self.optimiser!r}; there are {", ".join(OPTIMISERS)}'
            )
        for name, good, wanted in (
            ('learning_rate', _within(self.learning_rate, above=0), 'a number > 0'),
            ('weight_decay', _within(self.weight_decay, least=0), 'a number ≥ 0'),
            ('warm_up', _within(self.warm_up, least=0, below=1), 'in [0, 1)'),
            ('final', _within(self.final, least=0, below=1), 'in [0, 1)'),
            ('ema', self.ema is None or _within(self.ema, above=0, below=1), 'in (0, 1)'),
            ('clip', self.clip is None or _within(self.clip, above=0), 'a number > 0'),
            ('batch', self.batch is None or _count(self.batch), 'an integer ≥ 1'),
            ('channels_last', isinstance(self.channels_last, bool), 'true or false'),
        ):
            if not good:
                raise PruningError(f'field {name}: must be {wanted}, got {getattr(self, name)!r}')
        ends = [phase.until for phase in self.phases]
        if ends and (ends != sorted(ends) or ends[-1] != 1):
            raise PruningError(f'field phases: until must rise to 1, got {ends}')

    def rate(self, fraction: float) -> float:
        """Return the learning rate at a fraction of the budget."""
        if fraction < self.warm_up:
            return self.learning_rate * max(fraction / self.warm_up, 0.01)
        past = (fraction - self.warm_up) / (1 - self.warm_up)
        cosine = (1 + math.cos(math.pi * past)) / 2
        return self.learning_rate * (self.final + (1 - self.final) * cosine)

    def phase(self, fraction: float) -> Phase:
        """Return the phase at a fraction of the budget; there must be some."""
        return next(each for each in self.phases if fraction < each.until or each.until == 1)

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        own = {key: data.pop(name) for key, name in GROUPED.items()}
        return {**data, 'optimiser': own}

    def changed(self, data: Mapping[str, Any]) -> Recipe:
        """Return this recipe with what a file says instead.

        `optimiser` is a name, or groups it with its numbers: {name, learning_rate, weight_decay,
        warm_up, final}. Raises PruningError naming the field.
        """
        values = dict(data)
        own = values.get('optimiser')
        if isinstance(own, Mapping):
            del values['optimiser']
            if unknown := [key for key in own if key not in GROUPED]:
                raise PruningError(
                    f'unknown field optimiser.{unknown[0]}; known: {", ".join(GROUPED)}'
                )
            values |= {GROUPED[key]: value for key, value in own.items()}
        if unknown := [key for key in values if key not in FIELDS]:
            raise PruningError(f'unknown field {unknown[0]}; known: {", ".join(FIELDS)}')
        if 'phases' in values:
            values['phases'] = _phases(values['phases'])
        return replace(self, **values)


def make_optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of everything that is not frozen."""
    return OPTIMISERS[recipe.optimiser](network, recipe)


def _sgd(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with momentum."""
    return torch.optim.SGD(
        _trainable(network),
        lr=recipe.learning_rate,
        momentum=MOMENTUM,
        weight_decay=recipe.weight_decay,
    )


def _adamw(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW that spares norms and biases from weight decay."""
    parameters = _trainable(network)
    groups = [
        {
            'params': [each for each in parameters if each.ndim > 1],
            'weight_decay': recipe.weight_decay,
        },
        {'params': [each for each in parameters if each.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [each for each in network.parameters() if each.requires_grad]


OPTIMISERS = {'sgd': _sgd, 'adamw': _adamw}
GROUPED = {
    'name': 'optimiser',
    'learning_rate': 'learning_rate',
    'weight_decay': 'weight_decay',
    'warm_up': 'warm_up',
    'final': 'final',
}
FIELDS = tuple(each.name for each in fields(Recipe))


def _phases(data: Any) -> tuple[Phase, ...]:
    if not isinstance(data, list) or not data:
        raise PruningError(f'field phases: must be a list of phases, got {data!r}')
    return tuple(from_dict(Phase, item, f'phases[{index}].') for index, item in enumerate(data))


def _within(
    value: object, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value and above < value < below  # type: ignore[operator]


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
