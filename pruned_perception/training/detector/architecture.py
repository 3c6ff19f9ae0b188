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

"""The detector's shape as plain data, so that a pruned net can be rebuilt without pickle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record, changed

STRIDES = (4, 8, 16, 32)
"""A detector has levels of the last three or four."""
ACTIVATIONS = ('relu', 'relu6')


@dataclass(frozen=True)
class Bottleneck(Record):
    """Widths of an inverted residual: 1×1 to `hidden`, depthwise, 1×1 to `width`.

    Without `expand` the first of them is left out, and `hidden` is the width of what comes in.
    With `residual` what comes in is added. Source: Sandler et al., MobileNetV2 (CVPR 2018).
    """

    kernel: int
    hidden: int
    width: int
    expand: bool = True
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ('hidden', 'width'):
            if getattr(self, name) < 1:
                raise PruningError(f'{name}: must be an integer > 0, got {getattr(self, name)}')
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise PruningError(f'kernel: must be an odd integer > 0, got {self.kernel}')

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        needed = {name: data[name] for name in ('kernel', 'hidden', 'width')}
        return needed | changed(self, data)


Block = int | Bottleneck
"""The width of a 3×3 convolution, or an inverted residual."""


@dataclass(frozen=True)
class Architecture(Record):
    """Widths (output channels) of every convolution of the detector, and its input size.

    `backbone` lists, for each of the strides 2, 4, 8, 16 and 32, its blocks: 3×3 convolutions by
    their widths, or inverted residuals. The first of each list has stride 2, the very first is a
    convolution. `neck` is the common width of the pyramid's levels (they are added, hence one
    number). `boxes` and `classes` list, for each of the strides 8, 16 and 32 (or 4 to 32, where
    they list four), the widths of the 3×3 convolutions of the two branches of its head.
    """

    input_size: tuple[int, int]
    num_classes: int
    backbone: tuple[tuple[Block, ...], ...]
    neck: int
    boxes: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]
    activation: str = 'relu'
    """Of `ACTIVATIONS`: that of all blocks."""
    ranks: dict[str, int] = field(default_factory=dict, hash=False)
    """Convolutions, by name, that are two of this rank."""

    def __post_init__(self) -> None:
        if len(self.backbone) != 5 or not all(self.backbone):
            raise PruningError(
                'backbone: expected the widths of five stages (strides 2 to 32), '
                f'each with one convolution at least, got {self.backbone!r}'
            )
        if len(self.boxes) not in (3, 4):
            raise PruningError(
                f'boxes: expected one list for each of the strides {STRIDES[1:]} or {STRIDES}, '
                f'got {self.boxes!r}'
            )
        if len(self.classes) != len(self.boxes):
            raise PruningError(
                f'classes: expected one list for each of the strides {self.strides}, as in boxes, '
                f'got {self.classes!r}'
            )
        if self.activation not in ACTIVATIONS:
            raise PruningError(
                f'activation: must be one of {", ".join(ACTIVATIONS)}, got {self.activation!r}'
            )
        every = [
            *(width for stage in self.boxes + self.classes for width in stage),
            *(block_width(block) for stage in self.backbone for block in stage),
            self.neck,
            self.num_classes,
            *self.ranks.values(),
            *self.input_size,
        ]
        if not all(isinstance(value, int) and value > 0 for value in every):
            raise PruningError(f'every number must be an integer > 0: {self!r}')
        self._check_blocks()

    def _check_blocks(self) -> None:
        if isinstance(self.backbone[0][0], Bottleneck):
            raise PruningError('backbone[0][0]: the first block must be a convolution: its width')
        inputs = 0
        for row, stage in enumerate(self.backbone):
            for column, block in enumerate(stage):
                if isinstance(block, Bottleneck):
                    where = f'backbone[{row}][{column}]'
                    if block.residual and (column == 0 or inputs != block.width):
                        raise PruningError(
                            f'{where}.residual: {inputs} channels cannot be added to '
                            f'{block.width}, or the stride is 2'
                        )
                    if not block.expand and inputs != block.hidden:
                        raise PruningError(
                            f'{where}.hidden: without `expand`, must be what comes in, {inputs}; '
                            f'got {block.hidden}'
                        )
                inputs = block_width(block)

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        if self.activation == 'relu':
            del data['activation']
        if not self.ranks:
            del data['ranks']
        return data

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the head's levels."""
        return STRIDES[-len(self.boxes) :]


def block_width(block: Block) -> int:
    """Return the channels that a block puts out."""
    return block.width if isinstance(block, Bottleneck) else block
