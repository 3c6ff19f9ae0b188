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

from dataclasses import dataclass

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.records import Record

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Architecture(Record):
    """Widths (output channels) of every convolution of the detector, and its input size.

    `backbone` lists, for each of the strides 2, 4, 8, 16 and 32, the widths of its 3×3
    convolutions, the first of which has stride 2. `neck` is the common width of the pyramid's
    levels (they are added, hence one number). `boxes` and `classes` list, for each of the strides
    8, 16 and 32, the widths of the 3×3 convolutions of the two branches of its head.
    """

    input_size: tuple[int, int]
    num_classes: int
    backbone: tuple[tuple[int, ...], ...]
    neck: int
    boxes: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.backbone) != 5 or not all(self.backbone):
            raise PruningError(
                'backbone: expected the widths of five stages (strides 2 to 32), '
                f'each with one convolution at least, got {self.backbone!r}'
            )
        for name in ('boxes', 'classes'):
            if len(getattr(self, name)) != len(STRIDES):
                raise PruningError(
                    f'{name}: expected one list for each of the strides {STRIDES}, '
                    f'got {getattr(self, name)!r}'
                )
        every = [
            *(width for stage in self.backbone + self.boxes + self.classes for width in stage),
            self.neck,
            self.num_classes,
            *self.input_size,
        ]
        if not all(isinstance(value, int) and value > 0 for value in every):
            raise PruningError(f'every number must be an integer > 0: {self!r}')
