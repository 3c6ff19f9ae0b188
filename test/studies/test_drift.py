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

"""The study of drift: its statistics and its evidence are those of the package and of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pruned_perception.inference.evidence import ALPHA, DriveEvidence
from studies.drift import (
    BINS,
    CLEAN,
    LOST,
    RESULTS,
    STATISTICS,
    WATCHED,
    WORLDS,
    Drive,
    Frame,
    Limits,
    alarms,
    bounds,
    read,
    to_text,
    write,
)

GUIDE = Path(__file__).resolve().parents[2] / 'docs' / 'corruptions.md'


def drive(events: int, frames: int = 4, shown: int = 20) -> Drive:
    return Drive(CLEAN, 0, 'a', frames, shown, events, events, events, events, events)


def frame(brightness: float, high: bool) -> Frame:
    scores = np.histogram(np.full(9, 0.9 if high else 0.2), BINS)[0]
    return Frame(brightness, 0.6, 5, scores, 0, 5)


def test_limits_hold_the_central_part_of_the_reference() -> None:
    draw = np.random.default_rng(0)
    limits = Limits([frame(100 + 5 * draw.standard_normal(), False) for _ in range(400)])
    usual, dark, other = (
        limits.outside(each) for each in (frame(100, False), frame(40, False), frame(100, True))
    )
    assert not usual.any()
    assert dict(zip(STATISTICS, dark, strict=True))['brightness']
    assert dict(zip(STATISTICS, other, strict=True)) == {
        'brightness': False,
        'confidence': False,
        'detections': False,
        'histogram': True,
    }


def test_alarms_come_when_the_packages_evidence_raises_them() -> None:
    for name, counted in ((LOST, 20), ('brightness', 4)):
        evidence, when = DriveEvidence('x', 0.3, counted), 0
        while not evidence.alarmed:
            evidence, when = evidence.after_drive(3, counted), when + 1
            assert when < WATCHED or name == LOST
            if when == WATCHED:
                break
        found = alarms([drive(3)], name, 0.3, counted)
        assert set(found) == {when if evidence.alarmed else np.inf}


def test_drives_at_the_bound_itself_raise_no_more_alarms_than_said() -> None:
    drives = [drive(0)] * 7 + [drive(4)] * 3
    found = int(np.isfinite(alarms(drives, 'brightness', 0.3, 4)).sum())
    assert stats.binom.sf(found - 1, WORLDS, ALPHA) > 1e-3
    beyond = alarms(drives, 'brightness', 0.1, 4)
    assert np.median(beyond) < 60


@pytest.fixture(scope='module')
def rows() -> list[Drive]:
    return read(RESULTS)


def test_no_statistic_alarms_falsely_in_clean_drives(rows: list[Drive]) -> None:
    clean = [row for row in rows if row.condition == CLEAN]
    assert len(clean) == 120
    for name, (bound, longest) in bounds(rows).items():
        found = int(np.isfinite(alarms(clean, name, bound, longest)).sum())
        assert stats.binom.sf(found - 1, WORLDS, ALPHA) > 1e-3, name


def test_the_guide_shows_the_tables_of_the_file(rows: list[Drive], tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding='utf-8')
    for table in to_text(rows).split('\n\n'):
        assert table in text
    write(tmp_path / 'rows.csv', rows)
    assert (tmp_path / 'rows.csv').read_text() == RESULTS.read_text()
