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

"""Small networks, each with one of the couplings that surgery must get right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)


def _conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = _conv(3, 32), _conv(32, 32), _conv(32, 32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.outer(self.inner(x)))


class Concatenation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = _conv(3, 16), _conv(16, 32), _conv(16, 48)
        self.merge = _conv(80, 32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.merge(torch.cat((self.left(x), self.right(x)), dim=1)))


class Flatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = _conv(3, 32), _conv(32, 32, stride=4)
        self.hidden, self.head = nn.Linear(32 * 16, 48), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.down(self.stem(x)).flatten(1)).relu())


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = _conv(3, 32), _conv(32, 32, groups=32)
        self.point = nn.Conv2d(32, 48, 1)
        self.head = nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.point(self.depthwise(self.stem(x))).relu())


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped, self.last = _conv(3, 32), _conv(32, 64, groups=4), _conv(64, 32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.grouped(self.stem(x))))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 32)
        self.up = nn.ConvTranspose2d(32, 48, 2, stride=2)
        self.head = nn.Conv2d(48, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.stem(x)).relu())


class InPlace(nn.Module):
    """Operations in place, on views too, and one input for two layers by strided slices."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = _conv(3, 16), _conv(16, 16)
        self.focus, self.head = nn.Conv2d(64, 24, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x += self.inner(x)
        x[..., :4, :].mul_(2)
        corners = [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        x = torch.cat(corners, dim=1).relu_()
        return self.head(self.focus(x).clamp_(min=-1))


class SharedHead(nn.Module):
    """One head for two levels, and one lateral layer whose inputs are of different groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = _conv(3, 24), _conv(24, 24, stride=2)
        self.lateral = nn.Conv2d(24, 16, 1)
        self.tower = _conv(16, 32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.stem(x)
        levels = first, self.down(first)
        return [self.head(self.tower(self.lateral(level))) for level in levels]


class GroupNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3), nn.GroupNorm(8, 32)
        self.second, self.instance = nn.Conv2d(32, 24, 3), nn.InstanceNorm2d(24, affine=True)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head(self.instance(self.second(x)).relu())


class DepthwiseMultiplier(nn.Module):
    """A depthwise layer with two outputs for each input, and a grouped transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = _conv(3, 16), _conv(16, 32, groups=16)
        self.up = nn.ConvTranspose2d(32, 48, 2, stride=2, groups=8)
        self.head = nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.depthwise(self.stem(x))).relu())


class ResidualOfConcatenation(nn.Module):
    """Batch norm after a concatenation, to which a third layer is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16)
        self.whole, self.left, self.right = _conv(16, 40), nn.Conv2d(16, 16, 1), _conv(16, 24)
        self.norm = nn.BatchNorm2d(40)
        self.head = nn.Conv2d(40, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        both = self.norm(torch.cat((self.left(x), self.right(x)), dim=1))
        return self.head((both + self.whole(x)).relu())


class ChannelParameters(nn.Module):
    """Layer scale, PReLU, and a frozen norm made of buffers, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 24, 3), _conv(24, 32), _conv(32, 24)
        self.activation = nn.PReLU(24)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 24).reshape(1, 24, 1, 1))
        self.register_buffer('mean', torch.linspace(-1, 1, 24))
        self.register_buffer('variance', torch.linspace(1, 2, 24))
        self.temperature = nn.Parameter(torch.tensor([1.5]))
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        factor = (self.variance + 1e-5).rsqrt().reshape(1, -1, 1, 1)
        x = self.activation((x - self.mean[:, None, None]) * factor)
        x = x + self.scale * self.outer(self.inner(x))
        return self.head(functional.hardswish(x) * self.temperature)


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = _conv(3, 16), _conv(16, 32)
        self.squeeze, self.excite = nn.Linear(32, 8), nn.Linear(8, 32)
        self.spatial = nn.Conv2d(32, 1, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.stem(x))
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        x = x * gate[:, :, None, None]
        return self.head(x * self.spatial(x).sigmoid())


class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = _conv(3, 16), _conv(16, 48)
        self.shuffle, self.after = nn.PixelShuffle(2), _conv(12, 16)
        self.down, self.merge = nn.PixelUnshuffle(2), nn.Conv2d(64, 24, 1)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.merge(self.down(self.after(self.shuffle(self.wide(self.stem(x)))))))


class ChannelShuffle(nn.Module):
    """A unit of ShuffleNetV2 (Ma et al. 2018): split, shuffle by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.point = _conv(3, 32), _conv(16, 16, 1)
        self.depthwise, self.last = _conv(16, 16, groups=16), _conv(16, 16, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        same, branch = self.stem(x).chunk(2, dim=1)
        branch = self.last(self.depthwise(self.point(branch)))
        x = torch.cat((same, branch), dim=1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return self.head(x.reshape(batch, channels, height, width))


class ShuffledGroups(nn.Module):
    """Units of ShuffleNet (Zhang et al. 2018), whose groups do not divide what they shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.compress = _conv(3, 24), _conv(24, 30, 1, groups=3)
        self.shuffle, self.depthwise = nn.ChannelShuffle(3), _conv(30, 30, groups=30)
        self.expand = _conv(30, 24, 1, groups=3)
        self.up = nn.ConvTranspose2d(24, 48, 2, stride=2, groups=3)
        self.head = nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.expand(self.depthwise(self.shuffle(self.compress(x))))
        batch, channels, height, width = x.shape
        x = x.view(batch, 3, channels // 3, height, width).transpose(1, 2).reshape(x.shape)
        return self.head(self.up(x).relu())


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of ResNets for CIFAR (He et al. 2016, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = _conv(3, 16), _conv(16, 24, stride=2)
        self.outer = _conv(24, 32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        short = functional.pad(functional.avg_pool2d(x, 2), (0, 0, 0, 0, 8, 8))
        return self.head(short + self.outer(self.inner(x)))


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = (
            [] if expansion == 1 else [nn.Sequential(*_conv(inputs, hidden, 1)[:2], nn.ReLU6())]
        )
        depthwise = _conv(hidden, hidden, groups=hidden, stride=stride)
        self.layers = nn.Sequential(*expand, depthwise, *_conv(hidden, outputs, 1)[:2])
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Inverted residuals (Sandler et al. 2018) and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        blocks = ((16, 16, 1, 1), (16, 24, 2, 4), (24, 24, 1, 4), (24, 32, 2, 4))
        self.stem = _conv(3, 16, stride=2)
        self.blocks = nn.Sequential(*(_InvertedResidual(*each) for each in blocks))
        self.last, self.classifier = _conv(32, 64, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.last(self.blocks(self.stem(x))), 1)
        return self.classifier(functional.dropout(x.flatten(1), training=self.training))


class _Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class _C2f(nn.Module):
    """A cross-stage-partial block with a split and two bottlenecks, all of it concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.split, self.merge = _conv(inputs, outputs, 1), _conv(2 * outputs, outputs, 1)
        self.blocks = nn.ModuleList(_Bottleneck(outputs // 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, dim=1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class CspDetector(nn.Module):
    """A detector with C2f blocks, spatial pyramid pooling, a top-down path and a shared head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16, stride=2)
        self.shallow, self.down, self.deep = _C2f(16, 24), _conv(24, 32, stride=2), _C2f(32, 32)
        self.reduce, self.pool = _conv(32, 16, 1), _conv(48, 24, 1)
        self.top_down, self.lateral = _C2f(48, 24), nn.Conv2d(24, 24, 1)
        self.box, self.classes = _conv(24, 16), nn.Conv2d(24, 3, 1)
        self.box_output = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.shallow(self.stem(x))
        high = self.reduce(self.deep(self.down(low)))
        pooled = [high]
        for _ in range(2):
            pooled.append(functional.max_pool2d(pooled[-1], 5, stride=1, padding=2))
        high = self.pool(torch.cat(pooled, dim=1))
        above = functional.interpolate(high, scale_factor=2.0, mode='nearest')
        levels = self.top_down(torch.cat((above, low), dim=1)), self.lateral(high)
        boxes = [self.box_output(self.box(level)).flatten(2) for level in levels]
        scores = [self.classes(level).flatten(2).sigmoid() for level in levels]
        return {'boxes': torch.cat(boxes, dim=2), 'scores': torch.cat(scores, dim=2)}


class LayerNorm(nn.Module):
    """Kept: layer norm over the channels; not so the layers inside of a token's network."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 24, 4, stride=4), nn.LayerNorm(24)
        self.first, self.second = nn.Linear(24, 48), nn.Linear(48, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.second(functional.gelu(self.first(self.norm(x))))
        return self.head(x.mean(1))


class ResponseNorm(nn.Module):
    """Global response norm of ConvNeXt V2 (Woo et al. 2023)."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis, self.eps = axis, 1e-2  # large, so that it shows
        self.shape = tuple(-1 if each == axis else 1 for each in range(4))
        self.weight = nn.Parameter(2 * torch.rand(channels) - 1)
        self.bias = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        norms = x.norm(dim=tuple({1, 2, 3} - {self.axis}), keepdim=True)
        x_n = norms / (norms.mean(self.axis, keepdim=True) + self.eps)
        return x + self.weight.view(self.shape) * x * x_n + self.bias.view(self.shape)


class GlobalResponse(nn.Module):
    """Blocks of ConvNeXt V2, channels last and first; kept: what layer norms read."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 16, 2, stride=2), nn.LayerNorm(16)
        self.wide, self.response = nn.Linear(16, 48), ResponseNorm(48, 3)
        self.narrow = nn.Linear(48, 16)
        self.first, self.responses = _conv(16, 32), ResponseNorm(32, 1)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = x + self.narrow(self.response(functional.gelu(self.wide(self.norm(x)))))
        return self.head(self.responses(self.first(x.permute(0, 3, 1, 2))))


class Attention(nn.Module):
    """Kept: what attention multiplies; not so what reads its output."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.query, self.value = (
            _conv(3, 16, stride=2),
            nn.Linear(16, 8),
            nn.Linear(16, 8),
        )
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.after, self.head = nn.Linear(8, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        query, value = self.query(x), self.value(x)
        mixed = (query @ query.transpose(1, 2)).softmax(-1) @ value
        mixed, _ = self.attention(mixed, mixed, mixed)
        return self.head(self.after(mixed).relu())


class FixedSplit(nn.Module):
    """Kept: channels that are split or indexed by numbers in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.uneven, self.indexed = (nn.Conv2d(3, 32, 3) for _ in range(3))
        self.viewed, self.ones = nn.Conv2d(3, 32, 3), nn.Conv2d(3, 32, 3)
        self.merge, self.head = nn.Conv2d(128, 24, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.even(x).split(16, dim=1)
        small, large = self.uneven(x).split((8, 24), dim=1)
        indexed = self.indexed(x)[:, :16] + small.repeat(1, 2, 1, 1)
        viewed = self.viewed(x)
        viewed = viewed.view(viewed.shape[0], 32, -1).relu().view_as(viewed)
        ones = self.ones(x) * torch.ones(1, 32, 1, 1)
        parts = left * right, large[:, 8:], indexed, viewed, ones, right
        return self.head(self.merge(torch.cat(parts, dim=1)).relu())


class _StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias)


class Rigid(nn.Module):
    """Kept: weights that are shared, borrowed, computed or standardised; a scale by width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scaled = _conv(3, 16), _conv(16, 16)
        self.standardised = _StandardisedConv(16, 16, 1, bias=False)
        self.computed = nn.Conv2d(16, 16, 1, bias=False)
        self.raw = self.computed._parameters.pop('weight')
        self.computed.weight = 2 * self.raw.detach()
        self.tied, self.same, self.borrowed = (nn.Conv2d(16, 16, 1, bias=False) for _ in range(3))
        self.same.weight = self.tied.weight
        self.last, self.head = _conv(16, 24), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scaled(self.stem(x))
        x = self.standardised(x / x.shape[1]).relu()
        self.computed.weight = 2 * self.raw.detach()
        x = self.same(self.tied(self.computed(x)).relu()).relu()
        x = functional.conv2d(self.borrowed(x).relu(), self.borrowed.weight)
        return self.head(self.last(100 * x))


CLASSIC = (Residual, Concatenation, Flatten, Depthwise, Transposed)
ALL: tuple[type[nn.Module], ...] = (
    *CLASSIC,
    Grouped,
    InPlace,
    SharedHead,
    GroupNorm,
    DepthwiseMultiplier,
    ResidualOfConcatenation,
    ChannelParameters,
    SqueezeExcitation,
    PixelShuffle,
    ChannelShuffle,
    ShuffledGroups,
    PaddedShortcut,
    MobileNetV2,
    CspDetector,
    LayerNorm,
    GlobalResponse,
    Attention,
    FixedSplit,
    Rigid,
)


def build(kind: type[nn.Module]) -> nn.Module:
    """Return the network with statistics and weights unlike an untrained one's."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d):
            for tensor in (module.weight.data, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return model.eval()


def outputs(model: nn.Module, inputs: Any = INPUT) -> list[Tensor]:
    """Return the tensors that a network returns."""
    with torch.no_grad():
        found = model(*inputs)
    return [found] if isinstance(found, Tensor) else list(getattr(found, 'values', lambda: found)())
