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

"""Files as they come: names, batches, inputs, and what is refused with its reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")
onnx = pytest.importorskip('onnx', reason="importing needs onnx: extra 'train'")

from graphs import check, graph, node  # noqa: E402
from onnx import TensorProto  # noqa: E402
from torch import nn  # noqa: E402

from pruned_perception.training.exporting import onnx_bytes  # noqa: E402
from pruned_perception.training.onnx_import import OnnxImportError, import_onnx  # noqa: E402


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def convolution(opset: int = 17, **options: Any) -> bytes:
    constants = {'body.0.conv.weight': random(6, 3, 3, 3), 'body.0.conv.bias': random(6)}
    nodes = [
        node('Conv', 'x body.0.conv.weight body.0.conv.bias', 'c', pads=[1] * 4),
        node('Relu', 'c'),
    ]
    shapes = options.pop('shapes', {'x': (1, 3, 8, 9)})
    return graph(nodes, shapes, ['y'], options.pop('constants', constants), opset=opset, **options)


@pytest.mark.parametrize('opset', range(11, 22))
def test_every_opset_from_11_to_21(opset: int) -> None:
    check(convolution(opset))


def test_layers_are_named_after_their_weights_or_their_nodes() -> None:
    assert 'body.0.conv' in dict(import_onnx(convolution()).module.named_modules())
    constants = {'onnx::Conv_12': random(6, 3, 3, 3), '940': random(4, 6, 1, 1)}
    nodes = [
        node('Conv', 'x onnx::Conv_12', 'c', name='/stem/conv/Conv'),
        node('Conv', 'c 940', name='Conv_3'),
    ]
    module = check(graph(nodes, {'x': (1, 3, 8, 9)}, ['y'], constants)).module
    assert [name for name, _ in module.named_children()] == ['stem_conv_Conv', 'Conv_3']


def test_layers_that_share_their_weights_are_one_layer() -> None:
    constants = {'w': random(3, 3, 1, 1)}
    nodes = [node('Conv', 'x w', 'a'), node('Conv', 'a w')]
    module = check(graph(nodes, {'x': (1, 3, 5, 5)}, ['y'], constants)).module
    assert len(list(module.children())) == 1


def test_weights_train_and_constants_do_not() -> None:
    constants = {
        'conv.weight': random(3, 3, 1, 1), 'mean': random(1, 3, 1, 1), 'scale': random(1, 3, 1, 1),
    }  # fmt: skip
    nodes = [node('Sub', 'x mean', 'a'), node('Mul', 'a scale', 'b'), node('Conv', 'b conv.weight')]
    module = check(graph(nodes, {'x': (1, 3, 5, 5)}, ['y'], constants)).module
    assert [name for name, _ in module.named_parameters()] == ['conv.weight']
    module(torch.rand(2, 3, 5, 5)).sum().backward()
    assert module.conv.weight.grad is not None


def test_gates_are_one_function() -> None:
    nodes = [node('Sigmoid', 'x', 's'), node('Mul', 'x s')]
    network = check(graph(nodes, {'x': (1, 3, 5, 5)}, ['y']))
    assert 'silu' in network.module.code
    network = check(graph(nodes, {'x': (1, 3, 5, 5)}, ['y', 's']))
    assert 'silu' not in network.module.code


def test_half_precision_becomes_single() -> None:
    constants = {'w': random(6, 3, 3, 3).astype(np.float16)}
    model = graph(
        [node('Conv', 'x w')], {'x': (1, 3, 8, 9)}, ['y'], constants, dtype=TensorProto.FLOAT16
    )
    network = import_onnx(model)
    assert network.inputs[0].dtype == torch.float32
    x = network.example_inputs[0]
    wanted = nn.functional.conv2d(x, torch.from_numpy(constants['w']).float())
    torch.testing.assert_close(network.module(x), wanted)


def test_tensors_in_other_files_are_read(tmp_path: Path) -> None:
    model = onnx.load(io.BytesIO(convolution()))
    path = tmp_path / 'model.onnx'
    onnx.save(model, path, save_as_external_data=True, location='weights.bin', size_threshold=0)
    with torch.no_grad():
        network, whole = import_onnx(path), import_onnx(convolution())
        x = network.example_inputs[0]
        assert torch.equal(network.module(x), whole.module(x))
    (tmp_path / 'weights.bin').unlink()
    with pytest.raises(OnnxImportError, match=r'model\.onnx: no ONNX file that can be read'):
        import_onnx(path)


def test_open_sizes_are_asked_for_and_an_open_batch_is_one_image() -> None:
    model = convolution(shapes={'x': ('batch', 3, 'height', 'width')})
    with pytest.raises(OnnxImportError, match=r"input 'x' is \[1, 3, 'height', 'width'\]: give"):
        import_onnx(model)
    network = check(model, shapes={'x': (1, 3, 12, 10)})
    assert network.inputs[0].shape == (1, 3, 12, 10)


def test_several_inputs_and_outputs() -> None:
    nodes = [node('Add', 'a b', 's'), node('Relu', 's', 'y'), node('Neg', 'b', 'z')]
    network = check(graph(nodes, {'a': (1, 3, 4), 'b': (1, 3, 4)}, ['z', 'y']))
    assert [port.name for port in network.inputs] == ['a', 'b']
    assert network.outputs == ('z', 'y')


def test_bytes_are_taken_as_bytes() -> None:
    constants = {'w': random(4, 3, 3, 3)}
    nodes = [
        node('Transpose', 'x', 't', perm=[0, 3, 1, 2]),
        node('Cast', 't', 'f', to=1),
        node('Conv', 'f w', 'c'),
        node('Cast', 'c', to=1),
    ]
    model = onnx.load(io.BytesIO(graph(nodes, {'x': (1, 8, 9, 3)}, ['y'], constants)))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    network = check(model.SerializeToString())
    assert network.inputs[0].dtype == torch.uint8
    assert int(network.example_inputs[0].max()) > 1


def test_written_down_batches_follow_wherever_they_can() -> None:
    """Reshapes (1, C, H, W) → (1, C, HW), and windows that hide the batch in their number."""
    constants = {
        'windows': np.array([1, 3, 2, 4, 2, 4], np.int64), 'each': np.array([4, 3, 4, 4]),
        'back': np.array([1, 2, 2, 3, 4, 4]), 'flat': np.array([1, 3, 64]),
    }  # fmt: skip
    nodes = [
        node('Reshape', 'x windows', 'a'),
        node('Transpose', 'a', 'b', perm=[0, 2, 4, 1, 3, 5]),
        node('Reshape', 'b each', 'c'),
        node('Softmax', 'c', 'd', axis=3),
        node('Reshape', 'd back', 'e'),
        node('Transpose', 'e', 'f', perm=[0, 3, 1, 4, 2, 5]),
        node('Reshape', 'f flat'),
    ]
    network = check(graph(nodes, {'x': (1, 3, 8, 8)}, ['y'], constants))
    assert network.one_batch is None


def test_constants_beside_images_are_repeated_for_each() -> None:
    nodes = [node('Relu', 'x', 'r'), node('Concat', 'c r', axis=2)]
    model = graph(nodes, {'x': (1, 3, 4)}, ['y'], {'c': random(1, 3, 2)})
    assert check(model).one_batch is None


def test_a_batch_that_cannot_grow_is_said() -> None:
    constants = {'axes': np.array([0]), 'w': random(1, 3, 4)}
    nodes = [node('Squeeze', 'x axes')]
    network = import_onnx(graph(nodes, {'x': (1, 3, 4)}, ['y'], constants))
    assert network.one_batch is not None


@pytest.mark.parametrize(
    ('operator', 'attributes', 'reason'),
    [
        ('QuantizeLinear', {}, 'a quantised network does not train'),
        ('NonZero', {}, "name the values before it, as 'r', as outputs"),
        ('LSTM', {'hidden_size': 2}, r'the operator LSTM is not taken \(not taken here: LSTM\)'),
        ('If', {}, 'without control flow'),
        ('MyOperator', {'domain': 'vendor'}, 'the operator vendor.MyOperator is not taken'),
    ],
)
def test_what_is_not_taken_is_named(operator: str, attributes: dict[str, Any], reason: str) -> None:
    nodes = [node('Relu', 'x', 'r'), node(operator, 'r', 'y', name='culprit', **attributes)]
    model = graph(nodes, {'x': (1, 3, 4, 4)}, ['y'])
    with pytest.raises(OnnxImportError, match=f"the model: node 'culprit'.*{reason}"):
        import_onnx(model)
    assert import_onnx(model, outputs=['r']).outputs == ('r',)


def test_what_is_not_taken_but_not_needed_does_no_harm() -> None:
    nodes = [node('Relu', 'x', 'y'), node('NonZero', 'x', 'z')]
    check(graph(nodes, {'x': (1, 3, 4, 4)}, ['y']))


@pytest.mark.parametrize(
    ('one', 'reason'),
    [
        (node('Conv', 'x k', name='culprit'), 'its input 1 is computed, not a weight'),
        (node('Reshape', 'x k', name='culprit'), 'depends on the picture'),
        (node('Resize', 'x - s', name='culprit', antialias=1, mode='linear'), 'antialias'),
        (node('Resize', 'x - - z', name='culprit', keep_aspect_ratio_policy='not_larger'), 'ratio'),
        (node('Pad', 'x p', name='culprit', mode='wrap'), 'mode wrap'),
        (node('MaxPool', 'x', 'y i', name='culprit', kernel_shape=[2, 2]), 'its indices'),
        (node('Gather', 'x g', name='culprit'), 'indices with 2 axes'),
    ],
)  # fmt: skip
def test_ways_that_are_not_taken_name_node_and_operator(one: Any, reason: str) -> None:
    constants = {
        's': np.array([1, 1, 2, 2], np.float32), 'g': np.zeros((2, 2), np.int64),
        'p': np.array([0, 0, 1, 1] * 2), 'z': np.array([1, 3, 8, 8]),
    }  # fmt: skip
    model = graph([node('Relu', 'x', 'k'), one], {'x': (1, 3, 4, 4)}, ['y'], constants, opset=19)
    with pytest.raises(OnnxImportError, match=rf"node 'culprit' \({one.op_type}\): .*{reason}"):
        import_onnx(model)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(OnnxImportError, match='no such file'):
        import_onnx(tmp_path / 'none.onnx')
    (tmp_path / 'text.onnx').write_text('no model')
    with pytest.raises(OnnxImportError, match=r'text\.onnx: no ONNX file'):
        import_onnx(tmp_path / 'text.onnx')
    with pytest.raises(OnnxImportError, match='opset 8; 9 to 21 are taken'):
        import_onnx(convolution(8))
    with pytest.raises(OnnxImportError, match="there is no value 'boxes'"):
        import_onnx(convolution(), outputs=['boxes'])


class Attention(nn.Module):
    """A layer of a transformer, whose sizes exporters write down."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(self.norm(tokens + mixed).mean(1))


def test_attention_of_a_transformer() -> None:
    torch.manual_seed(0)
    module = Attention().eval()
    model = onnx_bytes(module, (torch.rand(1, 3, 16, 16),), ['x'], ['y'])
    network = check(model)
    assert network.one_batch is None
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network.module(x), module(x), rtol=1e-4, atol=1e-5)
