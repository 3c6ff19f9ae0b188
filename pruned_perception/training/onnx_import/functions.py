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

"""What an imported graph computes with that PyTorch has no function for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# One size of a reshape's result: a number; or the product of the input's sizes along these axes,
# divided by a number.
Size = int | tuple[tuple[int, ...], int]


def reshape(x: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Return `x` in a shape that follows its own."""
    shape = []
    for size in sizes:
        if isinstance(size, int):
            shape.append(size)
            continue
        axes, divisor = size
        product = 1
        for axis in axes:
            product = product * x.shape[axis]
        shape.append(product if divisor == 1 else product // divisor)
    return x.reshape(shape)


def following(
    shape: Sequence[int], target: Sequence[int], batch: int | None, grows: int | None
) -> tuple[Size, ...]:
    """Return the sizes of a reshape `shape` → `target`, written down for any batch and width.

    Axes next to each other whose sizes have the same product belong together. Of those that one
    axis is divided into, the longest follows: it holds the channels, the others are numbers of
    groups, heads or pixels of a block.

    Args:
        shape: of the input.
        target: of the result, with as many elements.
        batch: axis of the input that grows with the number of images; None if none does.
        grows: axis of the result that does.
    """
    sizes: list[Size] = []
    i = j = 0
    while i < len(shape) or j < len(target):
        first, start = i, j
        have = want = 1
        if i < len(shape):
            have, i = shape[i], i + 1
        if j < len(target):
            want, j = target[j], j + 1
        while have != want:
            if have < want:
                have, i = have * shape[i], i + 1
            else:
                want, j = want * target[j], j + 1
        if j == len(target):
            i = len(shape)  # only ones are left
        parts = list(target[start:j])
        longest = max(range(len(parts)), key=lambda index: (parts[index], index), default=0)
        axes = tuple(axis for axis in range(first, i) if axis != batch)
        length = math.prod(shape[axis] for axis in axes)
        for index, part in enumerate(parts):
            follows = index == longest and part > 1 and length % part == 0
            sizes.append((axes, length // part) if follows else part)
    if grows is not None:
        sizes[grows] = -1
    return tuple(sizes)


def growth(single: Tensor, double: Tensor, axis: int) -> int | None:
    """Say whether the first image of `double` is `single`, if images lie along an axis.

    0: one after the other, and alone on that axis; 1: one after the other; 2: by turns; None: no.
    """
    size = single.shape[axis]
    wanted = [2 * n if at == axis else n for at, n in enumerate(single.shape)]
    if list(double.shape) != wanted:
        return None
    if torch.allclose(double.narrow(axis, 0, size).to(single), single, rtol=1e-3, atol=1e-4):
        return 0 if size == 1 else 1
    turns = slice_axis(double, axis, 0, None, 2)
    return 2 if torch.allclose(turns.to(single), single, rtol=1e-3, atol=1e-4) else None


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return `x` broadcast to `shape`; −1 leaves a size as it is, as 1 does."""
    shape = [-1] * (x.ndim - len(shape)) + list(shape)
    new = len(shape) - x.ndim
    return x.expand([size if axis < new or size > 1 else -1 for axis, size in enumerate(shape)])


def join(parts: Sequence[Tensor], axis: int, batch: int) -> Tensor:
    """Return the parts side by side; those that are the same for all images are repeated."""
    images = max(each.shape[batch] for each in parts)
    return torch.cat(
        [
            each.expand([images if at == batch else -1 for at in range(each.ndim)])
            if each.shape[batch] == 1
            else each
            for each in parts
        ],
        axis,
    )


def slice_axis(x: Tensor, axis: int, start: int, stop: int | None, step: int) -> Tensor:
    """Return the entries start, start + step, … before `stop` (None: to the end) of an axis."""
    if step < 0:
        stop = -1 if stop is None else stop
        return gather_axis(x, axis, range(start, stop, step))
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def gather_axis(x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    """Return the entries `indices` of an axis."""
    return x.index_select(axis, torch.tensor(list(indices), device=x.device))


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """Return (N, C, H, W) as (N, C/b², H·b, W·b), a block's pixels C/b² channels apart."""
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Return (N, C, H, W) as (N, C·b², H/b, W/b): the way back from `depth_to_space`."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def between(x: Tensor, axis: int, low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Return an axis interpolated: from entry `low` to entry `high` by `share`."""
    share = share.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    first = x.index_select(axis, low)
    return first + (x.index_select(axis, high) - first) * share


def interpolate(
    x: Tensor,
    size: Sequence[int] | None,
    scale: Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
) -> Tensor:
    """Return `x` at another size, or by a scale; see torch.nn.functional.interpolate."""
    return functional.interpolate(
        x,
        size=None if size is None else list(size),
        scale_factor=None if scale is None else list(scale),
        mode=mode,
        align_corners=align_corners,
    )


def softmax_from(x: Tensor, axis: int) -> Tensor:
    """Return the softmax over all axes from `axis` on, together (ONNX before opset 13)."""
    return x.flatten(axis).softmax(-1).reshape(x.shape)


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y, rounded towards zero where both are integers."""
    if (
        torch.is_tensor(x)
        and torch.is_tensor(y)
        and not (x.is_floating_point() or y.is_floating_point())
    ):
        return torch.div(x, y, rounding_mode='trunc')
    return x / y
