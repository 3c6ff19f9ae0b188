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

"""What convolutions cost on one machine, at which channel counts: measured there, read anywhere.

Multiply–accumulates are no latency: a partly filled block of the engine's vectors costs as much as
a full one, and layers of equal arithmetic differ several times in time. A table holds times of
single convolutions, and of the network that they were taken from as a whole; what a network with
other widths takes follows: its convolutions by the table, all else (activations, concatenations)
in proportion to the elements that its convolutions put out.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pruned_perception._io import read_json
from pruned_perception.errors import UserError

VERSION = 1


class LatencyTableError(UserError):
    """A table that is damaged, unfinished, of another machine, or does not hold a layer."""


class Geometry(NamedTuple):
    """A convolution but for its channels; pixels. Strides are of the sizes: input ÷ output."""

    kernel_height: int
    kernel_width: int
    stride_down: int
    stride_along: int
    height: int
    """Of the output."""
    width: int
    depthwise: bool
    in_8_bits: bool = False

    def __str__(self) -> str:
        kind = ' depthwise' * self.depthwise + ' in 8 bits' * self.in_8_bits
        return (
            f'{self.kernel_height} × {self.kernel_width}{kind}, '
            f'stride {self.stride_down} × {self.stride_along}, '
            f'output {self.height} × {self.width}'
        )


class Convolution(NamedTuple):
    """A layer of a network; a depthwise one has as many inputs as outputs."""

    geometry: Geometry
    inputs: int
    outputs: int

    @property
    def elements(self) -> int:
        """Values that it puts out."""
        return self.geometry.height * self.geometry.width * self.outputs


def convolution(
    weights: Sequence[int], source: Sequence[int], target: Sequence[int]
) -> Convolution:
    """Return the layer of weights (O, I / groups, h, w) from (1, I, H, W) to (1, O, H', W')."""
    outputs, per_group, kernel_height, kernel_width = weights
    down, along = (max(1, round(source[k] / target[k])) for k in (2, 3))
    depthwise = per_group == 1 and source[1] > 1
    size = target[2], target[3]
    geometry = Geometry(kernel_height, kernel_width, down, along, *size, depthwise)
    return Convolution(geometry, source[1], outputs)


def full_rank(layer: Convolution) -> int:
    """Return the most that the weights of a layer, outputs by all else, can have."""
    taps = layer.geometry.kernel_height * layer.geometry.kernel_width
    return min(layer.outputs, layer.inputs * taps)


def factored(layer: Convolution, rank: int) -> tuple[Convolution, Convolution]:
    """Return what low rank makes of a layer: its own geometry to `rank` channels, 1 × 1 from them.

    >>> layer = Convolution(Geometry(3, 3, 2, 2, 8, 8, False), 32, 64)
    >>> [(str(each.geometry), each.inputs, each.outputs) for each in factored(layer, 16)]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('3 × 3, stride 2 × 2, output 8 × 8', 32, 16),
     ('1 × 1, stride 1 × 1, output 8 × 8', 16, 64)]
    """
    _, _, _, _, height, width, _, in_8_bits = layer.geometry
    pointwise = Geometry(1, 1, 1, 1, height, width, False, in_8_bits)
    return layer._replace(outputs=rank), Convolution(pointwise, rank, layer.outputs)


@dataclass(frozen=True)
class Times:
    """Milliseconds of one geometry at channel counts; a depthwise one has one row."""

    geometry: Geometry
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    """A row for each count of inputs, a column for each of outputs; rising along both."""

    def at(self, inputs: float, outputs: float) -> float:
        """Return the time between the measured counts, linearly; below the least, that one's."""
        row, row_share = (0, 0.0) if self.geometry.depthwise else _between(self.inputs, inputs)
        column, share = _between(self.outputs, outputs)

        def along(number: int) -> float:
            line = self.ms[min(number, len(self.ms) - 1)]
            right = line[min(column + 1, len(line) - 1)]
            return line[column] + share * (right - line[column])

        low = along(row)
        return low + row_share * (along(row + 1) - low) if row_share else low


@dataclass(frozen=True)
class Target:
    """What was measured on; a table is for no other."""

    processor: str
    arithmetic: str
    engine: str
    provider: str
    threads: int

    def differences(self, other: Target) -> list[str]:
        """Return in words where the other is not the same."""
        mine, theirs = asdict(self), asdict(other)
        return [f'{k} {mine[k]}, not {theirs[k]}' for k in mine if mine[k] != theirs[k]]


@dataclass(frozen=True)
class Whole:
    """The network that a table was made of, as a whole."""

    name: str
    sha256: str
    ms: float
    """p50 of the engine's run, of the round that other processes disturbed least."""
    share: float
    """Of its time that its convolutions take, 0 … 1, as the engine's profiler says."""
    layers: tuple[Convolution, ...]
    nodes: dict[str, int] | None = None
    """How many of its nodes each execution provider took; None: not told."""


@dataclass(frozen=True)
class LatencyTable:
    """Times of convolutions on a target, and of the network that they were taken from."""

    target: Target
    block: int
    """Channels in which the engine computes: so many at a time cost as much as one."""
    whole: Whole
    times: tuple[Times, ...]
    complete: bool = True
    int8_gain: float | None = None
    """Time of the network's convolutions in float : in 8 bits, on this target; None: from before
    that was measured."""

    @cached_property
    def _by_geometry(self) -> dict[Geometry, Times]:
        return {each.geometry: each for each in self.times}

    @cached_property
    def _dense(self) -> tuple[float, float]:
        layers = self.whole.layers
        return (
            sum(self.layer_ms(each.geometry, each.inputs, each.outputs) for each in layers),
            sum(each.elements for each in layers),
        )

    def held(self, layer: Convolution) -> Convolution:
        """Return a layer in float as one in 8 bits, where the table holds it as that alone.

        So the table of a network in 8 bits says what one in float will take in 8 bits.
        """
        in_8_bits = layer.geometry._replace(in_8_bits=True)
        if self.holds(layer.geometry) or not self.holds(in_8_bits):
            return layer
        return layer._replace(geometry=in_8_bits)

    @cached_property
    def in_8_bits(self) -> bool:
        """Whether it is of a network in 8 bits."""
        return any(each.geometry.in_8_bits for each in self.whole.layers)

    def as_written(self, layer: Convolution) -> Convolution:
        """Return a layer that the table lacks as the one it has between the same sizes, if any.

        Deployment may write a layer in another way, as our export does with the first one: it is
        told by as many weights.
        """
        layer = self.held(layer)
        if self.holds(layer.geometry):
            return layer
        for each in self.whole.layers:
            if (
                each.geometry[4:] == layer.geometry[4:]
                and each.outputs == layer.outputs
                and _weights(each) == _weights(layer)
            ):
                return each
        return layer

    def holds(self, geometry: Geometry) -> bool:
        """Say whether times of this geometry were measured."""
        return geometry in self._by_geometry

    def layer_ms(self, geometry: Geometry, inputs: float, outputs: float) -> float:
        """Return what a convolution takes by itself; counts are rounded up to whole blocks.

        Raises LatencyTableError where the table does not hold the geometry, or not so many.
        """
        found = self._by_geometry.get(geometry)
        if found is None:
            raise LatencyTableError(
                f'the latency table of {self.whole.name} does not hold a convolution of '
                f'{geometry}: make one of the network at hand (`pruned-perception profile`)'
            )
        full = found.inputs[-1] if found.inputs else 0, found.outputs[-1]
        if outputs > full[1] or (found.inputs and inputs > full[0]):
            raise LatencyTableError(
                f'the latency table of {self.whole.name} does not hold a convolution of '
                f'{geometry} from {inputs:g} to {outputs:g} channels, but up to {full[0]:g} and '
                f'{full[1]:g}: make one of the larger network (`pruned-perception profile`)'
            )
        rounded = (
            min(max(top, count), math.ceil(count / self.block - 1e-9) * self.block)
            for count, top in zip((inputs, outputs), full, strict=True)
        )
        return found.at(*rounded)

    def faster_ranks(self, layer: Convolution) -> dict[int, float]:
        """Return the ranks, in whole blocks, at which two layers are faster than this one, and ms.

        Of a network's time as `predict` has it; empty for depthwise layers, and where none is.
        Raises LatencyTableError where the table does not hold the second of the two.
        """
        if layer.geometry.depthwise:
            return {}
        dense, ranks = self.predict([layer]), range(self.block, full_rank(layer), self.block)
        times = {rank: self.predict(factored(layer, rank)) for rank in ranks}
        return {rank: ms for rank, ms in times.items() if ms < dense}

    def network_ms(self, convolutions_ms: float, elements: float) -> float:
        """Return what a network takes: of its layers the times alone, and the elements, summed."""
        alone, dense = self._dense
        share = self.whole.share
        return self.whole.ms * (share * convolutions_ms / alone + (1 - share) * elements / dense)

    def predict(self, layers: Sequence[Convolution]) -> float:
        """Return the p50 of a network with these convolutions, in milliseconds.

        Raises LatencyTableError where the table does not hold one.
        """
        return self.network_ms(
            sum(self.layer_ms(each.geometry, each.inputs, each.outputs) for each in layers),
            sum(each.elements for each in layers),
        )

    @cached_property
    def sha256(self) -> str:
        """Of what the table says, as hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def check_complete(self) -> None:
        """Raise LatencyTableError where the table is unfinished."""
        if not self.complete:
            raise LatencyTableError(
                'the latency table is unfinished: its profile was interrupted; run the same '
                'command again, it goes on'
            )

    def check_target(self, here: Target, *, force: bool = False) -> None:
        """Raise LatencyTableError where the table is of another target or unfinished.

        `force` takes one of another target all the same: of the robot, at the desk.
        """
        self.check_complete()
        differences = self.target.differences(here)
        if differences and not force:
            raise LatencyTableError(
                f'the latency table is of another machine or engine: {"; ".join(differences)} as '
                'here; give --force where that is the robot that the network is for'
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {'version': VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Read what `to_dict` returned; raise LatencyTableError where it is something else."""
        try:
            if data['version'] != VERSION:
                raise LatencyTableError(
                    f'latency table of version {data["version"]}, not {VERSION}: make it again'
                )
            whole = data['whole']
            layers = tuple(_layer(each) for each in whole['layers'])
            return cls(
                Target(**data['target']),
                data['block'],
                Whole(**{**whole, 'layers': layers}),
                tuple(
                    Times(
                        Geometry(*each['geometry']),
                        tuple(each['inputs']),
                        tuple(each['outputs']),
                        tuple(map(tuple, each['ms'])),
                    )
                    for each in data['times']
                ),
                data['complete'],
                data.get('int8_gain'),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise LatencyTableError(f'not a latency table: {error}') from error


def read_table(path: Path) -> LatencyTable:
    """Return the table of a file; raises LatencyTableError naming it."""
    try:
        return LatencyTable.from_dict(read_json(path))
    except LatencyTableError as error:
        raise LatencyTableError(f'{path}: {error}') from error


def _weights(layer: Convolution) -> int:
    """Return the weights of an output."""
    kernel = layer.geometry.kernel_height * layer.geometry.kernel_width
    return kernel if layer.geometry.depthwise else kernel * layer.inputs


def _layer(data: Sequence[Any]) -> Convolution:
    geometry, inputs, outputs = data
    return Convolution(Geometry(*geometry), inputs, outputs)


def _between(counts: Sequence[int], count: float) -> tuple[int, float]:
    """Return the last place whose count is not above, and the share of the way to the next."""
    place = min(max(bisect.bisect_right(counts, count) - 1, 0), len(counts) - 1)
    if place + 1 == len(counts) or count <= counts[place]:
        return place, 0.0
    return place, (count - counts[place]) / (counts[place + 1] - counts[place])
