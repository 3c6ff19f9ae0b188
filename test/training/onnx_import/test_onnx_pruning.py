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

"""Imported networks are cut through shuffles, splits and written-down sizes, and exported again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
onnx = pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from graphs import check  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from pruned_perception.inference.engine import create_session  # noqa: E402
from pruned_perception.pruning.graph.observation import tensors  # noqa: E402
from pruned_perception.pruning.graph.take import Take  # noqa: E402
from pruned_perception.pruning.surgery import slice_channels  # noqa: E402
from pruned_perception.pruning.tracing import trace  # noqa: E402
from pruned_perception.training.exporting import onnx_bytes  # noqa: E402
from pruned_perception.training.onnx_import import (  # noqa: E402
    OnnxExportError,
    OnnxNetwork,
    export_onnx,
    folded,
    import_onnx,
    with_batch_norms,
)


class Shuffle(nn.Module):
    """Two units as in ShuffleNetV2: half of the channels go round, then all are shuffled."""

    def __init__(self, *, unbound: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=6),
                nn.Conv2d(6, 6, 1), nn.ReLU(),
            )
            for _ in range(3)
        )  # fmt: skip
        self.head = nn.Conv2d(12, 5, 1)
        self.unbound = unbound

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for unit in self.units:
            n, c, h, w = x.shape
            if self.unbound:  # as in FastestDet
                pairs = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2)
                around, through = pairs.reshape(2, -1, c // 2, h, w)
                x = torch.cat((around, unit(through)), 1)
            else:
                around, through = x.chunk(2, 1)
                x = torch.cat((around, unit(through)), 1)
                x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class Partial(nn.Module):
    """C2f of YOLOv8: all parts of a split are read, one of them twice; then squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, 16, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(32, 12, 1)
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        focus = [x[..., a::2, b::2] for a in (0, 1) for b in (0, 1)]
        parts = list(functional.silu(self.first(torch.cat(focus, 1))).split((8, 8), 1))
        for block in self.blocks:
            parts.append(functional.silu(block(parts[-1])))
        y = functional.silu(self.last(torch.cat(parts, 1)))
        gate = self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()
        return self.head(y * gate.reshape(1, 12, 1, 1)).reshape(1, 4, -1)


NETWORKS = {
    'shuffle': lambda: Shuffle(), 'unbound': lambda: Shuffle(unbound=True),
    'partial': lambda: Partial(),
}  # fmt: skip


@pytest.fixture(scope='module', params=NETWORKS)
def imported(request: pytest.FixtureRequest) -> Iterator[OnnxNetwork]:
    torch.manual_seed(0)
    module = NETWORKS[request.param]().eval()
    yield check(onnx_bytes(module, (torch.rand(1, 3, 16, 16),), ['images'], ['found']))


def halves(network: OnnxNetwork) -> dict[str, list[int]]:
    """Keep every third run of channels of every group."""
    structure = trace(network.module, network.example_inputs)
    return {
        group.name: [i for i in range(group.channels) if (i // group.unit) % 3 == 1]
        or list(range(group.unit))
        for group in structure.groups.prunable
    }


def test_everything_but_the_output_can_be_cut(imported: OnnxNetwork) -> None:
    structure = trace(imported.module, imported.example_inputs)
    outputs = {'reaches the output of the network'}
    single = {'has channels that go all together, it has one channel only'}
    assert set(structure.groups.not_pruned.values()) <= outputs | single
    assert structure.size({g.name: g.unit for g in structure.groups.prunable}).macs < (
        0.35 * structure.macs
    )


def test_the_cut_network_is_exported_with_the_same_ports(imported: OnnxNetwork) -> None:
    small = slice_channels(imported.module, imported.example_inputs, halves(imported))
    data = export_onnx(imported, small)
    session = create_session(data)
    assert [each.name for each in session.get_inputs()] == ['images']
    assert session.get_inputs()[0].shape == [1, 3, 16, 16]
    assert [each.name for each in session.get_outputs()] == ['found']
    again = import_onnx(data)  # and that one can be imported in its turn
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(again.module(x), small(x), rtol=1e-4, atol=1e-5)
    whole = trace(imported.module, imported.example_inputs)
    assert trace(again.module, (x,)).macs < 0.6 * whole.macs


def test_a_model_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> bytes:
        return onnx_bytes(Shuffle().eval(), (torch.rand(1, 3, 16, 16),), ['x'], ['y'])

    network = import_onnx(model())
    export_onnx(network, network.module)
    monkeypatch.setattr(
        'pruned_perception.training.onnx_import.export.onnx_bytes', lambda *_: model()
    )
    with pytest.raises(OnnxExportError, match='ONNX Runtime differs from PyTorch by'):
        export_onnx(network, network.module)


def test_batch_norms_come_and_go_without_a_change(imported: OnnxNetwork) -> None:
    small = slice_channels(imported.module, imported.example_inputs, halves(imported))
    torch.manual_seed(1)
    images = torch.rand(4, 3, 16, 16)
    normalised = with_batch_norms(small, [images[:3], images[3:]])
    norms = [each for each in normalised.modules() if isinstance(each, nn.BatchNorm2d)]
    convolutions = [each for each in small.modules() if isinstance(each, nn.Conv2d)]
    assert len(norms) == len(convolutions) - 1  # all but the output
    assert not any(isinstance(each, nn.BatchNorm2d) for each in small.modules())
    with torch.no_grad():
        wanted = small(images)
        torch.testing.assert_close(normalised(images), wanted, rtol=1e-4, atol=1e-5)
        plain = folded(normalised)
        assert not any(isinstance(each, nn.BatchNorm2d) for each in plain.modules())
        torch.testing.assert_close(plain(images), wanted, rtol=1e-4, atol=1e-5)
        # The first step sees what evaluation sees, on the images of the calibration.
        torch.testing.assert_close(normalised.train()(images), wanted, rtol=1e-3, atol=1e-4)


def test_it_trains_and_what_was_trained_is_exported(imported: OnnxNetwork) -> None:
    torch.manual_seed(1)
    images = torch.rand(8, 3, 16, 16)
    network = with_batch_norms(imported.module, [images]).train()
    target = torch.rand_like(imported.module(images))
    optimiser = torch.optim.SGD(network.parameters(), 0.05)
    losses = []
    for _ in range(10):
        loss = (network(images) - target).square().mean()
        losses.append(float(loss))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(each.grad is not None for each in network.parameters())
    assert losses[-1] < 0.9 * losses[0]
    data = export_onnx(imported, network, (images,))
    (found,) = create_session(data).run(None, {'images': images[:1].numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval()(images[:1]), rtol=1e-3, atol=1e-4)
    assert not any(
        n.op_type == 'BatchNormalization' for n in onnx.load(io.BytesIO(data)).graph.node
    )


def test_a_convolution_called_twice_gets_no_batch_norm() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(self.first(x).relu()).relu())

    model = onnx_bytes(Twice().eval(), (torch.rand(1, 3, 8, 8),), ['x'], ['y'])
    network = check(model)
    modules = with_batch_norms(network.module, [torch.rand(2, 3, 8, 8)]).modules()
    assert not any(isinstance(each, nn.BatchNorm2d) for each in modules)


def test_names_that_are_numbers_come_back() -> None:
    model = onnx.load(
        io.BytesIO(onnx_bytes(Shuffle().eval(), (torch.rand(1, 3, 16, 16),), ['a'], ['b']))
    )
    for each in model.graph.node:
        each.input[:] = ['7' if name == 'a' else name for name in each.input]
        each.output[:] = ['758' if name == 'b' else name for name in each.output]
    model.graph.input[0].name, model.graph.output[0].name = '7', '758'
    network = check(model.SerializeToString())
    session = create_session(export_onnx(network, network.module))
    assert [each.name for each in (*session.get_inputs(), *session.get_outputs())] == ['7', '758']


def test_several_outputs_keep_their_order() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x).relu()
            return self.a(x), self.b(x)

    module = Two().eval()
    network = check(onnx_bytes(module, (torch.rand(1, 3, 8, 8),), ['x'], ['second', 'first']))
    small = slice_channels(network.module, network.example_inputs, {'stem': [1, 4, 6]})
    session = create_session(export_onnx(network, small))
    x = torch.rand(1, 3, 8, 8)
    for found, want in zip(session.run(None, {'x': x.numpy()}), tensors(small(x)), strict=True):
        np.testing.assert_allclose(found, want.detach(), rtol=1e-4, atol=1e-5)


def test_taken_channels() -> None:
    x = torch.arange(12.0).reshape(1, 6, 2, 1)
    for indices, axis in (([4, 1, 3], 1), ([1, 3, 5], 1), ([2, 3], 1), ([1], 2), ([2, 2], 1)):
        take = Take(axis, indices)
        assert torch.equal(take(x), x.index_select(axis, torch.tensor(indices)))
    take = Take(1, [4, 1, 3, 0])
    take.follow([0, 1, 4, 5])
    assert take.indices.tolist() == [2, 1, 0]
    take.follow([3])
    assert take(x).shape == (1, 0, 2, 1)
    assert not list(take.state_dict())


def test_shuffles_tie_nothing_that_a_split_does_not(imported: OnnxNetwork) -> None:
    """Every channel may go by itself: no group goes in whole runs."""
    groups: Any = trace(imported.module, imported.example_inputs).groups.prunable
    assert {group.unit for group in groups} == {1}
