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

"""ONNX `Resize` and `Upsample`, whose rules of coordinates are more than PyTorch has."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pruned_perception.training.onnx_import import functions
from pruned_perception.training.onnx_import.builder import Builder, Node, Value


def resize(b: Builder, node: Node) -> Value:
    """Return a picture at another size."""
    x, scales, sizes = _wanted(node)
    mode = node.attribute('mode', 'nearest')
    older = node.operator == 'Upsample' or node.opset < 11
    how = node.attribute('coordinate_transformation_mode', 'asymmetric' if older else 'half_pixel')
    _check(node, x, scales, how)
    axes = [axis for axis in range(2, x.ndim) if sizes[axis] != x.shape[axis]]
    if not axes:
        return x
    if mode == 'nearest':
        return _nearest(b, node, x, axes, (scales, sizes), (how, older))
    corners = how == 'align_corners'
    plain = how in ('half_pixel', 'pytorch_half_pixel') and min(sizes[2:]) > 1
    exact = [size / each for size, each in zip(sizes[2:], x.shape[2:], strict=True)]
    factors = scales[2:]
    whole = all(math.isclose(s, e, rel_tol=1e-6) for s, e in zip(factors, exact, strict=True))
    if x.ndim == 4 and (corners or plain):
        by_scale = not corners and not whole
        names = {'linear': 'bilinear', 'cubic': 'bicubic'}
        if mode == 'cubic' and abs(node.attribute('cubic_coeff_a', -0.75) + 0.75) > 1e-6:
            raise node.refuse('cubic with another coefficient than −0.75')
        if mode == 'cubic' and node.attribute('exclude_outside', 0):
            raise node.refuse('exclude_outside')
        return b.call(
            functions.interpolate,
            x,
            None if by_scale or (whole and not corners) else tuple(sizes[2:]),
            tuple(factors) if by_scale or (whole and not corners) else None,
            names[mode],
            corners,
        )
    if mode != 'linear':
        raise node.refuse(f'mode {mode} with {how}')
    for axis in axes:
        at = _coordinates(how, x.shape[axis], sizes[axis], scales[axis])
        at = at.clamp(0, x.shape[axis] - 1)
        low = at.floor().long()
        parts = (low, (low + 1).clamp(max=x.shape[axis] - 1), (at - low).float())
        x = b.call(functions.between, x, axis, *(Value(constant=each) for each in parts))
    return x


def _wanted(node: Node) -> tuple[Value, list[float], list[int]]:
    """Return the input, and for each axis its scale and its new size."""
    x = node.input(0)
    place = 1 if node.operator == 'Upsample' or node.opset < 11 else 2
    given = node.constant(place)
    scales = node.attribute('scales') if given is None else given.tolist()
    sizes = node.constant(3) if place == 2 else None
    axes = [axis % x.ndim for axis in node.attribute('axes', range(x.ndim))]
    all_scales, all_sizes = [1.0] * x.ndim, list(x.shape)
    if sizes is not None and sizes.numel():
        if node.attribute('keep_aspect_ratio_policy', 'stretch') != 'stretch':
            raise node.refuse('keeps the aspect ratio')
        for axis, size in zip(axes, sizes.tolist(), strict=True):
            all_sizes[axis], all_scales[axis] = size, size / x.shape[axis]
    elif scales:
        for axis, scale in zip(axes, scales, strict=True):
            all_sizes[axis] = math.floor(x.shape[axis] * scale + 1e-6)
            all_scales[axis] = scale
    else:
        raise node.refuse('says neither sizes nor scales')
    return x, all_scales, all_sizes


def _check(node: Node, x: Value, scales: Sequence[float], how: str) -> None:
    if x.ndim not in (3, 4) or list(scales[:2]) != [1.0, 1.0]:
        raise node.refuse(f'scales {list(scales)} of {x.ndim} axes: only the last ones are resized')
    if node.attribute('antialias', 0):
        raise node.refuse('antialias')
    if how == 'tf_crop_and_resize':
        raise node.refuse('crops while it resizes')


def _nearest(
    b: Builder,
    node: Node,
    x: Value,
    axes: Sequence[int],
    wanted: tuple[Sequence[float], Sequence[int]],
    rules: tuple[str, bool],
) -> Value:
    (scales, sizes), (how, older) = wanted, rules
    rounding = node.attribute('nearest_mode', 'floor' if older else 'round_prefer_floor')
    picked = {}
    for axis in axes:
        at = _coordinates(how, x.shape[axis], sizes[axis], scales[axis])
        at = {
            'round_prefer_floor': lambda a: (a - 0.5).ceil(),
            'round_prefer_ceil': lambda a: (a + 0.5).floor(),
            'floor': torch.floor,
            'ceil': torch.ceil,
        }[rounding](at)
        picked[axis] = at.clamp(0, x.shape[axis] - 1).long().tolist()
    plain = {
        axis: [int(i * x.shape[axis] / sizes[axis]) for i in range(sizes[axis])] for axis in axes
    }
    if picked == plain:
        whole = all(scale == int(scale) for scale in scales)
        size, scale = (None, tuple(scales[2:])) if whole else (tuple(sizes[2:]), None)
        return b.call(functions.interpolate, x, size, scale, 'nearest', None)
    for axis, indices in picked.items():
        x = b.move(functions.gather_axis, x, axis, tuple(indices))
    return x


def _coordinates(how: str, old: int, new: int, scale: float) -> Tensor:
    """Return where each new pixel lies among the old ones."""
    at = torch.arange(new, dtype=torch.float64)
    if how == 'align_corners':
        return at * (old - 1) / max(new - 1, 1)
    if how == 'asymmetric':
        return at / scale
    if how == 'tf_half_pixel_for_nn':
        return (at + 0.5) / scale
    if how == 'pytorch_half_pixel' and new == 1:
        return torch.zeros(1, dtype=torch.float64)
    found = (at + 0.5) / scale - 0.5
    if how == 'half_pixel_symmetric':
        found = found + old / 2 * (1 - new / (scale * old))
    return found
