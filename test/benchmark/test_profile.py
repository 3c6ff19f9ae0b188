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

"""Profiles: which layers they find, how they find the block, and how they go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_writer as ow
import pytest

from pruned_perception.benchmark import profile as profiling
from pruned_perception.benchmark.engine import Network
from pruned_perception.benchmark.profile import channel_block, layers_of, profile
from pruned_perception.inference.latency_table import (
    Convolution,
    Geometry,
    LatencyTableError,
    factored,
    read_table,
)

LAYERS = (
    Convolution(Geometry(3, 3, 2, 2, 16, 16, False), 3, 32),
    Convolution(Geometry(3, 3, 1, 1, 16, 16, True), 32, 32),
    Convolution(Geometry(1, 1, 1, 1, 16, 16, False), 32, 20),
)


def network(name: str = 'net') -> Network:
    """Return a network of LAYERS."""
    rng = np.random.default_rng(len(name))
    shapes = ((32, 3, 3, 3), (32, 1, 3, 3), (20, 32, 1, 1))
    values = ('image', 'a', 'b', 'out')
    nodes, constants = [], {}
    for k, (shape, layer) in enumerate(zip(shapes, LAYERS, strict=True)):
        constants[f'w{k}'] = rng.standard_normal(shape).astype(np.float32)
        nodes.append(
            ow.node(
                'Conv',
                [values[k], f'w{k}'],
                [values[k + 1]],
                kernel_shape=list(shape[2:]),
                strides=[layer.geometry.stride_down] * 2,
                pads=[shape[2] // 2] * 4,
                group=32 if layer.geometry.depthwise else 1,
            )
        )
    model = ow.model(
        nodes,
        [ow.value('image', 'float32', [1, 3, 32, 32])],
        [ow.value('out', 'float32', [1, 20, 16, 16])],
        constants,
    )
    return Network(name, name.ljust(64, '0'), None, model)


def test_the_engine_says_which_layers_there_are() -> None:
    layers, share = layers_of(network())
    assert layers == LAYERS
    assert 0 < share <= 1


def test_a_table_holds_what_was_measured_and_predicts_the_network(tmp_path: Path) -> None:
    table = profile(network(), tmp_path / 'table.json')

    assert table.complete
    assert read_table(tmp_path / 'table.json') == table
    assert {each.geometry for each in table.times} == {each.geometry for each in LAYERS}
    for each in table.times:
        rows = np.array(each.ms)
        assert (rows > 0).all()
        assert (np.diff(rows, axis=1) >= 0).all()
        assert (np.diff(rows, axis=0) >= 0).all()
    assert table.predict(LAYERS) == pytest.approx(table.whole.ms)


def test_a_table_holds_what_takes_a_layers_place_at_low_rank(tmp_path: Path) -> None:
    dense = ow.node('Conv', ['x', 'w'], ['y'], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    model = ow.model(
        [dense],
        [ow.value('x', 'float32', [1, 32, 8, 8])],
        [ow.value('y', 'float32', [1, 64, 4, 4])],
        {'w': np.ones((64, 32, 3, 3), np.float32)},
    )
    table = profile(Network('low rank', '1' * 64, None, model), tmp_path / 'table.json')
    (layer,) = table.whole.layers
    first, second = factored(layer, 64)
    assert [each.geometry for each in table.times] == [first.geometry, second.geometry]
    assert table.times[1].inputs[-1] == table.times[1].outputs[-1] == 64
    assert all(ms < table.predict([layer]) for ms in table.faster_ranks(layer).values())


def test_an_interrupted_profile_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'table.json'
    measured: list[Geometry] = []
    usual = profiling._times

    def interrupted(geometry: Geometry, *rest: object) -> object:
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(geometry)
        return usual(geometry, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(profiling, '_times', interrupted)
    with pytest.raises(KeyboardInterrupt):
        profile(network(), file)
    half = read_table(file)
    assert not half.complete

    monkeypatch.setattr(profiling, '_times', lambda *a: measured.append(a[0]) or usual(*a))
    whole = profile(network(), file)

    assert measured == [each.geometry for each in LAYERS]  # each once
    assert whole.times[0] == half.times[0]
    assert whole.whole == half.whole


def test_a_file_of_another_network_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / 'table.json'
    profile(network(), file)
    before = file.read_bytes()
    with pytest.raises(LatencyTableError, match='is of something else: network net, not other'):
        profile(network('other'), file)
    assert file.read_bytes() == before


def test_a_network_without_convolutions_is_refused(tmp_path: Path) -> None:
    values = ow.value('x', 'float32', [1, 4]), ow.value('y', 'float32', [1, 4])
    model = ow.model([ow.node('Relu', ['x'], ['y'])], [values[0]], [values[1]], {})
    with pytest.raises(LatencyTableError, match='no convolution'):
        profile(Network('relu', '0' * 64, None, model), tmp_path / 'table.json')


@pytest.mark.parametrize('block', [4, 8, 16, 32])
def test_the_block_is_found_from_times(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(layer: Convolution, threads: int, runs: int) -> float:
        return 0.1 + -(-layer.outputs // block) * block / 64  # and something that always is

    monkeypatch.setattr(profiling, 'convolution_ms', steps)
    assert channel_block() == block


IN_8_BITS = LAYERS[0]._replace(geometry=LAYERS[0].geometry._replace(in_8_bits=True))


@pytest.mark.parametrize('activations', ['uint8', 'int8'])
def test_activations_are_of_the_networks_type(activations: str) -> None:
    model = profiling._one_layer(IN_8_BITS, activations)
    assert profiling._activations(Network('int8', '8' * 64, None, model)) == activations


def test_layers_in_8_bits_have_times_of_their_own(tmp_path: Path) -> None:
    quantised = Network('int8', '8' * 64, None, profiling._one_layer(IN_8_BITS))

    table = profile(quantised, tmp_path / 'table.json')

    assert table.whole.layers == (IN_8_BITS,)
    second = factored(IN_8_BITS, 3)[1].geometry
    assert second.in_8_bits
    assert [each.geometry for each in table.times] == [IN_8_BITS.geometry, second]
    assert not table.holds(LAYERS[0].geometry)
    with pytest.raises(LatencyTableError, match='does not hold'):
        table.predict(LAYERS[:1])
    assert read_table(tmp_path / 'table.json') == table


def test_a_table_says_what_8_bits_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ms(layer: Convolution, conditions: object = None, runs: int = 0) -> float:
        return 1.0 if layer.geometry.in_8_bits else 3.0

    monkeypatch.setattr(profiling, 'convolution_ms', ms)
    assert profile(network(), tmp_path / 'table.json').int8_gain == 3.0


def test_a_table_says_of_which_provider_it_is(tmp_path: Path) -> None:
    table = profile(network(), tmp_path / 'table.json')
    assert table.target.provider == 'cpu'
    assert table.whole.nodes is None or set(table.whole.nodes) == {'cpu'}  # as ONNX Runtime tells
