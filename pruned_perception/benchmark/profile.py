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

"""A latency table, measured: single convolutions of a network at the channel counts it may have.

No PyTorch, no package `onnx`: the engine's own profiler says which convolutions a network has and
how long each takes; for every geometry a network of one convolution is written and run. Each count
is the least of several runs, since other processes can only add; what is compared is ratios to the
network as a whole, measured in the same session.

Tables are of the CPU's execution provider. One that compiles layers together does not tell what
each of them takes, and one by one they take longer; a GPU runs beside the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pruned_perception._io import write_json
from pruned_perception.benchmark.engine import Network, measure, open_sessions, random_inputs
from pruned_perception.inference import onnx_writer
from pruned_perception.inference.engine import profiled_nodes, version
from pruned_perception.inference.latency_table import (
    Convolution,
    Geometry,
    LatencyTable,
    LatencyTableError,
    Target,
    Times,
    Whole,
    convolution,
    factored,
    full_rank,
    read_table,
)
from pruned_perception.inference.processor import integer_arithmetic, processor_name
from pruned_perception.inference.providers import CPU

_CONVOLUTIONS = ('Conv', 'QLinearConv')
_SIDES = 'input_type_shape', 'output_type_shape'
RUNS = 12
MOST_COUNTS = 8
"""Of channels along one side of a geometry; times between them are taken to be linear."""
BLOCKS = (32, 16, 8, 4)
_ROUNDS, _RUNS_PER_ROUND = 10, 5  # of the whole network


class Conditions(NamedTuple):
    """How layers are run."""

    threads: int = 1
    activations: str = 'uint8'
    """Their type in layers of 8 bits."""


DEFAULT = Conditions()


def target(threads: int = 1) -> Target:
    """Return what is measured on here."""
    return Target(
        processor_name(),
        integer_arithmetic(),
        version(),
        CPU,
        threads,
    )


def profile(
    network: Network,
    file: Path,
    *,
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda done: None,
) -> LatencyTable:
    """Measure a table into a file, going on with what an interrupted run left there.

    Args:
        network: of which the layers are taken.
        file: JSON; written after each geometry.
        threads: of a run, as the robot's node will use.
        on_progress: told the share of the geometries that is done.

    Raises:
        LatencyTableError: the file is of another network or machine, or the network has no
            convolution.
        InferenceError: the engine does not take the network.
    """
    here = target(threads)
    started = read_table(file) if file.exists() else None
    if started is not None:
        started_on = started.target.differences(here)
        if started.whole.sha256 != network.sha256:
            started_on.append(f'network {started.whole.name}, not {network.name}')
        if started_on:
            raise LatencyTableError(
                f'{file}: is of something else: {"; ".join(started_on)}; choose another file'
            )
        if started.complete:
            return started
    layers, share = layers_of(network, threads)
    conditions = Conditions(threads, _activations(network))
    if not layers:
        raise LatencyTableError(f'{network.name}: no convolution in it to make a table of')
    if started is None:
        sessions = open_sessions([network], threads=threads)
        runs = measure(
            [network], rounds=_ROUNDS, runs=_RUNS_PER_ROUND, threads=threads, sessions=sessions
        )
        nodes = sessions[0].execution.nodes
        whole = Whole(
            network.name,
            network.sha256,
            float(np.median(runs, axis=2).min()),
            share,
            layers,
            None if nodes is None else dict(nodes),
        )
        block = channel_block(conditions, any(each.geometry.in_8_bits for each in layers))
        gain = int8_gain(layers, conditions)
        started = LatencyTable(here, block, whole, (), complete=False, int8_gain=gain)
    done = {each.geometry: each for each in started.times}
    # Beside the layers what takes their place at low rank, whose first halves they have already.
    seconds = [factored(each, full_rank(each))[1] for each in layers if not each.geometry.depthwise]
    wanted = list(dict.fromkeys(each.geometry for each in (*layers, *seconds)))
    for number, geometry in enumerate(wanted):
        if geometry not in done:
            same = [each for each in (*layers, *seconds) if each.geometry == geometry]
            done[geometry] = _times(geometry, same, started.block, conditions)
            write_json(file, _with(started, done, complete=False).to_dict())
        on_progress((number + 1) / len(wanted))
    table = _with(started, done, complete=True)
    write_json(file, table.to_dict())
    return table


def layers_of(network: Network, threads: int = 1) -> tuple[tuple[Convolution, ...], float]:
    """Return the convolutions of a network, and their share of its time on the CPU, 0 … 1."""
    layers = []
    for event in _runs(network, 1, threads, fused=False)[0]:
        if event['op_name'] == 'Conv':
            shapes = [next(iter(each.values())) for each in event['input_type_shape']]
            (output,) = event['output_type_shape']
            if len(shapes[1]) == 4:
                layers.append(convolution(shapes[1], shapes[0], next(iter(output.values()))))
    runs = _runs(network, RUNS, threads)
    best = np.min([[each['dur'] for each in run] for run in runs], axis=0)
    mine = np.array([each['op_name'] in _CONVOLUTIONS for each in runs[0]])
    share = float(best[mine].sum() / max(best.sum(), 1))
    return _with_bits(layers, runs[0]), share


def _with_bits(
    layers: Sequence[Convolution], events: Sequence[dict[str, Any]]
) -> tuple[Convolution, ...]:
    """Mark the layers that ran in 8 bits; of layers with the same channels and sizes, any."""
    left = [
        tuple(tuple(next(iter(each[side][0].values()))) for side in _SIDES)
        for each in events
        if each['op_name'] == 'QLinearConv'
    ]
    found = []
    for layer in layers:
        geometry, inputs, outputs = layer
        size = geometry.height, geometry.width
        for source, target in left:
            channels_first = target[1:] == (outputs, *size) and source[1] == inputs
            if channels_first or (target[1:] == (*size, outputs) and source[-1] == inputs):
                left.remove((source, target))
                layer = layer._replace(geometry=geometry._replace(in_8_bits=True))
                break
        found.append(layer)
    return tuple(found)


def _activations(network: Network) -> str:
    """Return the type of a network's activations in 8 bits: 'uint8' or 'int8'."""
    for event in _runs(network, 1, 1, fused=False)[0]:
        if event['op_name'] == 'QuantizeLinear':
            return str(next(iter(event['output_type_shape'][0])))
    return DEFAULT.activations


def convolution_ms(layer: Convolution, conditions: Conditions = DEFAULT, runs: int = RUNS) -> float:
    """Return the least time of a convolution alone, without the reordering around it."""
    model = _one_layer(layer, conditions.activations)
    network = Network(str(layer), '', None, model)
    found = [
        sum(each['dur'] for each in events if each['op_name'] in _CONVOLUTIONS)
        for events in _runs(network, runs, conditions.threads)
    ]
    return min(found) / 1e3


def int8_gain(layers: Sequence[Convolution], conditions: Conditions = DEFAULT) -> float:
    """Return the time of the layers in float divided by that in 8 bits, each run alone."""
    total = [0.0, 0.0]
    for (geometry, inputs, outputs), count in Counter(layers).items():
        for bits in (False, True):
            layer = Convolution(geometry._replace(in_8_bits=bits), inputs, outputs)
            total[bits] += count * convolution_ms(layer, conditions)
    return total[0] / total[1]


def channel_block(conditions: Conditions = DEFAULT, in_8_bits: bool = False) -> int:
    """Return how many channels the engine computes at a time, found by measurement.

    Half a block less of 64 outputs saves nothing where it is the engine's block, and its share of
    the time where the block is smaller.
    """

    def ms(outputs: int) -> float:
        geometry = Geometry(3, 3, 1, 1, 32, 32, False, in_8_bits)
        return convolution_ms(Convolution(geometry, 64, outputs), conditions, 30)

    full = ms(64)
    for block in BLOCKS:
        saved = 1 - ms(64 - block // 2) / full
        if saved < 0.4 * (block / 2) / 64:
            return block
    return 1


def counts(channels: int, block: int) -> tuple[int, ...]:
    """Return the channel counts that are measured: whole blocks up to all channels.

    >>> counts(96, 16), counts(3, 16), counts(20, 8)
    ((16, 32, 48, 64, 80, 96), (3,), (8, 16, 20))
    """
    steps = [*range(block, channels, block), channels]
    if len(steps) > MOST_COUNTS:
        places = np.linspace(0, len(steps) - 1, MOST_COUNTS).round().astype(int)
        steps = [steps[k] for k in places]
    return tuple(steps)


def _times(
    geometry: Geometry, layers: Sequence[Convolution], block: int, conditions: Conditions
) -> Times:
    """Measure a geometry, from a block up to the most channels that it has in the network."""
    outputs = counts(max(each.outputs for each in layers), block)
    inputs = counts(max(each.inputs for each in layers), block)
    if geometry.depthwise:
        inputs = ()
        rows = [[convolution_ms(Convolution(geometry, n, n), conditions) for n in outputs]]
    else:
        rows = [
            [convolution_ms(Convolution(geometry, m, n), conditions) for n in outputs]
            for m in inputs
        ]
    # More channels do not take less: what looks like it is noise, or a kernel that the engine
    # could use for more channels, too.
    rising = np.maximum.accumulate(np.maximum.accumulate(np.array(rows), axis=0), axis=1)
    return Times(geometry, inputs, outputs, tuple(tuple(row) for row in rising.tolist()))


def _one_layer(layer: Convolution, activations: str = 'uint8') -> bytes:
    geometry, inputs, outputs = layer
    rng = np.random.default_rng(0)
    shape = (
        outputs,
        1 if geometry.depthwise else inputs,
        geometry.kernel_height,
        geometry.kernel_width,
    )
    strides = [geometry.stride_down, geometry.stride_along]
    source = [1, inputs, geometry.height * strides[0], geometry.width * strides[1]]
    pads = [max(0, kernel - stride) for kernel, stride in zip(shape[2:], strides, strict=True)]
    before = [each // 2 for each in pads]
    after = [each - half for each, half in zip(pads, before, strict=True)]
    attributes = {
        'kernel_shape': list(shape[2:]),
        'strides': strides,
        'pads': [*before, *after],
        'group': inputs if geometry.depthwise else 1,
    }
    target = [1, outputs, geometry.height, geometry.width]
    if geometry.in_8_bits:
        return _in_8_bits(attributes, source, target, shape, activations)
    node = onnx_writer.node('Conv', ['x', 'w', 'b'], ['y'], **attributes)
    return onnx_writer.model(
        [node],
        [onnx_writer.value('x', 'float32', source)],
        [onnx_writer.value('y', 'float32', target)],
        {
            'w': rng.standard_normal(shape).astype(np.float32),
            'b': np.zeros(outputs, np.float32),
        },
    )


def _in_8_bits(
    attributes: dict[str, Any],
    source: list[int],
    target: list[int],
    shape: tuple[int, ...],
    activations: str,
) -> bytes:
    """Return the layer between quantised values, as the engine fuses it."""
    node = onnx_writer.node
    zero = np.zeros((), activations)
    return onnx_writer.model(
        [
            node('DequantizeLinear', ['x', 'scale', 'zero'], ['xf']),
            node('DequantizeLinear', ['w', 'scales', 'zeros'], ['wf'], axis=0),
            node('Conv', ['xf', 'wf'], ['yf'], **attributes),
            node('QuantizeLinear', ['yf', 'scale', 'zero'], ['y']),
        ],
        [onnx_writer.value('x', activations, source)],
        [onnx_writer.value('y', activations, target)],
        {
            'w': np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8),
            'scale': np.float32(0.02),
            'zero': zero,
            'scales': np.full(shape[0], 0.01, np.float32),
            'zeros': np.zeros(shape[0], np.int8),
        },
    )


def _runs(
    network: Network, runs: int, threads: int, *, fused: bool = True
) -> list[list[dict[str, Any]]]:
    def feeds(session: Any) -> dict[str, Any]:
        return random_inputs(session, network.name, np.random.default_rng(0))

    return profiled_nodes(network.model, feeds, runs, threads=threads, fused=fused)


def _with(table: LatencyTable, done: dict[Geometry, Times], *, complete: bool) -> LatencyTable:
    return replace(table, times=tuple(done.values()), complete=complete)
