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

"""What each input channel of a convolution or linear layer contributes to each of its outputs.

A consumer with the weight w (f outputs, c inputs, κ taps) reads the receptive fields a_{j,p} of
its input channels j at the output positions p. Channel j contributes u_{ij,p} = ⟨w_ij, a_{j,p}⟩ to
output i; its absolute contribution is v_{ij,p} = ⟨|w_ij|, |a_{j,p}|⟩ ≥ |u_{ij,p}|.

Fields are picked from an input where it is, and come to the CPU, as weights do: sums are made
there, in double precision where that matters, which not every device has.

Transposed convolutions are treated as the convolutions that they equal (zeros between the inputs,
kernels turned round), so that strides, padding and dilation mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning.errors import PruningError

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear

_VALUES_AT_ONCE = 2**22  # contributions that are held in memory


@dataclass(frozen=True)
class Window:
    """Along one axis: output positions `stride` apart read `taps` inputs `dilation` apart."""

    positions: int
    stride: int
    taps: int
    dilation: int

    def read_by(self, positions: Tensor) -> Tensor:
        """Return the inputs (n, taps) that n output positions read."""
        return positions[:, None] * self.stride + torch.arange(self.taps) * self.dilation

    def read_through(self, tap: int) -> slice:
        """Return the inputs that one tap meets at all the positions."""
        first = tap * self.dilation
        return slice(first, first + self.stride * (self.positions - 1) + 1, self.stride)


@dataclass(frozen=True)
class Fields:
    """Receptive fields of one batch: the padded input (B, c, H, W) and how it is read.

    A linear layer's P rows of features are (B, c, 1, P) and read by one tap.
    """

    padded: Tensor
    rows: Window
    columns: Window

    @property
    def positions(self) -> int:
        """How many output positions an image has."""
        return self.rows.positions * self.columns.positions

    def at(self, images: Tensor, positions: Tensor) -> Tensor:
        """Return the fields (c, n, κ) at n pairs of image and position."""
        width = self.columns.positions
        rows = self.rows.read_by(positions // width)[:, :, None]
        columns = self.columns.read_by(positions % width)[:, None, :]
        found = self.padded[images[:, None, None], :, rows, columns]  # (n, rows, columns, c)
        return found.permute(3, 0, 1, 2).flatten(2).cpu()

    def absolute_sums(self) -> Tensor:
        """Return Σ_p of the fields' absolute values: (c, B, κ)."""
        absolute = self.padded.abs()
        found = []
        for row in range(self.rows.taps):
            across = absolute[:, :, self.rows.read_through(row)].sum(2)
            for column in range(self.columns.taps):
                found.append(across[:, :, self.columns.read_through(column)].sum(2))
        return torch.stack(found, dim=-1).transpose(0, 1).cpu()


def fields(layer: nn.Module, x: Tensor) -> Fields:
    """Return the receptive fields of `layer` on its input `x`.

    Args:
        layer: Conv2d, ConvTranspose2d or Linear.
        x: (B, c, H, W), or (B, …, c) for a linear layer.
    """
    if isinstance(layer, nn.Linear):
        features = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)[:, :, None]
        return Fields(features, Window(1, 1, 1, 1), Window(features.shape[3], 1, 1, 1))
    if isinstance(layer, nn.ConvTranspose2d):
        padded, stride = _spread(layer, x), (1, 1)
    elif isinstance(layer, nn.Conv2d):
        mode = 'constant' if layer.padding_mode == 'zeros' else layer.padding_mode
        padded = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        stride = (layer.stride[0], layer.stride[1])
    else:
        raise PruningError(f'{type(layer).__name__} is no convolution or linear layer')
    windows = []
    for axis in (0, 1):
        taps, dilation = layer.kernel_size[axis], layer.dilation[axis]
        positions = (padded.shape[2 + axis] - dilation * (taps - 1) - 1) // stride[axis] + 1
        windows.append(Window(positions, stride[axis], taps, dilation))
    return Fields(padded, *windows)


def kernel(layer: nn.Module) -> Tensor:
    """Return the weight as (groups, f/groups, c/groups, κ), on the CPU: outputs, inputs, taps."""
    weight, groups = layer.weight, getattr(layer, 'groups', 1)
    assert isinstance(weight, Tensor)
    weight = weight.detach().cpu()
    if isinstance(layer, nn.Linear):
        return weight[None, :, :, None]
    if isinstance(layer, nn.ConvTranspose2d):  # (c, f/groups, h, w)
        turned = weight.flip(2, 3).unflatten(0, (groups, -1)).transpose(1, 2)
        return turned.flatten(3)
    return weight.unflatten(0, (groups, -1)).flatten(3)


def whole_kernel(layer: nn.Module) -> Tensor:
    """Return the weight as (1, f, c, κ): of a grouped layer, with zeros between the groups."""
    weight = kernel(layer)
    groups, made, read, taps = weight.shape
    if groups == 1:
        return weight
    whole = weight.new_zeros(groups, made, groups, read, taps)
    each = torch.arange(groups)
    whole[each, :, each] = weight
    return whole.reshape(1, groups * made, groups * read, taps)


def contributions(field: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """Yield the contributions (c, n, f) of channels to outputs, conv group by conv group.

    Args:
        field: (c, n, κ), as `Fields.at` returns.
        weight: (groups, f/groups, c/groups, κ), as `kernel` returns.
    """
    for part, own in zip(field.chunk(weight.shape[0]), weight, strict=True):
        yield torch.bmm(part, own.permute(1, 2, 0))


def sampled(
    found: Fields, weight: Tensor, count: int | None, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield the fields (c, n, κ) at `count` random positions of every image, or at all (None).

    A few at a time, so that the contributions (c, n, f) to be made of them stay small.
    """
    outputs, channels = weight.shape[1:3]
    yield from sampled_fields(found, count, generator, values=outputs * channels)


def sampled_fields(
    found: Fields, count: int | None, generator: torch.Generator | None, *, values: int
) -> Iterator[Tensor]:
    """Yield as `sampled`, so many positions at a time that `values` for each stay few."""
    images, positions = found.padded.shape[0], found.positions
    if count is None or count >= positions:
        where = torch.arange(positions).repeat(images)
        count = positions
    else:
        where = torch.randint(positions, (images * count,), generator=generator)
    which = torch.arange(images).repeat_interleave(count)
    step = max(1, _VALUES_AT_ONCE // values)
    for start in range(0, len(which), step):
        yield found.at(which[start : start + step], where[start : start + step])


def _spread(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Return the input whose plain convolution is the transposed convolution of `x`."""
    images, channels, height, width = x.shape
    (down, right) = (layer.stride[0], layer.stride[1])
    wide = x.new_zeros(images, channels, (height - 1) * down + 1, (width - 1) * right + 1)
    wide[:, :, ::down, ::right] = x
    margins = [
        layer.dilation[axis] * (layer.kernel_size[axis] - 1) - _integer(layer.padding[axis])
        for axis in (0, 1)
    ]
    extra = layer.output_padding
    return functional.pad(
        wide, (margins[1], margins[1] + extra[1], margins[0], margins[0] + extra[0])
    )


def _integer(value: int | str) -> int:
    assert isinstance(value, int)
    return value
