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

"""The study of coverage: what it printed is what it prints, and it tells a wrong bound."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from studies.coverage import (
    PARTS,
    RESULTS,
    WORLDS_OF_DRIVES,
    bootstrap_bounds,
    effective_size_bounds,
    one_cell,
)
from studies.coverage_tables import Row, as_tables, read, write

GUIDE = Path(__file__).resolve().parents[2] / 'docs' / 'guarantees.md'


@pytest.fixture(scope='module')
def rows() -> list[Row]:
    return read(RESULTS)


def test_every_part_is_there_and_no_offered_statement_is_wrong_too_often(rows) -> None:
    assert {row.part for row in rows} == set(PARTS)
    assert not [row for row in rows if row.is_defect]
    assert sum(row.offered and row.measure == 'wrong' for row in rows) > 300


def test_what_is_not_offered_would_be_found_defective(rows) -> None:
    for part, method in (
        ('one bound', 'cluster bootstrap'),
        ('one bound', 'Clopper–Pearson, n_eff'),
        ('best of five', 'cluster bootstrap, same drives'),
        ('watched', 'by frames'),
        ('median of runs', 'mean: resampled'),
        ('median of rounds', 'median: resampled'),
        ('conformal K', 'K = 1'),
    ):
        chosen = [row for row in rows if row.part == part and row.method == method]
        assert any(dataclasses.replace(row, offered=True).is_defect for row in chosen), method


def test_a_cell_simulated_again_is_the_one_of_the_file(rows) -> None:
    world = WORLDS_OF_DRIVES[-1]
    again = list(one_cell(world, 8, 0.3, 0.1))
    for row in again:
        stored = next(
            old
            for old in rows
            if dataclasses.replace(old, value=0, nominal=0)
            == dataclasses.replace(row, value=0, nominal=0)
        )
        assert row.value == pytest.approx(stored.value, rel=1e-4)


def test_the_guide_shows_the_tables_of_the_file(rows) -> None:
    text = GUIDE.read_text(encoding='utf-8')
    for table in as_tables(rows).split('\n\n**'):
        assert table in text


def test_rows_survive_their_file(rows, tmp_path: Path) -> None:
    write(tmp_path / 'rows.csv', rows)
    assert (tmp_path / 'rows.csv').read_text() == RESULTS.read_text()
    assert read(tmp_path / 'none.csv') == []


def test_bounds_for_contrast_are_clopper_and_pearsons_where_drives_are_single_frames() -> None:
    events = np.zeros((1, 40))
    events[0, :3] = 1
    expected = stats.beta.ppf(0.95, 4, 37)
    ones = np.ones(events.shape)
    assert bootstrap_bounds(events, ones)[0] == pytest.approx(expected, abs=0.01)
    assert effective_size_bounds(events, ones)[0] == pytest.approx(expected)
