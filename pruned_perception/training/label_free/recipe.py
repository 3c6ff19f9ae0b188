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

"""How a network is pruned without labels, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pruned_perception.pruning.allocation import RULES
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record


@dataclass(frozen=True)
class LabelFree(Record):
    """What cuts, what mends, and how the parent teaches; `RECIPES` has three of them."""

    cuts: int = 1
    """Each by the same factor; the network is measured anew before each."""
    criterion: str = 'compensated_error'
    allocation: str = 'least_error'
    allocation_by: str | None = None
    round_to: int = 16
    """Kept channels are multiples of this."""
    images: int = 256
    """Frames that channels are chosen on and layers refitted to, from all over them."""
    refit: bool = True
    """Fit every layer by least squares to what it computed before the cut."""
    ranks: bool = False
    """Make two layers of one, too, where that costs less: channels and ranks share the budget."""
    fresh: bool = False
    """Teach the widths from random weights: the control of what the parent's are worth."""
    last_share: float = 0.6
    """Of the training, what the last of several cuts has; the others share the rest."""
    outputs: float = 1.0
    """Weight of the loss on boxes and scores."""
    raw: bool = False
    """Compare outputs channel by channel, as is done where nobody knows what they say."""
    features: float = 2.0
    """Weight of the loss on the layers' outputs."""
    turns: int = 3
    """Layers are compared by turns: every so many-th one in a step. Comparing all costs a quarter
    of a step."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    batch: int = 8
    ema: float | None = 0.998
    """Decay per step of the average of weights that is the result."""
    close: float = 0.75
    """Share of the steps that look at parts of the frames, two thirds of the network's height and
    width, around what the parent finds: less than half the work for most of what there is to learn.
    Networks that take one size only always see whole frames."""
    scale: tuple[float, float] = (0.7, 1.5)
    """Magnification of the views of a frame."""
    mirrored: float = 0.5
    """Share of the views that are mirror images."""
    colours: float = 1.0
    """How far light and contrast of the views are changed; 0: not at all."""

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ('cuts', self.cuts >= 1, 'an integer ≥ 1'),
            ('allocation', self.allocation in RULES, f'one of {", ".join(RULES)}'),
            ('ranks', self.cuts == 1 or not self.ranks, 'false where there are several cuts'),
            ('round_to', self.round_to >= 1, 'an integer ≥ 1'),
            ('images', self.images >= 1, 'an integer ≥ 1'),
            ('batch', self.batch >= 1, 'an integer ≥ 1'),
            ('last_share', 0 < self.last_share <= 1, 'in (0, 1]'),
            ('outputs', 0 <= self.outputs < math.inf, '≥ 0'),
            ('features', 0 <= self.features < math.inf, '≥ 0'),
            ('outputs', self.outputs + self.features > 0, '> 0 where features are 0'),
            ('turns', self.turns >= 1, 'an integer ≥ 1'),
            ('close', 0 <= self.close < 1, 'in [0, 1)'),
            ('scale', 0 < self.scale[0] <= self.scale[1], '(low, high), 0 < low ≤ high'),
            ('mirrored', 0 <= self.mirrored <= 1, 'in [0, 1]'),
            ('colours', 0 <= self.colours <= 2, 'in [0, 2]'),
        ):
            if not good:
                raise PruningError(f'{name}: must be {wanted}, got {getattr(self, name)!r}')


RECIPES: dict[str, LabelFree] = {
    'quick': LabelFree(images=64),
    'standard': LabelFree(),
    'thorough': LabelFree(cuts=3),
    'compact': LabelFree(
        cuts=3, round_to=8, learning_rate=5e-4, features=5.0, turns=1, close=0.0, scale=(0.6, 1.6)
    ),
}
"""What `--recipe` names; they differ in cuts and images, and how long is `training`'s matter.

`turns` and `close` were tried on over-sized nets alone.
"""
