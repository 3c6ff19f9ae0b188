"""Small networks, each with one of the couplings that surgery must get right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)


def _conv(inputs: int, outputs: int, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, **options), nn.BatchNorm2d(outputs), nn.ReLU()
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


ALL = (Residual, Concatenation, Flatten, Depthwise, Grouped, Transposed)


def build(kind: type[nn.Module]) -> nn.Module:
    """Return the network with statistics and weights unlike an untrained one's."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return model.eval()
