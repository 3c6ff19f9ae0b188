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

"""Latency tables: what they predict between what was measured, and for whom they are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pruned_perception.inference.latency_table import (
    Convolution,
    Geometry,
    LatencyTable,
    LatencyTableError,
    Target,
    Times,
    Whole,
    convolution,
    read_table,
)

FULL = Geometry(3, 3, 1, 1, 8, 8, False)
DEPTHWISE = Geometry(3, 3, 1, 1, 8, 8, True)
HERE = Target('Processor', 'AVX2', 'engine 1', 'CPU', 1)
TABLE = LatencyTable(
    HERE,
    block=4,
    whole=Whole(
        'net', 'f' * 64, 10.0, 0.8, (Convolution(FULL, 8, 16), Convolution(DEPTHWISE, 16, 16))
    ),
    times=(
        Times(FULL, (4, 8), (4, 8, 16), ((1.0, 2.0, 4.0), (2.0, 4.0, 8.0))),
        Times(DEPTHWISE, (), (8, 16), ((1.0, 2.0),)),
    ),
)


def test_geometries_come_from_shapes() -> None:
    assert convolution((16, 8, 3, 3), (1, 8, 8, 8), (1, 16, 8, 8)) == Convolution(FULL, 8, 16)
    assert convolution((16, 1, 3, 3), (1, 16, 8, 8), (1, 16, 8, 8)).geometry == DEPTHWISE
    halved = convolution((4, 3, 3, 5), (1, 3, 15, 32), (1, 4, 8, 8)).geometry
    assert halved == Geometry(3, 5, 2, 4, 8, 8, False)


def test_times_between_measured_counts_are_linear() -> None:
    assert TABLE.layer_ms(FULL, 8, 12) == pytest.approx(6.0)
    assert TABLE.layer_ms(DEPTHWISE, 12, 12) == pytest.approx(1.5)
    assert TABLE.layer_ms(FULL, 1, 1) == 1.0


def test_a_partly_filled_block_costs_as_much_as_a_full_one() -> None:
    assert TABLE.layer_ms(FULL, 5, 16) == TABLE.layer_ms(FULL, 8, 16)
    assert TABLE.layer_ms(FULL, 8, 13) == TABLE.layer_ms(FULL, 8, 16)
    assert TABLE.layer_ms(FULL, 8, 12) < TABLE.layer_ms(FULL, 8, 13)


def test_the_network_itself_takes_what_was_measured() -> None:
    assert TABLE.predict(TABLE.whole.layers) == pytest.approx(10.0)


def test_all_else_goes_with_what_the_layers_put_out() -> None:
    halves = [Convolution(FULL, 8, 8), Convolution(DEPTHWISE, 8, 8)]
    assert TABLE.predict(halves) == pytest.approx(10 * (0.8 * (4 + 1) / (8 + 2) + 0.2 / 2))


def test_a_layer_that_was_not_measured_is_named() -> None:
    other = Geometry(5, 5, 2, 2, 4, 4, False)
    with pytest.raises(LatencyTableError, match='does not hold a convolution of 5 × 5, stride 2'):
        TABLE.predict([Convolution(other, 8, 8)])


def test_a_layer_wider_than_the_table_is_named() -> None:
    with pytest.raises(LatencyTableError, match='from 8 to 17 channels, but up to 8 and 16'):
        TABLE.predict([Convolution(FULL, 8, 17)])


def test_a_layer_may_be_written_otherwise() -> None:
    planes = Convolution(Geometry(1, 3, 1, 1, 8, 8, False), 24, 16)
    assert TABLE.as_written(planes) == TABLE.whole.layers[0]
    assert TABLE.as_written(planes._replace(inputs=23)) == planes._replace(inputs=23)


@pytest.mark.parametrize(
    ('field', 'value'),
    [('processor', 'Another'), ('engine', 'engine 2'), ('provider', 'CUDA'), ('threads', 2)],
)
def test_another_target_is_refused_with_the_reason(field: str, value: object) -> None:
    here = replace(HERE, **{field: value})
    with pytest.raises(LatencyTableError, match=rf'{field} .*, not {value} .*--force'):
        TABLE.check_target(here)
    TABLE.check_target(here, force=True)
    TABLE.check_target(HERE)


def test_an_unfinished_table_is_refused_whoever_forces_it() -> None:
    with pytest.raises(LatencyTableError, match='interrupted; run the same command again'):
        replace(TABLE, complete=False).check_target(HERE, force=True)


def test_files_are_read_as_they_were_written(tmp_path) -> None:
    file = tmp_path / 'table.json'
    file.write_text(json.dumps(TABLE.to_dict()))
    assert read_table(file) == TABLE
    file.write_text('{"version": 1}')
    with pytest.raises(LatencyTableError, match=r'table\.json: not a latency table'):
        read_table(file)
    file.write_text('{"version": 9}')
    with pytest.raises(LatencyTableError, match='of version 9'):
        read_table(file)
