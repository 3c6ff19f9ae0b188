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

"""The default detector: anchor-free, feature pyramid, decoupled head.

Head and box coding follow FCOS (Tian et al. 2019) and YOLOX (Ge et al. 2021); the pyramid is that
of Lin et al. 2017 with the smoothing convolutions left to the head. Nothing but convolution,
batch norm, ReLU, addition and nearest upsampling: fast in every engine and prunable without
special cases. Blocks of the backbone may be inverted residuals, too: so that it can start from
weights that others trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.lowrank.factorisation import (
    Factored,
    factored_layer,
    replace_layer,
    slices,
    truncate,
)
from pruned_perception.training.detector.architecture import (
    STRIDES,
    Architecture,
    Block,
    Bottleneck,
    block_width,
)

PRIOR = 0.01  # score of an untrained class output, so that the background does not swamp the start
PRIOR_DISTANCE = 2.0  # distances (in strides) of an untrained box output
LOG_PIXELS = (-5.0, 8.5)  # range of a distance's logarithm: 0.007 … 4900 pixels, never overflowing


ACTIVATIONS: dict[str, type[nn.Module]] = {'relu': nn.ReLU, 'relu6': nn.ReLU6}


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        *,
        kernel: int = 3,
        groups: int = 1,
        activation: str | None = 'relu',
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs, momentum=0.03)
        if activation is not None:
            self.relu = ACTIVATIONS[activation](inplace=True)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; see `Bottleneck`."""

    def __init__(self, inputs: int, block: Bottleneck, stride: int, activation: str) -> None:
        super().__init__()
        hidden = block.hidden
        self.residual = block.residual
        self.expand = (
            ConvBlock(inputs, hidden, kernel=1, activation=activation) if block.expand else None
        )
        self.depthwise = ConvBlock(
            hidden, hidden, stride, kernel=block.kernel, groups=hidden, activation=activation
        )
        self.project = ConvBlock(hidden, block.width, kernel=1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, `width`, H, W), H and W halved by stride 2."""
        hidden = x if self.expand is None else self.expand(x)
        outputs = self.project(self.depthwise(hidden))
        return x + outputs if self.residual else outputs

    @property
    def block(self) -> Bottleneck:
        """Its widths, as they are."""
        conv = self.depthwise.conv
        return Bottleneck(
            kernel=conv.kernel_size[0],
            hidden=conv.out_channels,
            width=self.project.conv.out_channels,
            expand=self.expand is not None,
            residual=self.residual,
        )


def _chain(
    inputs: int, blocks: tuple[Block, ...], activation: str, stride: int = 1
) -> nn.Sequential:
    chain: list[nn.Module] = []
    for block in blocks:
        if isinstance(block, Bottleneck):
            chain.append(InvertedResidual(inputs, block, stride, activation))
        else:
            chain.append(ConvBlock(inputs, block, stride, activation=activation))
        inputs, stride = block_width(block), 1
    return nn.Sequential(*chain)


def _blocks(chain: nn.Module) -> tuple[Block, ...]:
    found: list[Block] = []
    for module in chain.children():
        if isinstance(module, InvertedResidual):
            found.append(module.block)
        elif isinstance(module, ConvBlock):
            found.append(module.conv.out_channels)
    return tuple(found)


class Head(nn.Module):
    """One level's head: a branch of four log-distances and a branch of class logits."""

    def __init__(
        self,
        inputs: int,
        boxes: tuple[int, ...],
        classes: tuple[int, ...],
        num_classes: int,
        activation: str,
    ) -> None:
        super().__init__()
        self.box_branch = _chain(inputs, boxes, activation)
        self.class_branch = _chain(inputs, classes, activation)
        self.box_output = nn.Conv2d(boxes[-1] if boxes else inputs, 4, 1)
        self.class_output = nn.Conv2d(classes[-1] if classes else inputs, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, 4 + C, H, W): log-distances in strides, then class logits."""
        return torch.cat(
            (
                self.box_output(self.box_branch(features)),
                self.class_output(self.class_branch(features)),
            ),
            dim=1,
        )


class Detector(nn.Module):
    """The detector that `architecture` describes; weights are initialised from torch's generator.

    forward: images (B, 3, H, W) float, RGB in 0…1 (any H and W: the pyramid's sizes need not
    divide) → raw outputs (B, N, 4 + C), N the cells of its levels' `strides`, row-major, level by
    level. `decode` turns them into distances in pixels and scores.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.input_size = architecture.input_size
        self.strides = architecture.strides
        self.activation = architecture.activation
        inputs = 3
        stages = []
        for stage in architecture.backbone:
            stages.append(_chain(inputs, stage, self.activation, stride=2))
            inputs = block_width(stage[-1])
        self.backbone = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(
            nn.Conv2d(block_width(stage[-1]), architecture.neck, 1)
            for stage in architecture.backbone[-len(self.strides) :]
        )
        self.heads = nn.ModuleList(
            Head(
                architecture.neck, boxes, classes, architecture.num_classes, architecture.activation
            )
            for boxes, classes in zip(architecture.boxes, architecture.classes, strict=True)
        )
        self._initialise()
        for name, rank in architecture.ranks.items():
            self._factorise(name, rank)

    def _factorise(self, name: str, rank: int) -> None:
        """Make a convolution two, as a cut did with the detector that is described."""
        layer = self.get_submodule(name)
        parts = slices(layer, 1)
        if rank > min(parts.shape[1:]):
            raise PruningError(f'ranks: {name} has no rank of {rank}')
        bias = layer.bias if isinstance(layer.bias, Tensor) else None
        replace_layer(self, layer, factored_layer(layer, truncate(parts, rank), bias))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for head in self.heads:
            assert isinstance(head, Head)
            for output, bias in (
                (head.box_output, math.log(PRIOR_DISTANCE)),
                (head.class_output, -math.log((1 - PRIOR) / PRIOR)),
            ):
                nn.init.normal_(output.weight, std=0.01)
                assert output.bias is not None
                nn.init.constant_(output.bias, bias)

    def train(self, mode: bool = True) -> Detector:
        """Set the mode; stages of the backbone that are frozen keep their norms' statistics."""
        super().train(mode)
        for stage in self.backbone:
            if not any(each.requires_grad for each in stage.parameters()):
                stage.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the raw outputs (B, N, 4 + C) of images (B, 3, H, W)."""
        features = []
        x = images
        for index, stage in enumerate(self.backbone):
            x = stage(x)
            if index >= len(self.backbone) - len(self.laterals):
                features.append(x)
        levels = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            # `size`, not a factor of two: 400 / 32 is no integer.
            size = levels[index].shape[-2:]
            above = functional.interpolate(levels[index + 1], size=size, mode='nearest')
            levels[index] = levels[index] + above
        outputs = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        return torch.cat([output.flatten(2) for output in outputs], dim=2).transpose(1, 2)

    @property
    def architecture(self) -> Architecture:
        """The architecture, read from the modules themselves: right after any surgery."""

        def widths(chain: nn.Module) -> tuple[int, ...]:
            return tuple(map(block_width, _blocks(chain)))

        heads = [head for head in self.heads if isinstance(head, Head)]
        lateral = self.laterals[0]
        assert isinstance(lateral, nn.Conv2d | Factored)
        return Architecture(
            input_size=self.input_size,
            num_classes=heads[0].class_output.out_channels,
            backbone=tuple(_blocks(stage) for stage in self.backbone),
            neck=lateral.out_channels,
            boxes=tuple(widths(head.box_branch) for head in heads),
            classes=tuple(widths(head.class_branch) for head in heads),
            activation=self.activation,
            ranks={
                name: module.rank
                for name, module in self.named_modules()
                if isinstance(module, Factored)
            },
        )


def grid(
    height: int,
    width: int,
    levels: Sequence[int] = STRIDES[1:],
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the cells' centres (N, 2) as x, y in pixels, and their strides (N,).

    Args:
        height: of the images, pixels.
        width: of the images, pixels.
        levels: the levels' strides.
        device: of the result.
    """
    centres, strides = [], []
    for stride in levels:
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
        centres.append((torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * columns,), float(stride)))
    return torch.cat(centres).to(device), torch.cat(strides).to(device)


def distances(raw: Tensor, strides: Tensor) -> Tensor:
    """Return left, top, right, bottom (…, N, 4) in pixels from raw outputs (…, N, ≥ 4)."""
    return (raw[..., :4] + strides.log()[:, None]).clamp(*LOG_PIXELS).exp()


def decode(raw: Tensor, strides: Tensor) -> Tensor:
    """Return the bundle's `anchor_free` predictions: distances in pixels, then scores."""
    return torch.cat((distances(raw, strides), raw[..., 4:].sigmoid()), dim=-1)
