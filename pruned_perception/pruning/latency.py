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

"""What a network takes at which widths, by a latency table: what a budget of time divides."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pruned_perception.inference.latency_table import (
    Convolution,
    LatencyTable,
    convolution,
    factored,
)
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.structure import LayerTerm, Structure, rank_of


def latency_of(structure: Structure, table: LatencyTable) -> Callable[[Mapping[str, float]], float]:
    """Return the function from widths (groups and layers left out: whole) to milliseconds.

    It rises with every width, in steps of the table's block. A layer of low rank takes what the two
    take, or what the one does where that is less.

    Raises:
        PruningError: evidence from before layers' shapes were recorded.
        LatencyTableError: a layer, or the second of two, that the table does not hold; names its
            shape.
    """
    layers = [
        (term, _in_table(shape, term, table)) for term in structure.terms for shape in term.shapes
    ]
    if not layers:
        raise PruningError(
            'a budget of milliseconds needs convolutions whose shapes are known; evidence that '
            'was measured by an earlier version does not say them: measure it again'
        )
    channels = structure.channels
    ranks = [rank_of(term.layer) for term, _ in layers]
    known: dict[tuple[int, float, float, float], float] = {}

    def latency(widths: Mapping[str, float]) -> float:
        total = 0.0
        for number, (term, layer) in enumerate(layers):
            made = 1 - _gone(term.outputs, widths, channels)
            read = made if layer.geometry.depthwise else 1 - _gone(term.inputs, widths, channels)
            key = number, read, made, widths.get(ranks[number], 0)
            if key not in known:
                known[key] = _layer_ms(layer, read, made, key[-1], table)
            total += known[key]
        return total

    return latency


def _layer_ms(
    layer: Convolution, read: float, made: float, rank: float, table: LatencyTable
) -> float:
    """Return a layer's part of the network's time with these shares of its inputs and outputs."""
    inputs, outputs = read * layer.inputs, made * layer.outputs
    alone = table.layer_ms(layer.geometry, inputs, outputs)
    whole = table.network_ms(alone, layer.elements * made)
    taps = layer.geometry.kernel_height * layer.geometry.kernel_width
    if layer.geometry.depthwise or not 0 < rank < min(outputs, taps * inputs):
        return whole
    first, second = factored(layer, int(rank))
    both = table.layer_ms(first.geometry, inputs, rank)
    both += table.layer_ms(second.geometry, rank, outputs)
    return min(whole, table.network_ms(both, first.elements + layer.elements * made))


def _in_table(shape: tuple[int, ...], term: LayerTerm, table: LatencyTable) -> Convolution:
    layer = convolution(shape[:4], shape[4:8], shape[8:])
    return table.held(layer) if term.inputs else table.as_written(layer)


def _gone(
    parts: tuple[tuple[str, float], ...], widths: Mapping[str, float], channels: Mapping[str, int]
) -> float:
    """Return the share of a layer's channels that the widths cut off."""
    return sum(
        share * (1 - widths.get(name, channels[name]) / channels[name]) for name, share in parts
    )
