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

from pruned_perception.inference.latency_table import Convolution, LatencyTable, convolution
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.structure import LayerTerm, Structure


def latency_of(structure: Structure, table: LatencyTable) -> Callable[[Mapping[str, float]], float]:
    """Return the function from widths of groups (those left out: whole) to milliseconds.

    It rises with every width, in steps of the table's block.

    Raises:
        PruningError: evidence from before layers' shapes were recorded.
        LatencyTableError: a layer that the table does not hold; names its shape.
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
    known: dict[tuple[int, float, float], float] = {}

    def latency(widths: Mapping[str, float]) -> float:
        total = elements = 0.0
        for number, (term, layer) in enumerate(layers):
            made = 1 - _gone(term.outputs, widths, channels)
            read = made if layer.geometry.depthwise else 1 - _gone(term.inputs, widths, channels)
            key = number, read, made
            if key not in known:
                inputs, outputs = read * layer.inputs, made * layer.outputs
                known[key] = table.layer_ms(layer.geometry, inputs, outputs)
            total += known[key]
            elements += layer.elements * made
        return table.network_ms(total, elements)

    return latency


def _in_table(shape: tuple[int, ...], term: LayerTerm, table: LatencyTable) -> Convolution:
    layer = convolution(shape[:4], shape[4:8], shape[8:])
    return layer if term.inputs else table.as_written(layer)


def _gone(
    parts: tuple[tuple[str, float], ...], widths: Mapping[str, float], channels: Mapping[str, int]
) -> float:
    """Return the share of a layer's channels that the widths cut off."""
    return sum(
        share * (1 - widths.get(name, channels[name]) / channels[name]) for name, share in parts
    )
