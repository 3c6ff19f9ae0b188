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

"""Constructions that networks of others have: cut where that can be right, kept where not.

Whatever pruning believes of an operation, the cut network has to compute what the masked one does
on images that neither was verified on.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pruned_perception.pruning import (
    Planner,
    PruningError,
    count,
    find_groups,
    mask_channels,
)

Middle = Callable[[Any, Tensor], Tensor]


class _Around(nn.Module):
    """Something odd between a stem of 16 channels and a layer of 12."""

    def __init__(self, middle: Middle, parts: dict[str, Any]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.last, self.head = nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(12, 4, 1)
        self.middle = middle
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self, self.stem(x))).relu())


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def _shifted(m: Any, x: Tensor) -> Tensor:
    """As in temporal shift modules: a part of the channels is written elsewhere."""
    moved = torch.zeros_like(x)
    moved[:, :4] = x[:, :4].roll(1, 2)
    moved[:, 4:] = x[:, 4:]
    return moved


def _added_in_place(m: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 8:].add_(x[:, :8])
    return x


def _split(m: Any, x: Tensor) -> Tensor:
    parts = m.wide(x).split((4, 6, 6), 1)
    return torch.cat([each(part) for each, part in zip(m.each, parts, strict=True)], 1)


def _by_channel(m: Any, x: Tensor) -> Tensor:
    """As in ECA: a convolution along the channels."""
    return x * m.along(x.mean((2, 3))[:, None]).transpose(1, 2)[..., None].sigmoid()


def _recurrent(m: Any, x: Tensor) -> Tensor:
    rows = m.cells(x.mean(2).transpose(1, 2))[0]
    return rows.transpose(1, 2)[:, :, None].expand(-1, -1, x.shape[2], -1)


def _own_attention(m: Any, x: Tensor) -> Tensor:
    tokens, other = (each.flatten(2).transpose(1, 2) for each in (x, m.other(x)))
    return m.attention(tokens, other, other)[0].transpose(1, 2).reshape(x.shape)


def _encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)


def _wide(channels: int = 16) -> nn.Conv2d:
    return nn.Conv2d(16, channels, 1)


# Name → (what is between, its parts, the groups that can be cut beside the last layer's).
ODD: dict[str, tuple[Middle, Callable[[], dict[str, Any]], set[str]]] = {
    'einsum with a matrix': (
        lambda m, x: torch.einsum('bchw,cd->bdhw', x, m.p),
        lambda: {'p': _parameter(16, 16)}, set(),
    ),
    'einsum by channel': (
        lambda m, x: torch.einsum('bchw,c->bchw', x, m.p),
        lambda: {'p': _parameter(16)}, {'stem.0'},
    ),
    'Gram matrix': (
        lambda m, x: x * torch.einsum('bchw,bdhw->bcd', x, x).sum(2)[..., None, None].sigmoid(),
        dict, set(),
    ),
    'along the channels': (
        _by_channel, lambda: {'along': nn.Conv1d(1, 1, 3, padding=1)}, set(),
    ),
    'local response norm': (
        lambda m, x: m.norm(x), lambda: {'norm': nn.LocalResponseNorm(3)}, set(),
    ),
    'gated': (lambda m, x: functional.glu(m.wide(x), 1), lambda: {'wide': _wide(32)}, {'stem.0'}),
    'gated by halves': (
        lambda m, x: torch.mul(*m.wide(x).chunk(2, 1)),
        lambda: {'wide': _wide(32)}, {'stem.0', 'wide'},
    ),
    'largest of two': (
        lambda m, x: m.wide(x).unflatten(1, (16, 2)).amax(2),
        lambda: {'wide': _wide(32)}, {'stem.0'},
    ),
    'every other channel': (
        lambda m, x: torch.cat((x[:, ::2], x[:, 1::2]), 1), dict, set(),
    ),
    'indexed': (lambda m, x: x[:, m.order], lambda: {'order': torch.randperm(16)}, set()),
    'backwards': (lambda m, x: x.flip(1), dict, {'stem.0'}),
    'rolled': (lambda m, x: x.roll(1, 1), dict, set()),
    'shifted': (_shifted, dict, set()),
    'added in place': (_added_in_place, dict, set()),
    'largest channels': (lambda m, x: x * (x >= x.topk(3, 1)[0][:, -1:]), dict, set()),
    'unit length': (lambda m, x: functional.normalize(x, dim=1), dict, set()),
    'without the mean': (lambda m, x: x - x.mean(1, keepdim=True), dict, set()),
    'divided by width': (lambda m, x: x / x.shape[1] ** 0.5, dict, set()),
    'two numbers a channel': (
        lambda m, x: x * m.p[:, 0, None, None] + m.p[:, 1, None, None],
        lambda: {'p': _parameter(16, 2)}, set(),
    ),
    'a number a place': (lambda m, x: x + m.p, lambda: {'p': _parameter(1, 16, 9, 9)}, set()),
    'normalised by buffers': (
        lambda m, x: (x - m.mean[:, None, None]) / m.scale[:, None, None],
        lambda: {'mean': torch.rand(16), 'scale': torch.rand(16) + 0.5}, {'stem.0'},
    ),
    'statistics of the batch': (
        lambda m, x: m.norm(x),
        lambda: {'norm': nn.BatchNorm2d(16, track_running_stats=False)}, {'stem.0'},
    ),
    'patches': (
        lambda m, x: functional.fold(functional.unfold(x, 3), x.shape[2:], 3), dict, set(),
    ),
    'three dimensions': (
        lambda m, x: m.deep(x[:, :, None])[:, :, 0], lambda: {'deep': nn.Conv3d(16, 16, 1)}, set(),
    ),
    'recurrent': (
        _recurrent, lambda: {'cells': nn.LSTM(16, 16, batch_first=True)}, set(),
    ),
    'attention to others': (
        _own_attention,
        lambda: {
            'other': _wide(24),
            'attention': nn.MultiheadAttention(16, 4, kdim=24, vdim=24, batch_first=True),
        },
        set(),
    ),
    'encoder': (
        lambda m, x: m.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape),
        lambda: {'layer': _encoder()}, {'layer.linear1'},
    ),
    'bilinear': (
        lambda m, x: x * m.both(x.mean((2, 3)), x.amax((2, 3)))[..., None, None],
        lambda: {'both': nn.Bilinear(16, 16, 16)}, set(),
    ),
    'a filter in code': (
        lambda m, x: functional.conv2d(x, m.blur, padding=1, groups=16),
        lambda: {'blur': torch.rand(16, 1, 3, 3)}, set(),
    ),
    'weights from the image': (
        lambda m, x: torch.cat([
            functional.conv2d(each[None], m.kernel(each.mean((1, 2))).view(16, 16, 1, 1))
            for each in x
        ]),
        lambda: {'kernel': nn.Linear(16, 256)}, set(),
    ),
    'spectrum': (
        lambda m, x: torch.fft.irfft2(torch.fft.rfft2(x) * m.p, s=x.shape[2:]),
        lambda: {'p': _parameter(16, 1, 1)}, set(),
    ),
    'unequal parts': (
        _split,
        lambda: {
            'wide': _wide(), 'each': nn.ModuleList([nn.Conv2d(n, n, 1) for n in (4, 6, 6)]),
        },
        {'stem.0', 'each.0', 'each.1', 'each.2'},
    ),
    'checkpointed': (
        lambda m, x: checkpoint(m.wide, x, use_reentrant=False),
        lambda: {'wide': _wide()}, {'stem.0', 'wide'},
    ),
}  # fmt: skip


def _images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('name', ODD)
def test_what_is_cut_is_cut_rightly_and_the_rest_is_kept(name: str) -> None:
    middle, parts, wanted = ODD[name]
    torch.manual_seed(0)
    model = _Around(middle, parts()).eval()
    nn.init.uniform_(model.stem[1].weight, 0.5, 1.5)
    nn.init.uniform_(model.stem[1].bias, -0.5, 0.5)
    example = (_images(1, 0),)
    planner = Planner(
        model, example, calibration=[_images(4, 1)], criterion='joint_error', round_to=1
    )
    channels = planner.structure.channels
    assert channels.keys() == wanted | {'last'}
    unit = {each.name: each.unit for each in planner.structure.groups.prunable}
    halves = {each: total // unit[each] // 2 * unit[each] for each, total in channels.items()}
    plan = planner.plan(widths=halves)
    small = planner.cut(plan)
    assert count(small, example).macs == plan.macs
    masked = mask_channels(model, find_groups(model, example, verify=False), plan.kept)
    with torch.no_grad():
        right, found = (each.eval()(_images(5, 2)) for each in (masked, small))
    assert float((right - found).abs().max()) <= 1e-5 * float(right.abs().max())
    assert not torch.allclose(model(_images(5, 2)), right, rtol=1e-3)


def test_weights_of_which_one_is_the_other_turned_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.head = nn.Linear(12, 24), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(functional.linear(self.code(x).relu(), self.code.weight.t()))

    groups = find_groups(Tied(), (torch.rand(2, 12),))
    assert not groups.prunable
    assert 'mixed by mm' in groups.not_pruned['code']


def test_layers_without_a_size_are_named() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(4, 1))
    for look in (count, find_groups):
        with pytest.raises(PruningError, match=r'0\.weight has no size yet.*run the network once'):
            look(lazy, (_images(1, 0),))
    lazy(_images(1, 0))
    assert [each.name for each in find_groups(lazy, (_images(1, 0),)).prunable] == ['0']
